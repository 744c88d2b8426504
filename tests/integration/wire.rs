//! The wire format: refused bodies, preserved bytes and ids, size limits and trace context.

use crate::support::{Server, tool_call};
use serde_json::{Value, json};

/// Posts a body within a session; returns the status, the error code and the id of the response.
fn refused(server: &Server, session: &str, body: impl AsRef<[u8]>) -> (u16, i64, Value) {
    let response = server.post(&[("Mcp-Session-Id", session)], body);
    let error = response.json();
    (response.status, response.code(), error["id"].clone())
}

#[test]
fn invalid_messages_are_refused_with_their_id_if_readable() {
    let server = Server::with().asked_nothing().start();
    let session = server.session();
    let cases: &[(&[u8], i64, Value)] = &[
        (b"", -32700, Value::Null),
        (b"hello", -32700, Value::Null),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping""#, -32700, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping"}}"#, -32700, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#, -32700, json!(1)),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\xffng\"}", -32700, json!(1)),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\nng\"}", -32700, json!(1)),
        (b"\"text\"", -32600, Value::Null),
        (b"7", -32600, Value::Null),
        (b"null", -32600, Value::Null),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600, json!(1)),
        (br#"{"id":"a","method":"ping"}"#, -32600, json!("a")),
        (br#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, -32600, json!(1)),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, Value::Null),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600, Value::Null),
        (br#"{"jsonrpc":"2.0","id":1e3,"method":"ping"}"#, -32600, Value::Null),
        (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600, Value::Null),
        (br#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, -32600, Value::Null),
    ];
    for (body, code, id) in cases {
        let told = String::from_utf8_lossy(body);
        assert_eq!(refused(&server, &session.id, body), (400, *code, id.clone()), "{told}");
    }
    assert_eq!(session.child_read().len(), 3, "only the probe and the handshake reached the child");
}

#[test]
fn duplicate_keys_are_refused_even_if_escaped() {
    let server = Server::start("");
    let session = server.session();
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","n\u0061me":"leave"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{},"_m\u0065ta":{}}}"#,
    ] {
        let (status, code, _) = refused(&server, &session.id, body);
        assert_eq!((status, code), (400, -32600), "{body}");
    }
}

#[test]
fn errors_for_requests_without_a_readable_id_have_no_id_member() {
    let server = Server::start("");
    let session = server.session();
    let told =
        server.post(&[("Mcp-Session-Id", &session.id)], r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#);
    assert_eq!(told.header("content-type"), Some("application/json"));
    assert!(!told.text().contains("\"id\""), "{}", told.text());
}

#[test]
fn ids_come_back_byte_for_byte() {
    let server = Server::start("");
    let session = server.session();
    for id in [
        "0",
        "-1",
        "-0",
        "\"\"",
        "\"7\"",
        "7",
        "9007199254740993",
        "18446744073709551616123",
        r#""\u0031\ud83d\ude00""#,
        "\"\u{200d}\u{3000}\"",
    ] {
        for method in ["tools/list", "ping", "logging/setLevel"] {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"level":"info"}}}}"#);
            let answer = session.post(&body).text();
            assert!(
                answer.contains(&format!(r#""id":{id},"#)) || answer.contains(&format!(r#""id": {id},"#)),
                "{answer}"
            );
        }
    }
}

/// A typed model would lose these: key order, big numbers, spaces, escapes and unknown fields.
#[test]
fn payloads_are_preserved_byte_for_byte_in_both_directions() {
    let server = Server::start("");
    let session = server.session();
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let long = format!(r#"{{"long":"{}"}}"#, "\u{a0}x".repeat(100_000));
    for payload in [
        r#"{"b":1,"a":2,"b ":3,"":4}"#,
        r#"{"repeated":1,"repeated":2}"#,
        "{\"nbsp\":\"a\u{a0}b\",\"zwj\":\"👩\u{200d}👩\u{200d}👧\",\"ideographic\":\"\u{3000}\",\"bom\":\"\u{feff}\"}",
        r#"{"lone":"\ud800","pair":"\ud83d\ude00","solidus":"\/","nul":"\u0000","line":"\n","sep":"\u2028"}"#,
        "{\"sep\":\"\u{2028}\u{2029}\u{85}\",\"del\":\"\u{7f}\"}",
        r#"{"ints":[12345678901234567890,-9223372036854775809,9007199254740993]}"#,
        r#"{"floats":[1e400,-0.0,0.1,1E+2,1.10,5e-324,123456789012345678901234567890.5]}"#,
        r#"{  "spaced" :	[ 1 ,2 ] }"#,
        r#"{"_unknown":{"$ref":"x"},"jsonrpc":"1.0","id":5,"method":"x","progressToken":1}"#,
        &deep,
        &long,
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"é","method":"tools/call","extra":1,"params":{{"name":"echo","arguments":{payload}}}}}"#
        );
        let answer = session.post(&body).text();
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"é","result":{payload}}}"#);
        assert!(answer == expected, "{}\nbecame\n{}", shown(&expected), shown(&answer));
    }
}

fn shown(text: &str) -> String {
    text.chars().take(400).collect()
}

#[test]
fn a_pretty_printed_body_reaches_the_child_on_one_line() {
    let server = Server::start("");
    let session = server.session();
    let pretty = "\r\n{\n  \"jsonrpc\": \"2.0\",\r\n  \"id\": 5,\n  \"method\": \"tools/call\",\n  \"params\": {\n    \
                  \"name\": \"sleep\",\n    \"arguments\": {\n      \"ms\": 0,\n      \"text\": \"a\\nb\"\n    }\n  }\n}\n";
    let answer = session.post(pretty).answer();
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 5, "result": {"ms": 0, "text": "a\nb"}}));
    let frames = session.result("recall", json!({}))["frames"].clone();
    let whole =
        frames.as_array().unwrap().iter().any(|frame| frame.as_str().unwrap().contains(r#""text": "a\nb""#));
    assert!(whole, "{frames}");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_complete() {
    let server = Server::start("--max-body 10000");
    let headers = crate::support::Connection::post_headers(&[("Content-Length", "1000000000")]);
    let mut announced = server.connect();
    announced.head("POST", "/mcp", &headers);
    let refused = announced.response();
    assert_eq!((refused.status, refused.code()), (413, -32600));
    assert!(refused.text().contains("--max-body"), "{}", refused.text());

    let headers = crate::support::Connection::post_headers(&[("Transfer-Encoding", "chunked")]);
    let mut chunked = server.connect();
    chunked.head("POST", "/mcp", &headers);
    for _ in 0..3 {
        // The server may close the connection once the limit is exceeded.
        let _ = chunked.chunk(&[b' '; 4_000]);
    }
    let refused = chunked.response();
    assert_eq!((refused.status, refused.code()), (413, -32600));
    assert_eq!(server.session().call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

#[test]
fn a_body_of_exactly_the_limit_is_accepted_in_any_chunks() {
    let server = Server::start("--max-body 10000");
    let session = server.session();
    let mut body = tool_call(1, "sleep", &json!({"ms": 0}));
    body += &" ".repeat(10_000 - body.len());
    assert_eq!(session.post(&body).answer()["result"]["ms"], 0);
    body += " ";
    assert_eq!(session.post(&body).status, 413);
    body.truncate(10_000);
    let headers = [("Transfer-Encoding", "chunked"), ("Mcp-Session-Id", session.id.as_str())];
    let mut pieces = server.connect();
    pieces.head("POST", "/mcp", &crate::support::Connection::post_headers(&headers));
    for piece in body.as_bytes().chunks(997) {
        pieces.chunk(piece).expect("the chunk is sent");
    }
    pieces.send("0\r\n\r\n");
    assert_eq!(pieces.response().answer()["result"]["ms"], 0);
}

#[test]
fn valid_trace_context_reaches_the_child_and_malformed_does_not() {
    let server = Server::start("");
    let session = server.session();
    let (good, other) = (
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    );
    let meta_at_child = |header: &str, meta: &str| {
        let comma = if meta.is_empty() { "" } else { "," };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{meta}{comma}"name":"sleep","arguments":{{"ms":0}}}}}}"#
        );
        let headers =
            [("Mcp-Session-Id", session.id.as_str()), ("traceparent", header), ("tracestate", "a=1")];
        assert_eq!(server.post(&headers, body).status, 200);
        session.child_read().pop().expect("a frame")["params"]["_meta"].clone()
    };
    assert_eq!(meta_at_child(good, ""), json!({"traceparent": good, "tracestate": "a=1"}));
    assert_eq!(
        meta_at_child(good, r#""_meta":{"x":1}"#),
        json!({"traceparent": good, "tracestate": "a=1", "x": 1})
    );
    let own = format!(r#""_meta":{{"traceparent":"{other}"}}"#);
    assert_eq!(
        meta_at_child(good, &own),
        json!({"traceparent": other}),
        "the context in the message takes precedence"
    );
    let broken = r#""_meta":{"traceparent":"00-xyz","tracestate":"b=2"}"#;
    assert_eq!(meta_at_child(good, broken), json!({"traceparent": good, "tracestate": "a=1"}));
    let to_come = format!("cc{}-\"}}}},\"id\":17,\"x\":{{\"y\":{{\"z\":\"", &good[2..]);
    assert_eq!(meta_at_child(&to_come, "")["traceparent"], *to_come, "the header stays within its string");
    for malformed in
        ["", "00-0", "00-00000000000000000000000000000000-b7ad6b7169203331-01", &good.to_uppercase()]
    {
        assert_eq!(meta_at_child(malformed, ""), Value::Null, "{malformed}");
    }
}
