//! Splits a stream of manifests into documents and reads each into a tree.
//!
//! Documents are split by their `---` lines, as kubectl does. A document that is not injected is printed from its source.

use super::tree::{Map, Scalar, Value};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

/// Maximum depth of nesting.
pub(super) const DEPTH: usize = 64;
/// Maximum length of a key, in bytes. A longer one could not be written before its colon.
const KEY: usize = 1000;

/// One document of a stream.
#[derive(Debug)]
pub struct Document<'a> {
    /// The text, with its `---` line.
    pub source: &'a str,
    /// The lines before the content: comments, directives and `---`.
    pub header: String,
    /// The line on which it begins.
    pub line: u64,
    /// The content, if there is any.
    pub content: Option<Value>,
    /// The first construct that a rewritten document could not keep.
    pub unkept: Option<Unkept>,
}

/// A construct of YAML that the tree does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unkept {
    /// The line on which it stands.
    pub line: u64,
    /// What it is, such as `an anchor`.
    pub what: &'static str,
}

/// A text that cannot be read as YAML, and the line on which that is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line.
    pub line: u64,
    /// Whether the text is YAML, but nested more deeply than the limit.
    pub is_too_deep: bool,
}

/// Reads the documents of a text.
///
/// # Errors
/// [`Malformed`] if one of them is not YAML.
pub fn documents(text: &str) -> Result<Vec<Document<'_>>, Malformed> {
    split(text).into_iter().map(|(source, line)| document(source, line)).collect()
}

/// Returns the part of each document, with its first line. Comments and directives belong to the document after them.
fn split(text: &str) -> Vec<(&str, u64)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut at, mut number, mut has_begun) = (0, 1, false);
    for line in text.split_inclusive('\n') {
        let length = line.len();
        let line = if at == 0 { without_mark(line) } else { line };
        if after_marker(line).is_some() {
            if has_begun {
                parts.push((&text[start..at], start_line));
                (start, start_line) = (at, number);
            }
            has_begun = true;
        } else if !is_prologue(line) {
            has_begun = true;
        }
        at += length;
        number += 1;
    }
    if start < text.len() {
        parts.push((&text[start..], start_line));
    }
    parts
}

/// Returns a text without the byte order mark at its begin.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Returns what follows `---` on a line that begins a document.
fn after_marker(line: &str) -> Option<&str> {
    line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Returns whether a line is blank, a comment or a directive.
fn is_prologue(line: &str) -> bool {
    line.starts_with('%') || is_blank(line)
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Returns the lines before the content of a document.
fn header(source: &str) -> String {
    let mut header = String::new();
    let mut is_marked = false;
    for line in source.split_inclusive('\n') {
        match after_marker(line) {
            Some(rest) if is_blank(rest) => {
                is_marked = true;
                header.push_str(line);
            }
            Some(_) => return header + "---\n",
            None if is_blank(line) || (!is_marked && is_prologue(line)) => header.push_str(line),
            None => break,
        }
    }
    header
}

fn document(source: &str, first: u64) -> Result<Document<'_>, Malformed> {
    let options = granit_parser::options! { flow_nesting_limit: DEPTH, block_nesting_limit: DEPTH };
    let parser = Parser::new_from_str_with_options(without_mark(source), options);
    let mut reader = Reader { parser, line: first, before: first - 1, unkept: None };
    let mut content = None;
    loop {
        match reader.next()? {
            Event::StreamEnd => break,
            Event::DocumentStart(..) => {
                let begin = reader.next()?;
                if content.replace(reader.value(begin, DEPTH)?).is_some() {
                    return Err(reader.malformed());
                }
            }
            _ => {}
        }
    }
    let content = content.filter(|value: &Value| !value.is_null());
    Ok(Document { source, header: header(without_mark(source)), line: first, content, unkept: reader.unkept })
}

/// Builds the tree of one document from events.
struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// The line of the last event.
    line: u64,
    /// The number of lines before the document.
    before: u64,
    unkept: Option<Unkept>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, Malformed> {
        let event = self.parser.next_event().ok_or(self.malformed())?;
        let (event, span): (Event<'a>, Span) = event.map_err(|error| Malformed {
            line: self.before + (error.marker().line() as u64).max(1),
            is_too_deep: matches!(error.kind(), ErrorKind::RecursionLimitExceeded),
        })?;
        self.line = self.before + (span.start.line() as u64).max(1);
        Ok(event)
    }

    fn malformed(&self) -> Malformed {
        Malformed { line: self.line, is_too_deep: false }
    }

    fn note(&mut self, what: &'static str) {
        self.unkept.get_or_insert(Unkept { line: self.line, what });
    }

    /// Builds the value that begins with an event, with at most `depth` levels.
    fn value(&mut self, begin: Event<'a>, depth: usize) -> Result<Value, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed { is_too_deep: true, ..self.malformed() })?;
        match &begin {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _)
                if *anchor != 0 =>
            {
                self.note("an anchor");
            }
            _ => {}
        }
        match begin {
            Event::Scalar(text, style, _, tag) => {
                let is_text = tag.as_deref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                if tag.is_some() && !is_text {
                    self.note("a tag");
                }
                let is_plain = style == ScalarStyle::Plain && !is_text;
                let scalar = if is_plain { Scalar::without_quotes(&text) } else { Scalar::text(text) };
                Ok(Value::Scalar(scalar))
            }
            Event::SequenceStart(_, _, tag) => {
                if tag.is_some() {
                    self.note("a tag");
                }
                self.list(depth)
            }
            Event::MappingStart(_, _, tag) => {
                if tag.is_some() {
                    self.note("a tag");
                }
                self.map(depth)
            }
            Event::Alias(_) => {
                self.note("an alias");
                Ok(Value::Scalar(Scalar::without_quotes("")))
            }
            _ => Err(self.malformed()),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::List(items)),
                begin => items.push(self.value(begin, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut map = Map::default();
        let mut seen = std::collections::HashSet::new();
        loop {
            let begin = self.next()?;
            if begin == Event::MappingEnd {
                return Ok(Value::Map(map));
            }
            let key = match self.value(begin, depth)? {
                Value::Scalar(key) => key,
                Value::List(_) | Value::Map(_) => {
                    self.note("a key that is not a string");
                    Scalar::text("")
                }
            };
            if key.is_bare && key.text == "<<" {
                self.note("a merge key");
            } else if key.text.len() > KEY {
                self.note("a key of more than 1000 bytes");
            } else if !seen.insert(key.text.clone()) {
                self.note("a key that occurs twice");
            }
            let begin = self.next()?;
            let value = self.value(begin, depth)?;
            map.entries.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Vec<&str> {
        documents(text).expect("YAML").into_iter().map(|document| document.source).collect()
    }

    #[test]
    fn documents_are_split_at_their_markers() {
        assert_eq!(
            sources("a: 1\n---\nb: |\n  ---\n--- # c\nd\n"),
            ["a: 1\n", "---\nb: |\n  ---\n", "--- # c\nd\n"]
        );
        assert_eq!(sources("# x\n\n---\na: 1\n---\n"), ["# x\n\n---\na: 1\n", "---\n"]);
        assert_eq!(sources("%YAML 1.2\n---\na: 1"), ["%YAML 1.2\n---\na: 1"]);
        assert_eq!(sources("a: 1\r\n---\r\nb: 2\r\n"), ["a: 1\r\n", "---\r\nb: 2\r\n"]);
        assert_eq!(sources("\u{feff}{\"a\": 1}"), ["\u{feff}{\"a\": 1}"]);
        assert_eq!(sources("\u{feff}---\na: 1\n---\nb: 2\n"), ["\u{feff}---\na: 1\n", "---\nb: 2\n"]);
        assert_eq!(documents("\u{feff}# c\na: 1\n").expect("YAML")[0].header, "# c\n");
        assert!(sources("").is_empty());
    }

    #[test]
    fn documents_know_their_lines_and_headers() {
        let found = documents("# first\na: 1\n---\n# second\nb: 2\n--- {c: 3}\n").expect("YAML");
        let lines: Vec<_> = found.iter().map(|document| document.line).collect();
        assert_eq!(lines, [1, 3, 6]);
        let headers: Vec<_> = found.iter().map(|document| &*document.header).collect();
        assert_eq!(headers, ["# first\n", "---\n# second\n", "---\n"]);
        let empty = documents("# nothing\n---\n~\n").expect("YAML");
        assert!(empty.iter().all(|document| document.content.is_none()));
    }

    #[test]
    fn malformed_documents_are_refused_with_their_line() {
        for (text, line) in [("a: 1\n---\nb: [", 3), ("a: 1\n---\n\nb: *c\n", 4), ("a: 1\n...\nb: 2\n", 3)] {
            let refusal = documents(text).expect_err(text);
            assert!(refusal.line >= line, "{text}: {refusal:?}");
        }
    }

    #[test]
    fn deep_nesting_is_told_from_malformed_text() {
        for deep in [
            "[".repeat(100) + &"]".repeat(100),
            "- ".repeat(100) + "a",
            "{a: ".repeat(100) + &"}".repeat(100),
            "[".repeat(100_000),
        ] {
            assert_eq!(documents(&deep).expect_err("too deep"), Malformed { line: 1, is_too_deep: true });
        }
        assert!(!documents("[").expect_err("malformed").is_too_deep);
    }

    #[test]
    fn constructs_that_cannot_be_kept_are_noted() {
        for (text, line, what) in [
            ("x: 1\na: &b [1]\n", 2, "an anchor"),
            ("a: &b 1\nc: *b\n", 1, "an anchor"),
            ("a: 1\n<<: {b: 1}\n", 2, "a merge key"),
            ("a: !x 1\n", 1, "a tag"),
            ("? [a]\n: 1\n", 1, "a key that is not a string"),
            ("a: 1\na: 2\n", 2, "a key that occurs twice"),
        ] {
            let found = documents(text).expect(text);
            assert_eq!(found[0].unkept, Some(Unkept { line, what }), "{text}");
        }
        assert_eq!(documents("a: !!str 1\n").expect("YAML")[0].unkept, None);
    }
}
