//! Replaces a few parts of a message, and leaves the rest unchanged. Short messages are copied into one buffer; long
//! ones become slices of the original with new parts between them.

use crate::budget::{Charged, OVERHEAD};
use crate::sorted::sorted_by_key;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::fmt;

use super::lexer::Lexer;
use super::message::Span;

/// The new bytes of one message. Its inline capacity holds two ids and a traceparent with its key, so that a request
/// to a child takes no allocation.
pub(super) type SmallBytes = SmallVec<[u8; 128]>;

/// Up to this number of bytes, copying is cheaper than handling several segments.
pub const FLAT: usize = 16 * 1024;

/// Edits of a message, in any order. If two overlap, the outer one counts: it replaces everything within it. The
/// edits of a request to a child take no allocation.
#[derive(Debug, Default)]
pub struct Edits {
    list: SmallVec<[(Span, New); 4]>,
    text: SmallBytes,
    /// Inserted parts of other messages.
    pieces: Vec<Charged>,
}

/// The replacement of a span.
#[derive(Clone, Debug)]
enum New {
    /// A range of the new text.
    Text(Span),
    /// A range of the pieces.
    Pieces(Span),
}

impl New {
    fn len(&self, edits: &Edits) -> usize {
        match self {
            New::Text(span) => span.len(),
            New::Pieces(span) => edits.pieces[span.clone()].iter().map(|piece| piece.len()).sum(),
        }
    }
}

impl Edits {
    /// Creates an empty list of edits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether there are no edits.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Replaces `span` by `text`.
    pub fn replace(&mut self, span: &Span, text: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        self.list.push((span.clone(), New::Text(start..self.text.len())));
    }

    /// Inserts members before the byte at `at`, with a comma if others follow.
    pub fn insert_members(&mut self, at: usize, members: &[u8], others: bool) {
        let start = self.text.len();
        self.text.extend_from_slice(members);
        if others {
            self.text.extend_from_slice(b",");
        }
        self.list.push((at..at, New::Text(start..self.text.len())));
    }

    /// Inserts parts of other messages before the byte at `at`, and before all other insertions there. Long parts are
    /// not copied.
    pub fn insert_first(&mut self, at: usize, pieces: impl IntoIterator<Item = Charged>) {
        let start = self.pieces.len();
        self.pieces.extend(pieces);
        self.list.insert(0, (at..at, New::Pieces(start..self.pieces.len())));
    }

    /// Replaces `span` by parts of other messages. Long parts are not copied.
    pub fn replace_with(&mut self, span: &Span, pieces: &Spliced) {
        let start = self.pieces.len();
        self.pieces.extend(pieces.segments().iter().cloned());
        self.list.push((span.clone(), New::Pieces(start..self.pieces.len())));
    }

    /// Inserts `text` before the byte at `at`. Insertions at one position keep their order.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        self.replace(&(at..at), text);
    }

    /// Removes `span`.
    pub fn delete(&mut self, span: &Span) {
        self.replace(span, b"");
    }

    /// Sorts the edits, and drops those within others.
    fn settle(&mut self) {
        // An insertion comes before a replacement at the same position, and an outer edit before those within it.
        let place = |(span, _): &(Span, New)| (span.start, !span.is_empty(), Reverse(span.end));
        if !self.list.is_sorted_by_key(place) {
            self.list = sorted_by_key(self.list.drain(..).collect(), place).into();
        }
        let mut end = 0;
        self.list.retain(|(span, _)| {
            let is_apart = span.start >= end;
            end = end.max(span.end);
            is_apart
        });
    }
}

/// Replaces one part of a message; as [`splice`] with that edit, and cheaper for a short message.
pub fn splice_one(bytes: &Charged, object: &Span, part: &Span, text: &[u8]) -> Spliced {
    let len = object.len() - part.len() + text.len();
    if len > FLAT {
        let mut edits = Edits::new();
        edits.replace(part, text);
        return splice(bytes, object, edits);
    }
    let mut flat = Vec::with_capacity(len);
    flat.extend_from_slice(&bytes[object.start..part.start]);
    flat.extend_from_slice(text);
    flat.extend_from_slice(&bytes[part.end..object.end]);
    debug_assert!(is_value(&flat), "edits made {:?}", String::from_utf8_lossy(&flat));
    Spliced::from(bytes.derive(flat))
}

/// Applies `edits` to the object of a scanned message, and drops surrounding whitespace. `bytes` are the scanned
/// bytes, on one line; `object` is the scan's; the edits are within the object.
///
/// Bytes between the edits are not copied, unless the message is short.
pub fn splice(bytes: &Charged, object: &Span, mut edits: Edits) -> Spliced {
    edits.settle();
    let removed: usize = edits.list.iter().map(|(span, _)| span.len()).sum();
    let added: usize = edits.list.iter().map(|(_, new)| new.len(&edits)).sum();
    let len = object.len() - removed + added;
    if len <= FLAT {
        let mut flat = Vec::with_capacity(len);
        walk(object, &edits.list, |piece| match piece {
            Piece::Kept(span) => flat.extend_from_slice(&bytes[span]),
            Piece::New(New::Text(span)) => flat.extend_from_slice(&edits.text[span.clone()]),
            Piece::New(New::Pieces(span)) => {
                edits.pieces[span.clone()].iter().for_each(|piece| flat.extend_from_slice(piece));
            }
        });
        debug_assert!(is_value(&flat), "edits made {:?}", String::from_utf8_lossy(&flat));
        return Spliced::from(bytes.derive(flat));
    }
    let text = bytes.derive(std::mem::take(&mut edits.text).into_vec());
    let mut parts = Vec::with_capacity(2 * edits.list.len() + 1);
    walk(object, &edits.list, |piece| match piece {
        Piece::Kept(span) => parts.push(bytes.slice(span)),
        Piece::New(New::Text(span)) => parts.push(text.slice(span.clone())),
        Piece::New(New::Pieces(span)) => parts.extend(edits.pieces[span.clone()].iter().cloned()),
    });
    Spliced::of(parts)
}

enum Piece<'a> {
    Kept(Span),
    New(&'a New),
}

/// Yields the non-empty pieces of the result.
fn walk<'a>(object: &Span, edits: &'a [(Span, New)], mut piece: impl FnMut(Piece<'a>)) {
    let mut at = object.start;
    for (old, new) in edits {
        debug_assert!(at <= old.start && old.end <= object.end, "edits leave the object");
        if at < old.start {
            piece(Piece::Kept(at..old.start));
        }
        if !matches!(new, New::Text(span) | New::Pieces(span) if span.is_empty()) {
            piece(Piece::New(new));
        }
        at = old.end;
    }
    if at < object.end {
        piece(Piece::Kept(at..object.end));
    }
}

/// Returns whether the bytes are one JSON value.
fn is_value(bytes: &[u8]) -> bool {
    let mut lexer = Lexer::starting_at(bytes, 0);
    lexer.space();
    lexer.value().is_ok_and(|value| bytes[value.end..].trim_ascii().is_empty())
}

/// Turns line breaks into spaces. In valid JSON they occur only between tokens.
pub fn break_no_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// `--max-buffered` has no room for a copy of a long message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is too long to be translated now: --max-buffered is used up")
    }
}

impl std::error::Error for NoRoom {}

/// A message in one or more segments, to be written one after another. Cloning copies no bytes.
#[derive(Debug, Clone)]
pub struct Spliced {
    parts: Parts,
    len: usize,
}

#[derive(Debug, Clone)]
enum Parts {
    One(Charged),
    Many(Vec<Charged>),
}

impl Spliced {
    /// Creates a message from these segments.
    pub fn of(segments: impl IntoIterator<Item = Charged>) -> Self {
        let mut parts: Vec<_> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
        let len = parts.iter().map(|part| part.len()).sum();
        let parts = if parts.len() == 1 { Parts::One(parts.remove(0)) } else { Parts::Many(parts) };
        Spliced { parts, len }
    }

    /// Returns the length of all segments together, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the segments in their order, none of them empty.
    pub fn segments(&self) -> &[Charged] {
        match &self.parts {
            Parts::One(bytes) => std::slice::from_ref(bytes),
            Parts::Many(parts) => parts,
        }
    }

    /// Returns the only segment.
    ///
    /// # Errors
    /// Returns the message if it has several.
    pub fn into_one(self) -> Result<Charged, Self> {
        match self.parts {
            Parts::One(bytes) => Ok(bytes),
            parts @ Parts::Many(_) => Err(Spliced { parts, ..self }),
        }
    }

    /// Returns the whole message in one segment. Copies it if there are several.
    ///
    /// # Errors
    /// When the copy would be long, and there is no room for it.
    pub fn flatten(self) -> Result<Charged, NoRoom> {
        let parts = match self.parts {
            Parts::One(bytes) => return Ok(bytes),
            Parts::Many(parts) => parts,
        };
        let whole = || {
            parts.iter().fold(Vec::with_capacity(self.len), |mut whole, part| {
                whole.extend_from_slice(part);
                whole
            })
        };
        // Charged like the longest segment, since short ones may be proxyrunner's own.
        let longest = parts.iter().max_by_key(|part| part.len());
        match longest.and_then(Charged::account) {
            Some(account) if self.len > FLAT => {
                let charge = account.try_charge(self.len + OVERHEAD).ok_or(NoRoom)?;
                Ok(charge.hold(whole()))
            }
            _ => Ok(longest.cloned().unwrap_or_default().derive(whole())),
        }
    }

    /// Returns all bytes, for tests and benchmarks.
    pub fn to_vec(&self) -> Vec<u8> {
        self.segments().iter().flat_map(|segment| segment.iter().copied()).collect()
    }
}

impl PartialEq for Spliced {
    fn eq(&self, other: &Self) -> bool {
        // Messages with several segments are rarely compared, and long ones never.
        match (&self.parts, &other.parts) {
            (Parts::One(one), Parts::One(other)) => one == other,
            _ => self.len == other.len && self.to_vec() == other.to_vec(),
        }
    }
}

impl Eq for Spliced {}

impl From<Charged> for Spliced {
    fn from(bytes: Charged) -> Self {
        Self { len: bytes.len(), parts: Parts::One(bytes) }
    }
}

impl IntoIterator for Spliced {
    type Item = Charged;
    type IntoIter = std::vec::IntoIter<Charged>;

    fn into_iter(self) -> Self::IntoIter {
        match self.parts {
            Parts::One(bytes) => vec![bytes],
            Parts::Many(parts) => parts,
        }
        .into_iter()
    }
}
