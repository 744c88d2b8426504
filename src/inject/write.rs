//! Writes a tree as YAML in block style, as `kubectl` does. Reading the result gives the same tree.

use super::tree::{Map, Scalar, Value, is_ambiguous};

/// Returns the text of one document, without `---`.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Map(map) if !map.entries.is_empty() => write_map(&mut out, map, 0, false),
        Value::List(items) if !items.is_empty() => write_list(&mut out, items, 0, false),
        Value::Map(_) => out.push_str("{}\n"),
        Value::List(_) => out.push_str("[]\n"),
        Value::Scalar(scalar) => {
            out.push_str(&one_line(scalar));
            out.push('\n');
        }
    }
    out
}

/// Writes the entries of a map. The first one continues the line if `is_inline`.
fn write_map(out: &mut String, map: &Map, indent: usize, is_inline: bool) {
    for (at, (key, value)) in map.entries.iter().enumerate() {
        if at > 0 || !is_inline {
            pad(out, indent);
        }
        out.push_str(&one_line(key));
        out.push(':');
        match value {
            Value::Map(map) if !map.entries.is_empty() => {
                out.push('\n');
                write_map(out, map, indent + 2, false);
            }
            Value::List(items) if !items.is_empty() => {
                out.push('\n');
                write_list(out, items, indent, false);
            }
            _ => {
                out.push(' ');
                write_leaf(out, value, indent + 2);
            }
        }
    }
}

/// Writes the items of a list. The first one continues the line if `is_inline`.
fn write_list(out: &mut String, items: &[Value], indent: usize, is_inline: bool) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 || !is_inline {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Map(map) if !map.entries.is_empty() => write_map(out, map, indent + 2, true),
            Value::List(items) if !items.is_empty() => write_list(out, items, indent + 2, true),
            _ => write_leaf(out, item, indent + 2),
        }
    }
}

/// Writes a scalar or an empty collection, and ends the line.
fn write_leaf(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Map(_) => out.push_str("{}\n"),
        Value::List(_) => out.push_str("[]\n"),
        Value::Scalar(scalar) if !scalar.is_bare && fits_a_block(&scalar.text) => {
            let is_closed = scalar.text.ends_with('\n');
            out.push_str(if is_closed { "|\n" } else { "|-\n" });
            for line in scalar.text.lines() {
                if !line.is_empty() {
                    pad(out, indent);
                }
                out.push_str(line);
                out.push('\n');
            }
        }
        Value::Scalar(scalar) => {
            out.push_str(&one_line(scalar));
            out.push('\n');
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn one_line(scalar: &Scalar) -> String {
    if scalar.is_bare || is_plain(&scalar.text) { scalar.text.clone() } else { quoted(&scalar.text) }
}

/// Returns whether a text of several lines can be written as it is.
fn fits_a_block(text: &str) -> bool {
    let sound = |line: &str| {
        line.is_empty()
            || (line.trim() == line.trim_start() && !line.starts_with('\t') && !line.trim().is_empty())
    };
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.lines().all(sound)
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
}

/// Returns whether a text means the same string without quotes, in every version of YAML.
fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = match chars.next() {
        Some('-') => chars.next().is_some_and(|next| next.is_ascii_alphanumeric() || next == '-'),
        Some(first) => first.is_alphanumeric() || "/_.$(".contains(first),
        None => false,
    };
    begins
        && !is_ambiguous(text)
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c == ' ' || c.is_ascii_graphic() || (c.is_alphanumeric() && is_printable(c)))
}

/// Returns a text as a JSON string, which is also a YAML string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            // Every character beyond the basic plane is printable.
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Returns whether YAML allows a character without an escape, and no version of it reads the character as a line break.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::super::read::documents;
    use super::*;

    fn read(text: &str) -> Value {
        let mut found = documents(text).unwrap_or_else(|error| panic!("{error:?}:\n{text}"));
        found.remove(0).content.expect("a value")
    }

    /// Strings that are easily written wrongly.
    const HARD: [&str; 46] = [
        "",
        " ",
        "a",
        "a b",
        " a",
        "a ",
        "no",
        "No",
        "~",
        "null",
        "true",
        "007",
        "1e3",
        "0x1F",
        "1.5",
        "-1",
        ".inf",
        "12:30",
        "2001-01-01",
        "-",
        "- a",
        "--",
        "---",
        "--- a",
        "...",
        "?",
        "? a",
        ":",
        "a:",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'a'",
        "\"a\"",
        "[a]",
        "{a}",
        "a,b",
        "<<",
    ];
    const HARD_LINES: [&str; 18] = [
        "a\nb",
        "a\nb\n",
        "a\nb\n\n",
        "\na",
        " a\nb",
        "a\n b\n",
        "a\n\nb",
        "a\n  \nb",
        "a \nb",
        "a\n\tb",
        "\ta",
        "a\tb",
        "a\r\nb",
        "a\u{85}b",
        "a\u{2028}b",
        "\u{feff}a",
        "\u{0}\u{7f}",
        "é😀\n漢\n",
    ];

    #[test]
    fn every_string_is_read_again_as_it_was() {
        for text in HARD.into_iter().chain(HARD_LINES) {
            let item = Value::text(text);
            let tree = Value::Map(Map {
                entries: vec![
                    (Scalar::text(text), item.clone()),
                    (Scalar::text("list of it"), Value::List(vec![item.clone(), Value::List(vec![item])])),
                ],
            });
            let written = document(&tree);
            assert_eq!(read(&written), tree, "{text:?}:\n{written}");
            let alone = Value::text(text);
            assert_eq!(read(&document(&alone)), alone, "{text:?}");
        }
    }

    #[test]
    fn values_without_quotes_stay_without() {
        let text = "a: 007\nb: yes\nc: null\nd: 1e3\non: 2001-12-14 21:59:43.10 -5\ne: \"007\"\n";
        assert_eq!(document(&read(text)), text);
        assert_eq!(document(&read("a: ~\nb:\nc: ''\n")), "a: ~\nb: ~\nc: \"\"\n");
    }

    #[test]
    fn collections_are_written_in_blocks() {
        let text = "a:\n- b: 1\n  c:\n  - - x\n    - y\n  - {}\n- []\nd:\n  e: |\n    one\n\n    two\n  f: |-\n    one\n      two\n";
        assert_eq!(document(&read(text)), text);
        assert_eq!(document(&read("{a: [b, {c: d}], e: []}")), "a:\n- b\n- c: d\ne: []\n");
        for empty in ["{}\n", "[]\n"] {
            assert_eq!(document(&read(empty)), empty);
        }
    }

    /// Trees from a seed instead of a table: every shape with every hard string.
    #[test]
    fn random_trees_are_read_again_as_they_were() {
        fn tree(random: &mut fastrand::Rng, depth: usize) -> Value {
            let hard = |random: &mut fastrand::Rng| {
                let all = HARD.len() + HARD_LINES.len();
                *HARD.iter().chain(&HARD_LINES).nth(random.usize(..all)).expect("in range")
            };
            match random.u8(..if depth == 0 { 2 } else { 4 }) {
                0 => Value::text(hard(random)),
                1 => Value::Scalar(Scalar::without_quotes(
                    ["", "1", "no", "-.5", "0x1F", "true"][random.usize(..6)],
                )),
                2 => Value::List((0..random.usize(..4)).map(|_| tree(random, depth - 1)).collect()),
                _ => {
                    let mut map = Map::default();
                    for _ in 0..random.usize(..4) {
                        map.set(hard(random), tree(random, depth - 1));
                    }
                    Value::Map(map)
                }
            }
        }
        for seed in 0..3000 {
            let tree = Value::List(vec![tree(&mut fastrand::Rng::with_seed(seed), 4)]);
            let written = document(&tree);
            assert_eq!(read(&written), tree, "seed {seed}:\n{written}");
        }
    }
}
