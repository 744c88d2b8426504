//! Tests headers, their values, and the schemas that require them.

use super::headers::*;
use serde_json::{Value, json};

#[test]
fn values_are_decoded() {
    for (header, value) in [
        ("us-west1", Ok("us-west1")),
        (" \tus west1 ", Ok("us west1")),
        ("", Ok("")),
        ("=?base64?SGVsbG8sIOS4lueVjA==?=", Ok("Hello, 世界")),
        ("=?base64?IHBhZGRlZCA=?=", Ok(" padded ")),
        ("=?base64?bGluZTEKbGluZTI=?=", Ok("line1\nline2")),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", Ok("=?base64?literal?=")),
        ("=?base64??=", Ok("")),
        // Not a marker: wrong case, one end only.
        ("=?BASE64?SGVsbG8=?=", Ok("=?BASE64?SGVsbG8=?=")),
        ("=?base64?SGVsbG8=", Ok("=?base64?SGVsbG8=")),
        ("SGVsbG8=?=", Ok("SGVsbG8=?=")),
        ("=?base64?=", Ok("=?base64?=")),
        // Not base64: padding, alphabet, stray bits, whitespace, not UTF-8.
        ("=?base64?SGVsbG8?=", Err(Undecodable)),
        ("=?base64?SGVs!G8=?=", Err(Undecodable)),
        ("=?base64?SGVsbG9=?=", Err(Undecodable)),
        ("=?base64?SGVs bG8=?=", Err(Undecodable)),
        ("=?base64?_-__?=", Err(Undecodable)),
        ("=?base64?/w==?=", Err(Undecodable)),
        ("h\u{e9}", Err(Undecodable)),
        ("a\nb", Err(Undecodable)),
    ] {
        assert_eq!(decode(header.as_bytes()).as_deref(), value.as_deref(), "{header}");
    }
}

#[test]
fn encoded_values_are_decoded_to_the_same() {
    for plain in ["", "us west1", "a/b.c", "=?base64?="] {
        assert_eq!(encode(plain), plain);
    }
    for value in ["größe", " padded ", "a\tb\n", "=?base64?literal?=", "=?base64??=", "\u{7f}"] {
        let encoded = encode(value);
        assert_ne!(encoded, value);
        assert_eq!(decode(encoded.as_bytes()).as_deref(), Ok(value), "{encoded}");
    }
}

fn listed(schemas: &[Value]) -> HeaderParams {
    let tools: Vec<_> = schemas
        .iter()
        .enumerate()
        .map(|(index, schema)| json!({"name": format!("t{index}"), "inputSchema": schema}))
        .collect();
    let page = json!({"tools": tools}).to_string();
    let mut params = HeaderParams::default();
    params.add_page(page.as_bytes(), &(0..page.len()));
    params
}

fn schema(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn marks_are_found_along_properties() {
    let params = listed(&[
        schema(json!({"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}})),
        schema(
            json!({"a": {"type": "object", "properties": {"properties": {"type": "integer", "x-mcp-header": "N"}}}}),
        ),
        schema(json!({"query": {"type": "string", "default": "x-mcp-header"}})),
        schema(json!({"x-mcp-header": {"type": "string"}})),
        schema(json!({
            "region": {"type": "string", "x-mcp-header": "Region"},
            "data": {"default": {"x-mcp-header": 1}, "enum": [{"x-mcp-header": 2}], "const": {"x-mcp-header": 3}},
        })),
    ]);
    let of =
        |tool| params.of(tool).iter().map(|param| (&*param.header, param.path.join("/"))).collect::<Vec<_>>();
    assert_eq!(of("t0"), [("mcp-param-region", "region".to_owned())]);
    assert_eq!(of("t1"), [("mcp-param-n", "a/properties".to_owned())]);
    assert_eq!(of("t2"), []);
    assert_eq!(of("t3"), []);
    assert_eq!(of("t4"), of("t0"), "data is not a schema");
    assert_eq!(of("other"), []);
}

#[test]
fn a_tool_whose_marks_break_the_rules_has_none() {
    let marked = |kind: &str, mark: Value| json!({"type": kind, "x-mcp-header": mark});
    let good = marked("string", json!("Good"));
    for bad in [
        marked("string", json!("")),
        marked("string", json!("a b")),
        marked("string", json!("a\r\nb")),
        marked("string", json!("\u{e9}")),
        marked("string", json!(7)),
        marked("number", json!("N")),
        marked("object", json!("N")),
        marked("array", json!("N")),
        marked("string", json!("gOOD")),
        json!({"x-mcp-header": "N"}),
        json!({"type": "array", "items": good}),
        json!({"anyOf": [good]}),
        json!({"$defs": {"d": good}}),
    ] {
        assert_eq!(listed(&[schema(json!({"good": good, "bad": bad}))]).of("t0"), [], "{bad}");
    }
    let at_the_root = json!({"type": "string", "x-mcp-header": "N"});
    assert_eq!(listed(&[at_the_root]).of("t0"), []);
    let mut deep = good;
    for depth in 1..=2 * DEEPEST {
        deep = schema(json!({"p": deep}));
        let found = listed(std::slice::from_ref(&deep)).of("t0").len();
        assert_eq!(found, usize::from(depth <= DEEPEST), "{depth}");
    }
}

#[test]
fn headers_agree_with_the_body() {
    let params = listed(&[schema(json!({
        "s": {"type": "string", "x-mcp-header": "S"},
        "o": {"type": "object", "properties": {
            "i": {"type": "integer", "x-mcp-header": "I"},
            "b": {"type": "boolean", "x-mcp-header": "B"},
        }},
    }))]);
    let check = |arguments: &str, headers: &[(&str, &'static str)]| {
        let find = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| name == format!("mcp-param-{key}"))
                .map(|(_, value)| value.as_bytes())
        };
        let span = 0..arguments.len();
        params.check("t0", arguments.as_bytes(), (!arguments.is_empty()).then_some(&span), find)
    };
    let name = |key: &str| format!("mcp-param-{key}");
    for (arguments, headers, expected) in [
        ("", &[][..], Ok(())),
        ("{}", &[("other", "x")], Ok(())),
        (r#"{"s":null}"#, &[], Ok(())),
        (r#"{"s":"a"}"#, &[("s", "a")], Ok(())),
        (r#"{"s":"\u00e9"}"#, &[("s", "=?base64?w6k=?=")], Ok(())),
        (r#"{"s":"a"}"#, &[("s", "A")], Err(Mismatch::Different(name("s")))),
        (r#"{"s":"42"}"#, &[("s", "42.0")], Err(Mismatch::Different(name("s")))),
        (r#"{"s":"a"}"#, &[], Err(Mismatch::Missing(name("s")))),
        (r#"{"s":"a"}"#, &[("s", "=?base64?YQ?=")], Err(Mismatch::Undecodable(name("s")))),
        (r#"{"s":null}"#, &[("s", "null")], Err(Mismatch::Unexpected(name("s")))),
        ("", &[("s", "a")], Err(Mismatch::Unexpected(name("s")))),
        // Most parsers take the last of two.
        (r#"{"s":"a","s":"b"}"#, &[("s", "a")], Err(Mismatch::Different(name("s")))),
        (r#"{"s":7}"#, &[("s", "7")], Ok(())),
        (r#"{"o":{"i":42}}"#, &[("i", "42")], Ok(())),
        (r#"{"o":{"i":42}}"#, &[("i", "42.0")], Ok(())),
        (r#"{"o":{"i":4.2e1}}"#, &[("i", "42")], Ok(())),
        (r#"{"o":{"i":-7}}"#, &[("i", "-7")], Ok(())),
        (r#"{"o":{"i":9007199254740991}}"#, &[("i", "9007199254740991")], Ok(())),
        (
            r#"{"o":{"i":9007199254740993}}"#,
            &[("i", "9007199254740992")],
            Err(Mismatch::Different(name("i"))),
        ),
        (r#"{"o":{"i":9007199254740993}}"#, &[("i", "9007199254740993")], Ok(())),
        (r#"{"o":{"i":42}}"#, &[("i", "43")], Err(Mismatch::Different(name("i")))),
        (r#"{"o":{"i":42}}"#, &[("i", "NaN")], Err(Mismatch::Different(name("i")))),
        (r#"{"o":{"i":1.5}}"#, &[("i", "1.50")], Err(Mismatch::Different(name("i")))),
        (r#"{"o":{"b":true}}"#, &[("b", "true")], Ok(())),
        (r#"{"o":{"b":true}}"#, &[("b", "True")], Err(Mismatch::Different(name("b")))),
        (r#"{"o":{"b":true}}"#, &[("b", "1")], Err(Mismatch::Different(name("b")))),
        (r#"{"o":[{"i":1}]}"#, &[], Ok(())),
    ] {
        assert_eq!(check(arguments, headers), expected, "{arguments} {headers:?}");
    }
}

#[test]
fn a_mismatch_names_its_header() {
    for (mismatch, words) in [
        (Mismatch::Missing("h".into()), "h is missing; read tools/list again for its parameter"),
        (Mismatch::Undecodable("h".into()), "the value of h cannot be decoded"),
        (Mismatch::Unexpected("h".into()), "h repeats nothing in the body"),
        (Mismatch::Different("h".into()), "h does not match the body"),
    ] {
        assert_eq!(mismatch.to_string(), format!("Header mismatch: {words}"));
    }
}

#[test]
fn methods_are_named_by_a_member() {
    assert_eq!(named_by("tools/call"), Some("name"));
    assert_eq!(named_by("resources/read"), Some("uri"));
    assert_eq!(named_by("tasks/cancel"), Some("taskId"));
    assert_eq!(named_by("tools/list"), None);
}

#[test]
fn names_match_case_insensitively_unless_the_schema_has_both() {
    let marked = json!({"type": "string", "x-mcp-header": "X"});
    let params =
        listed(&[schema(json!({"x": marked})), schema(json!({"x": marked, "X": {"type": "string"}}))]);
    let check = |tool: &str, arguments: &str, header: Option<&'static str>| {
        params
            .check(tool, arguments.as_bytes(), Some(&(0..arguments.len())), |_| header.map(str::as_bytes))
            .is_ok()
    };
    for (arguments, header) in [
        (r#"{"X":"1"}"#, Some("1")),
        (r#"{"x":"1","X":"1"}"#, Some("1")),
        (r#"{"x":"1","x":"1"}"#, Some("1")),
        (r#"{"X":null}"#, None),
    ] {
        assert!(check("t0", arguments, header) && check("T0", arguments, header), "{arguments}");
    }
    for (arguments, header) in [
        (r#"{"X":"1"}"#, None),
        (r#"{"x":"1","X":"2"}"#, Some("1")),
        (r#"{"x":"1","x":"2"}"#, Some("1")),
        (r#"{"x":"2","x":"1"}"#, Some("1")),
    ] {
        assert!(!check("t0", arguments, header) && !check("T0", arguments, header), "{arguments}");
    }
    assert!(check("t1", r#"{"x":"1","X":"2"}"#, Some("1")), "two parameters");
    assert!(check("t1", r#"{"X":"2"}"#, None));
    assert!(!check("t1", r#"{"x":"1"}"#, Some("2")));
}

#[test]
fn letters_that_parsers_fold_are_equal() {
    let marked = json!({"type": "string", "x-mcp-header": "X"});
    let params = listed(&[schema(json!({"disk": marked}))]);
    // The long s and the Kelvin sign.
    let arguments = "{\"di\u{17f}\u{212a}\":\"1\"}";
    let checked = params.check("t0", arguments.as_bytes(), Some(&(0..arguments.len())), |_| None);
    assert_eq!(checked, Err(Mismatch::Missing("mcp-param-x".into())));
}
