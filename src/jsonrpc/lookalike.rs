//! Names of members that some parsers take for other names: Go's ignore case, and those of C end at a NUL. A client that
//! sends both could make a server see another message than proxyrunner did.

use std::borrow::Cow;

/// The members of a message.
pub(super) const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// The members of `params` that decide whom or what a message concerns.
pub(super) const PARAMS: &[&str] = &[
    "_meta",
    "name",
    "uri",
    "arguments",
    "cursor",
    "ref",
    "notifications",
    "requestId",
    "progressToken",
    "taskId",
    "task",
    "requestState",
    "inputResponses",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "level",
];
/// The members of `_meta` that proxyrunner reads or writes. Those of trace context are hints only.
pub(super) const META: &[&str] = &[
    "progressToken",
    "proxyrunner/identity",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/subscriptionId",
    "io.modelcontextprotocol/related-task",
];

/// Returns the name that some parser takes `key` for, although it is another one.
pub(super) fn lookalike(key: &[u8], names: &'static [&'static str]) -> Option<&'static str> {
    // Nearly all keys are names themselves, and no name is a lookalike of another.
    if names.iter().any(|name| *key == *name.as_bytes()) {
        return None;
    }
    names.iter().find(|name| reads_as(key, name)).copied()
}

/// Returns whether some parser takes a key for this name: without case, by Unicode's simple folding, which maps `ſ` to `s`
/// and the Kelvin sign to `k`; or up to a NUL.
pub(crate) fn reads_as(key: &[u8], name: &str) -> bool {
    let Some(first) = key.first() else { return false };
    // Nearly all keys differ in their first letter already.
    if first.is_ascii() && !first.eq_ignore_ascii_case(&name.as_bytes()[0]) {
        return false;
    }
    if key == name.as_bytes() {
        return true;
    }
    let key = key.split(|byte| *byte == 0).next().unwrap_or_default();
    // Each letter of a name has at most three bytes in any case.
    if key.len() < name.len() || key.len() > 3 * name.len() {
        return false;
    }
    folded(&String::from_utf8_lossy(key)) == folded(name)
}

/// Returns the text without differences of case.
pub(crate) fn folded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    // Its lower case has a combining dot, but not to parsers that compare character by character.
    let text = text.chars().map(|letter| if letter == 'İ' { 'i' } else { letter });
    text.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use crate::jsonrpc::scan;

    #[test]
    fn members_that_some_server_reads_as_others_are_found() {
        for (members, found) in [
            (r#""method":"x""#, None),
            (r#""method":"x","methods":1,"i":1,"metho":2,"":3"#, None),
            (
                r#""method":"x","params":{"name":"a","names":1,"arguments":{"Name":1},"_meta":{"x/Name":1}}"#,
                None,
            ),
            (r#""method":"x","ID":2"#, Some("id")),
            (r#""method":"x","İD":2"#, Some("id")),
            (r#""method":"x","ıd":2"#, Some("id")),
            (r#""method":"x","Method":"y""#, Some("method")),
            (r#""method":"x","\u004dethod":"y""#, Some("method")),
            (r#""method":"x","method\u0000":"y""#, Some("method")),
            (r#""method":"x","param\u017f":{}"#, Some("params")),
            (r#""method":"x","Result":{}"#, Some("result")),
            (r#""result":{},"Method":"tools/call""#, Some("method")),
            (r#""error":{},"PARAMS":{}"#, Some("params")),
            (r#""method":"x","params":{"TaskId":1}"#, Some("taskId")),
            (r#""method":"x","params":{"requestid":1}"#, Some("requestId")),
            (r#""method":"x","params":{"_META":{}}"#, Some("_meta")),
            (r#""method":"x","params":{"name\u0000x":1}"#, Some("name")),
            (r#""method":"x","params":{"_meta":{"ProgressToken":1}}"#, Some("progressToken")),
            (r#""method":"x","params":{"_meta":{"PROXYRUNNER/identity":1}}"#, Some("proxyrunner/identity")),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,{members}}}"#);
            assert_eq!(scan(text.as_bytes()).expect(&text).lookalike, found, "{text}");
        }
    }
}
