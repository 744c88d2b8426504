//! A lease as gateways tell each other of it in Redis. Pure. What is read is checked as if a caller had said it.

use serde_json::{Value, json};
use std::time::Duration;

/// Time for which a registration holds.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Maximum length of a record.
pub(super) const LONGEST: usize = 8 * 1024;
/// Digits of a sequence number, so that numbers are in the order of their texts.
pub(super) const DIGITS: usize = 20;
/// Digits of a time in milliseconds.
const TIME: usize = 16;

/// What one gateway has heard of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The server's name.
    pub name: String,
    /// The caller whose name it is.
    pub owner: String,
    /// The URL of the replica's endpoint.
    pub url: String,
    /// One sentence for the catalogue.
    pub description: Option<String>,
    /// The number of the last message about the replica.
    pub sequence: u64,
    /// Whether the replica has withdrawn.
    pub is_withdrawn: bool,
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub record: Record,
    /// The time since it was written.
    pub age: Duration,
    /// The time until its lease ends.
    pub left: Duration,
}

impl Record {
    /// Returns the text that stands behind the sequence number and the time.
    pub fn text(&self) -> String {
        let Record { name, owner, url, description, is_withdrawn, .. } = self;
        let mut value = json!({"name": name, "owner": owner, "url": url});
        if let Some(description) = description {
            value["description"] = description.as_str().into();
        }
        if *is_withdrawn {
            value["withdrawn"] = true.into();
        }
        value.to_string()
    }

    /// Returns the sequence number, which texts compare as numbers do.
    pub fn number(&self) -> String {
        format!("{:0width$}", self.sequence, width = DIGITS)
    }
}

/// Reads a record: the sequence number, the time at which it was written, and the text. `now` and `ends` are times of the
/// same clock in milliseconds.
pub(super) fn read(bytes: &[u8], now: u64, ends: u64) -> Option<Heard> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LONGEST)?;
    let (sequence, rest) = text.split_at_checked(DIGITS)?;
    let (written, rest) = rest.split_at_checked(TIME)?;
    let number = |text: &str| -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let mut value: Value = serde_json::from_str(rest).ok().filter(Value::is_object)?;
    let mut member = |name: &str| match value[name].take() {
        Value::String(text) => Some(text),
        _ => None,
    };
    let record = Record {
        name: member("name")?,
        owner: member("owner")?,
        url: member("url")?,
        description: member("description"),
        sequence: number(sequence)?,
        is_withdrawn: value["withdrawn"] == true,
    };
    let millis = |from: u64, to: u64| Duration::from_millis(to.saturating_sub(from));
    // No lease is longer, whatever Redis says.
    let left = millis(now, ends).min(LEASE);
    Some(Heard { record, age: millis(number(written)?, now), left })
}

/// Returns the number of records in these lines, for the fuzz target.
pub fn records_in(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| read(line, 1_000, 2_000)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            name: "com.example/time".to_owned(),
            owner: "https://k8s.example#tools:a".to_owned(),
            url: "http://10.0.0.1:8080/mcp".to_owned(),
            description: Some("Tells the \"time\"".to_owned()),
            sequence: u64::MAX,
            is_withdrawn: true,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in [record(), Record { description: None, sequence: 7, is_withdrawn: false, ..record() }] {
            let whole = format!("{}{:016}{}", record.number(), 1_000, record.text());
            let heard = read(whole.as_bytes(), 3_000, 13_000).expect("a record");
            assert_eq!(heard.record, record);
            assert_eq!((heard.age.as_secs(), heard.left.as_secs()), (2, 10));
        }
        let (low, high) = (Record { sequence: 9, ..record() }, Record { sequence: 10, ..record() });
        assert!(low.number() < high.number());
    }

    #[test]
    fn what_is_no_record_is_left_out_and_no_lease_is_longer_than_one() {
        let record = record();
        let whole = format!("{}{:016}{}", record.number(), 1_000, record.text());
        assert_eq!(read(whole.as_bytes(), 0, u64::MAX).expect("a record").left, LEASE);
        let long = format!("{whole}{}", " ".repeat(LONGEST));
        for bad in [
            "",
            &whole[1..],
            &whole[..whole.len() - 1],
            &whole.replace("owner", "other"),
            &whole.replacen('1', "x", 1),
            &long,
        ] {
            assert_eq!(read(bad.as_bytes(), 0, 0), None, "{bad:.60}");
        }
        assert_eq!(read(&[0xff; 60], 0, 0), None);
    }
}
