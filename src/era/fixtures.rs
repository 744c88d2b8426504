//! Fixtures shared by the tests of this module.

use crate::budget::Charged;
use crate::jsonrpc::{Edits, Message, Span, scan, splice};
use serde_json::Value;

pub fn scanned(text: &str) -> (Charged, Message) {
    let mut bytes = text.as_bytes().to_vec();
    crate::jsonrpc::break_no_lines(&mut bytes);
    let bytes = Charged::own(bytes);
    let message = scan(&bytes).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    (bytes, message)
}

/// Returns a response around a result, and the span of the result.
pub fn response(result: &str) -> (Charged, Message, Span) {
    let (bytes, message) = scanned(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
    let span = message.result.clone().expect("a response has a result");
    (bytes, message, span)
}

pub fn edited(bytes: &Charged, message: &Message, edits: Edits) -> String {
    let out = splice(bytes, &message.object, edits).to_vec();
    scan(&out).unwrap_or_else(|fault| panic!("{fault}: {out:?}"));
    string(&out)
}

pub fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the tests write UTF-8")
}

pub fn json(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap_or_else(|error| panic!("{error}: {}", string(text.as_ref())))
}

/// Returns the result of a response.
pub fn result_of(text: &str) -> Value {
    json(text)["result"].take()
}
