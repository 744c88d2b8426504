//! Replaces a few places of a message and leaves the rest as it is: short messages are copied into one
//! buffer, long ones become slices of what came with the new parts between them.

use bytes::Bytes;
use smallvec::SmallVec;
use std::cmp::Reverse;

use super::lexer::Lexer;
use super::message::Span;
use super::small::SmallBytes;

/// Up to this many bytes a copy costs less than handling several segments.
pub const FLAT: usize = 16 * 1024;

/// Places to replace, in any order. Of two that overlap the outer one counts: what it replaces is gone with all that is
/// in it, such as a member that has the name of one that is taken out. Those of a request to a child take no allocation.
#[derive(Debug, Default)]
pub struct Edits {
    /// What is replaced, and where its replacement stands in `text`.
    list: SmallVec<[(Span, Span); 4]>,
    text: SmallBytes,
}

impl Edits {
    /// No edits yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `text` where `span` was.
    pub fn replace(&mut self, span: &Span, text: &[u8]) {
        let start = self.text.len();
        self.text.push(text);
        self.list.push((span.clone(), start..self.text.len()));
    }

    /// Puts members, and a comma behind them if there are others, before the byte at `at`.
    pub fn insert_members(&mut self, at: usize, members: &[u8], others: bool) {
        let start = self.text.len();
        self.text.push(members);
        if others {
            self.text.push(b",");
        }
        self.list.push((at..at, start..self.text.len()));
    }

    /// Puts `text` before the byte at `at`. Two insertions at one place keep their order.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        self.replace(&(at..at), text);
    }

    /// Removes `span`.
    pub fn delete(&mut self, span: &Span) {
        self.replace(span, b"");
    }

    /// Brings the edits into their order, and drops those within others.
    fn settle(&mut self) {
        // What is inserted before a place comes before what replaces it, and an outer edit before those within it.
        let place = |(span, _): &(Span, Span)| (span.start, !span.is_empty(), Reverse(span.end));
        if !self.list.is_sorted_by_key(place) {
            self.list.sort_by_key(place);
        }
        let mut end = 0;
        self.list.retain(|(span, _)| {
            let is_apart = span.start >= end;
            end = end.max(span.end);
            is_apart
        });
    }
}

/// The object of a scanned message with `edits` made, on one line and without whitespace around it.
/// `bytes` are those that were scanned; `object` and `multiline` are the scan's; edits stand within the object.
///
/// Bytes between the edits are not copied, unless the message is short or has line breaks, which
/// become spaces: a frame cannot hold them, and an SSE field neither.
pub fn splice(bytes: &Bytes, object: &Span, multiline: bool, mut edits: Edits) -> Spliced {
    let source = if multiline {
        let mut copy = bytes.to_vec();
        break_no_lines(&mut copy);
        copy.into()
    } else {
        bytes.clone()
    };
    edits.settle();
    let removed: usize = edits.list.iter().map(|(span, _)| span.len()).sum();
    let added: usize = edits.list.iter().map(|(_, new)| new.len()).sum();
    let len = object.len() - removed + added;
    if len <= FLAT {
        let mut flat = Vec::with_capacity(len);
        walk(object, &edits.list, |piece| {
            flat.extend_from_slice(match piece {
                Piece::Kept(span) => &source[span],
                Piece::New(span) => &edits.text[span],
            });
        });
        debug_assert!(is_value(&flat), "edits made {:?}", String::from_utf8_lossy(&flat));
        return Spliced { parts: Parts::One(flat.into()), len };
    }
    let text = edits.text.into_bytes();
    let mut parts = Vec::with_capacity(2 * edits.list.len() + 1);
    walk(object, &edits.list, |piece| {
        parts.push(match piece {
            Piece::Kept(span) => source.slice(span),
            Piece::New(span) => text.slice(span),
        });
    });
    let parts = if parts.len() == 1 { Parts::One(parts.remove(0)) } else { Parts::Many(parts) };
    Spliced { parts, len }
}

enum Piece {
    Kept(Span),
    New(Span),
}

/// Yields what the result is made of, without its empty pieces.
fn walk(object: &Span, edits: &[(Span, Span)], mut piece: impl FnMut(Piece)) {
    let mut at = object.start;
    for (old, new) in edits {
        debug_assert!(at <= old.start && old.end <= object.end, "edits leave the object");
        if at < old.start {
            piece(Piece::Kept(at..old.start));
        }
        if !new.is_empty() {
            piece(Piece::New(new.clone()));
        }
        at = old.end;
    }
    if at < object.end {
        piece(Piece::Kept(at..object.end));
    }
}

/// Whether the bytes are one JSON value.
fn is_value(bytes: &[u8]) -> bool {
    let mut lexer = Lexer::starting_at(bytes, 0);
    lexer.space();
    lexer.value().is_ok_and(|value| bytes[value.end..].trim_ascii().is_empty())
}

/// Turns line breaks into spaces. In valid JSON they stand only between tokens.
pub(super) fn break_no_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// A message in one or more segments, to be written one after another. Cloning copies no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spliced {
    parts: Parts,
    len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Spliced {
    /// The length of all segments together, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The segments in their order, none of them empty.
    pub fn segments(&self) -> &[Bytes] {
        match &self.parts {
            Parts::One(bytes) => std::slice::from_ref(bytes),
            Parts::Many(parts) => parts,
        }
    }

    /// The whole message in one piece. Copies it if there are several segments.
    pub fn into_bytes(self) -> Bytes {
        match self.parts {
            Parts::One(bytes) => bytes,
            Parts::Many(parts) => parts.concat().into(),
        }
    }
}

impl From<Bytes> for Spliced {
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len(), parts: Parts::One(bytes) }
    }
}

impl IntoIterator for Spliced {
    type Item = Bytes;
    type IntoIter = std::vec::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        match self.parts {
            Parts::One(bytes) => vec![bytes],
            Parts::Many(parts) => parts,
        }
        .into_iter()
    }
}
