//! Writes the Protocol Buffers that OTLP needs, field by field into one buffer, and reads the few fields that matter
//! in a response.
//!
//! Hand-written because each request uses it: the generated types own a string for each key and each value.

/// Wire types (Protocol Buffers, Encoding §Message Structure).
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// Appends fields of a message to a buffer. As in proto3, fields with default values may be omitted.
pub trait Fields {
    /// Appends a `uint32`, `uint64`, `bool` or enumeration.
    fn varint(&mut self, field: u32, value: u64);
    /// Appends a `fixed64` or `sfixed64`.
    fn fixed64(&mut self, field: u32, value: u64);
    /// Appends a `fixed32`.
    fn fixed32(&mut self, field: u32, value: u32);
    /// Appends a `double`.
    fn double(&mut self, field: u32, value: f64);
    /// Appends a `string`, `bytes`, or an encoded message.
    fn bytes(&mut self, field: u32, value: &[u8]);
    /// Begins a message of a known length, whose fields follow.
    fn length(&mut self, field: u32, length: usize);
    /// Appends a message that `write` encodes.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Vec<u8>));
    /// Appends a packed `repeated fixed64` or `repeated double`.
    fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>);
}

impl Fields for Vec<u8> {
    fn varint(&mut self, field: u32, value: u64) {
        tag(self, field, VARINT);
        put_varint(self, value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        tag(self, field, FIXED64);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        tag(self, field, FIXED32);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.length(field, value.len());
        self.extend_from_slice(value);
    }

    fn length(&mut self, field: u32, length: usize) {
        tag(self, field, LENGTH);
        put_varint(self, length as u64);
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
        tag(self, field, LENGTH);
        let at = self.len();
        // Nearly every message is short enough for a length of one byte.
        self.push(0);
        write(self);
        let length = self.len() - at - 1;
        if length < 0x80 {
            self[at] = length as u8;
        } else {
            let mut longer = Vec::with_capacity(10);
            put_varint(&mut longer, length as u64);
            self.splice(at..=at, longer);
        }
    }

    fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        tag(self, field, LENGTH);
        put_varint(self, values.len() as u64 * 8);
        values.for_each(|value| self.extend_from_slice(&value.to_le_bytes()));
    }
}

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the encoded length of a varint in bytes.
pub fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A field of a received message.
#[derive(Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number of any wire type.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

/// Iterates over the fields of a message up to the first malformed one.
pub fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = take_varint(&mut message)?;
        let field = u32::try_from(tag >> 3).ok()?;
        let value = match (tag & 7) as u32 {
            VARINT => Field::Number(take_varint(&mut message)?),
            FIXED64 => Field::Number(u64::from_le_bytes(take(&mut message)?)),
            FIXED32 => Field::Number(u64::from(u32::from_le_bytes(take(&mut message)?))),
            LENGTH => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        Some((field, value))
    })
}

fn take<const N: usize>(message: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = message.split_first_chunk()?;
    *message = rest;
    Some(*taken)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(message)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let long = vec![7; 300];
        let mut message = Vec::new();
        message.varint(1, 300);
        message.fixed64(2, u64::MAX);
        message.fixed32(3, 9);
        message.bytes(100, b"text");
        message.message(4, |inner| inner.varint(1, 1));
        message.message(5, |inner| inner.bytes(1, &long));
        message.packed(6, [1, 2].into_iter());
        let read: Vec<_> = fields(&message).collect();
        let mut packed = [0; 16];
        (packed[0], packed[8]) = (1, 2);
        assert_eq!(
            read[..4],
            [
                (1, Field::Number(300)),
                (2, Field::Number(u64::MAX)),
                (3, Field::Number(9)),
                (100, Field::Bytes(b"text")),
            ]
        );
        assert_eq!(read[4], (4, Field::Bytes(&[8, 1])));
        let (5, Field::Bytes(inner)) = &read[5] else { panic!("{:?}", read[5]) };
        assert_eq!(fields(inner).collect::<Vec<_>>(), [(1, Field::Bytes(&long))]);
        assert_eq!(read[6], (6, Field::Bytes(&packed)));
    }

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value as u64);
            assert_eq!(varint_length(value), out.len(), "{value}");
        }
    }

    #[test]
    fn what_is_malformed_ends_it() {
        for malformed in [&[8][..], &[0x0a, 5, 1], &[0xff; 11], &[9, 1, 2], &[0x0b, 1]] {
            assert_eq!(fields(malformed).count(), 0, "{malformed:?}");
        }
    }
}
