//! What an item of a list must be. Clients check each one by the protocol's schemas, or read them into types, and refuse the
//! whole list for one that does not fit.

use super::kind::Kind;
use super::uri::is_absolute;
use crate::jsonrpc::{Span, integer, items, members, reads_as, text, unportable};
use std::fmt;

/// What a value must be.
enum Shape {
    Text,
    Flag,
    /// A number of 0 or more.
    Count,
    /// A number from 0 to 1.
    Share,
    /// An absolute URI.
    Uri,
    /// A date and a time with its offset (RFC 3339).
    Time,
    OneOf(&'static [&'static str]),
    /// JSON Schemas by name.
    Schemas,
    List(&'static Shape),
    Object(&'static [Member]),
}

/// A member of an object that has a meaning. Others may be anything.
struct Member {
    name: &'static str,
    shape: Shape,
    is_required: bool,
}

const fn must(name: &'static str, shape: Shape) -> Member {
    Member { name, shape, is_required: true }
}

const fn may(name: &'static str, shape: Shape) -> Member {
    Member { name, shape, is_required: false }
}

// 2026-07-28 schema, with what 2025-11-25 also defines.
static TOOL: [Member; 9] = [
    must("name", Shape::Text),
    may("title", Shape::Text),
    may("description", Shape::Text),
    must("inputSchema", Shape::Object(&INPUT)),
    may("outputSchema", Shape::Object(&OUTPUT)),
    may("annotations", Shape::Object(&HINTS)),
    may("execution", Shape::Object(&EXECUTION)),
    may("icons", Shape::List(&ICON)),
    may("_meta", Shape::Object(&[])),
];
static INPUT: [Member; 4] = [
    must("type", Shape::OneOf(&["object"])),
    may("$schema", Shape::Text),
    may("properties", Shape::Schemas),
    may("required", Shape::List(&Shape::Text)),
];
static OUTPUT: [Member; 3] = [
    may("$schema", Shape::Text),
    may("properties", Shape::Schemas),
    may("required", Shape::List(&Shape::Text)),
];
static HINTS: [Member; 5] = [
    may("title", Shape::Text),
    may("readOnlyHint", Shape::Flag),
    may("destructiveHint", Shape::Flag),
    may("idempotentHint", Shape::Flag),
    may("openWorldHint", Shape::Flag),
];
static EXECUTION: [Member; 1] = [may("taskSupport", Shape::OneOf(&["forbidden", "optional", "required"]))];
static PROMPT: [Member; 6] = [
    must("name", Shape::Text),
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("arguments", Shape::List(&ARGUMENT)),
    may("icons", Shape::List(&ICON)),
    may("_meta", Shape::Object(&[])),
];
static ARGUMENT: Shape = Shape::Object(&ARGUMENT_MEMBERS);
static ARGUMENT_MEMBERS: [Member; 4] = [
    must("name", Shape::Text),
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("required", Shape::Flag),
];
static RESOURCE: [Member; 9] = [
    must("uri", Shape::Uri),
    must("name", Shape::Text),
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("mimeType", Shape::Text),
    may("size", Shape::Count),
    may("annotations", Shape::Object(&ANNOTATIONS)),
    may("icons", Shape::List(&ICON)),
    may("_meta", Shape::Object(&[])),
];
static TEMPLATE: [Member; 8] = [
    must("uriTemplate", Shape::Text),
    must("name", Shape::Text),
    may("title", Shape::Text),
    may("description", Shape::Text),
    may("mimeType", Shape::Text),
    may("annotations", Shape::Object(&ANNOTATIONS)),
    may("icons", Shape::List(&ICON)),
    may("_meta", Shape::Object(&[])),
];
static ANNOTATIONS: [Member; 3] = [
    may("audience", Shape::List(&Shape::OneOf(&["user", "assistant"]))),
    may("priority", Shape::Share),
    may("lastModified", Shape::Time),
];
static ICON: Shape = Shape::Object(&ICON_MEMBERS);
static ICON_MEMBERS: [Member; 4] = [
    must("src", Shape::Text),
    may("mimeType", Shape::Text),
    may("sizes", Shape::List(&Shape::Text)),
    may("theme", Shape::OneOf(&["dark", "light"])),
];

/// Why an item is left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The names of the members that lead to the problem, from the innermost one.
    path: Vec<&'static str>,
    what: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(f, "it {}", self.what);
        }
        for (at, name) in self.path.iter().rev().enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { "." })?;
        }
        write!(f, " {}", self.what)
    }
}

fn unfit(what: &'static str) -> Unfit {
    Unfit { path: Vec::new(), what }
}

/// Checks an item, and returns the text that names it.
///
/// # Errors
/// When some clients would refuse a list with it, or take it for another one.
pub(super) fn check(frame: &[u8], item: &Span, kind: Kind) -> Result<Span, Unfit> {
    if let Some(reason) = unportable(&frame[item.clone()]) {
        return Err(unfit(reason));
    }
    let known: &'static [Member] = match kind {
        Kind::Tools => &TOOL,
        Kind::Prompts => &PROMPT,
        Kind::Resources => &RESOURCE,
        Kind::Templates => &TEMPLATE,
    };
    object(frame, item, known)?;
    let mut named = None;
    for (key, value) in members(frame, item.clone()) {
        let key = text(frame, &key);
        if key == kind.key() {
            named = Some(value);
        } else if reads_as(key.as_bytes(), kind.key()) {
            return Err(Unfit { path: vec![kind.key()], what: "occurs in another spelling, too" });
        }
    }
    named.ok_or_else(|| unfit("has no name"))
}

fn object(frame: &[u8], value: &Span, known: &'static [Member]) -> Result<(), Unfit> {
    if frame[value.start] != b'{' {
        return Err(unfit("is no object"));
    }
    let mut seen = 0_u16;
    if !known.is_empty() {
        for (key, value) in members(frame, value.clone()) {
            let name = text(frame, &key);
            let Some(at) = known.iter().position(|member| member.name == name) else { continue };
            let within = |mut unfit: Unfit| {
                unfit.path.push(known[at].name);
                unfit
            };
            if seen & (1 << at) != 0 {
                return Err(within(unfit("occurs twice")));
            }
            seen |= 1 << at;
            fits(frame, &value, &known[at].shape).map_err(within)?;
        }
    }
    let missing = known.iter().enumerate().find(|(at, member)| member.is_required && seen & (1 << at) == 0);
    match missing {
        Some((_, member)) => Err(Unfit { path: vec![member.name], what: "is missing" }),
        None => Ok(()),
    }
}

fn fits(frame: &[u8], value: &Span, shape: &'static Shape) -> Result<(), Unfit> {
    let raw = &frame[value.clone()];
    let is_text = raw[0] == b'"';
    let (is_fit, what) = match shape {
        Shape::Text => (is_text, "is no text"),
        Shape::Flag => (matches!(raw, b"true" | b"false"), "is neither true nor false"),
        Shape::Count => (integer(raw).is_some(), "is no integer from 0 on"),
        Shape::Share => {
            let number = std::str::from_utf8(raw).ok().and_then(|raw| raw.parse::<f64>().ok());
            (number.is_some_and(|number| (0.0..=1.0).contains(&number)), "is no number from 0 to 1")
        }
        Shape::Uri => (is_text && is_absolute(&text(frame, value)), "is no absolute URI"),
        Shape::Time => (is_text && is_time(&text(frame, value)), "is no time with an offset (RFC 3339)"),
        Shape::OneOf(all) => {
            (is_text && all.contains(&&*text(frame, value)), "is none of the values that the protocol has")
        }
        Shape::Schemas => {
            let is_schema = |value: Span| matches!(&frame[value], [b'{', ..] | b"true" | b"false");
            let are_schemas = || members(frame, value.clone()).all(|(_, value)| is_schema(value));
            (raw[0] == b'{' && are_schemas(), "is no object of schemas")
        }
        Shape::List(shape) => {
            if raw[0] == b'[' {
                return items(frame, value.clone()).try_for_each(|item| fits(frame, &item, shape));
            }
            (false, "is no array")
        }
        Shape::Object(known) => return object(frame, value, known),
    };
    if is_fit { Ok(()) } else { Err(unfit(what)) }
}

/// Returns whether a text is a time such as `2026-07-28T10:00:00Z`. Seconds may be left out, or have a fraction.
fn is_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else { return false };
    let number = |text: &str, length: usize| {
        let is_plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { text.parse::<u32>().ok() } else { None }
    };
    let clock = |text: &str| match text.split_once(':') {
        Some((hours, minutes)) => {
            number(hours, 2).is_some_and(|hours| hours < 24)
                && number(minutes, 2).is_some_and(|minutes| minutes < 60)
        }
        None => false,
    };
    let is_date = || {
        let mut parts = date.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        Some(parts.next().is_none() && (1..=days).contains(&day))
    };
    let is_clock = || {
        let (time, offset) = match time.strip_suffix('Z') {
            Some(time) => (time, "00:00"),
            None => time.rfind(['+', '-']).map(|at| (&time[..at], &time[at + 1..]))?,
        };
        let (minutes, seconds) = time.split_at_checked(5)?;
        let is_second = match seconds.strip_prefix(':') {
            None => seconds.is_empty(),
            Some(seconds) => {
                let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
                let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
                is_fraction && number(whole, 2).is_some_and(|whole| whole < 60)
            }
        };
        Some(clock(minutes) && is_second && clock(offset))
    };
    is_date().unwrap_or_default() && is_clock().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(item: &str, kind: Kind) -> Option<String> {
        check(item.as_bytes(), &(0..item.len()), kind).err().map(|unfit| unfit.to_string())
    }

    #[test]
    fn items_that_the_schemas_allow_fit() {
        for (kind, item) in [
            (Kind::Tools, r#"{"name":"t","inputSchema":{"type":"object"}}"#),
            (
                Kind::Tools,
                r#"{"name":"","title":"T","description":"","inputSchema":{"$schema":"x","type":"object","properties":{"a":true},"x":null},
                "outputSchema":{"anyOf":[]},"annotations":{"title":"","readOnlyHint":false,"x":5},"execution":{"taskSupport":"optional"},
                "icons":[{"src":"x","sizes":["any"],"theme":"dark","mimeType":"a/b"}],"_meta":{"a":[]},"acme":null}"#,
            ),
            (Kind::Tools, r#"{"n\u0061me":"t","inputSchema":{"type":"\u006fbject"}}"#),
            (
                Kind::Prompts,
                r#"{"name":"p","arguments":[{"name":"a","required":true,"title":""}],"icons":[]}"#,
            ),
            (
                Kind::Resources,
                r#"{"uri":"e://x","name":"r","size":0,"mimeType":"","annotations":{"audience":["user"],"priority":0.5,
                "lastModified":"2025-01-12T15:00:58Z"}}"#,
            ),
            (
                Kind::Templates,
                r#"{"uriTemplate":"{x}","name":"t","annotations":{"audience":[],"priority":1}}"#,
            ),
        ] {
            assert_eq!(problem(item, kind), None, "{item}");
        }
    }

    #[test]
    fn other_items_are_unfit_and_the_place_is_told() {
        const SCHEMA: &str = r#""inputSchema":{"type":"object"}"#;
        for (members, expected) in [
            ("", "inputSchema is missing"),
            (r#""inputSchema":null"#, "inputSchema is no object"),
            (r#""inputSchema":{}"#, "inputSchema.type is missing"),
            (
                r#""inputSchema":{"type":"string"}"#,
                "inputSchema.type is none of the values that the protocol has",
            ),
            (
                r#""inputSchema":{"type":["object"]}"#,
                "inputSchema.type is none of the values that the protocol has",
            ),
            (
                r#""inputSchema":{"type":"object","properties":{"a":{},"b":"x"}}"#,
                "inputSchema.properties is no object of schemas",
            ),
            (r#"SCHEMA,"outputSchema":{"properties":[]}"#, "outputSchema.properties is no object of schemas"),
            (r#""inputSchema":{"type":"object","required":[5]}"#, "inputSchema.required is no text"),
            (r#""inputSchema":{"type":"object","required":true}"#, "inputSchema.required is no array"),
            (r#"SCHEMA,"description":5"#, "description is no text"),
            (r#"SCHEMA,"title":null"#, "title is no text"),
            (r#"SCHEMA,"annotations":"x""#, "annotations is no object"),
            (
                r#"SCHEMA,"annotations":{"readOnlyHint":"x"}"#,
                "annotations.readOnlyHint is neither true nor false",
            ),
            (r#"SCHEMA,"icons":{}"#, "icons is no array"),
            (r#"SCHEMA,"icons":[{"src":"x"},{"src":5}]"#, "icons.src is no text"),
            (r#"SCHEMA,"icons":[{}]"#, "icons.src is missing"),
            (r#"SCHEMA,"icons":["x"]"#, "icons is no object"),
            (r#"SCHEMA,"_meta":[]"#, "_meta is no object"),
            (r#"SCHEMA,"outputSchema":[]"#, "outputSchema is no object"),
            (
                r#"SCHEMA,"execution":{"taskSupport":"x"}"#,
                "execution.taskSupport is none of the values that the protocol has",
            ),
            (r#"SCHEMA,"name":"u""#, "name occurs twice"),
            (r#"SCHEMA,"Name":"u""#, "name occurs in another spelling, too"),
            (r#"SCHEMA,"title":"a","title":"b""#, "title occurs twice"),
            (r#"SCHEMA,"x":"\ud800""#, "it has a text with half of a surrogate pair"),
            (r#"SCHEMA,"x":1e999"#, "it has a number that is too long or too large"),
        ] {
            let item = format!("{{\"name\":\"t\",{}}}", members.replace("SCHEMA", SCHEMA)).replace(",}", "}");
            assert_eq!(problem(&item, Kind::Tools).as_deref(), Some(expected), "{item}");
        }
        for (kind, item, expected) in [
            (Kind::Tools, "7", "it is no object"),
            (Kind::Tools, "{}", "name is missing"),
            (Kind::Prompts, r#"{"name":5}"#, "name is no text"),
            (Kind::Prompts, r#"{"name":"p","arguments":{}}"#, "arguments is no array"),
            (Kind::Prompts, r#"{"name":"p","arguments":[{}]}"#, "arguments.name is missing"),
            (Kind::Resources, r#"{"uri":"e://x"}"#, "name is missing"),
            (Kind::Resources, r#"{"uri":"foo","name":"r"}"#, "uri is no absolute URI"),
            (Kind::Resources, r#"{"uri":"e:","name":"r","size":"big"}"#, "size is no integer from 0 on"),
            (Kind::Resources, r#"{"uri":"e:","name":"r","mimeType":1}"#, "mimeType is no text"),
            (
                Kind::Resources,
                r#"{"uri":"e:","name":"r","annotations":{"priority":2}}"#,
                "annotations.priority is no number from 0 to 1",
            ),
            (
                Kind::Resources,
                r#"{"uri":"e:","name":"r","annotations":{"lastModified":"today"}}"#,
                "annotations.lastModified is no time with an offset (RFC 3339)",
            ),
            (Kind::Templates, r#"{"uriTemplate":"e:"}"#, "name is missing"),
        ] {
            assert_eq!(problem(item, kind).as_deref(), Some(expected), "{item}");
        }
    }

    #[test]
    fn a_time_has_a_date_a_clock_and_an_offset() {
        for time in [
            "2025-01-12T15:00:58Z",
            "2024-02-29T23:59Z",
            "2025-01-12T15:00:58.123456+02:00",
            "2025-12-31T00:00:00-11:30",
        ] {
            assert!(is_time(time), "{time}");
        }
        for time in [
            "",
            "2025-01-12",
            "2025-01-12T15:00:58",
            "2025-02-29T00:00Z",
            "2025-13-01T00:00Z",
            "2025-01-12t15:00:58Z",
            "2025-01-12T24:00Z",
            "2025-01-12T15:60Z",
            "2025-01-12T15:00:60Z",
            "2025-01-12T15:00:58.Z",
            "2025-01-12T15:00:58+0200",
            "25-01-12T15:00Z",
            "2025-01-12 15:00:58Z",
            "é",
            "2025-01-12T15:0éZ",
        ] {
            assert!(!is_time(time), "{time}");
        }
    }
}
