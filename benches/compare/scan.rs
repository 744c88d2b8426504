//! Finds the few values of a JSON-RPC message that the child server, the floor and the load generator need, in one
//! pass and without validation. It assumes well-formed JSON.

use std::ops::Range;

/// The position of a value in the message, quotes included.
pub type Span = Range<usize>;

/// The values that were found.
#[derive(Debug, Default)]
pub struct Found {
    pub id: Option<Span>,
    pub method: Option<Span>,
    /// `params.name`.
    pub name: Option<Span>,
    /// `params.arguments.text`.
    pub text: Option<Span>,
    /// `params.arguments.count`.
    pub count: Option<Span>,
    /// `params._meta.progressToken`, or `params.progressToken` of a notification.
    pub token: Option<Span>,
    /// `params.progress`.
    pub progress: Option<Span>,
}

/// An object whose members are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Message,
    Params,
    Arguments,
    Meta,
}

/// Returns the values of the message, or `None` if it is not an object.
pub fn scan(bytes: &[u8]) -> Option<Found> {
    let mut found = Found::default();
    object(bytes, space(bytes, 0), Level::Message, &mut found, false)?;
    Some(found)
}

/// Returns the position of the message's id. Stops there, so a response that begins with its id costs little.
pub fn id(bytes: &[u8]) -> Option<Span> {
    let mut found = Found::default();
    let _ = object(bytes, space(bytes, 0), Level::Message, &mut found, true);
    found.id
}

/// Returns the number that the digits in `span` are.
pub fn number(bytes: &[u8], span: Option<Span>) -> Option<u64> {
    bytes[span?].iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

/// Reads the object that begins at `at`, and returns the position after it.
fn object(bytes: &[u8], mut at: usize, level: Level, found: &mut Found, only_id: bool) -> Option<usize> {
    if *bytes.get(at)? != b'{' {
        return None;
    }
    at = space(bytes, at + 1);
    while *bytes.get(at)? != b'}' {
        let key_end = string(bytes, at)?;
        let key = &bytes[at + 1..key_end - 1];
        let start = space(bytes, space(bytes, key_end) + 1);
        at = match (level, key) {
            (Level::Message, b"params") if !only_id => object(bytes, start, Level::Params, found, false)?,
            (Level::Params, b"arguments") => object(bytes, start, Level::Arguments, found, false)?,
            (Level::Params, b"_meta") => object(bytes, start, Level::Meta, found, false)?,
            _ => {
                let end = value(bytes, start)?;
                if let Some(place) = place(level, key, found) {
                    *place = Some(start..end);
                    if only_id && found.id.is_some() {
                        return Some(end);
                    }
                }
                end
            }
        };
        at = space(bytes, at);
        if *bytes.get(at)? == b',' {
            at = space(bytes, at + 1);
        }
    }
    Some(at + 1)
}

/// Returns where the value of this key belongs.
fn place<'a>(level: Level, key: &[u8], found: &'a mut Found) -> Option<&'a mut Option<Span>> {
    match (level, key) {
        (Level::Message, b"id") => Some(&mut found.id),
        (Level::Message, b"method") => Some(&mut found.method),
        (Level::Params, b"name") => Some(&mut found.name),
        (Level::Arguments, b"text") => Some(&mut found.text),
        (Level::Arguments, b"count") => Some(&mut found.count),
        (Level::Meta | Level::Params, b"progressToken") => Some(&mut found.token),
        (Level::Params, b"progress") => Some(&mut found.progress),
        _ => None,
    }
}

/// Returns the position after the value that begins at `at`.
fn value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match *bytes.get(at)? {
            b'"' => at = string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                at += 1;
                continue;
            }
            _ => {
                let rest = bytes[at..].iter().position(|byte| b",}] \t\r\n".contains(byte));
                at = rest.map_or(bytes.len(), |length| at + length);
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Returns the position after the string that begins at `at`.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the first position from `at` without white space.
fn space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}
