//! Writes the members of JSON objects to a line. The length of each value is limited, because clients choose many.

use crate::telemetry::logs::escaped_json;
use std::borrow::Cow;
use std::fmt::Display;
use std::fmt::Write;

/// A line that is being written.
#[derive(Debug)]
pub(super) struct Line(pub String);

impl Line {
    /// Begins an object.
    pub fn begin() -> Self {
        let mut text = String::with_capacity(1_280);
        text.push('{');
        Line(text)
    }

    fn key(&mut self, key: &str) {
        self.0.push_str(if self.0.ends_with('{') { "\"" } else { ",\"" });
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    /// Adds a text of proxyrunner's own, which needs no escapes.
    pub fn constant(&mut self, key: &str, value: &str) {
        self.with(key, |text| text.push_str(value));
    }

    /// Adds a text that a function appends. It must need no escapes.
    pub fn with(&mut self, key: &str, put: impl FnOnce(&mut String)) {
        self.key(key);
        self.0.push('"');
        put(&mut self.0);
        self.0.push('"');
    }

    /// Adds a text, cut to `longest` bytes of JSON.
    pub fn text(&mut self, key: &str, value: &str, longest: usize) {
        self.key(key);
        self.string(value, longest);
    }

    /// Adds a text that may be missing.
    pub fn optional(&mut self, key: &str, value: Option<&str>, longest: usize) {
        if let Some(value) = value {
            self.text(key, value, longest);
        }
    }

    /// Adds a number or a boolean.
    pub fn value(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    /// Adds JSON, if it is at most `longest` bytes long, else its beginning as a text.
    pub fn json(&mut self, key: &str, json: &str, longest: usize) {
        self.key(key);
        if json.len() <= longest && json.starts_with(['{', '[', '"']) {
            self.0.push_str(&escaped_json(json));
        } else {
            self.string(json, longest);
        }
    }

    /// Adds a value in JSON, whose length is limited elsewhere.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.0.push_str(&escaped_json(json));
    }

    /// Adds an object.
    pub fn object(&mut self, key: &str, put: impl FnOnce(&mut Self)) {
        self.key(key);
        self.0.push('{');
        put(self);
        self.0.push('}');
    }

    /// Adds an array of objects.
    pub fn objects<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut put: impl FnMut(&mut Self, T),
    ) {
        self.key(key);
        self.0.push('[');
        for (at, item) in items.into_iter().enumerate() {
            self.0.push_str(if at == 0 { "{" } else { ",{" });
            put(self, item);
            self.0.push('}');
        }
        self.0.push(']');
    }

    fn string(&mut self, value: &str, longest: usize) {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.len() <= longest && value.bytes().all(is_plain) {
            self.0.push('"');
            self.0.push_str(value);
            return self.0.push('"');
        }
        let mut shown = crate::telemetry::cut(value, longest);
        let mut text = escaped(shown);
        // An escape takes up to twelve bytes for two.
        while text.len() > longest + 2 {
            shown = crate::telemetry::cut(shown, shown.len() * longest / text.len());
            text = escaped(shown);
        }
        self.0.push_str(&text);
    }
}

fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    match escaped_json(&quoted) {
        Cow::Borrowed(_) => quoted,
        Cow::Owned(escaped) => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_json_and_its_values_are_bounded() {
        let mut line = Line::begin();
        line.constant("a", "b");
        line.text("quote", "\"\\\n\u{202e}é", 100);
        line.text("long", &"x".repeat(1_000), 10);
        line.text("escapes", &"\u{1}".repeat(1_000), 50);
        line.optional("none", None, 1);
        line.object("object", |line| line.value("number", 1.5));
        line.object("empty", |_| {});
        line.objects("array", [1, 2], |line, item| line.value("n", item));
        line.json("json", r#"{"a":1}"#, 10);
        line.json("cut", r#"{"a":12345678}"#, 5);
        line.0.push('}');
        let value: serde_json::Value = serde_json::from_str(&line.0).expect("JSON");
        assert_eq!(value["quote"], "\"\\\n\u{202e}é");
        assert!(!line.0.contains('\u{202e}'), "characters that hide text are escaped");
        assert_eq!(value["long"], "x".repeat(10));
        let escapes = value["escapes"].as_str().expect("a text").len();
        assert!((1..=8).contains(&escapes), "{escapes}");
        assert_eq!(value["object"]["number"], 1.5);
        assert_eq!(value["array"][1]["n"], 2);
        assert_eq!((&value["json"]["a"], &value["cut"]), (&1.into(), &"{\"".into()));
    }
}
