//! Captures tool arguments and results for spans, if the operator enables it (`--trace-arguments`,
//! `--trace-results`), and redacts secrets in them.

use super::redact::{REDACTED, redacted};
use crate::telemetry::text::cut;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::OnceLock;

/// The parts that spans capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--trace-arguments`
    pub arguments: bool,
    /// `--trace-results`
    pub results: bool,
    /// `--redact`: additional keys whose values are redacted.
    pub redact: Vec<String>,
}

static CAPTURED: OnceLock<Settings> = OnceLock::new();

/// Enables capturing. Only the first call has an effect.
pub(in crate::telemetry) fn install(settings: &Settings) {
    let redact = settings.redact.iter().map(|key| normal(key)).collect();
    let _ = CAPTURED.set(Settings { redact, ..settings.clone() });
}

/// Returns redacted arguments if they are captured; only then calls `json`.
pub(in crate::telemetry) fn arguments<'a>(json: impl FnOnce() -> Option<&'a [u8]>) -> Option<String> {
    let captured = CAPTURED.get().filter(|captured| captured.arguments)?;
    Some(shown(json()?, &captured.redact))
}

/// Returns a redacted result if it is captured; only then calls `json`.
pub(in crate::telemetry) fn result<'a>(json: impl FnOnce() -> Option<&'a [u8]>) -> Option<String> {
    let captured = CAPTURED.get().filter(|captured| captured.results)?;
    Some(shown(json()?, &captured.redact))
}

/// Returns redacted arguments or a redacted result for the audit log.
pub(in crate::telemetry) fn for_audit(json: &[u8]) -> String {
    shown(json, CAPTURED.get().map_or(&[], |captured| &captured.redact))
}

/// Maximum size in bytes of JSON that is captured. A span shows only the beginning of a longer text, and a truncated
/// text cannot be redacted.
const LONGEST: usize = 64 * 1024;
/// Parts of keys whose values are secrets, in normalized form: lower-case letters and digits.
const SECRETS: [&str; 13] = [
    "pwd",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "cookie",
    "signature",
];
/// Whole keys whose values are secrets, in normalized form.
const SECRET_WORDS: [&str; 8] = ["sig", "pin", "otp", "jwt", "pass", "auth", "creds", "sid"];
/// Members of an object that hold the name of a value, and members that hold the value.
const NAMES: ([&str; 4], [&str; 3]) = (["name", "key", "k", "header"], ["value", "val", "v"]);
/// Prefixes of texts that are secrets.
const BEGINNINGS: [&str; 8] = ["Bearer ", "bearer ", "Basic ", "eyJ", "-----BEGIN", "sk-", "ghp_", "xox"];

fn shown(json: &[u8], redact: &[String]) -> String {
    if json.len() > LONGEST {
        return format!("<{} bytes>", json.len());
    }
    match serde_json::from_slice(json) {
        Ok(mut value) => {
            hide(&mut value, redact);
            value.to_string()
        }
        // The JSON is malformed or nested too deeply.
        Err(_) => format!("<{} bytes>", json.len()),
    }
}

fn hide(value: &mut Value, redact: &[String]) {
    match value {
        Value::Object(members) => {
            let (names, values) = NAMES;
            let named = |name: &&str| members.get(*name).and_then(Value::as_str);
            if names.iter().filter_map(named).any(|name| is_secret(name, redact)) {
                for name in values {
                    if let Some(value) = members.get_mut(name) {
                        *value = REDACTED.into();
                    }
                }
            }
            *members = std::mem::take(members).into_iter().map(|member| hidden(member, redact)).collect();
        }
        // A key-value pair, or a command line option and its value.
        Value::Array(items) => {
            let is_pair = items.len() == 2;
            let mut follows_key = false;
            for item in items {
                if follows_key && !item.is_null() {
                    *item = REDACTED.into();
                }
                let word = item.as_str().filter(|word| is_pair || word.starts_with('-'));
                follows_key = word.is_some_and(|word| !word.contains([' ', '=']) && is_secret(word, redact));
                hide(item, redact);
            }
        }
        Value::String(text) if BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) => {
            *text = REDACTED.to_owned();
        }
        // A text may contain JSON, as results of tools often do.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => *text = embedded(text, redact),
        Value::String(text) => {
            if let Cow::Owned(shown) = redacted(text, &|key| is_secret(key, redact)) {
                *text = shown;
            }
        }
        _ => {}
    }
}

/// Redacts a member of an object. Its key may be a URL, too.
fn hidden((key, mut value): (String, Value), redact: &[String]) -> (String, Value) {
    if is_secret(&key, redact) {
        return (key, REDACTED.into());
    }
    hide(&mut value, redact);
    (redacted(&key, &|key| is_secret(key, redact)).into_owned(), value)
}

/// Redacts a sequence of JSON values. A text that contains anything else is replaced, because it cannot be redacted
/// reliably.
fn embedded(text: &str, redact: &[String]) -> String {
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let Ok(mut values) = values else { return format!("<{} bytes>", text.len()) };
    values.iter_mut().for_each(|value| hide(value, redact));
    values.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

fn is_secret(key: &str, redact: &[String]) -> bool {
    let key = normal(cut(key, 256));
    SECRETS.iter().any(|secret| key.contains(secret))
        || SECRET_WORDS.contains(&key.as_str())
        || redact.contains(&key)
}

/// Normalizes a key: removes everything but letters and digits, in lower case.
fn normal(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        let redact = vec![normal("Customer-Name")];
        for (json, expected) in [
            (r#"{"a":1,"b":[true,null]}"#, r#"{"a":1,"b":[true,null]}"#),
            (r#"{"user":"u","Api_Key":{"x":1}}"#, r#"{"user":"u","Api_Key":"<redacted>"}"#),
            (
                r#"[{"authToken":"t"},{"x-client-secret":2}]"#,
                r#"[{"authToken":"<redacted>"},{"x-client-secret":"<redacted>"}]"#,
            ),
            (r#"{"customerName":"n"}"#, r#"{"customerName":"<redacted>"}"#),
            (
                r#"{"dsn":"postgres://u:p@h/d","k://u:p@h":["see https://t@h/?api_key=a"]}"#,
                r#"{"dsn":"postgres://<redacted>@h/d","k://<redacted>@h":["see https://<redacted>@h/?api_key=<redacted>"]}"#,
            ),
            (
                r#"[{"name":"password","value":"p"},{"name":"x","value":"y"},{"key":"auth","v":1}]"#,
                r#"[{"name":"password","value":"<redacted>"},{"name":"x","value":"y"},{"key":"auth","v":"<redacted>"}]"#,
            ),
            (
                r#"{"args":["mysql","--password","p","-h","db"],"headers":[["Authorization","a"],["Accept","b"]]}"#,
                r#"{"args":["mysql","--password","<redacted>","-h","db"],"headers":[["Authorization","<redacted>"],["Accept","b"]]}"#,
            ),
            (
                r#"{"sig":"s","signal":"t","q":"https://h/?sig=s"}"#,
                r#"{"sig":"<redacted>","signal":"t","q":"https://h/?sig=<redacted>"}"#,
            ),
            (r#"{"text":"Bearer abc"}"#, r#"{"text":"<redacted>"}"#),
            (
                r#"{"text":"{\"password\":\"p\",\"x\":1}"}"#,
                r#"{"text":"{\"password\":\"<redacted>\",\"x\":1}"}"#,
            ),
            (
                r#"{"text":" {\"password\":\"p\"}\n{\"pwd\":2}"}"#,
                r#"{"text":"{\"password\":\"<redacted>\"}\n{\"pwd\":\"<redacted>\"}"}"#,
            ),
            (r#"{"text":"{\"password\":\"p\"} and more"}"#, r#"{"text":"<25 bytes>"}"#),
            ("not json", "<8 bytes>"),
        ] {
            let shown: Result<Value, _> = serde_json::from_str(&shown(json.as_bytes(), &redact));
            let expected: Result<Value, _> = serde_json::from_str(expected);
            assert_eq!(shown.ok(), expected.ok(), "{json}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(LONGEST));
        assert_eq!(shown(long.as_bytes(), &[]), format!("<{} bytes>", long.len()));
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(shown(deep.as_bytes(), &[]), "<60000 bytes>");
    }
}
