//! Tests that rewriting makes the requested changes, and changes no other byte.

use crate::budget::Charged;
use serde_json::json;

use super::rewrite::*;
use super::*;
use crate::trace_context::Trace;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00";

fn scanned(text: &str) -> (Charged, Message) {
    let bytes = Charged::from(text);
    let message = scan(&bytes).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    (bytes, message)
}

fn string(spliced: Spliced) -> String {
    let joined = spliced.to_vec();
    assert_eq!(joined.len(), spliced.len());
    assert_eq!(spliced.clone().into_iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>(), joined);
    assert_eq!(spliced.flatten().unwrap(), joined);
    String::from_utf8(joined).unwrap()
}

fn for_child(text: &str, trace: &Trace) -> String {
    let (bytes, message) = scanned(text);
    let out = string(request_for_child(&bytes, &message, Some(42), Some(43), trace));
    scan(out.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {out}"));
    out
}

#[test]
fn every_other_byte_stays_unchanged() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let large = "\u{3000}x".repeat(20_000);
    for value in [
        "\"\u{a0}\u{200d}\u{3000}\u{feff}\u{2028}\"",
        r#""\ud800 \u0041 \/ \u00E9""#,
        "12345678901234567890",
        "1e400",
        "-0.0",
        "1.000000000000000000000001",
        "{ \"b\" :1,\t\"a\":2, \"b\":3 }",
        &deep,
        &format!("\"{large}\""),
    ] {
        let text = format!(
            r#"{{ "x\u0079":{value}, "\u0069d" :  "c\u0031", "method":"tools/call","jsonrpc":"2.0",
            "params":{{"arguments":{value},"_meta":{{"k":{value},"progressToken":"tok"}},"y":{value}}}}}"#
        )
        .replace('\n', " ");
        let expected = text.replace(r#""c\u0031""#, "42").replace("\"tok\"", "43");
        let sent = for_child(&text, &Trace::default());
        assert!(sent == expected, "{}", &text[..text.len().min(300)]);
        let (bytes, message) = scanned(&text.replace("\"tok\"", "43"));
        let (sent, rewritten) = scanned(&sent);
        assert!(string(with_id(&sent, &rewritten, &bytes[message.id.unwrap()])).as_bytes() == &bytes[..]);
    }
}

#[test]
fn large_messages_are_sliced_not_copied() {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(100_000));
    let (bytes, message) = scanned(&text);
    let whole = unchanged(&bytes, &message);
    assert_eq!(whole.segments().len(), 1);
    assert_eq!(whole.flatten().unwrap().as_ptr(), bytes.as_ptr());
    let spliced = with_id(&bytes, &message, b"\"abc\"");
    assert_eq!(spliced.segments().len(), 3);
    assert_eq!(spliced.segments()[2].as_ptr(), bytes[message.id.clone().unwrap().end..].as_ptr());
    // An edit at either end, and two adjacent ones, leave no empty piece.
    let mut edits = Edits::new();
    let (start, id) = (message.object.start, message.id.unwrap());
    edits.replace(&(start..start + 1), b"{");
    edits.insert(id.start, b"1");
    edits.delete(&(id.start..id.end));
    edits.replace(&(message.object.end - 1..message.object.end), b"}");
    let spliced = splice(&bytes, &message.object, edits);
    assert_eq!(spliced.segments().len(), 5);
    assert!(spliced.segments().iter().all(|segment| !segment.is_empty()));
    assert_eq!(string(spliced), text);
}

#[test]
fn members_are_added_to_meta_without_a_context() {
    let (bytes, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"a":1}}}"#);
    let trace = Trace::default();
    let meta = Amendment { drop: &[], add: b"\"b\":2" };
    let edits = edits_with(&bytes, &message, &Changes { meta, ..Changes::new(&trace) });
    assert_eq!(
        string(splice(&bytes, &message.object, edits)),
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"b":2,"a":1}}}"#
    );
}

#[test]
fn line_breaks_become_spaces_without_moving_bytes() {
    let text = "\n{\"jsonrpc\":\"2.0\",\r\n \"id\" : 1,\n\"result\":\"\\n\"\r}\n";
    assert!(scan(text.as_bytes()).unwrap().multiline);
    let mut broken = text.as_bytes().to_vec();
    break_no_lines(&mut broken);
    let (bytes, message) = scanned(&String::from_utf8(broken).unwrap());
    assert_eq!(string(unchanged(&bytes, &message)), text.trim().replace(['\n', '\r'], " "));
}

/// Parts of other messages are inserted without copying the long ones.
#[test]
fn long_pieces_are_inserted_without_a_copy() {
    let (bytes, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let result = message.result.clone().unwrap();
    for length in [10, FLAT] {
        let long = Charged::from(vec![b'7'; length]);
        let mut edits = Edits::new();
        edits.replace_with(&result, &Spliced::of([Charged::fixed(b"["), long.clone(), Charged::fixed(b"]")]));
        let spliced = splice(&bytes, &message.object, edits);
        let shares = spliced.segments().iter().any(|segment| segment.as_ptr() == long.as_ptr());
        assert_eq!(shares, length == FLAT);
        let expected = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[{}]}}", "7".repeat(length));
        assert_eq!(string(spliced), expected);
    }
}

#[test]
fn notifications_are_renamed() {
    let (bytes, message) = scanned(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a","reason":"r"}}"#,
    );
    let out = string(with_request_id(&bytes, &message, b"7"));
    assert_eq!(
        out,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"r"}}"#
    );
    let (bytes, message) = scanned(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":9}}"#,
    );
    let out = string(with_progress_token(&bytes, &message, b"\"t\""));
    let expected =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"t"}}"#;
    assert_eq!(out, expected);
    assert_eq!(string(with_request_id(&bytes, &message, b"7")).as_bytes(), &bytes[..]);
    assert_eq!(string(with_id(&bytes, &message, b"7")).as_bytes(), &bytes[..]);
}

/// Returns the `params` of a message (if any) that arrived with these headers.
fn params_with(params: &str, trace: &Trace) -> String {
    let comma = if params.is_empty() { "" } else { r#","params":"# };
    let out = for_child(&format!(r#"{{"id":1,"method":"m"{comma}{params},"jsonrpc":"2.0"}}"#), trace);
    let inner = out
        .strip_prefix(r#"{"id":42,"method":"m""#)
        .and_then(|rest| rest.strip_suffix(r#","jsonrpc":"2.0"}"#));
    inner.unwrap_or_else(|| panic!("{out}")).trim_start_matches(r#","params":"#).to_owned()
}

#[test]
fn a_context_in_a_header_is_written_to_meta() {
    let parent = format!(r#""traceparent":"{PARENT}""#);
    let trace = Trace::from_headers(Some(PARENT), None, None);
    for (params, expected) in [
        ("", "{\"_meta\":{P}}"),
        ("{}", "{\"_meta\":{P}}"),
        ("{ }", "{\"_meta\":{P} }"),
        (r#"{ "a":1}"#, r#"{"_meta":{P}, "a":1}"#),
        (r#"{"a":1,"_meta":{}}"#, r#"{"a":1,"_meta":{P}}"#),
        (r#"{"_meta":{ "k": 1 }}"#, r#"{"_meta":{P, "k": 1 }}"#),
        (r#"{"_meta":{"progressToken":"t"}}"#, r#"{"_meta":{P,"progressToken":43}}"#),
        (r#"{"_meta":{"progressToken":"t" , "traceparent":"bad"}}"#, r#"{"_meta":{P,"progressToken":43}}"#),
        (r#"{"_meta":null}"#, r#"{"_meta":null}"#),
        (r#"{"_meta":[]}"#, r#"{"_meta":[]}"#),
    ] {
        assert_eq!(params_with(params, &trace), expected.replace('P', &parent), "{params}");
    }
}

/// The sender of such a context could otherwise add members to the body for the child.
#[test]
fn a_context_of_a_future_version_stays_within_its_string() {
    let tail = r#"-"}},"id":17,"method":"x/y","x":{"y":{"z":"\"#;
    let parent = format!("cc{}{tail}", &PARENT[2..]);
    for state in [None, Some("a=\\x\"y")] {
        let trace = Trace::from_headers(Some(&parent), state, Some("k=v"));
        for params in ["", r#","params":{}"#, r#","params":{"_meta":{"a":1}}"#, r#","params":{"_meta":{}}"#] {
            let out =
                for_child(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#), &trace);
            let read: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            assert_eq!(read.as_object().expect("an object").len(), 4, "{out}");
            assert_eq!((&read["id"], &read["method"]), (&json!(42), &json!("tools/call")));
            assert_eq!(read["params"]["_meta"]["traceparent"], *parent);
            assert_eq!(read["params"]["_meta"]["tracestate"].as_str(), state);
            assert_eq!(read["params"]["_meta"]["baggage"], "k=v");
        }
    }
}

#[test]
fn a_well_formed_context_in_meta_wins() {
    let trace = Trace::from_headers(Some(PARENT), Some("a=1"), Some("b=2"));
    let kept = format!(r#"{{"_meta":{{"traceparent":"{OTHER}","tracestate":"bad","baggage":"c=3"}}}}"#);
    assert_eq!(params_with(&kept, &trace), kept);
    let escaped = kept.replace("00-a", r"0\u0030-a");
    assert_eq!(params_with(&escaped, &trace), escaped);
    let lone = format!(r#"{{"_meta":{{"traceparent":"{OTHER}"}}}}"#);
    assert_eq!(params_with(&lone, &trace), lone.replace("{\"trace", "{\"baggage\":\"b=2\",\"trace"));
    for untouched in ["bad", PARENT] {
        let params = format!(r#"{{"_meta":{{"tracestate":1,"traceparent":"{untouched}"}}}}"#);
        assert_eq!(params_with(&params, &Trace::default()), params);
    }
}

#[test]
fn a_malformed_context_in_meta_is_replaced_whole() {
    let with_state = Trace::from_headers(Some(PARENT), Some("a=1"), None);
    let without = Trace::from_headers(Some(PARENT), None, Some("b=2"));
    let new = |rest: &str, trace: &Trace| {
        let state = trace.tracestate().map_or(String::new(), |state| format!(r#","tracestate":"{state}""#));
        let baggage = trace.baggage().map_or(String::new(), |baggage| format!(r#","baggage":"{baggage}""#));
        format!(r#"{{"_meta":{{"traceparent":"{PARENT}"{state}{baggage}{rest}}}}}"#)
    };
    for (meta, rest) in [
        (r#"{"traceparent":"bad"}"#.to_owned(), ""),
        (r#"{"traceparent":7,"tracestate":"old=1"}"#.to_owned(), ""),
        (r#"{ "tracestate":"old=1" , "k":1, "traceparent":"bad" }"#.to_owned(), r#", "k":1 "#),
        (r#"{"k":1,"tracestate":"old=1","l":2}"#.to_owned(), r#","k":1,"l":2"#),
        (
            r#"{"tracest\u0061te":"old=1","traceparent":"bad","l":{"traceparent":"x"} , "m":3}"#.to_owned(),
            r#","l":{"traceparent":"x"} , "m":3"#,
        ),
        // Parsers differ in which of these they would take.
        (format!(r#"{{"traceparent":"{OTHER}","traceparent":"{OTHER}","k":1}}"#), r#","k":1"#),
    ] {
        for trace in [&with_state, &without] {
            assert_eq!(params_with(&format!("{{\"_meta\":{meta}}}"), trace), new(rest, trace), "{meta}");
        }
    }
    let baggage = Trace::from_headers(None, None, Some("b=2"));
    let params = r#"{"_meta":{"tracestate":"s","baggage":"bad bad"}}"#;
    assert_eq!(params_with(params, &baggage), r#"{"_meta":{"baggage":"b=2","tracestate":"s"}}"#);
}

#[test]
fn proxyrunners_own_messages() {
    let message = "a \"quote\"\n";
    assert_eq!(
        error(Some(b"\"x\""), -32700, message, Some(json!({"retry": true}))),
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32700,"message":"a \"quote\"\n","data":{"retry":true}}}"#
    );
    assert_eq!(error(None, 1, "m", None), r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#);
    assert_eq!(result(b"7", b"{}"), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    assert_eq!(request(b"7", "ping", None), r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
    assert_eq!(notification("n", Some(b"{}")), r#"{"jsonrpc":"2.0","method":"n","params":{}}"#);
}

#[test]
fn edits_may_be_adjacent_and_in_any_order() {
    let (bytes, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let id = message.id.clone().unwrap();
    let mut edits = Edits::new();
    edits.delete(&(id.end..id.end));
    edits.replace(&id, b"3");
    edits.insert(id.start, b"1");
    edits.insert(id.start, b"2");
    assert_eq!(string(splice(&bytes, &message.object, edits)), r#"{"jsonrpc":"2.0","id":123,"result":{}}"#);
}

#[test]
fn an_edit_within_another_is_dropped() {
    let (bytes, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"result":{"a":{"b":1},"c":2}}"#);
    let result = message.result.clone().unwrap();
    let (a, b) = (result.start + 5..result.start + 12, result.start + 10..result.start + 11);
    let mut edits = Edits::new();
    edits.replace(&b, b"[2]");
    edits.insert(b.end, b"3");
    edits.replace(&a, b"null");
    edits.insert(a.start, b"[");
    edits.delete(&a);
    edits.insert(a.end, b"]");
    let out = splice(&bytes, &message.object, edits);
    assert_eq!(out.len(), string(out.clone()).len());
    assert_eq!(string(out), r#"{"jsonrpc":"2.0","id":1,"result":{"a":[null],"c":2}}"#);
}

/// Returns a request whose reserved keys were replaced; `None` if nothing changes.
fn reserved(params: &str, member: &str) -> Option<String> {
    let (bytes, message) = scanned(&format!(r#"{{"jsonrpc":"2.0", "id":1,"method":"m"{params} }}"#));
    let out = string(with_reserved(&bytes, &message, "own/", member.as_bytes())?);
    scan(out.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {out}"));
    let params = out.strip_prefix(r#"{"jsonrpc":"2.0", "id":1,"method":"m""#).expect("the same beginning");
    Some(params.strip_suffix(" }").expect("the same end").to_owned())
}

#[test]
fn reserved_keys_are_removed_in_every_spelling() {
    let long = format!(r#""\u006fwn/{}":1"#, "x".repeat(2000));
    let escaped: String = "own/id".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for own in [
        r#""own/id":{"sub":"eve"}"#,
        r#""own/":1"#,
        r#""own/other/key":[]"#,
        r#""\u006fwn/id":1"#,
        r#""own\/id":1"#,
        r#""own/id":1,"own/id":2,"\u006Fwn\u002fid":3"#,
        &format!("\"{escaped}\":1"),
        &long,
    ] {
        let (first, last) = (
            format!(r#","params":{{"_meta":{{{own}, "a" :1}}}}"#),
            format!(r#","params":{{"_meta":{{"a" :1, {own}}}}}"#),
        );
        for params in [first, last] {
            let out = reserved(&params, "").expect("a change").replace(' ', "");
            assert_eq!(out, r#","params":{"_meta":{"a":1}}"#, "{params}");
        }
        let only = format!(r#","params":{{"x":"own/id","_meta":{{{own}}}}}"#);
        assert_eq!(reserved(&only, "").as_deref(), Some(r#","params":{"x":"own/id","_meta":{}}"#));
        let replaced = reserved(&only, r#""own/id":7"#);
        assert_eq!(replaced.as_deref(), Some(r#","params":{"x":"own/id","_meta":{"own/id":7}}"#));
    }
}

#[test]
fn a_reserved_member_is_added_wherever_it_fits() {
    let member = r#""own/id":{"sub":"ann"}"#;
    for (params, expected) in [
        ("", format!(r#","params":{{"_meta":{{{member}}}}}"#)),
        (r#","params":null"#, format!(r#","params":{{"_meta":{{{member}}}}}"#)),
        (r#","params":{}"#, format!(r#","params":{{"_meta":{{{member}}}}}"#)),
        (r#","params":{"a" : 1}"#, format!(r#","params":{{"_meta":{{{member}}},"a" : 1}}"#)),
        (r#","params":{"_meta":{}}"#, format!(r#","params":{{"_meta":{{{member}}}}}"#)),
        (
            r#","params":{"_meta":{"OWN/id":1,"own":2}}"#,
            format!(r#","params":{{"_meta":{{{member},"OWN/id":1,"own":2}}}}"#),
        ),
    ] {
        assert_eq!(reserved(params, member), Some(expected), "{params}");
        assert_eq!(reserved(params, ""), None, "{params}");
    }
    for odd in ["7", "null", r#"["own/id"]"#, r#""own/id""#] {
        let params = |meta: &str| format!(r#","params":{{"_meta":{meta},"a":1}}"#);
        assert_eq!(reserved(&params(odd), member), Some(params(&format!("{{{member}}}"))), "{odd}");
        assert_eq!(reserved(&params(odd), ""), None, "{odd}");
    }
    let nested = r#","params":{"arguments":{"_meta":{"own/id":1}}}"#;
    assert_eq!(reserved(nested, ""), None, "only params._meta is reserved");
}
