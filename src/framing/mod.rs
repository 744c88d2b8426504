//! Bytes in, frames out: one message per line. No I/O, no JSON but for the id of what is thrown away.
//!
//! A line that grows past the cap is discarded while it arrives, in constant memory, and reported with
//! the id that it answers. No byte is searched for a newline twice.

mod id_seeker;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

pub use id_seeker::IdSeeker;

/// Room for at least one read, in bytes. Frames keep the buffer alive that they were read into, so it
/// starts small.
const READ: usize = 8 * 1024;
/// A frame of this size or more leaves with the buffer it stands in.
const LARGE: usize = 64 * 1024;
/// How much of an oversized frame is kept to be logged, in bytes.
const HEAD: usize = 256;
const BOM: &[u8] = b"\xef\xbb\xbf";
/// What a line may have beside its frame: a BOM and a carriage return.
const TRIMMINGS: usize = BOM.len() + 1;

/// What one line turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framed {
    /// A frame within the cap: never blank, without its line end and BOM. Whether it is JSON is unknown.
    Frame {
        /// The frame.
        bytes: Bytes,
        /// It began with a byte order mark, which no message should.
        bom: bool,
    },
    /// A frame beyond the cap, thrown away.
    Oversized {
        /// The raw id of the request that it answers, if it is a response with one; see [`IdSeeker`].
        id: Option<Bytes>,
        /// The length that it had, in bytes.
        length: u64,
        /// Its first bytes, at most 256.
        head: Bytes,
    },
}

/// Cuts a stream of bytes into frames.
///
/// Read into [`buffer`](Self::buffer), then call [`next`](Self::next) until it has no more; at the end
/// of the stream call [`finish`](Self::finish) once.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// Up to here the buffer holds no newline.
    searched: usize,
    max_frame: usize,
    discarded: Option<Discarded>,
}

impl Framer {
    /// Frames of more than `max_frame` bytes are oversized.
    pub fn new(max_frame: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, max_frame, discarded: None }
    }

    /// The buffer to append to, with room for one read. It holds at most `max_frame` bytes and one
    /// read's more, if [`next`](Self::next) is called until empty after each read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let (held, room) = (self.buffer.len(), self.buffer.capacity());
        if held <= LARGE && room > 4 * LARGE {
            // Left over from a large frame.
            self.move_to(BytesMut::with_capacity(held + READ));
        } else if room - held < READ / 2 && !self.buffer.try_reclaim(READ) {
            // By hand, since a vector would double beyond the cap too; fourfold, since every copy
            // touches new pages, and those that nothing was read into cost nothing.
            let most = self.max_frame.saturating_add(TRIMMINGS + READ);
            self.move_to(BytesMut::with_capacity((4 * held).min(most).max(held + READ)));
        }
        &mut self.buffer
    }

    /// The next frame of what was read so far.
    #[allow(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Option<Framed> {
        loop {
            let Some(found) = memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                if self.discarded.is_some() || self.buffer.len() > self.max_frame.saturating_add(TRIMMINGS) {
                    self.discard();
                }
                return None;
            };
            let mut line = self.buffer.split_to(self.searched + found + 1);
            self.searched = 0;
            line.truncate(line.len() - 1);
            if line.len() >= LARGE && self.buffer.len() <= LARGE {
                // What stands behind a large frame would keep all of its memory alive.
                self.move_to(BytesMut::with_capacity(self.buffer.len() + READ));
            }
            if let Some(framed) = self.line(line.freeze()) {
                return Some(framed);
            }
        }
    }

    /// What is left at the end of the stream: a line that no newline ended.
    pub fn finish(&mut self) -> Option<Framed> {
        self.searched = 0;
        let line = self.buffer.split().freeze();
        self.line(line)
    }

    /// Judges a whole line, or the rest of one whose start was discarded. Blank lines are nothing.
    fn line(&mut self, line: Bytes) -> Option<Framed> {
        if let Some(mut discarded) = self.discarded.take() {
            discarded.feed(&line);
            return Some(discarded.finish());
        }
        let bom = line.starts_with(BOM);
        let start = if bom { BOM.len() } else { 0 };
        let bytes = line.slice(start..line.len() - usize::from(line.ends_with(b"\r")));
        if bytes.len() > self.max_frame {
            let mut discarded = Discarded::default();
            discarded.take(&bytes);
            return Some(discarded.finish());
        }
        (!bytes.trim_ascii().is_empty()).then_some(Framed::Frame { bytes, bom })
    }

    fn discard(&mut self) {
        let mut line = &self.buffer[..];
        let discarded = self.discarded.get_or_insert_with(|| {
            // More than the trimmings is there, so a BOM would be whole.
            line = line.strip_prefix(BOM).unwrap_or(line);
            Discarded::default()
        });
        discarded.feed(line);
        self.searched = 0;
        self.buffer.clear();
    }

    fn move_to(&mut self, mut room: BytesMut) {
        room.extend_from_slice(&self.buffer);
        self.buffer = room;
    }
}

/// What is remembered of a frame that is thrown away.
#[derive(Debug, Default)]
struct Discarded {
    seeker: IdSeeker,
    length: u64,
    head: Vec<u8>,
    /// A carriage return came last: part of the frame if more follows, else of the line end.
    held_back: bool,
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

    fn finish(self) -> Framed {
        Framed::Oversized { id: self.seeker.id(), length: self.length, head: self.head.into() }
    }
}
