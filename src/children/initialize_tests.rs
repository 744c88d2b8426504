//! Tests the messages of the handshake with well-formed and malformed input.

use super::*;
use crate::session::fixtures::{read, scanned};

fn initialize(params: &str) -> (Charged, Message) {
    scanned(&format!(r#"{{"jsonrpc":"2.0","id":"x","method":"initialize","params":{params}}}"#))
}

/// Returns the revision and the text of the answer to `initialize`.
fn welcomed(result: &'static str, asked: Option<&str>) -> (String, String) {
    let asked = asked.map(Version::new);
    let (version, _, result) = welcome(&Charged::fixed(result.as_bytes()), asked.as_ref());
    (version.as_str().to_owned(), String::from_utf8(result.to_vec()).unwrap())
}

#[test]
fn a_shared_child_gets_no_capabilities() {
    let told = read(&for_shared(WireId::new(5).unwrap(), "2025-11-25"));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["id"], 5);
    assert_eq!(told["params"]["capabilities"], serde_json::json!({}));
    assert_eq!(told["params"]["protocolVersion"], LEGACY_VERSIONS[0]);
}

#[test]
fn an_exclusive_child_gets_its_clients_initialize_without_roots() {
    let forwarded = |params: &str, roots: bool| {
        let (frame, message) = initialize(params);
        read(&for_exclusive(&frame, &message, WireId::new(5).unwrap(), roots, None, &Trace::default()))
    };
    let expected =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":5,"method":"initialize","params":{params}}}"#);
    let params = r#"{"z":1.0,"capabilities":{"roots":{"listChanged":true},"sampling":{}}}"#;
    assert_eq!(forwarded(params, true), expected(params));
    assert_eq!(forwarded(params, false), expected(r#"{"z":1.0,"capabilities":{"sampling":{}}}"#));
    let escaped = r#"{"capabilities":{"r\u006fots":{}, "roots" : {}}}"#;
    assert_eq!(forwarded(escaped, false), expected(r#"{"capabilities":{}}"#));
    for odd in
        ["{}", r#"{"capabilities":null}"#, r#"{"capabilities":["roots"]}"#, r#"{"capabilities":"roots"}"#]
    {
        assert_eq!(forwarded(odd, false), expected(odd));
    }
}

#[test]
fn a_capability_is_declared_by_a_member_that_is_not_null() {
    let sampling = |params: &str| {
        let (frame, message) = initialize(params);
        declares(&frame, &message, "sampling")
    };
    assert!(sampling(r#"{"capabilities":{"sampling":{}}}"#));
    assert!(sampling(r#"{"capabilities":{"\u0073ampling":{"tools":{}}}}"#));
    for none in [
        "{}",
        r#"{"sampling":{}}"#,
        r#"{"capabilities":{}}"#,
        r#"{"capabilities":{"sampling":null}}"#,
        r#"{"capabilities":{"experimental":{"sampling":{}}}}"#,
        r#"{"capabilities":["sampling"]}"#,
        r#"{"capabilities":"sampling"}"#,
    ] {
        assert!(!sampling(none), "{none}");
    }
}

#[test]
fn a_revision_is_a_string() {
    let asked = |params: &str| {
        let (frame, message) = initialize(params);
        requested_version(&frame, &message).map(|version| version.as_str().to_owned())
    };
    assert_eq!(asked(r#"{"protocolVersion":"2025-0\u0036-18"}"#).unwrap(), "2025-06-18");
    assert_eq!(asked(r#"{"protocolVersion":20250618}"#), None);
    assert_eq!(asked("{}"), None);
    for odd in ["{}", "[]", "null", r#""protocolVersion""#, r#"{"protocolVersion":1}"#] {
        assert_eq!(negotiated_version(odd.as_bytes(), &(0..odd.len())), None, "{odd}");
    }
}

#[test]
fn a_client_gets_its_revision_unless_the_child_is_older() {
    let negotiated = |own, asked| welcomed(own, asked).0;
    let new = r#"{"protocolVersion":"2025-11-25"}"#;
    for known in LEGACY_VERSIONS {
        assert_eq!(negotiated(new, Some(known)), known);
    }
    assert_eq!(negotiated(new, Some("2099-01-01")), "2025-11-25");
    assert_eq!(negotiated(new, Some("1.0")), "2025-11-25");
    assert_eq!(negotiated(new, None), "2025-11-25");
    let old = r#"{"protocolVersion":"2025-03-26"}"#;
    assert_eq!(negotiated(old, Some("2025-11-25")), "2025-03-26");
    assert_eq!(negotiated(old, Some("2024-11-05")), "2024-11-05");
    assert_eq!(negotiated("{}", Some("2025-06-18")), "2025-06-18");
    assert_eq!(negotiated("{}", None), LEGACY_VERSIONS[0]);
}

#[test]
fn a_client_gets_the_childs_own_result_without_tasks() {
    let own = r#"{ "n" : 1.0, "capabilities":{"t\u0061sks":{"list":{}},"tools":{"listChanged":true}},
        "protocolVersion":"2025-11-25", "instructions":"\u00e9 \/ é" }"#;
    let (_, result) = welcomed(own, Some("2025-06-18"));
    assert_eq!(
        result,
        r#"{"n":1.0,"capabilities":{"tools":{"listChanged":true}},"protocolVersion":"2025-06-18","instructions":"\u00e9 \/ é"}"#
    );
    for odd in [r#"{"capabilities":[]}"#, r#"{"capabilities":null}"#, "{}"] {
        assert_eq!(welcomed(odd, None).1, odd);
    }
}
