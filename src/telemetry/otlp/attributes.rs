//! Attributes: keys and values, written as `KeyValue` messages of OTLP (opentelemetry/proto/common/v1).

use super::protobuf::{Fields, varint_length};

/// `AnyValue`'s fields.
const STRING: u32 = 1;
const BOOL: u32 = 2;
const INT: u32 = 3;

/// Attributes of one thing, as the repeated field that they are there.
#[derive(Debug, Default)]
pub struct Attributes {
    /// The field's number in the thing's message.
    field: u32,
    encoded: Vec<u8>,
    /// The longest string, in bytes (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`).
    longest: usize,
}

impl Attributes {
    /// None yet, in a message that has them in this field. Longer strings than `longest` are cut.
    pub fn new(field: u32, longest: usize) -> Self {
        Attributes { field, encoded: Vec::with_capacity(512), longest }
    }

    /// As they are written.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// A string.
    pub fn text(&mut self, key: &str, value: &str) {
        let value = cut(value, self.longest);
        // Nearly all lengths take one byte.
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
        // The lengths are known, so that nothing has to be moved.
        let any = 1 + varint_length(value.len()) + value.len();
        let out = self.begin(key, any);
        out.bytes(STRING, value.as_bytes());
    }

    /// An integer.
    pub fn number(&mut self, key: &str, value: i64) {
        let value = value as u64;
        let any = 1 + varint_length(value as usize);
        self.begin(key, any).varint(INT, value);
    }

    /// A truth value.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, 2).varint(BOOL, u64::from(value));
    }

    /// Up to the value, which is so long.
    fn begin(&mut self, key: &str, any: usize) -> &mut Vec<u8> {
        let pair = 1 + varint_length(key.len()) + key.len() + 1 + varint_length(any) + any;
        let out = &mut self.encoded;
        out.length(self.field, pair);
        out.bytes(1, key.as_bytes());
        out.length(2, any);
        out
    }
}

/// The beginning of a text that is no longer than so many bytes, cut between characters.
pub fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
