//! A lexer for RFC 8259 over bytes in memory. It validates all bytes that it steps over, and keeps no values. Nesting
//! is tracked on a stack of bits instead of the call stack, so each level costs one bit.

use super::message::Span;
use super::skip::container_end;
use super::text::key_of;
use std::borrow::Cow;

/// The text is not JSON, for this reason, at the [position](Lexer::at) of the lexer. One word, since it is part of each
/// step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(&'static &'static str);

impl Broken {
    pub fn reason(self) -> &'static str {
        self.0
    }
}

pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether a raw `\n` or `\r` was stepped over. Strings cannot contain one, so it was between tokens.
    pub line_break: bool,
    /// The position of the last backslash that was stepped over.
    last_escape: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::starting_at(bytes, 0)
    }

    pub fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, line_break: false, last_escape: 0 }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    pub fn broken(&self, reason: &'static &'static str) -> Broken {
        Broken(if self.at >= self.bytes.len() { &"the text ends too early" } else { reason })
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(byte) = self.peek()
            && byte <= b' '
        {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.line_break = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Steps over whitespace, and requires the end of the text.
    pub fn end(&mut self) -> Result<(), Broken> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Broken(&"text follows the value")),
        }
    }

    /// Steps over a key and the colon after it; returns the key with its quotes.
    #[inline]
    pub fn key(&mut self) -> Result<Span, Broken> {
        self.space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.broken(&"a key was expected"));
        }
        self.string()?;
        let key = start..self.at;
        self.space();
        if !self.take(b':') {
            return Err(self.broken(&"a colon was expected"));
        }
        self.space();
        Ok(key)
    }

    /// Called after a member or an element: returns true if another follows, false if `close` ended the container.
    pub fn more(&mut self, close: u8) -> Result<bool, Broken> {
        self.space();
        if self.take(b',') {
            Ok(true)
        } else if self.take(close) {
            Ok(false)
        } else {
            Err(self.broken(&"a comma or a closing bracket was expected"))
        }
    }

    /// Steps over an object. `member` is called with each key, and must step over its value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), Broken>,
    ) -> Result<Span, Broken> {
        let start = self.at;
        if !self.take(b'{') {
            return Err(self.broken(&"an object was expected"));
        }
        self.space();
        if !self.take(b'}') {
            loop {
                let key = self.key()?;
                member(self, key)?;
                if !self.more(b'}')? {
                    break;
                }
            }
        }
        Ok(start..self.at)
    }

    /// Steps over one value of any kind, at most [`DEEPEST`] levels deep.
    #[inline]
    pub fn value(&mut self) -> Result<Span, Broken> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string()?,
            _ => self.any_value()?,
        }
        Ok(start..self.at)
    }

    /// Steps over one value of validated JSON.
    #[inline]
    pub fn validated_value(&mut self) -> Result<Span, Broken> {
        self.space();
        let start = self.at;
        if !matches!(self.peek(), Some(b'{' | b'[')) {
            return self.value();
        }
        let end = container_end(self.bytes, start);
        self.at = end.unwrap_or(self.bytes.len());
        if end.is_none() {
            return Err(self.broken(&"a value was expected"));
        }
        Ok(start..self.at)
    }

    fn any_value(&mut self) -> Result<(), Broken> {
        let mut nest = Nest::default();
        loop {
            if self.open(&mut nest)? {
                continue;
            }
            loop {
                let Some(close) = nest.innermost() else { return Ok(()) };
                if self.more(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                nest.leave();
            }
        }
    }

    /// Steps over a scalar or an empty container, or opens a container and returns true.
    fn open(&mut self, nest: &mut Nest) -> Result<bool, Broken> {
        self.space();
        match self.peek() {
            Some(b'"') => self.string().map(|()| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b'{') => {
                self.at += 1;
                self.space();
                if self.take(b'}') {
                    return Ok(false);
                }
                self.enter(nest, b'}')?;
                self.key().map(|_| true)
            }
            Some(b'[') => {
                self.at += 1;
                self.space();
                if self.take(b']') {
                    return Ok(false);
                }
                self.enter(nest, b']')?;
                Ok(true)
            }
            Some(b't') => self.literal(b"true").map(|()| false),
            Some(b'f') => self.literal(b"false").map(|()| false),
            Some(b'n') => self.literal(b"null").map(|()| false),
            _ => Err(self.broken(&"a value was expected")),
        }
    }

    fn enter(&self, nest: &mut Nest, close: u8) -> Result<(), Broken> {
        if nest.depth == DEEPEST {
            return Err(Broken(&"it is nested too deeply"));
        }
        nest.enter(close);
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Broken> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Broken(&"a value was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        self.take(b'-');
        // A number with a leading zero has no further integer digits.
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.broken(&"a digit was expected")) } else { Ok(()) }
    }

    /// Steps over a string. Escaped lone surrogates are valid JSON.
    fn string(&mut self) -> Result<(), Broken> {
        let start = self.at;
        let mut high = 0;
        self.at += 1;
        loop {
            self.at = next_stop(self.bytes, self.at, &mut high);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.last_escape = self.at;
                    self.escape()?;
                }
                _ => return Err(self.broken(&"a string contains a control character")),
            }
        }
        self.at += 1;
        // Outside strings no token has a byte above 0x7f, so this check covers all UTF-8.
        if high != 0
            && let Err(error) = std::str::from_utf8(&self.bytes[start..self.at])
        {
            self.at = start + error.valid_up_to();
            return Err(Broken(&"a string is not UTF-8"));
        }
        Ok(())
    }

    /// Returns the value of a key that was just stepped over; see [`key_of`].
    pub fn name(&self, key: &Span) -> Cow<'a, [u8]> {
        match self.last_escape < key.start {
            true => Cow::Borrowed(&self.bytes[key.start + 1..key.end - 1]),
            false => key_of(&self.bytes[key.clone()]),
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.broken(&"an escape is not four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.broken(&"an escape is unknown")),
        }
        Ok(())
    }
}

/// Length from which a string is searched in blocks, in bytes.
const LONG: usize = 32;
/// Length of a block, in bytes.
const BLOCK: usize = 64;

/// Returns the position of the next quote, backslash or control character from `at` on, or the end. Sets bits of `high`
/// if there are bytes above 0x7f before it; bytes after it may count, too, which can cause a needless check.
#[inline]
fn next_stop(bytes: &[u8], mut at: usize, high: &mut u64) -> usize {
    let begun = at;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let stop = stops(word);
        *high |= word & EACH_HIGH;
        if stop != 0 {
            return at + stop.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at - begun == LONG {
            at = skip_blocks(bytes, at, high);
        }
    }
    while let Some(byte) = bytes.get(at).filter(|byte| !is_stop(**byte)) {
        *high |= u64::from(*byte) & EACH_HIGH;
        at += 1;
    }
    at
}

/// Steps over whole blocks without a quote, backslash or control character. Compilers turn the loops over a block into a
/// few instructions for all of its bytes.
fn skip_blocks(bytes: &[u8], mut at: usize, high: &mut u64) -> usize {
    while let Some(block) = bytes[at..].first_chunk::<BLOCK>() {
        if block.iter().fold(false, |any, byte| any | is_stop(*byte)) {
            break;
        }
        *high |= u64::from(block.iter().fold(0, |all, byte| all | byte)) & EACH_HIGH;
        at += BLOCK;
    }
    at
}

#[inline]
fn is_stop(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

const EACH: u64 = 0x0101_0101_0101_0101;
const EACH_HIGH: u64 = 0x8080_8080_8080_8080;

/// Sets the high bit of each byte that is a quote, a backslash or below 0x20. A borrow can set a bit falsely, but
/// only above a true one, so the lowest bit is always correct.
fn stops(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(EACH) & !word;
    let control = word.wrapping_sub(EACH * 0x20) & !word;
    (control | zeros(word ^ (EACH * b'"' as u64)) | zeros(word ^ (EACH * b'\\' as u64))) & EACH_HIGH
}

/// Maximum nesting that is accepted, in 512 KiB of bits: far more than other parsers accept.
pub(super) const DEEPEST: usize = 1 << 22;

/// A stack of open containers, one bit each: 1 for an object. The innermost 64 are in a word, the others spilled.
#[derive(Default)]
struct Nest {
    word: u64,
    depth: usize,
    spilled: Vec<u64>,
}

impl Nest {
    fn enter(&mut self, close: u8) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.spilled.push(self.word);
        }
        self.word = (self.word << 1) | u64::from(close == b'}');
        self.depth += 1;
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.word >>= 1;
        if self.depth.is_multiple_of(64) {
            self.word = self.spilled.pop().unwrap_or(0);
        }
    }

    /// Returns the byte that closes the innermost open container.
    fn innermost(&self) -> Option<u8> {
        (self.depth > 0).then_some(if self.word & 1 == 1 { b'}' } else { b']' })
    }
}
