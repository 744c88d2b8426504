//! Cuts bytes into frames, one message per line. There is no I/O here, and no JSON except for the ids of discarded
//! frames.
//!
//! A line that exceeds the limit is discarded while it arrives, in constant memory, and reported with the id that it
//! answers. No byte is searched for a newline twice.

mod id_seeker;
#[cfg(test)]
mod tests;

use memchr::memchr;

pub use id_seeker::IdSeeker;

/// Room for one read of a stream of short frames, in bytes.
const READ: usize = 8 * 1024;
/// A frame of this size or more is moved out together with its buffer; a shorter one is copied.
pub const LARGE: usize = 64 * 1024;
/// Maximum length of the logged part of an oversized frame, in bytes.
const HEAD: usize = 256;
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Bytes of a line outside its frame: a BOM and a carriage return.
const TRIMMINGS: usize = BOM.len() + 1;

/// The contents of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framed {
    /// A frame within the limit, not blank, without line end and BOM. It may not be JSON.
    Frame {
        /// The frame.
        bytes: Vec<u8>,
        /// It began with a byte order mark, which messages must not have.
        bom: bool,
    },
    /// A frame that was discarded because it exceeds the limit, or was given up.
    Oversized {
        /// The raw id of the answered request, if the frame is a response with an id; see [`IdSeeker`].
        id: Option<Vec<u8>>,
        /// The frame's length, in bytes.
        length: u64,
        /// Its first bytes, at most 256.
        head: Vec<u8>,
        /// It is within the limit, but was given up.
        given_up: bool,
    },
}

/// Cuts a stream of bytes into frames.
///
/// Read into [`buffer`](Self::buffer), then call [`next`](Self::next) until it has no more; at the end
/// of the stream call [`finish`](Self::finish) once.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Frames before this index are taken.
    start: usize,
    /// The buffer holds no newline before this index.
    searched: usize,
    max_frame: usize,
    discarded: Option<Discarded>,
}

impl Framer {
    /// Creates a framer with a limit of `max_frame` bytes.
    pub fn new(max_frame: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, max_frame, discarded: None }
    }

    /// Returns the number of bytes of the unfinished line in the buffer.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Returns the buffer to append to, with room for one read. It holds at most `max_frame` bytes and one read more,
    /// if [`next`](Self::next) is called until empty after each read.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.searched -= self.start;
        self.buffer.drain(..std::mem::take(&mut self.start));
        let held = self.buffer.len();
        if held <= LARGE && self.buffer.capacity() > 4 * LARGE {
            // The buffer may be that of an earlier large frame.
            self.buffer.shrink_to(held + READ);
        }
        if self.buffer.capacity() - held < READ / 2 {
            // Reserved explicitly, since a vector would double beyond the limit. Fourfold growth costs little: unused
            // pages are never allocated.
            let most = self.max_frame.saturating_add(TRIMMINGS + READ);
            let wanted = (4 * held).min(most).max(held + READ);
            self.buffer.reserve_exact(wanted - held);
        }
        &mut self.buffer
    }

    /// Takes the next complete frame.
    #[allow(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Option<Framed> {
        loop {
            let Some(found) = memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                if self.discarded.is_some() || self.held() > self.max_frame.saturating_add(TRIMMINGS) {
                    self.discard();
                }
                return None;
            };
            let end = self.searched + found;
            if let Some(framed) = self.line(end) {
                return Some(framed);
            }
        }
    }

    /// Takes the last line, which has no newline, at the end of the stream.
    pub fn finish(&mut self) -> Option<Framed> {
        let end = self.buffer.len();
        self.buffer.push(b'\n');
        self.line(end)
    }

    /// Discards the unfinished line, including the part that has not arrived.
    pub fn give_up(&mut self) {
        self.discard();
        self.discarded.iter_mut().for_each(|discarded| discarded.given_up = true);
    }

    fn discard(&mut self) {
        let mut line = &self.buffer[self.start..];
        let discarded = self.discarded.get_or_insert_with(|| {
            // More than the trimmings has arrived, so a BOM is complete.
            line = line.strip_prefix(BOM).unwrap_or(line);
            Discarded::default()
        });
        discarded.feed(line);
        self.start = 0;
        self.searched = 0;
        self.buffer.clear();
    }

    /// Takes the line that ends before the newline at `end`, or the rest of a discarded one. Blank lines are skipped.
    fn line(&mut self, end: usize) -> Option<Framed> {
        let start = std::mem::replace(&mut self.start, end + 1);
        self.searched = self.start;
        let line = &self.buffer[start..end];
        if let Some(mut discarded) = self.discarded.take() {
            discarded.feed(line);
            return Some(discarded.finish(self.max_frame));
        }
        let bom = line.starts_with(BOM);
        let from = start + if bom { BOM.len() } else { 0 };
        let to = (end - usize::from(line.ends_with(b"\r"))).max(from);
        let frame = &self.buffer[from..to];
        if frame.len() > self.max_frame {
            let mut discarded = Discarded::default();
            discarded.take(frame);
            return Some(discarded.finish(self.max_frame));
        }
        if frame.trim_ascii().is_empty() {
            return None;
        }
        let bytes = if frame.len() < LARGE { frame.to_vec() } else { self.take_large(from, to) };
        Some(Framed::Frame { bytes, bom })
    }

    /// Takes a large frame together with its buffer; the bytes behind it move to a new one.
    fn take_large(&mut self, from: usize, to: usize) -> Vec<u8> {
        let mut rest = Vec::with_capacity(self.buffer.len() - self.start + READ);
        rest.extend_from_slice(&self.buffer[self.start..]);
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        self.start = 0;
        self.searched = 0;
        frame.truncate(to);
        frame.drain(..from);
        frame.shrink_to_fit();
        frame
    }
}

/// The remembered parts of a discarded frame.
#[derive(Debug, Default)]
struct Discarded {
    seeker: IdSeeker,
    length: u64,
    head: Vec<u8>,
    /// Whether the last byte was a carriage return: part of the frame if more follows, else of the line end.
    held_back: bool,
    given_up: bool,
}

impl Discarded {
    fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.held_back {
            self.take(b"\r");
        }
        self.held_back = bytes.ends_with(b"\r");
        self.take(bytes.strip_suffix(b"\r").unwrap_or(bytes));
    }

    fn take(&mut self, bytes: &[u8]) {
        self.seeker.feed(bytes);
        self.length += bytes.len() as u64;
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
    }

    fn finish(self, max_frame: usize) -> Framed {
        let given_up = self.given_up && self.length <= max_frame as u64;
        Framed::Oversized { id: self.seeker.id(), length: self.length, head: self.head, given_up }
    }
}
