//! What another replica needs to take a session over: the client's handshake, and what it has told the server since. Pure.
//!
//! A record is a version and parts, each behind its length: the `initialize`, its result, the log level, and each
//! subscription.

use crate::audience::WatchedResources;
use crate::era::envelope::log_level;

/// The version of the form.
const VERSION: u8 = 1;
/// Maximum length of a handshake.
pub(crate) const LONGEST_HANDSHAKE: usize = 64 * 1024;

/// What the client has told the server since its handshake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The minimum level of log messages.
    pub level: Option<&'static str>,
    /// The resources whose changes the client wants to hear of.
    pub watched: WatchedResources,
}

/// What was recorded of a session.
#[derive(Debug)]
pub(crate) struct Record {
    /// The client's `initialize`.
    pub initialize: Vec<u8>,
    /// The `InitializeResult` that the client got.
    pub result: Vec<u8>,
    /// What it has told since.
    pub told: Told,
}

/// Writes a record.
pub(super) fn write(initialize: &[u8], result: &[u8], told: &Told) -> Vec<u8> {
    let mut out = vec![VERSION];
    let level = told.level.unwrap_or_default();
    let uris = told.watched.uris().map(str::as_bytes);
    for part in [initialize, result, level.as_bytes()].into_iter().chain(uris) {
        // No part is longer than a handshake.
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(part);
    }
    out
}

/// Reads a record; `None` if it has another form, or exceeds the limits of a session.
pub(super) fn read(bytes: &[u8]) -> Option<Record> {
    let (&version, mut rest) = bytes.split_first()?;
    let mut next = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        Some(part)
    };
    let (initialize, result, level) = (next()?, next()?, next()?);
    if version != VERSION || initialize.len() + result.len() > LONGEST_HANDSHAKE {
        return None;
    }
    let level = match level {
        [] => None,
        name => Some(log_level(std::str::from_utf8(name).ok()?)?),
    };
    let mut told = Told { level, ..Told::default() };
    while let Some(uri) = next() {
        told.watched.insert(std::str::from_utf8(uri).ok()?).then_some(())?;
    }
    let (initialize, result) = (initialize.to_vec(), result.to_vec());
    rest.is_empty().then_some(Record { initialize, result, told })
}

/// Returns the number of subscriptions in a record, for the fuzzer; `None` if it is none.
pub fn subscriptions_in(bytes: &[u8]) -> Option<usize> {
    let record = read(bytes)?;
    let written = write(&record.initialize, &record.result, &record.told);
    assert!(written.len() <= bytes.len() && read(&written).is_some(), "it can be written again");
    Some(record.told.watched.uris().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uris: &[&str]) -> Told {
        let mut told = Told { level: Some("warning"), ..Told::default() };
        assert!(uris.iter().all(|uri| told.watched.insert(uri)));
        told
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_other_form_is() {
        let written = write(b"{\"method\":\"initialize\"}", b"{}", &told(&["file:///a", "file:///b"]));
        let read_back = read(&written).expect("a record");
        assert_eq!(read_back.initialize, b"{\"method\":\"initialize\"}");
        assert_eq!((read_back.result.as_slice(), read_back.told.level), (&b"{}"[..], Some("warning")));
        assert!(read_back.told.watched.uris().eq(["file:///a", "file:///b"]));
        let whole = [written.len() - 26, written.len() - 13, written.len()];
        for end in 0..=written.len() {
            assert_eq!(read(&written[..end]).is_some(), whole.contains(&end), "cut at {end}");
        }
        for (at, byte) in [(0, 2), (1, 255), (5 + 23 + 4 + 2 + 4, b'W')] {
            let mut changed = written.clone();
            changed[at] = byte;
            assert!(read(&changed).is_none(), "changed at {at}");
        }
    }

    #[test]
    fn a_record_beyond_the_limits_of_a_session_is_none() {
        let long = "x".repeat(LONGEST_HANDSHAKE);
        assert!(read(&write(long.as_bytes(), b"", &told(&[]))).is_some());
        assert!(read(&write(long.as_bytes(), b"{", &told(&[]))).is_none());
        let mut many = write(b"{}", b"{}", &told(&[]));
        for number in 0..65_u32 {
            many.extend(4_u32.to_be_bytes());
            many.extend(number.to_be_bytes());
        }
        assert!(read(&many).is_none());
    }
}
