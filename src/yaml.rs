//! Reads YAML 1.2 into a tree whose scalars keep their text. JSON is YAML, too.

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::collections::HashMap;

/// Maximum depth of nesting.
const DEPTH: usize = 64;
/// Maximum number of nodes, of which aliases can make many.
const NODES: usize = 100_000;

/// A node and the line on which it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The number of the line, from 1.
    pub line: u64,
    /// The value.
    pub value: Value,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// An absent value, or a plain `null` or `~`.
    Null,
    /// The text of a scalar. Without quotes it may be meant as a number or a boolean.
    Text(String),
    /// The items of a sequence.
    List(Vec<Node>),
    /// The entries of a mapping, in their order.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The line on which the key stands.
    pub line: u64,
    /// The key.
    pub key: String,
    /// The value.
    pub node: Node,
}

/// The reason why a text is unusable, without any of its contents, and the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The text is not YAML, or exceeds a limit.
    Malformed(u64),
    /// A mapping has a key twice.
    DuplicateKey(u64),
}

/// Parses a text of at most one document; `None` if it has none.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Unusable> {
    let options = granit_parser::options! { flow_nesting_limit: DEPTH, block_nesting_limit: DEPTH };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, line: 1, anchors: HashMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(document),
            (Event::DocumentStart(..), span) => {
                let first = reader.next()?;
                if document.replace(reader.node(first, DEPTH)?).is_some() {
                    return Err(Unusable::Malformed(line(span)));
                }
            }
            _ => {}
        }
    }
}

/// Builds nodes from events.
struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// The line of the last event.
    line: u64,
    /// The nodes that aliases refer to.
    anchors: HashMap<usize, Node>,
    /// The number of nodes so far, with those of aliases.
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Unusable> {
        let event = self.parser.next_event().ok_or(Unusable::Malformed(self.line))?;
        let (event, span) = event.map_err(|error| Unusable::Malformed(error.marker().line() as u64))?;
        self.line = line(span);
        Ok((event, span))
    }

    /// Builds the node that begins with an event, with at most `depth` levels.
    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Unusable> {
        let line = line(span);
        let depth = depth.checked_sub(1).ok_or(Unusable::Malformed(line))?;
        self.count(1)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let null = is_null(&text, style, tag.as_deref());
                (if null { Value::Null } else { Value::Text(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                // An anchor whose node is not complete yet is within itself.
                let node = self.anchors.get(&anchor).ok_or(Unusable::Malformed(line))?.clone();
                self.count(size(&node))?;
                return Ok(Node { line, ..node });
            }
            _ => return Err(Unusable::Malformed(line)),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.count(size(&node))?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Unusable> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                first => items.push(self.node(first, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Unusable> {
        let (mut entries, mut merged) = (Vec::<Entry>::new(), Vec::new());
        loop {
            let first = self.next()?;
            let is_plain = matches!(first.0, Event::Scalar(_, ScalarStyle::Plain, ..));
            if first.0 == Event::MappingEnd {
                break;
            }
            let Node { line, value: Value::Text(key) } = self.node(first, depth)? else {
                return Err(Unusable::Malformed(self.line));
            };
            let next = self.next()?;
            let node = self.node(next, depth)?;
            if is_plain && key == "<<" {
                merged.extend(merge(node)?);
            } else if entries.iter().any(|entry| entry.key == key) {
                return Err(Unusable::DuplicateKey(line));
            } else {
                entries.push(Entry { line, key, node });
            }
        }
        for entry in merged {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry);
            }
        }
        Ok(Value::Map(entries))
    }

    fn count(&mut self, nodes: usize) -> Result<(), Unusable> {
        self.nodes += nodes;
        if self.nodes > NODES { Err(Unusable::Malformed(self.line)) } else { Ok(()) }
    }
}

/// Returns the entries of `<<`: those of a map, or of the maps of a list, of which the first has precedence.
fn merge(node: Node) -> Result<Vec<Entry>, Unusable> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => items.into_iter().try_fold(Vec::new(), |mut all, item| {
            let Value::Map(entries) = item.value else { return Err(Unusable::Malformed(item.line)) };
            all.extend(entries);
            Ok(all)
        }),
        Value::Null => Ok(Vec::new()),
        Value::Text(_) => Err(Unusable::Malformed(node.line)),
    }
}

fn is_null(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    match tag {
        Some(tag) => tag.is_yaml_core_schema_tag("null"),
        None => style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL"),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Text(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
    }
}

fn line(span: Span) -> u64 {
    span.start.line() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a text's tree as JSON would.
    fn shown(text: &str) -> String {
        fn show(node: &Node) -> String {
            let joined = |items: Vec<String>| items.join(",");
            match &node.value {
                Value::Null => "null".to_owned(),
                Value::Text(text) => format!("{text:?}"),
                Value::List(items) => format!("[{}]", joined(items.iter().map(show).collect())),
                Value::Map(entries) => {
                    let entries = entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.node)));
                    format!("{{{}}}", joined(entries.collect()))
                }
            }
        }
        parse(text).expect("YAML").map_or_else(String::new, |node| show(&node))
    }

    #[test]
    fn scalars_keep_their_text() {
        assert_eq!(
            shown("[007, 1_0, yes, ~, '~', \"\", null, !!str ~, x y]"),
            r#"["007","1_0","yes",null,"~","",null,"~","x y"]"#
        );
        assert_eq!(
            shown("a: b\n  c # d\nk: |\n  x\n  y\nf: >-\n  x\n  y\ne:\n"),
            r#"{a:"b c",k:"x\ny\n",f:"x y",e:null}"#
        );
        assert_eq!(
            shown("\u{feff}{\"a\": [1, true, \"\\u00e9\"], \"b\": {\"c\": -1.50}}"),
            r#"{a:["1","true","é"],b:{c:"-1.50"}}"#
        );
        assert_eq!(shown("%YAML 1.2\n---\na\n...\n"), r#""a""#);
        assert!(["", "# nothing\n", "\n\n"].iter().all(|empty| shown(empty).is_empty()));
    }

    #[test]
    fn aliases_and_merges_are_replaced_by_what_they_name() {
        assert_eq!(shown("a: &x [1]\nb: *x\n"), r#"{a:["1"],b:["1"]}"#);
        assert_eq!(
            shown("base: &b {k: 1, l: 2}\nown: {<<: *b, l: 3}\n"),
            r#"{base:{k:"1",l:"2"},own:{l:"3",k:"1"}}"#
        );
        assert_eq!(shown("<<: [{a: 1}, {a: 2, b: 3}]\n"), r#"{a:"1",b:"3"}"#);
        assert_eq!(shown("'<<': 1\n"), r#"{<<:"1"}"#);
    }

    #[test]
    fn nodes_know_their_lines() {
        let Ok(Some(Node { line: 2, value: Value::Map(entries) })) = parse("# first\na: &x 1\nb:\n  - *x\n")
        else {
            panic!("a map in line 2")
        };
        assert_eq!((entries[0].line, entries[1].line), (2, 3));
        let Value::List(items) = &entries[1].node.value else { panic!("a list") };
        assert_eq!(items[0], Node { line: 4, value: Value::Text("1".to_owned()) });
    }

    #[test]
    fn unusable_texts_are_refused_with_a_line() {
        for (text, place) in [
            ("a: 1\nb: [", 2),
            ("a: 1\nb: *c\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("&a [*a]", 1),
            ("? [a]\n: b\n", 1),
        ] {
            let Err(Unusable::Malformed(line)) = parse(text) else { panic!("{text}: {:?}", parse(text)) };
            assert!(line >= place, "{text}: line {line}");
        }
        assert_eq!(parse("a: 1\nb: {c: 1, c: 2}\n"), Err(Unusable::DuplicateKey(2)));
        assert_eq!(parse("a: 1\nb: 1\n\"a\": 1\n"), Err(Unusable::DuplicateKey(3)));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn aliases_cannot_multiply_without_limit() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{items}]\n");
        }
        assert!(matches!(parse(&text), Err(Unusable::Malformed(_))));
    }
}
