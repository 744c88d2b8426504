//! Tests which messages a scan accepts, which parts it finds, and which faults it reports.

use super::codes::{INVALID_REQUEST, PARSE_ERROR};
use super::*;
use crate::jsonrpc::lexer::DEEPEST;

fn at<'a>(text: &'a str, span: &Option<Span>) -> &'a str {
    span.as_ref().map_or("-", |span| &text[span.clone()])
}

fn accepted(text: &str) -> Message {
    scan(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {}", &text[..text.len().min(200)]))
}

/// Returns the code and the readable id of the fault.
fn refused(text: &str) -> (i64, &str) {
    let fault = scan(text.as_bytes()).expect_err(text);
    assert!(fault.at <= text.len(), "{text}");
    (fault.code, fault.id.map_or("-", |span| &text[span]))
}

#[test]
fn a_request_and_all_its_parts() {
    let text = r#" {"jsonrpc":"2.0", "id" : "a\"1" ,"method":"tools/call","params":{ "name":"n","uri":"u",
        "requestId":1,"progressToken":2,"protocolVersion":3,"capabilities":{},"clientInfo":4,"level":5,
        "task":6,"taskId":7,"requestState":8,"inputResponses":9,"arguments":{"name":0,"_meta":0,"id":0},"_meta": {"progressToken":"t",
        "traceparent":"p","tracestate":"s","baggage":"b","io.modelcontextprotocol/protocolVersion":8,
        "io.modelcontextprotocol/clientCapabilities":9,"io.modelcontextprotocol/clientInfo":10,
        "io.modelcontextprotocol/logLevel":11,"io.modelcontextprotocol/subscriptionId":12,
        "io.modelcontextprotocol/related-task":13,"x":14} },"more":[{"id":2}]} "#;
    let message = accepted(text);
    assert_eq!((message.kind, message.multiline), (Kind::Request, true));
    assert_eq!(&text[message.object.clone()], text.trim());
    assert_eq!((at(text, &message.id), at(text, &message.method)), (r#""a\"1""#, r#""tools/call""#));
    assert_eq!((message.result, message.error), (None, None));
    let params = message.params.unwrap();
    assert!(
        text[params.span.clone()].starts_with("{ \"name\"") && text[params.span.clone()].ends_with("14} }")
    );
    let found = [
        &params.name,
        &params.uri,
        &params.request_id,
        &params.progress_token,
        &params.protocol_version,
        &params.capabilities,
        &params.client_info,
        &params.level,
        &params.task,
        &params.task_id,
        &params.request_state,
        &params.input_responses,
    ];
    let expected = ["\"n\"", "\"u\"", "1", "2", "3", "{}", "4", "5", "6", "7", "8", "9"];
    assert_eq!(found.map(|span| at(text, span)), expected);
    let meta = params.meta.unwrap();
    assert_eq!(Some(meta.span.clone()), params.meta_value);
    let found = [
        &meta.progress_token,
        &meta.traceparent,
        &meta.tracestate,
        &meta.baggage,
        &meta.era_version,
        &meta.client_capabilities,
        &meta.client_info,
        &meta.log_level,
        &meta.subscription_id,
        &meta.related_task,
    ];
    let expected = ["\"t\"", "\"p\"", "\"s\"", "\"b\"", "8", "9", "10", "11", "12", "13"];
    assert_eq!(found.map(|span| at(text, span)), expected);
    assert!(!meta.trace_repeated);
}

#[test]
fn kinds_and_their_ids() {
    for (text, kind, id) in [
        (r#"{"jsonrpc":"2.0","id":0,"method":"m"}"#, Kind::Request, "0"),
        (r#"{"jsonrpc":"2.0","id":-0,"method":"m"}"#, Kind::Request, "-0"),
        (
            r#"{"jsonrpc":"2.0","id":-12345678901234567890,"method":"m"}"#,
            Kind::Request,
            "-12345678901234567890",
        ),
        (r#"{"jsonrpc":"2.0","id":"","method":"m","params":{}}"#, Kind::Request, "\"\""),
        (r#"{"jsonrpc":"2.0","method":"m"}"#, Kind::Notification, "-"),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Response, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, Kind::Response, "1"),
        (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, Kind::Response, "-"),
        (r#"{"error":{},"jsonrpc":"2.0"}"#, Kind::Response, "-"),
    ] {
        let message = accepted(text);
        assert_eq!((message.kind, at(text, &message.id)), (kind, id), "{text}");
    }
}

#[test]
fn keys_count_by_their_value() {
    let text = r#"{"json\u0072pc":"\u0032.0","\u0069d":7,"meth\u006fd":"m","params":{"_\u006deta":{"tracepa\u0072ent":1}}}"#;
    let message = accepted(text);
    assert_eq!(at(text, &message.id), "7");
    assert_eq!(at(text, &message.params.unwrap().meta.unwrap().traceparent), "1");
    assert_eq!(refused(r#"{"jsonrpc":"2.0","id":7,"\u0069d":8,"method":"m"}"#), (INVALID_REQUEST, "-"));
    // Case matters, and so does every character.
    accepted(r#"{"jsonrpc":"2.0","id":7,"ID":8,"id ":9,"method":"m"}"#);
}

#[test]
fn not_a_message() {
    for (text, id) in [
        ("1", "-"),
        ("[]", "-"),
        (r#"{"id":5,"method":"m"}"#, "5"),
        (r#"{"jsonrpc":2.0,"id":5,"method":"m"}"#, "5"),
        (r#"{"jsonrpc":"2.1","id":"5","method":"m"}"#, "\"5\""),
        (r#"{"jsonrpc":"2.0","id":5}"#, "5"),
        (r#"{"jsonrpc":"2.0","id":5,"method":1}"#, "5"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"m"}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"m"}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":[],"error":{}}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":null,"result":1}"#, "-"),
        (r#"{"jsonrpc":"2.0","result":1}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":5,"result":1,"error":1}"#, "5"),
        (r#"{"jsonrpc":"2.0","id":5,"result":1,"method":"m"}"#, "5"),
        (r#"{"jsonrpc":"2.0","method":"m","error":1}"#, "-"),
        (r#"{"jsonrpc":"2.0","id":5,"method":"m","params":[]}"#, "5"),
        (r#"{"jsonrpc":"2.0","params":[null],"method":"m","id":5}"#, "5"),
    ] {
        assert_eq!(refused(text), (INVALID_REQUEST, id), "{text}");
    }
}

#[test]
fn relevant_members_must_not_be_duplicated() {
    let request = |more: &str| format!(r#"{{"jsonrpc":"2.0","method":"m","id":5,{more}}}"#);
    for more in [
        r#""jsonrpc":"2.0""#,
        r#""method":"m""#,
        r#""params":{},"params":{}"#,
        r#""params":0,"params":{}"#,
        r#""x":1,"y":2,"\u0078":3"#,
        r#""params":{"name":1,"n\u0061me":1}"#,
        r#""params":{"taskId":1,"taskId":1}"#,
        r#""params":{"_meta":{},"_meta":{}}"#,
        r#""params":{"_meta":1,"_meta":{}}"#,
        r#""params":{"_meta":{},"_meta":1}"#,
        r#""params":{"_meta":{"progressToken":1,"progressToken":1}}"#,
        r#""params":{"_meta":{"io.modelcontextprotocol/logLevel":1,"io.modelcontextprotocol/logLevel":1}}"#,
    ] {
        assert_eq!(refused(&request(more)), (INVALID_REQUEST, "5"), "{more}");
    }
    for more in [
        r#""params":{"arguments":{"a":1,"a":2},"cursor":1,"cursor":2}"#,
        r#""params":{"_meta":{"x":1,"x":2}}"#,
        r#""\ud800":1,"\ud801":2"#,
    ] {
        accepted(&request(more));
    }
}

#[test]
fn repeated_trace_keys_are_noted_and_the_last_is_found() {
    let text = r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"baggage":1,"baggage":2}}}"#;
    let meta = accepted(text).params.unwrap().meta.unwrap();
    assert_eq!((at(text, &meta.baggage), meta.trace_repeated), ("2", true));
}

#[test]
fn meta_of_another_type_is_remembered() {
    let text = r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":null}}"#;
    let params = accepted(text).params.unwrap();
    assert_eq!((at(text, &params.meta_value), params.meta), ("null", None));
}

#[test]
fn every_value_of_rfc_8259_passes() {
    for value in [
        "0",
        "-0",
        "-0.0",
        "1e400",
        "1E+2",
        "0.5e-7",
        "12345678901234567890123",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "\t[1 ,2\r\n]",
        r#"{"a":{"b":[{}]},"a":1}"#,
        r#""""#,
        r#""\ud800""#,
        r#""\uDC00\ud83d\uDE00""#,
        r#""\"\\\/\b\f\n\r\t\u00ff""#,
        "\"\u{a0}\u{200d}\u{3000}\u{feff}\u{2028}\u{7f}\u{1f600}\"",
    ] {
        accepted(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{value}}}"#));
    }
}

#[test]
fn invalid_json_is_refused() {
    for value in [
        "",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "tru",
        "trues",
        "nul",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "[}",
        "{]",
        "[1}",
        "'a'",
        "\"\t\"",
        "\"\n\"",
        "\"\0\"",
        "\"\u{1f}\"",
        r#""\x""#,
        r#""\u12g4""#,
        r#""\u123""#,
        "\"a",
        "\"a\\",
        "1\u{a0}",
        "/*c*/1",
        "\u{feff}1",
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{value}}}"#);
        assert_eq!(refused(&text), (PARSE_ERROR, "1"), "{value}");
    }
    for text in ["", " ", "{", "{\"a\":1}x", "{} {}", "\u{feff}{}", "]", "[1"] {
        assert_eq!(refused(text), (PARSE_ERROR, "-"), "{text}");
    }
}

#[test]
fn every_prefix_of_a_message_is_broken() {
    let text = r#"{"jsonrpc":"2.0","id":1,"params":{"_meta":{"a":[1,{"b":"\u00e9é"}]}},"method":"m"}"#;
    for end in 0..text.len() {
        assert_eq!(scan(&text.as_bytes()[..end]).unwrap_err().code, PARSE_ERROR, "{end}");
    }
    accepted(text);
}

#[test]
fn invalid_utf8_is_found_in_keys_and_values_of_any_length() {
    for padding in 0..20 {
        let continued = [0x80; 8];
        for bad in [
            &b"\xff"[..],
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xe2\x82",
            b"\x80",
            &continued,
        ] {
            let pad = " ".repeat(padding);
            for (before, after) in [("{\"", "\":1}"), ("{\"k\":\"", "\"}")] {
                let rest = if bad.ends_with(b"\x80") { "" } else { &pad };
                let text =
                    [before.as_bytes(), pad.as_bytes(), bad, rest.as_bytes(), after.as_bytes()].concat();
                let fault = scan(&text).unwrap_err();
                assert_eq!((fault.code, fault.at), (PARSE_ERROR, before.len() + padding));
            }
        }
    }
}

#[test]
fn a_text_may_have_blanks_up_to_its_end() {
    for blanks in 0..20 {
        accepted(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, " ".repeat(blanks)));
    }
}

#[test]
fn a_fault_has_a_reason_and_a_position() {
    for (text, reason, at) in [
        (r#"{"jsonrpc":"2.0","id":1"#, "the text ends too early", 23),
        (r#"{"jsonrpc":"2.0","id":tru}"#, "a value was expected", 22),
        (r#"  7"#, "a message is an object", 2),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":7}"#, "params is not an object", 46),
    ] {
        let fault = scan(text.as_bytes()).expect_err(text);
        assert_eq!((fault.reason, fault.at), (reason, at), "{text}");
        assert_eq!(fault.to_string(), format!("{reason} (at byte {at})"));
    }
}

#[test]
fn a_control_character_is_found_at_every_position_of_a_word() {
    for place in 0..40 {
        for byte in [0, 0x1f, b'\n'] {
            let mut text =
                format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "é".repeat(20)).into_bytes();
            let start = text.len() - 42;
            text.splice(start + place / 2 * 2..start + place / 2 * 2, [byte]);
            assert_eq!(scan(&text).unwrap_err().code, PARSE_ERROR, "{place}");
        }
    }
}

#[test]
fn each_level_of_depth_costs_one_bit() {
    for depth in [1, 63, 64, 65, 128, 129, 10_000, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"k\":", "}"), ("[{\"k\":", "}]")] {
            let nested = open.repeat(depth) + "1" + &close.repeat(depth);
            accepted(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{nested}}}"#));
            let crossed =
                format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}]"#, nested.strip_suffix(close).unwrap());
            assert_eq!(refused(&(crossed + "}}")), (PARSE_ERROR, "1"));
        }
    }
}

#[test]
fn depth_is_limited() {
    let within = |levels: usize| {
        let nested = "[".repeat(levels) + "1" + &"]".repeat(levels);
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{nested}}}"#)
    };
    accepted(&within(DEEPEST));
    assert_eq!(refused(&within(DEEPEST + 1)), (PARSE_ERROR, "1"));
}

#[test]
fn the_number_of_unknown_members_is_limited() {
    let with = |count: usize| {
        let more: String = (0..count).map(|n| format!(r#""k{n}":{n},"#)).collect();
        format!(r#"{{{more}"jsonrpc":"2.0","id":1,"method":"m"}}"#)
    };
    accepted(&with(256));
    assert_eq!(refused(&with(257)), (INVALID_REQUEST, "1"));
    assert_eq!(refused(&with(100_000)), (INVALID_REQUEST, "1"));
}

#[test]
fn line_breaks_count_within_the_object_only() {
    let text = r#"{"jsonrpc":"2.0","method":"m\n"}"#;
    assert!(!accepted(&format!("\r\n{text}\n")).multiline);
    for broken in [text.replace(',', ",\n"), text.replace(':', "\r:"), text.replace('}', "\n}")] {
        assert!(accepted(&broken).multiline, "{broken}");
    }
}

#[test]
fn batches_are_cut_into_elements() {
    let text = " [ {\"a\":[1,2]} ,3,\"x,]\"] ";
    let spans = elements(text.as_bytes(), 3).unwrap();
    assert_eq!(
        spans.into_iter().map(|span| &text[span]).collect::<Vec<_>>(),
        ["{\"a\":[1,2]}", "3", "\"x,]\""]
    );
    assert!(is_batch(text.as_bytes()) && !is_batch(b" {}") && !is_batch(b""));
    let code = |text: &str, most| elements(text.as_bytes(), most).unwrap_err().code;
    assert_eq!(code(text, 2), INVALID_REQUEST);
    assert_eq!((code("[]", 9), code("{}", 9)), (INVALID_REQUEST, INVALID_REQUEST));
    for broken in ["[1", "[1,]", "[1]x", "[1,2", "{", ""] {
        assert_eq!(code(broken, 1), PARSE_ERROR, "{broken}");
    }
}

#[test]
fn members_of_an_object() {
    let text = r#"x{ "a" : 1 ,"b":{"c":[]}, "a":"z"}y"#;
    let found: Vec<_> =
        members(text.as_bytes(), 1..text.len() - 1).map(|(key, value)| (&text[key], &text[value])).collect();
    assert_eq!(found, [("\"a\"", "1"), ("\"b\"", "{\"c\":[]}"), ("\"a\"", "\"z\"")]);
    for none in ["{}", "{ }", "[]", "1", "[\"a\"]", "\"a\""] {
        assert_eq!(members(none.as_bytes(), 0..none.len()).count(), 0, "{none}");
    }
}

#[test]
fn the_is_error_flag_of_a_result_is_read() {
    let said = |result: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let message = scan(text.as_bytes()).expect("a message");
        assert_eq!(&text[message.result.expect("a result")], result);
        message.is_error
    };
    assert!(said(r#"{"content":[{"isError":false}],"isError":true}"#));
    assert!(said(r#"{ "\u0069sError" : true , "content" : [] }"#));
    for not in
        [r#"{"isError":false}"#, r#"{"isError":"true"}"#, r#"{"a":{"isError":true}}"#, "{}", "true", "[]"]
    {
        assert!(!said(not), "{not}");
    }
}
