//! Tests of `era/results.rs`.

use super::*;
use crate::era::fixtures::{edited, response, result_of};
use serde_json::json;

const INFO: &[u8] = br#"{"name":"S","version":"1"}"#;

fn completed(result: &str, method: &str) -> String {
    let (frame, message, span) = response(result);
    let mut edits = Edits::new();
    complete(&frame, &span, method, &Signature::of(Some(INFO)), Hint::default(), &mut edits);
    edited(&frame, &message, edits)
}

fn stripped(text: &str, method: &str, version: &str) -> Result<String, Unknown> {
    let (frame, message) = crate::era::fixtures::scanned(text);
    let mut edits = Edits::new();
    strip(&frame, message.result.as_ref().unwrap(), method, &Version::new(version), &mut edits)?;
    Ok(edited(&frame, &message, edits))
}

#[test]
fn a_legacy_result_is_completed() {
    let meta = json!({keys::SERVER_INFO: {"name": "S", "version": "1"}});
    for (method, result, expected) in [
        (
            "tools/call",
            r#"{"content":[{"type":"text","text":"x"}]}"#,
            json!({"content": [{"type": "text", "text": "x"}], "resultType": "complete", "_meta": meta}),
        ),
        ("completion/complete", "{}", json!({"resultType": "complete", "_meta": meta})),
        (
            "resources/read",
            r#"{"contents":[],"ttlMs":5}"#,
            json!({"contents": [], "resultType": "complete", "ttlMs": 5, "cacheScope": "private", "_meta": meta}),
        ),
        (
            "prompts/list",
            r#"{"prompts":[],"_meta":{"io.modelcontextprotocol/serverInfo":7}}"#,
            json!({"prompts": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": {keys::SERVER_INFO: 7}}),
        ),
        (
            "tools/list",
            r#"{"tools":[{"name":"a","execution":{"taskSupport":"required"},"inputSchema":{"properties":{"execution":{}}}},{"execution":{},"name":"b"}]}"#,
            json!({
                "tools": [{"name": "a", "inputSchema": {"properties": {"execution": {}}}}, {"name": "b"}],
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": meta,
            }),
        ),
        (
            "tools/call",
            r#"{"_meta":{"k":1}}"#,
            json!({"resultType": "complete", "_meta": {"k": 1, keys::SERVER_INFO: {"name": "S", "version": "1"}}}),
        ),
        ("tools/call", r#"{"_meta":"m"}"#, json!({"resultType": "complete", "_meta": "m"})),
        ("tools/call", "[7]", json!([7])),
    ] {
        assert_eq!(result_of(&completed(result, method)), expected, "{result}");
    }
}

#[test]
fn the_childs_own_members_are_not_repeated() {
    let result = r#"{"resultType":"complete","ttlMs":5,"cacheScope":"public","contents":[],"_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#;
    let (frame, ..) = response(result);
    assert_eq!(frame, completed(result, "resources/read"));
}

#[test]
fn the_operators_lifetime_is_used() {
    let (frame, message, span) = response("{}");
    let mut edits = Edits::new();
    complete(
        &frame,
        &span,
        "tools/list",
        &Signature::of(None),
        Hint { ttl_ms: 9, scope: Scope::Public },
        &mut edits,
    );
    assert_eq!(
        result_of(&edited(&frame, &message, edits)),
        json!({"resultType": "complete", "ttlMs": 9, "cacheScope": "public"})
    );
}

#[test]
fn a_modern_result_is_stripped() {
    let full = r#"{"resultType":"complete","tools":[],"ttlMs":1,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{},"k":1}}"#;
    let strip = |text: &str, method| {
        let wrapped = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#);
        result_of(&stripped(&wrapped, method, "2025-11-25").unwrap())
    };
    assert_eq!(strip(full, "tools/list"), json!({"tools": [], "_meta": {"k": 1}}));
    // Other methods have no such members in the revision, so these are the server's own.
    assert_eq!(strip(r#"{"ttlMs":1}"#, "tools/call"), json!({"ttlMs": 1}));
    assert_eq!(strip(r#"{"_meta":{}}"#, "tools/call"), json!({"_meta": {}}));
    assert_eq!(strip(r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#, "x"), json!({}));
    assert_eq!(strip("7", "x"), json!(7));
}

#[test]
fn a_result_of_another_type_is_not_an_answer() {
    for (kind, expected) in [
        (r#""complete""#, ResultType::Complete),
        (r#""input_required""#, ResultType::InputRequired),
        (r#""task""#, ResultType::Other("task".into())),
        ("null", ResultType::Other("null".into())),
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":{kind}}}}}"#);
        let (frame, message) = crate::era::fixtures::scanned(&text);
        assert_eq!(result_type(&frame, &message.result.unwrap()), expected);
        match (stripped(&text, "x", "2025-11-25"), expected) {
            (Ok(_), ResultType::Complete) => {}
            (Err(unknown), expected) => {
                assert_eq!(unknown.is_input_required(), expected == ResultType::InputRequired);
                let said = unknown.to_string();
                assert!(said.starts_with("the server's answer") && said.contains(&unknown.0), "{said}");
            }
            (stripped, expected) => panic!("{stripped:?} is no {expected:?}"),
        }
    }
}

#[test]
fn a_completed_result_is_stripped_to_the_original() {
    for (method, result) in [
        (
            "tools/call",
            r#"{ "content" : [ {"type":"text", "text":"\u00e9 \ud800"} ], "structuredContent":{"n":1e400} }"#,
        ),
        (
            "tools/list",
            r#"{"tools":[{"name":"a", "inputSchema":{"type":"object"},"outputSchema":{"type":"object"}}] , "x":-0.0}"#,
        ),
        ("resources/read", r#"{"contents":[{"uri":"u","text":"t"}],"_meta":{ "k": 12345678901234567890 }}"#),
        (
            "prompts/get",
            r#"{"messages":[{"role":"user","content":{"type":"resource_link","name":"n","uri":"u"}}]}"#,
        ),
        ("completion/complete", "{ }"),
        ("x", "[1, 2]"),
    ] {
        let (frame, ..) = response(result);
        let back = stripped(&completed(result, method), method, "2025-11-25").unwrap();
        assert_eq!(frame, back, "{result}");
    }
}
