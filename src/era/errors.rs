//! Translates errors for clients of the other era. The eras give some codes different meanings: -32002 and -32042 are
//! undefined in the modern one, -32020 to -32022 in the legacy one.

use super::{Era, raw};
use crate::jsonrpc::{Amendment, Edits, Span, amend, codes, member, string_member};

/// Legacy: the request needs the user to visit URLs first (2025-11-25, client/elicitation §URL Elicitation
/// Required Error).
pub const URL_ELICITATION_REQUIRED: i64 = -32042;

/// The code of any exception in a handler of the Python SDK up to 1.x.
const UNCAUGHT: i64 = 0;

/// The translation of a legacy child's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForModern {
    /// An error with this code; the edits are made.
    Error(i64),
    /// Not an error in the modern era, but questions; see [`from_url_required`](super::input::from_url_required).
    UrlElicitation,
}

/// The methods of the modern core. Legacy children answer unknown methods with -32602.
const METHODS: [&str; 8] = [
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
];

/// Translates a legacy child's error for a modern client. `error` is the response's `error`; `method` is the
/// request's, and `uri` its raw `params.uri`, if any.
///
/// -32002 becomes -32602 with the resource's URI in `data`. Other codes in the ranges that the modern revision
/// reserves, and malformed errors, become -32603 with the original in `data`. -32602 for a method outside the
/// revision becomes -32601, which SDKs mean by it.
pub fn to_modern(
    frame: &[u8],
    error: &Span,
    method: &str,
    uri: Option<&[u8]>,
    edits: &mut Edits,
) -> ForModern {
    let Some((code, code_span)) = code(frame, error) else {
        return ForModern::Error(replace_malformed(error, edits));
    };
    match code {
        URL_ELICITATION_REQUIRED => ForModern::UrlElicitation,
        codes::INVALID_PARAMS if !METHODS.contains(&method) => {
            edits.replace(&code_span, codes::METHOD_NOT_FOUND.to_string().as_bytes());
            ForModern::Error(codes::METHOD_NOT_FOUND)
        }
        codes::RESOURCE_NOT_FOUND | UNCAUGHT if is_missing_resource(frame, error, code, uri) => {
            edits.replace(&code_span, codes::INVALID_PARAMS.to_string().as_bytes());
            if let Some(uri) = uri {
                name_resource(frame, error, uri, edits);
            }
            ForModern::Error(codes::INVALID_PARAMS)
        }
        // Codes of SDKs up to -32019, and of the protocol from -32020 on. Neither has the same meaning in both eras.
        -32099..=-32000 => ForModern::Error(internal(frame, error, &code_span, edits)),
        other => ForModern::Error(other),
    }
}

/// Translates a modern child's error for a legacy client, and returns its code: -32020 to -32099 become -32603 with
/// the original in `data`, and -32602 for a `resources/read` that names a URI becomes -32002.
pub fn to_legacy(frame: &[u8], error: &Span, method: &str, edits: &mut Edits) -> i64 {
    let Some((code, code_span)) = code(frame, error) else { return replace_malformed(error, edits) };
    match code {
        -32099..=-32020 => internal(frame, error, &code_span, edits),
        codes::INVALID_PARAMS if method == "resources/read" && names_resource(frame, error) => {
            edits.replace(&code_span, codes::RESOURCE_NOT_FOUND.to_string().as_bytes());
            codes::RESOURCE_NOT_FOUND
        }
        other => other,
    }
}

/// Returns the HTTP status of a child's error response, before the head is sent (basic/transports/streamable-http).
/// Other errors are answers of the method: a 400 would send dual-era clients back to `initialize`.
pub fn http_status(code: i64, era: Era) -> u16 {
    match (era, code) {
        (Era::Modern, codes::METHOD_NOT_FOUND) => 404,
        (Era::Modern, codes::UNSUPPORTED_VERSION..=codes::HEADER_MISMATCH) => 400,
        _ => 200,
    }
}

/// Returns an error's code and its span, if it is an object with an integer `code` and a string `message`.
pub fn code(frame: &[u8], error: &Span) -> Option<(i64, Span)> {
    string_member(frame, error, "message")?;
    let span = member(frame, error, "code")?;
    let code = std::str::from_utf8(&frame[span.clone()]).ok()?.parse().ok()?;
    Some((code, span))
}

/// Returns whether an error reports a missing resource, by its code or, if the code is unspecific, by its message.
fn is_missing_resource(frame: &[u8], error: &Span, code: i64, uri: Option<&[u8]>) -> bool {
    match code {
        UNCAUGHT => {
            let message = string_member(frame, error, "message").unwrap_or_default();
            uri.is_some() && message.starts_with("Unknown resource")
        }
        _ => uri.is_some() || names_resource(frame, error),
    }
}

fn names_resource(frame: &[u8], error: &Span) -> bool {
    member(frame, error, "data").is_some_and(|data| string_member(frame, &data, "uri").is_some())
}

/// Adds the URI to `data`.
fn name_resource(frame: &[u8], error: &Span, uri: &[u8], edits: &mut Edits) {
    let uri = raw(uri, &(0..uri.len()));
    match member(frame, error, "data") {
        Some(data) if string_member(frame, &data, "uri").is_some() => {}
        Some(data) if frame[data.start] == b'{' => {
            let add = format!("\"uri\":{uri}");
            amend(frame, &data, Amendment { drop: &["uri"], add: add.as_bytes() }, edits);
        }
        Some(data) => {
            edits.insert(data.start, format!("{{\"uri\":{uri},\"original\":").as_bytes());
            edits.insert(data.end, b"}");
        }
        None => {
            let add = format!("\"data\":{{\"uri\":{uri}}}");
            amend(frame, error, Amendment { drop: &[], add: add.as_bytes() }, edits);
        }
    }
}

/// Turns an error into -32603 with the original code and data.
fn internal(frame: &[u8], error: &Span, code: &Span, edits: &mut Edits) -> i64 {
    edits.replace(code, codes::INTERNAL_ERROR.to_string().as_bytes());
    let original = raw(frame, code);
    match member(frame, error, "data") {
        Some(data) => {
            edits.insert(data.start, format!("{{\"original\":{{\"code\":{original},\"data\":").as_bytes());
            edits.insert(data.end, b"}}");
        }
        None => {
            let add = format!("\"data\":{{\"original\":{{\"code\":{original}}}}}");
            amend(frame, error, Amendment { drop: &[], add: add.as_bytes() }, edits);
        }
    }
    codes::INTERNAL_ERROR
}

/// Wraps a malformed error as the data of a new one.
fn replace_malformed(error: &Span, edits: &mut Edits) -> i64 {
    let (code, message) = (codes::INTERNAL_ERROR, "the server's error is malformed");
    let before = format!("{{\"code\":{code},\"message\":\"{message}\",\"data\":{{\"original\":");
    edits.insert(error.start, before.as_bytes());
    edits.insert(error.end, b"}}");
    codes::INTERNAL_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::era::fixtures::{edited, json as parsed, scanned};
    use serde_json::{Value, json};

    fn response(error: &Value) -> (crate::budget::Charged, crate::jsonrpc::Message) {
        scanned(&json!({"jsonrpc": "2.0", "id": 1, "error": error}).to_string())
    }

    fn modern(error: Value, uri: Option<&str>) -> (ForModern, Value) {
        let (frame, message) = response(&error);
        let mut edits = Edits::new();
        let error = message.error.as_ref().unwrap();
        let became = to_modern(&frame, error, "resources/read", uri.map(str::as_bytes), &mut edits);
        let out = parsed(edited(&frame, &message, edits))["error"].take();
        if let ForModern::Error(code) = became {
            assert_eq!(out["code"], code);
        }
        (became, out)
    }

    fn legacy(error: Value, method: &str) -> Value {
        let (frame, message) = response(&error);
        let mut edits = Edits::new();
        let code = to_legacy(&frame, message.error.as_ref().unwrap(), method, &mut edits);
        let out = parsed(edited(&frame, &message, edits))["error"].take();
        assert_eq!(out["code"], code);
        out
    }

    #[test]
    fn the_uri_of_a_missing_resource_is_added() {
        let uri = Some("\"file:///a\"");
        let named = json!({"code": -32602, "message": "m", "data": {"uri": "file:///a"}});
        assert_eq!(modern(json!({"code": -32002, "message": "m"}), uri).1, named);
        let own = json!({"code": -32002, "message": "m", "data": {"uri": "file:///A"}});
        assert_eq!(modern(own.clone(), uri).1["data"], own["data"], "the server's own URI stays");
        assert_eq!(
            modern(json!({"code": -32002, "message": "m", "data": {"uri": "file:///a"}}), None).1,
            named
        );
        assert_eq!(modern(json!({"code": -32002, "message": "m", "data": {"uri": 7}}), uri).1, named);
        assert_eq!(
            modern(json!({"code": -32002, "message": "m", "data": {"k": 1}}), uri).1["data"],
            json!({"uri": "file:///a", "k": 1})
        );
        assert_eq!(
            modern(json!({"code": -32002, "message": "m", "data": "d"}), uri).1["data"],
            json!({"uri": "file:///a", "original": "d"})
        );
    }

    #[test]
    fn unspecific_codes_of_sdks_are_translated() {
        let uri = Some("\"u\"");
        let unknown = json!({"code": 0, "message": "Unknown resource: u"});
        let named = json!({"code": -32602, "message": "Unknown resource: u", "data": {"uri": "u"}});
        assert_eq!(modern(unknown.clone(), uri).1, named);
        assert_eq!(modern(unknown.clone(), None).1, unknown, "not about a resource");
        let (frame, message) = response(&json!({"code": -32602, "message": "m"}));
        for (method, code) in [("acme/frob", -32601), ("tools/call", -32602), ("tools/list", -32602)] {
            let error = message.error.as_ref().unwrap();
            let became = to_modern(&frame, error, method, None, &mut Edits::new());
            assert_eq!(became, ForModern::Error(code), "{method}");
        }
    }

    #[test]
    fn reserved_codes_of_a_legacy_child_are_internal_errors() {
        for code in [-32000, -32001, -32002, -32019, -32020, -32021, -32022, -32099] {
            let (_, error) = modern(json!({"code": code, "message": "m", "data": [1]}), None);
            let data = json!({"original": {"code": code, "data": [1]}});
            assert_eq!(error, json!({"code": -32603, "message": "m", "data": data}));
            let (_, error) = modern(json!({"code": code, "message": "m"}), None);
            assert_eq!(error["data"], json!({"original": {"code": code}}));
        }
    }

    #[test]
    fn other_codes_stay_unchanged() {
        for code in [-32700, -32603, -32602, -32601, -32600, -31999, -32100, -32800, -1, 0, 42] {
            let error = json!({"code": code, "message": "m", "data": {"k": [1]}});
            assert_eq!(modern(error.clone(), Some("\"u\"")), (ForModern::Error(code), error.clone()));
            assert_eq!(legacy(error.clone(), "resources/read"), error);
        }
        let url = json!({"code": -32042, "message": "m", "data": {"elicitations": []}});
        assert_eq!(modern(url.clone(), None), (ForModern::UrlElicitation, url));
    }

    #[test]
    fn a_legacy_client_gets_only_codes_of_its_era() {
        let required = json!({"requiredCapabilities": {"sampling": {}}});
        assert_eq!(
            legacy(json!({"code": -32021, "message": "m", "data": required}), "tools/call"),
            json!({"code": -32603, "message": "m", "data": {"original": {"code": -32021, "data": required}}})
        );
        let missing = json!({"code": -32602, "message": "m", "data": {"uri": "u"}});
        assert_eq!(legacy(missing.clone(), "resources/read")["code"], -32002);
        assert_eq!(legacy(missing.clone(), "resources/read")["data"], json!({"uri": "u"}));
        assert_eq!(legacy(missing.clone(), "tools/call"), missing);
    }

    #[test]
    fn a_malformed_error_is_wrapped() {
        for error in [
            json!("boom"),
            json!({}),
            json!({"code": "x", "message": "m"}),
            json!({"code": 1.5, "message": "m"}),
            json!({"code": 1}),
        ] {
            let expected = json!({"code": -32603, "message": "the server's error is malformed", "data": {"original": error}});
            assert_eq!(modern(error.clone(), None).1, expected);
            assert_eq!(legacy(error, "x"), expected);
        }
    }

    #[test]
    fn errors_have_the_http_status_of_the_modern_revision() {
        let statuses = [-32601, -32020, -32021, -32022, -32023, -32602, -32603]
            .map(|code| http_status(code, Era::Modern));
        assert_eq!(statuses, [404, 400, 400, 400, 200, 200, 200]);
        assert_eq!(http_status(-32601, Era::Legacy), 200);
    }
}
