//! Attributes, encoded as OTLP's `KeyValue` messages (opentelemetry/proto/common/v1).

use super::protobuf::{Fields, varint_length};

/// Fields of `AnyValue`.
const STRING: u32 = 1;
const BOOL: u32 = 2;
const INT: u32 = 3;

/// Attributes, encoded as a repeated field of the enclosing message.
#[derive(Debug, Default)]
pub struct Attributes {
    /// The field's number in the enclosing message.
    field: u32,
    encoded: Vec<u8>,
    /// Maximum length of a string in bytes (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`).
    longest: usize,
}

impl Attributes {
    /// Creates an empty list for this field of the enclosing message. Strings longer than `longest` bytes are
    /// truncated.
    pub fn new(field: u32, longest: usize) -> Self {
        Attributes { field, encoded: Vec::with_capacity(512), longest }
    }

    /// Returns the encoded attributes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Adds a string.
    pub fn text(&mut self, key: &str, value: &str) {
        let value = cut(value, self.longest);
        // Nearly all lengths fit into one byte.
        let (any, pair) = (value.len() + 2, key.len() + value.len() + 6);
        if pair < 0x80 && self.field < 0x10 {
            let out = &mut self.encoded;
            out.reserve(pair + 2);
            out.extend_from_slice(&[(self.field << 3) as u8 | 2, pair as u8, 1 << 3 | 2, key.len() as u8]);
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(&[2 << 3 | 2, any as u8, (STRING << 3) as u8 | 2, value.len() as u8]);
            out.extend_from_slice(value.as_bytes());
            return;
        }
        // The lengths are known in advance, so no bytes have to be moved.
        let any = 1 + varint_length(value.len()) + value.len();
        let out = self.begin(key, any);
        out.bytes(STRING, value.as_bytes());
    }

    /// Adds an integer.
    pub fn number(&mut self, key: &str, value: i64) {
        let value = value as u64;
        let any = 1 + varint_length(value as usize);
        self.begin(key, any).varint(INT, value);
    }

    /// Adds a Boolean.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, 2).varint(BOOL, u64::from(value));
    }

    /// Writes everything that precedes a value of `any` encoded bytes.
    fn begin(&mut self, key: &str, any: usize) -> &mut Vec<u8> {
        let pair = 1 + varint_length(key.len()) + key.len() + 1 + varint_length(any) + any;
        let out = &mut self.encoded;
        out.length(self.field, pair);
        out.bytes(1, key.as_bytes());
        out.length(2, any);
        out
    }
}

/// Truncates a text to at most `longest` bytes, at a character boundary.
pub fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
