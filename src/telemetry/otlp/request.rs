//! The requests around exported records, which name the resource and scope, and the responses to them. All signals
//! use the same structure (opentelemetry/proto/collector).

use super::protobuf::{Field, Fields, fields};
use super::{Attributes, cut};

/// The attributes of the resource, encoded once.
#[derive(Clone, Debug)]
pub struct Resource(Vec<u8>);

/// Maximum length of an attribute value of a resource in bytes.
const LONGEST: usize = 4_096;

impl Resource {
    /// Encodes a resource with these attributes.
    pub fn new<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut encoded = Attributes::new(1, LONGEST);
        attributes.into_iter().for_each(|(key, value)| encoded.text(key, value));
        Resource(encoded.encoded().to_vec())
    }
}

/// Encodes a request that exports records, which are encoded as field 2 of a scope.
pub fn request(resource: &Resource, records: &[u8]) -> Vec<u8> {
    let mut scope = Vec::with_capacity(64);
    scope.message(1, |out| {
        out.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
        out.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
    });
    let mut whole = Vec::with_capacity(resource.0.len() + scope.len() + 32);
    whole.bytes(1, &resource.0);
    whole.length(2, scope.len() + records.len());
    whole.extend_from_slice(&scope);
    // The lengths are known in advance, so that the records are copied only once.
    let mut out = Vec::with_capacity(whole.len() + records.len() + 16);
    out.length(1, whole.len() + records.len());
    out.extend_from_slice(&whole);
    out.extend_from_slice(records);
    out
}

/// Returns the number of records that the collector rejected and its reason; zero and empty if it accepted all.
pub fn rejected(answer: &[u8]) -> (usize, String) {
    let mut rejected = (0, String::new());
    for (_, field) in fields(answer).filter(|(number, _)| *number == 1) {
        let Field::Bytes(partial) = field else { continue };
        for field in fields(partial) {
            match field {
                (1, Field::Number(count)) => rejected.0 = usize::try_from(count).unwrap_or(usize::MAX),
                (2, Field::Bytes(why)) => rejected.1 = cut(&String::from_utf8_lossy(why), 256).to_owned(),
                _ => {}
            }
        }
    }
    rejected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_what_was_rejected() {
        assert_eq!(rejected(&[]), (0, String::new()));
        let mut answer = Vec::new();
        answer.message(1, |partial| {
            partial.varint(1, 3);
            partial.bytes(2, b"too old");
        });
        assert_eq!(rejected(&answer), (3, "too old".to_owned()));
        assert_eq!(rejected(b"<html>not found</html>"), (0, String::new()));
    }
}
