//! Tests of the members, types, outcomes and bounds of events.

use super::*;
use crate::identity::{Means, Principal};
use crate::telemetry::Peer;
use crate::telemetry::evidence::Evidence;
use parking_lot::Mutex;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

fn visitor() -> Arc<Visitor> {
    Arc::new(Visitor {
        peer: Peer::from(SocketAddr::from(([192, 0, 2, 7], 4711))),
        path: "/mcp".into(),
        agent: Some("agent/1".into()),
        request_id: Some("r-1".into()),
    })
}

fn identity(claims: &Value) -> Arc<Identity> {
    let principal = Principal::named("alice").expect("a name");
    let mut identity = Identity::named(principal, Means::Token);
    identity.claims = claims.as_object().cloned().expect("an object");
    identity.subject = "u-1".to_owned();
    identity.issuer = Some("https://id.example".into());
    Arc::new(identity)
}

fn parsed(line: String) -> Value {
    serde_json::from_str(&(line + "}")).expect("JSON")
}

fn message(method: &str, target: Option<&str>, verdict: &Verdict, details: Details, claims: &Value) -> Value {
    let evidence = Evidence { visitor: visitor(), identity: identity(claims), details: Mutex::new(details) };
    let context = Some(Context { trace: [0xab; 16], span: [0xcd; 8], flags: 1 });
    let took = Duration::from_micros(1_500);
    parsed(of_message(&Ended { method, target, evidence: &evidence, context, took, verdict }, "files"))
}

#[test]
fn a_tool_call_has_the_members_of_toolhive() {
    let details = Details {
        id: Some("7".into()),
        server: None,
        session: Some("0a1b2c…".into()),
        revision: Some("2025-11-25".into()),
        client: Some(Arc::new(("inspector".into(), "2.12.0".into()))),
        arguments: Some([0x11; 32]),
        policy: Some("policy0".into()),
        request: Some(r#"{"path":"/a"}"#.to_owned()),
        response: Some("x".repeat(2_000)),
        response_size: Some(42),
    };
    let claims = json!({"name": "Alice", "act": {"iss": "i", "sub": "agent", "act": {"sub": "outer"}}});
    let mut line = message("tools/call", Some("read_file"), &Verdict::Success, details, &claims);
    for key in ["time", "logged_at", "audit_id"] {
        let value = line.as_object_mut().expect("an object").remove(key).expect(key);
        assert!(value.as_str().is_some_and(|text| text.len() >= 30), "{key}: {value}");
    }
    let cut = line["data"].as_object_mut().expect("data").remove("response").expect("a response");
    assert_eq!(cut, "x".repeat(CONTENT));
    assert_eq!(
        line,
        json!({
            "level": "AUDIT",
            "msg": "audit_event",
            "type": "mcp_tool_call",
            "outcome": "success",
            "component": "files",
            "source": {
                "type": "network",
                "value": "192.0.2.7",
                "extra": {"user_agent": "agent/1", "request_id": "r-1", "session_id": "0a1b2c…"},
            },
            "subjects": {
                "user": "Alice",
                "user_id": "u-1",
                "client_name": "inspector",
                "client_version": "2.12.0",
                "issuer": "https://id.example",
                "means": "token",
            },
            "delegation": {"chain": [{"iss": "i", "sub": "agent"}, {"sub": "outer"}]},
            "target": {"endpoint": "/mcp", "method": "tools/call", "name": "read_file", "type": "tool"},
            "metadata": {"extra": {
                "duration_ms": 1.5,
                "transport": "streamable-http",
                "response_size_bytes": 42,
                "jsonrpc_id": 7,
            }},
            "data": {"request": {"path": "/a"}},
            "trace_id": "ab".repeat(16),
            "span_id": "cd".repeat(8),
            "policy_id": "policy0",
            "protocol_version": "2025-11-25",
            "arguments_sha256": "11".repeat(32),
        })
    );
}

#[test]
fn outcomes_and_types_are_those_of_toolhive() {
    let refused = |status| Verdict::Refused { status, code: -32600, message: "no".into() };
    for (method, verdict, kind, outcome) in [
        ("initialize", Verdict::Success, "mcp_initialize", "success"),
        ("tools/list", refused(401), "mcp_tools_list", "denied"),
        ("tools/call", refused(403), "mcp_tool_call", "denied"),
        ("resources/list", refused(429), "mcp_resources_list", "failure"),
        ("resources/read", refused(503), "mcp_resource_read", "error"),
        ("prompts/get", Verdict::ToolError, "mcp_prompt_get", "application_error"),
        ("prompts/list", Verdict::Cancelled, "mcp_prompts_list", "failure"),
        ("ping", Verdict::Error { code: -1, message: "e".into() }, "mcp_ping", "application_error"),
        ("logging/setLevel", Verdict::Success, "mcp_logging", "success"),
        ("completion/complete", Verdict::Success, "mcp_completion", "success"),
        ("notifications/roots/list_changed", Verdict::Success, "mcp_roots_list_changed", "success"),
        ("notifications/initialized", Verdict::Success, "mcp_notification", "success"),
        ("tasks/get", Verdict::Success, "mcp_request", "success"),
    ] {
        let line = message(method, None, &verdict, Details::default(), &json!({}));
        assert_eq!((&line["type"], &line["outcome"]), (&json!(kind), &json!(outcome)), "{method}");
    }
    let line = message("tools/call", Some("t"), &refused(403), Details::default(), &json!({}));
    assert_eq!(line["metadata"]["extra"]["jsonrpc_error_code"], -32600);
    assert_eq!(line["metadata"]["extra"]["http_status"], 403);
}

#[test]
fn a_refused_request_without_a_message_names_its_caller() {
    let line = |status| {
        let (visitor, identity) = (&*visitor(), &*Identity::anonymous());
        let (context, took, reason) = (None, Duration::ZERO, Some("expired"));
        let visited = Visited { visitor, identity, method: "GET", status, reason, context, took };
        parsed(of_visit(&visited, "files"))
    };
    let denied = line(401);
    assert_eq!((&denied["type"], &denied["outcome"]), (&json!("http_request"), &json!("denied")));
    assert_eq!(denied["subjects"]["user"], "anonymous");
    assert_eq!(denied["metadata"]["extra"]["reason"], "expired");
    assert_eq!(denied["target"], json!({"endpoint": "/mcp", "method": "GET", "type": "endpoint"}));
    assert_eq!((&line(200)["type"], &line(200)["outcome"]), (&json!("sse_connection"), &json!("success")));
    assert_eq!(line(0)["outcome"], "failure");
}

#[test]
fn a_hostile_message_makes_a_bounded_line() {
    let hostile = "\u{1}\u{202e}\"".repeat(2_000);
    let mut actor = json!({"sub": hostile});
    (0..100).for_each(|_| actor = json!({"sub": hostile, "iss": hostile, "act": actor}));
    let claims = json!({"name": hostile, "act": actor});
    let details = Details {
        id: Some("\"\u{202e}\"".into()),
        session: Some(hostile.as_str().into()),
        revision: Some(hostile.as_str().into()),
        client: Some(Arc::new((hostile.as_str().into(), hostile.as_str().into()))),
        request: Some(json!({"a": hostile}).to_string()),
        response: Some(hostile.clone()),
        ..Details::default()
    };
    let verdict = Verdict::Error { code: i64::MIN, message: hostile.clone().into() };
    let line = message(&hostile, Some(&hostile), &verdict, details, &claims);
    assert!(line.to_string().len() < 16 * 1024, "{}", line.to_string().len());
    let delegation = &line["delegation"];
    assert_eq!((&delegation["omitted"], &delegation["truncated"]), (&json!(91), &json!(true)));
    let malformed = message("ping", None, &verdict, Details::default(), &json!({"act": {"act": 1}}));
    assert_eq!(malformed["delegation"]["malformed"], true);
}

#[test]
#[ignore = "a measurement"]
fn the_cost_of_a_line() {
    let details = || Details {
        id: Some("7".into()),
        session: Some("0a1b2c…".into()),
        revision: Some("2025-11-25".into()),
        client: Some(Arc::new(("inspector".into(), "2.12.0".into()))),
        arguments: Some([0x11; 32]),
        response_size: Some(42),
        ..Details::default()
    };
    let evidence = Evidence {
        visitor: visitor(),
        identity: identity(&json!({"name": "Alice"})),
        details: Mutex::new(details()),
    };
    let context = Some(Context { trace: [0xab; 16], span: [0xcd; 8], flags: 1 });
    let ended = Ended {
        method: "tools/call",
        target: Some("read_file"),
        evidence: &evidence,
        context,
        took: Duration::from_micros(1_500),
        verdict: &Verdict::Success,
    };
    let begun = std::time::Instant::now();
    let mut length = 0;
    for _ in 0..100_000 {
        length = std::hint::black_box(of_message(&ended, "files")).len();
    }
    let built = begun.elapsed() / 100_000;
    let line = of_message(&ended, "files");
    let begun = std::time::Instant::now();
    let mut head = super::super::chain::Head::EMPTY;
    for _ in 0..100_000 {
        let mut line = line.clone();
        head = head.seal(&mut line, None);
    }
    eprintln!("a line of {length} bytes: {built:?} to build, {:?} to seal", begun.elapsed() / 100_000);
}
