//! The attributes of a span.

use crate::telemetry::text::cut;
use opentelemetry::{Key, KeyValue, Value};

/// The attributes of a span.
#[derive(Debug, Default)]
pub struct Attributes {
    list: Vec<KeyValue>,
    /// Maximum length of a string in bytes (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`).
    longest: usize,
}

/// The number of attributes of most spans.
const USUAL: usize = 12;

impl Attributes {
    /// Creates an empty list. Strings longer than `longest` bytes are truncated.
    pub fn new(longest: usize) -> Self {
        Attributes { list: Vec::with_capacity(USUAL), longest }
    }

    /// Adds a string.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.put(key, cut(value, self.longest).to_owned());
    }

    /// Adds a string that is known at compile time, without an allocation.
    pub fn constant(&mut self, key: &'static str, value: &'static str) {
        self.put(key, cut(value, self.longest));
    }

    /// Adds an integer.
    pub fn number(&mut self, key: &'static str, value: i64) {
        self.put(key, value);
    }

    fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.list.push(KeyValue::new(Key::from_static_str(key), value));
    }

    /// Returns the attributes.
    pub(super) fn take(&mut self) -> Vec<KeyValue> {
        std::mem::take(&mut self.list)
    }

    /// Returns the attributes recorded so far.
    #[cfg(test)]
    pub fn list(&self) -> &[KeyValue] {
        &self.list
    }
}
