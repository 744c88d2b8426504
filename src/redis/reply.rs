//! Replies in Redis' protocol (RESP 2). Pure; a reply is bounded in size, in its number of parts and in its depth.

use std::fmt;

/// Maximum size of a reply in bytes.
pub(super) const LONGEST: usize = 8 << 20;
/// Maximum number of parts of a reply, nested ones included.
const MOST_PARTS: usize = 1 << 16;
/// Maximum number of lists within each other.
const DEEPEST: usize = 4;
/// Maximum length of a line.
const LONGEST_LINE: usize = 1 << 10;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nothing,
    /// A status, such as `OK`.
    Status(String),
    /// An error. It begins with its code, such as `WRONGPASS`.
    Error(String),
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several replies.
    List(Vec<Reply>),
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Reply {
    /// Returns the text of bytes or of a status.
    pub fn text(&self) -> Option<&str> {
        match self {
            Reply::Status(text) => Some(text),
            Reply::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns the code of an error.
    pub fn error_code(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => Some(text.split(' ').next().unwrap_or_default()),
            _ => None,
        }
    }
}

/// Returns the reply at the begin of these bytes, and its length; `None` if it is not complete.
///
/// # Errors
/// When they are the begin of no reply, or of one that is too large.
pub fn first_reply_in(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    // Nothing is allocated before the reply is complete, however often it is looked at.
    let mut end = Cursor { bytes, at: 0, parts: 0 };
    let is_complete = end.skip(0)?;
    if end.at.max(if is_complete { 0 } else { bytes.len() }) > LONGEST {
        return Err(Malformed("a reply is too large"));
    }
    if !is_complete {
        return Ok(None);
    }
    let mut cursor = Cursor { bytes, at: 0, parts: 0 };
    Ok(cursor.take(0)?.map(|reply| (reply, cursor.at)))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    parts: usize,
}

/// The begin of a part.
enum Head<'a> {
    Line(u8, &'a [u8]),
    Number(i64),
    /// Bytes of this length follow; `None`: no value.
    Bytes(Option<usize>),
    /// Parts of this number follow.
    List(Option<usize>),
}

impl<'a> Cursor<'a> {
    /// Passes over a part. Returns whether it is complete.
    fn skip(&mut self, depth: usize) -> Result<bool, Malformed> {
        match self.head(depth)? {
            None => Ok(false),
            Some(Head::Bytes(Some(length))) => Ok(self.bytes(length)?.is_some()),
            Some(Head::List(Some(count))) => {
                for _ in 0..count {
                    if !self.skip(depth + 1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Some(_) => Ok(true),
        }
    }

    fn take(&mut self, depth: usize) -> Result<Option<Reply>, Malformed> {
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        Ok(Some(match self.head(depth)? {
            None => return Ok(None),
            Some(Head::Line(b'-', line)) => Reply::Error(text(line)),
            Some(Head::Line(_, line)) => Reply::Status(text(line)),
            Some(Head::Number(number)) => Reply::Number(number),
            Some(Head::Bytes(None) | Head::List(None)) => Reply::Nothing,
            Some(Head::Bytes(Some(length))) => match self.bytes(length)? {
                Some(bytes) => Reply::Bytes(bytes.to_vec()),
                None => return Ok(None),
            },
            Some(Head::List(Some(count))) => {
                let mut parts = Vec::new();
                for _ in 0..count {
                    let Some(part) = self.take(depth + 1)? else { return Ok(None) };
                    parts.push(part);
                }
                Reply::List(parts)
            }
        }))
    }

    fn head(&mut self, depth: usize) -> Result<Option<Head<'a>>, Malformed> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(Malformed("a reply has too many parts"));
        }
        let Some(kind) = self.bytes.get(self.at).copied() else { return Ok(None) };
        if !b"+-:$*".contains(&kind) {
            return Err(Malformed("a reply is not of Redis' protocol"));
        }
        let rest = &self.bytes[self.at + 1..];
        let Some(end) = memchr::memchr(b'\r', &rest[..rest.len().min(LONGEST_LINE)]) else {
            return if rest.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed("a line is too long")) };
        };
        let (line, after) = rest.split_at(end);
        match after.get(1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(Malformed("a line has a wrong end")),
        }
        self.at += 1 + end + 2;
        Ok(Some(match kind {
            b':' => Head::Number(number(line)?),
            b'$' => Head::Bytes(length(line)?),
            b'*' if depth >= DEEPEST => return Err(Malformed("a reply is nested too deeply")),
            b'*' => Head::List(length(line)?),
            _ => Head::Line(kind, line),
        }))
    }

    fn bytes(&mut self, length: usize) -> Result<Option<&'a [u8]>, Malformed> {
        let end = self.at + length;
        match self.bytes.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(Malformed("bytes have a wrong end")),
        }
        let bytes = &self.bytes[self.at..end];
        self.at = end + 2;
        Ok(Some(bytes))
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    number.ok_or(Malformed("a number is malformed"))
}

/// Reads a length; -1 means no value.
fn length(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match number(line)? {
        -1 => Ok(None),
        number => match usize::try_from(number) {
            Ok(length) if length <= LONGEST => Ok(Some(length)),
            _ => Err(Malformed("a length is out of range")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_and_what_follows_is_left() {
        let bytes = |text: &str| Reply::Bytes(text.into());
        for (wire, reply) in [
            ("+OK\r\n", Reply::Status("OK".into())),
            ("-WRONGPASS no\r\n", Reply::Error("WRONGPASS no".into())),
            (":-7\r\n", Reply::Number(-7)),
            ("$-1\r\n", Reply::Nothing),
            ("*-1\r\n", Reply::Nothing),
            ("$0\r\n\r\n", bytes("")),
            ("$4\r\na\r\nb\r\n", bytes("a\r\nb")),
            ("*3\r\n:1\r\n*1\r\n$1\r\nx\r\n+y\r\n", {
                let inner = Reply::List(vec![bytes("x")]);
                Reply::List(vec![Reply::Number(1), inner, Reply::Status("y".into())])
            }),
        ] {
            let whole = format!("{wire}+NEXT\r\n");
            assert_eq!(first_reply_in(whole.as_bytes()), Ok(Some((reply, wire.len()))), "{wire:?}");
            for end in 0..wire.len() {
                assert_eq!(first_reply_in(&wire.as_bytes()[..end]), Ok(None), "{:?}", &wire[..end]);
            }
        }
    }

    #[test]
    fn what_is_no_reply_or_too_large_is_refused_early() {
        let deep = "*1\r\n".repeat(DEEPEST + 1);
        let many = format!("*{MOST_PARTS}\r\n{}", ":1\r\n".repeat(MOST_PARTS));
        let long = format!("+{}", "x".repeat(LONGEST_LINE + 1));
        for wire in [
            "HTTP/1.1 400 Bad Request\r\n",
            "%1\r\n",
            ":x\r\n",
            ":1\rx",
            "$-2\r\n",
            "$9999999999\r\n",
            "*99999999999999999999\r\n",
            "$1\r\nxyz",
            &deep,
            &many,
            &long,
        ] {
            assert!(first_reply_in(wire.as_bytes()).is_err(), "{:.40}", wire);
        }
        let mut large = "*9\r\n".to_owned();
        (0..9).for_each(|_| large.push_str(&format!("$1048576\r\n{}\r\n", "x".repeat(1 << 20))));
        assert!(first_reply_in(large.as_bytes()).is_err());
        assert!(first_reply_in(&large.as_bytes()[..large.len() - 9]).is_err(), "it is not complete");
    }
}
