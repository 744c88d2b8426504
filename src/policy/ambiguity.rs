//! Messages that two parsers read differently. A child may be written in a language whose parser ignores the case of
//! keys or takes the first of two equal ones: it would see another tool than the policies did.

use crate::jsonrpc::{Message, folded, member, members, reads_as, unescaped};
use std::collections::HashSet;

/// The members of a message, and of its parameters, that decide what it asks for.
const ENVELOPE: [&str; 3] = ["method", "params", "id"];
const PARAMS: [&str; 8] = ["name", "uri", "arguments", "ref", "taskId", "notifications", "task", "cursor"];
/// The parameters whose members decide, too, and those members.
const WITHIN: [(&str, &[&str]); 2] =
    [("ref", &["type", "name", "uri"]), ("notifications", &["resourceSubscriptions", "taskIds"])];

/// Returns the member of a message that could be read as another one, if there is any.
pub(crate) fn ambiguous(frame: &[u8], message: &Message) -> Option<&'static str> {
    let envelope = find(frame, message.object.clone(), &ENVELOPE);
    let params = &message.params.as_ref().map(|params| params.span.clone());
    let found = envelope.or_else(|| find(frame, params.clone()?, &PARAMS));
    found.or_else(|| {
        WITHIN
            .into_iter()
            .find_map(|(name, members)| find(frame, member(frame, params.as_ref()?, name)?, members))
    })
}

/// Returns whether an object anywhere within validated JSON has two members that some parser takes for the same one. One
/// pass, however deep it is.
pub(super) fn is_ambiguous_within(json: &[u8]) -> bool {
    // The names of each open object; `None` for an array.
    let mut open: Vec<Option<HashSet<String>>> = Vec::new();
    let (mut at, mut is_name) = (0, false);
    while let Some(byte) = json.get(at) {
        match byte {
            b'{' => {
                open.push(Some(HashSet::new()));
                is_name = true;
            }
            b'[' => {
                open.push(None);
                is_name = false;
            }
            b'}' | b']' => drop(open.pop()),
            b',' => is_name = matches!(open.last(), Some(Some(_))),
            b'"' => {
                let end = end_of_string(json, at);
                if is_name && let Some(Some(names)) = open.last_mut() {
                    let name = unescaped(&json[at..end]);
                    if !names.insert(folded(&String::from_utf8_lossy(&name)).into_owned()) {
                        return true;
                    }
                }
                is_name = false;
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    false
}

/// Returns the position after the string that begins at `at`.
fn end_of_string(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn find(
    frame: &[u8],
    object: std::ops::Range<usize>,
    names: &'static [&'static str],
) -> Option<&'static str> {
    let mut seen = 0_u32;
    for (key, _) in members(frame, object) {
        let key = unescaped(&frame[key]);
        let Some(at) = names.iter().position(|name| reads_as(&key, name)) else { continue };
        if *key != *names[at].as_bytes() || seen & 1 << at != 0 {
            return Some(names[at]);
        }
        seen |= 1 << at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;

    fn found(text: &str) -> Option<&'static str> {
        let text = text.as_bytes();
        ambiguous(text, &scan(text).expect("a message"))
    }

    #[test]
    fn members_that_differ_in_case_only_are_ambiguous() {
        for (text, member) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}"#, "method"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","PARAMS":{}}"#, "params"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#, "name"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"\u004eame":"b"}}"#, "name"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a","URI":"b"}}"#, "uri"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cur\u017for":"a"}}"#, "cursor"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","argument\u017f":{}}}"#,
                "arguments",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"task\u212a":1,"tas\u212a":1}}"#,
                "task",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{},"arguments":{}}}"#,
                "arguments",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"ref":{"name":"a","Name":"b"}}}"#, "name"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"resourcesubscriptions":["a"]}}}"#,
                "resourceSubscriptions",
            ),
        ] {
            assert_eq!(found(text), Some(member), "{text}");
        }
    }

    #[test]
    fn equal_members_are_found_at_any_depth() {
        for (text, is_ambiguous) in [
            (r#"{"path":"/a","path":"/b"}"#, true),
            (r#"{"path":"/a","p\u0061th":"/b"}"#, true),
            (r#"{"path":"/a","Path":"/b"}"#, true),
            (r#"{"a":[1,{"b":{"c":1,"c":2}}]}"#, true),
            (r#"[{"a":1},{"a":2},{"A":{"a":3}}]"#, false),
            (r#"{"a":"{\"b\":1,\"b\":2}","":1}"#, false),
            (r#"{"a":{"x":1},"b":{"x":1},"a\\\\":1,"x":[]}"#, false),
            (r#"{"a":[{}],"b":{},"A":1}"#, true),
            ("1", false),
        ] {
            assert_eq!(is_ambiguous_within(text.as_bytes()), is_ambiguous, "{text}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(!is_ambiguous_within(deep.as_bytes()));
    }

    #[test]
    fn other_members_are_not() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","names":"b","arguments":{"Name":1}}}"#,
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
