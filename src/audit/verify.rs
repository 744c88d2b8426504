//! Verifies a log: finds the first line that was altered, removed or inserted, and tells how much of the end is
//! unproven. It trusts nothing in the files.

use super::chain::{Broken, Hash, Head, Link, NOTHING};
use super::key::Key;
use serde_json::Value;
use std::fmt;
use std::io::{self, BufRead, Read};

/// Maximum length of a line. Longer ones were not written by proxyrunner.
const LONGEST: u64 = 1 << 20;

/// Maximum number of lines between two checkpoints. They are due after half of it.
const MOST_UNPROVEN: u64 = 2_000;

/// Reads lines without their newlines, each with whether it is complete, until `each` returns false.
///
/// # Errors
/// When the source cannot be read.
pub fn lines(source: &mut impl BufRead, mut each: impl FnMut(&[u8], bool) -> bool) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = source.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line)?;
        let is_complete = line.last() == Some(&b'\n');
        if read == 0 || !each(line.strip_suffix(b"\n").unwrap_or(&line), is_complete) {
            return Ok(());
        }
    }
}

/// Returns the number of a line in its chain, to put files in their order.
pub fn number_of(line: &[u8]) -> Option<u64> {
    Link::of(line).ok().map(|link| link.seq)
}

/// The reason why a line is not the next one of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not a line of a log.
    NotALine,
    /// Its bytes were changed.
    Altered,
    /// It does not follow the line before: lines were removed, inserted or reordered.
    Gap {
        /// The number that it should have.
        expected: u64,
        /// The number that it has.
        found: u64,
    },
    /// It follows another line than the one before.
    OtherPast,
    /// It begins a new chain.
    NewChain,
    /// It is a checkpoint with a wrong signature: this line, or one since the last checkpoint, was altered.
    WrongSignature,
    /// The checkpoint that was due before it is missing.
    NoCheckpoint,
    /// It is a checkpoint that was signed with another key.
    UnknownKey(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotALine => f.write_str("is not a complete line of an audit log"),
            Fault::Altered => f.write_str("was altered: its hash is not that of its bytes"),
            Fault::Gap { expected, found } => {
                write!(f, "does not follow the line before: seq is {found} instead of {expected}")
            }
            Fault::OtherPast => {
                f.write_str("does not follow the line before, which was altered or replaced: prev is not its hash")
            }
            Fault::NewChain => f.write_str("begins a new chain, which is not connected to the line before"),
            Fault::WrongSignature => f.write_str(
                "is a checkpoint whose signature is wrong: it, or a line since the checkpoint before, was altered",
            ),
            Fault::NoCheckpoint => {
                write!(f, "follows {MOST_UNPROVEN} lines without a signed checkpoint, so checkpoints were removed")
            }
            Fault::UnknownKey(id) => write!(f, "is signed with key {id:?}, which was not given (--key-file)"),
        }
    }
}

/// Verifies lines in their order.
#[derive(Debug)]
pub struct Verifier<'k> {
    keys: &'k [Key],
    head: Option<Head>,
    first: Option<u64>,
    lines: u64,
    checkpoints: u64,
    unproven: u64,
    is_final: bool,
    interruption: Option<Interruption>,
    /// The hashes of lines that must come.
    expected: Vec<Hash>,
    /// The length of an incomplete line, which the next line must mention.
    torn: Option<u64>,
}

impl<'k> Verifier<'k> {
    /// Creates a verifier. Without keys, signatures are not checked, and every checkpoint counts.
    pub fn new(keys: &'k [Key]) -> Self {
        Verifier {
            keys,
            head: None,
            first: None,
            lines: 0,
            checkpoints: 0,
            unproven: 0,
            is_final: false,
            interruption: None,
            expected: Vec::new(),
            torn: None,
        }
    }

    /// Demands a line with this hash, in hexadecimal, among those to come.
    ///
    /// # Errors
    /// When it is no hash.
    pub fn expect(&mut self, hash: &str) -> Result<(), &'static str> {
        self.expected.push(unhex(hash).ok_or("give 64 hexadecimal digits")?);
        Ok(())
    }

    /// Verifies the next line, without its newline.
    ///
    /// # Errors
    /// When it is not the next line of the chain. If it is [`Fault::NotALine`], [`skip`](Self::skip) may accept it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let link = match Link::of(line) {
            Ok(link) => link,
            Err(Broken::NoLink) => return Err(Fault::NotALine),
            Err(Broken::WrongHash) => return Err(Fault::Altered),
        };
        self.follows(&link)?;
        let written = Written::of(line, link.signature.is_some());
        // Only the start of a process may follow an incomplete line.
        if let Some(torn) = self.torn.take()
            && (torn == 0 || written.torn != torn)
        {
            return Err(Fault::NotALine);
        }
        // The checkpoints of a process prove only what it wrote itself: it cannot know what was there before.
        if written.is_start && self.lines > 0 && !self.is_final {
            let first = Interruption { seq: link.seq, unproven: self.unproven, count: 0 };
            self.interruption.get_or_insert(first).count += 1;
        }
        self.lines += 1;
        self.unproven += 1;
        self.is_final = false;
        if written.is_checkpoint && self.is_proof(&link, line, &written)? {
            self.checkpoints += 1;
            self.unproven = 0;
            self.is_final = written.is_final;
        } else if !self.keys.is_empty() && self.unproven > MOST_UNPROVEN {
            return Err(Fault::NoCheckpoint);
        }
        self.first.get_or_insert(link.seq);
        if !self.expected.is_empty() {
            let found = link.head().hash;
            self.expected.retain(|expected| *expected != found);
        }
        self.head = Some(link.head());
        Ok(())
    }

    fn follows(&self, link: &Link) -> Result<(), Fault> {
        let begins = link.seq == 1 && link.prev == NOTHING;
        match self.head {
            None if link.seq == 1 && !begins => Err(Fault::OtherPast),
            None => Ok(()),
            Some(_) if begins => Err(Fault::NewChain),
            Some(head) if link.seq != head.seq + 1 => {
                Err(Fault::Gap { expected: head.seq + 1, found: link.seq })
            }
            Some(head) if link.prev != head.hash => Err(Fault::OtherPast),
            Some(_) => Ok(()),
        }
    }

    fn is_proof(&self, link: &Link, line: &[u8], written: &Written) -> Result<bool, Fault> {
        if self.keys.is_empty() {
            return Ok(true);
        }
        if link.signature.is_none() {
            return Ok(false);
        }
        match self.keys.iter().find(|key| key.id() == written.key_id) {
            None => Err(Fault::UnknownKey(written.key_id.clone())),
            Some(key) if link.is_signed(line, key) => Ok(true),
            Some(_) => Err(Fault::WrongSignature),
        }
    }

    /// Accepts an incomplete line of this length, if the next line says that it found one of this length when its
    /// process started.
    pub fn skip(&mut self, length: u64) {
        self.torn = Some(length);
    }

    /// Returns the result after the last line.
    pub fn finish(self) -> Summary {
        Summary {
            first: self.first.unwrap_or_default(),
            last: self.head.unwrap_or(Head::EMPTY).seq,
            head: self.head.unwrap_or(Head::EMPTY).hex(),
            lines: self.lines,
            checkpoints: self.checkpoints,
            unproven: self.unproven,
            is_final: self.is_final && self.torn.is_none(),
            interruption: self.interruption,
            missing: self.expected.len(),
        }
    }
}

/// The starts of processes that follow one without a checkpoint of a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// The number of the first start's line.
    pub seq: u64,
    /// The number of lines between the last checkpoint and that start.
    pub unproven: u64,
    /// The number of such starts.
    pub count: u64,
}

/// The result of a verification without a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The number of the first line in its chain; 0 if there is none.
    pub first: u64,
    /// The number of the last line.
    pub last: u64,
    /// The hash of the last line, to be compared with the log line of its checkpoint.
    pub head: String,
    /// The number of lines.
    pub lines: u64,
    /// The number of checkpoints.
    pub checkpoints: u64,
    /// The number of lines after the last checkpoint.
    pub unproven: u64,
    /// Whether the last line is the checkpoint at the end of a process.
    pub is_final: bool,
    /// Whether a process before the last one crashed, or its end was cut or written anew.
    pub interruption: Option<Interruption>,
    /// The number of demanded lines that did not come.
    pub missing: usize,
}

/// Reads a hash in hexadecimal.
fn unhex(text: &str) -> Option<Hash> {
    let mut hash = NOTHING;
    if text.len() != 2 * hash.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// What a line says of the log itself.
#[derive(Debug, Default)]
struct Written {
    is_start: bool,
    is_checkpoint: bool,
    is_final: bool,
    key_id: String,
    torn: u64,
}

impl Written {
    fn of(line: &[u8], is_signed: bool) -> Self {
        let about_log = memchr::memmem::find(line, b"\"audit_").is_some();
        let Some(value) =
            (about_log || is_signed).then(|| serde_json::from_slice::<Value>(line).ok()).flatten()
        else {
            return Written::default();
        };
        let extra = &value["metadata"]["extra"];
        Written {
            is_start: value["type"] == "audit_start",
            is_checkpoint: value["type"] == "audit_checkpoint",
            is_final: extra["final"] == true,
            key_id: extra["key_id"].as_str().unwrap_or_default().to_owned(),
            torn: extra["torn_bytes"].as_u64().filter(|_| value["type"] == "audit_start").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
