//! The HTTP headers in which modern clients repeat parts of a request, so that intermediaries can read them without
//! the body: `Mcp-Name`, and `Mcp-Param-*` for parameters that a tool's schema marks with `x-mcp-header`. They must
//! match the body (2026-07-28 basic/transports/streamable-http §Server Validation; SEP-2243).

use crate::jsonrpc::{LONGEST_NAME, Span, items, member, members, string_member, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The maximum number of marked tools that are remembered per child.
const MOST_TOOLS: usize = 4_096;
/// Maximum length of a tool whose marks are read, in bytes.
const LONGEST_TOOL: usize = 256 * 1024;

/// Maximum nesting of parameters that are searched, to bound the cost of a schema.
pub(super) const DEEPEST: usize = 32;

/// A header value that cannot be decoded: invalid base64, or characters outside visible ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable;

/// Decodes a header value: trims whitespace, and decodes base64 if it is marked as such: `=?base64?…?=`. The marker
/// must be in lower case and complete; any other value is used unchanged (§Value Encoding).
///
/// # Errors
/// If a marked value is not padded standard base64 of UTF-8, or an unmarked value contains other characters than
/// visible ASCII, space and tab.
pub fn decode(value: &[u8]) -> Result<Cow<'_, str>, Undecodable> {
    let value = trim(value);
    if let Some(encoded) = value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) {
        let decoded = STANDARD.decode(encoded).map_err(|_| Undecodable)?;
        return String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Undecodable);
    }
    if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(Undecodable);
    }
    std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Undecodable)
}

/// Encodes a header value: in base64 and marked as such if it could not be decoded unchanged (§Value Encoding).
pub fn encode(value: &str) -> Cow<'_, str> {
    if decode(value.as_bytes()).is_ok_and(|decoded| decoded == value) {
        return value.into();
    }
    format!("=?base64?{}?=", STANDARD.encode(value)).into()
}

/// Trims the optional whitespace that HTTP allows around a value (RFC 9110 §5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Returns the member of `params` that `Mcp-Name` repeats, by method (§Standard Headers); `None` if there is none.
pub fn named_by(method: &str) -> Option<&'static str> {
    Some(match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    })
}

/// A parameter that is repeated in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParam {
    /// The header's whole name, in lower case: `mcp-param-region`.
    pub header: String,
    /// The path to the parameter from `arguments`: names of members, at least one.
    pub path: Vec<String>,
    /// For each name, whether the schema has a sibling that differs only in case.
    only_exact: Vec<bool>,
    kind: ParamKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParamKind {
    String,
    Integer,
    Boolean,
}

/// The tools of a child that have such parameters, according to its `tools/list`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderParams {
    tools: HashMap<String, Vec<HeaderParam>>,
}

/// The mismatch between the headers and the body of a `tools/call`: -32020.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The parameter is present, but the header is missing.
    Missing(String),
    /// The header cannot be decoded.
    Undecodable(String),
    /// The header is present, but the parameter is absent or null.
    Unexpected(String),
    /// Header and parameter have different values.
    Different(String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Missing(header) => {
                write!(f, "Header mismatch: {header} is missing; read tools/list again for its parameter")
            }
            Mismatch::Undecodable(header) => {
                write!(f, "Header mismatch: the value of {header} cannot be decoded")
            }
            Mismatch::Unexpected(header) => {
                write!(f, "Header mismatch: {header} repeats nothing in the body")
            }
            Mismatch::Different(header) => write!(f, "Header mismatch: {header} does not match the body"),
        }
    }
}

impl std::error::Error for Mismatch {}

impl HeaderParams {
    /// Adds the tools of one page of `tools/list`. A tool with invalid marks counts as unmarked: clients must omit it
    /// from their lists (§Schema Extension), so nothing depends on it.
    pub fn add_page(&mut self, frame: &[u8], result: &Span) {
        for tool in member(frame, result, "tools").into_iter().flat_map(|tools| items(frame, tools)) {
            // Most tools have no mark, and searching the text is cheaper than walking through the schema.
            let is_marked = memchr::memmem::find(&frame[tool.clone()], b"x-mcp-header").is_some();
            if !is_marked || tool.len() > LONGEST_TOOL {
                continue;
            }
            let schema = member(frame, &tool, "inputSchema");
            if let (Some(name), Some(schema)) = (string_member(frame, &tool, "name"), schema)
                && let Some(params) = marked(frame, schema)
                && !params.is_empty()
                && name.len() <= LONGEST_NAME
                && self.tools.len() < MOST_TOOLS
            {
                self.tools.insert(name.into_owned(), params);
            }
        }
    }

    /// Returns the repeated parameters of a tool; none if the tool is unmarked or unknown. Names are compared
    /// case-insensitively, as some servers do.
    pub fn of(&self, tool: &str) -> &[HeaderParam] {
        let same = || self.tools.iter().find(|(name, _)| same_letters(name, tool)).map(|(_, params)| params);
        self.tools.get(tool).or_else(same).map_or(&[], Vec::as_slice)
    }

    /// Returns whether no tool has such parameters.
    #[cfg(feature = "gateway")]
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// Adds the tools of another list.
    #[cfg(feature = "gateway")]
    pub fn add_all(&mut self, other: Self) {
        let room = MOST_TOOLS.saturating_sub(self.tools.len());
        self.tools.extend(other.tools.into_iter().take(room));
    }

    /// Returns the headers of a call with these `arguments`: names and values, not encoded.
    #[cfg(feature = "gateway")]
    pub fn values(&self, tool: &str, frame: &[u8], arguments: &Span) -> Vec<(String, String)> {
        let value = |param: &HeaderParam| {
            let value = param.find(frame, arguments).pop()?;
            let raw = &frame[value.clone()];
            let text = match raw.first() {
                Some(b'"') => text(frame, &value).into_owned(),
                _ => String::from_utf8_lossy(raw).into_owned(),
            };
            Some((param.header.clone(), text))
        };
        self.tools.get(tool).into_iter().flatten().filter_map(value).collect()
    }

    /// Checks a call's headers against its `arguments` (§Server Validation). `header` returns a header's value by its
    /// name in lower case. Headers of unmarked parameters are ignored.
    ///
    /// # Errors
    /// The first mismatch.
    pub fn check<'h>(
        &self,
        tool: &str,
        frame: &[u8],
        arguments: Option<&Span>,
        header: impl Fn(&str) -> Option<&'h [u8]>,
    ) -> Result<(), Mismatch> {
        for param in self.of(tool) {
            let values = arguments.map(|arguments| param.find(frame, arguments)).unwrap_or_default();
            let name = || param.header.clone();
            match (values.is_empty(), header(&param.header)) {
                (true, None) => {}
                (true, Some(_)) => return Err(Mismatch::Unexpected(name())),
                (false, None) => return Err(Mismatch::Missing(name())),
                (false, Some(given)) => {
                    let given = decode(given).map_err(|_| Mismatch::Undecodable(name()))?;
                    if !values.iter().all(|value| param.agrees(frame, value, &given)) {
                        return Err(Mismatch::Different(name()));
                    }
                }
            }
        }
        Ok(())
    }
}

impl HeaderParam {
    /// Returns every value that a child may read as the parameter: some parsers ignore the case of names, and of
    /// duplicate names some use the first and some the last. Null counts as absent.
    fn find(&self, frame: &[u8], arguments: &Span) -> Vec<Span> {
        let mut at = vec![arguments.clone()];
        for (name, only_exact) in self.path.iter().zip(&self.only_exact) {
            let is_named = |key: &Span| {
                let key = text(frame, key);
                key == *name || (!only_exact && same_letters(&key, name))
            };
            let below = at.into_iter().flat_map(|object| members(frame, object));
            at = below.filter(|(key, _)| is_named(key)).map(|(_, value)| value).collect();
        }
        at.retain(|value| frame[value.start] != b'n');
        at
    }

    /// Returns whether a decoded header matches a value in the body. A value of the wrong type matches its own JSON
    /// text; the child has to refuse it.
    fn agrees(&self, frame: &[u8], value: &Span, header: &str) -> bool {
        let raw = &frame[value.clone()];
        match (raw[0], self.kind) {
            (b'"', _) => text(frame, value) == header,
            (_, ParamKind::Integer) if raw != header.as_bytes() => {
                let body = std::str::from_utf8(raw).ok().and_then(whole_number);
                body.is_some() && body == whole_number(header)
            }
            _ => raw == header.as_bytes(),
        }
    }
}

/// Returns the value of a decimal number if it is an integer: `42`, `42.0` and `4.2e1` are equal. The revision allows
/// at most 2^53 - 1 either way, so a double is exact.
fn whole_number(text: &str) -> Option<i64> {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() <= LARGEST).then_some(number as i64)
}

/// Returns all marked parameters of a schema; `None` if a mark is invalid.
fn marked(frame: &[u8], schema: Span) -> Option<Vec<HeaderParam>> {
    let mut found = Vec::new();
    collect(frame, schema, &mut Way::default(), &mut found)?;
    let mut seen = HashSet::new();
    found.iter().all(|param| seen.insert(&param.header)).then_some(found)
}

/// Returns whether two names are equal under Unicode case folding.
fn same_letters(one: &str, other: &str) -> bool {
    let fold = |c: char| c.to_uppercase().flat_map(char::to_lowercase);
    one.chars().flat_map(fold).eq(other.chars().flat_map(fold))
}

/// The path to a part of a schema.
#[derive(Default)]
struct Way {
    path: Vec<String>,
    only_exact: Vec<bool>,
}

/// Collects marks below `properties`. Other keywords do not determine where a value is.
fn collect(frame: &[u8], schema: Span, way: &mut Way, found: &mut Vec<HeaderParam>) -> Option<()> {
    if way.path.len() > DEEPEST {
        return None;
    }
    for (key, value) in members(frame, schema.clone()) {
        match text(frame, &key).as_ref() {
            "properties" => {
                let names: Vec<_> =
                    members(frame, value.clone()).map(|(name, _)| text(frame, &name).into_owned()).collect();
                for ((_, property), name) in members(frame, value).zip(&names) {
                    let has_twin = |other: &String| other != name && same_letters(other, name);
                    // Only a marked property is worth comparing with all names.
                    let is_marked = memchr::memmem::find(&frame[property.clone()], b"x-mcp-header").is_some();
                    way.only_exact.push(is_marked && names.iter().any(has_twin));
                    way.path.push(name.clone());
                    collect(frame, property, way, found)?;
                    way.path.pop();
                    way.only_exact.pop();
                }
            }
            "x-mcp-header" => found.push(param(frame, &schema, &value, way)?),
            // These contain data, not schemas.
            "default" | "const" | "enum" | "examples" => {}
            // A mark below any other keyword makes the tool invalid.
            _ if memchr::memmem::find(&frame[value], b"\"x-mcp-header\"").is_some() => return None,
            _ => {}
        }
    }
    Some(())
}

fn param(frame: &[u8], schema: &Span, mark: &Span, way: &Way) -> Option<HeaderParam> {
    let kind = match string_member(frame, schema, "type")?.as_ref() {
        "string" => ParamKind::String,
        "integer" => ParamKind::Integer,
        "boolean" => ParamKind::Boolean,
        _ => return None,
    };
    let name = (frame[mark.start] == b'"').then(|| text(frame, mark))?;
    let valid = !name.is_empty() && name.bytes().all(is_tchar) && !way.path.is_empty();
    valid.then(|| HeaderParam {
        header: format!("mcp-param-{}", name.to_ascii_lowercase()),
        path: way.path.clone(),
        only_exact: way.only_exact.clone(),
        kind,
    })
}

/// Returns whether the byte is a `tchar` (RFC 9110 §5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
