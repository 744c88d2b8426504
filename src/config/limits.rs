//! The settings of rate limits.

use super::parse::{COUNT, ValueKind};
use super::problem::InvalidValue;
use super::reader::Reader;
use crate::limits::{self, Policy, Rate, Settings};
use std::path::PathBuf;

const FILE: ValueKind<(PathBuf, Policy)> =
    ValueKind { parse: file, show: |(path, _)| path.to_string_lossy().into() };
const RATE: ValueKind<(Rate, String)> = ValueKind { parse: rate, show: |(_, text)| text.as_str().into() };

/// Reads the settings.
pub(super) fn read(reader: &mut Reader) -> Settings {
    Settings {
        file: reader.optional("rate-limits", FILE),
        per_address: reader.optional("rate-limit-address", RATE).map(|(rate, _)| rate),
        max_calls: reader.optional("max-calls-per-principal", COUNT).map(|most| most as u32),
    }
}

fn file(text: &str) -> Result<(PathBuf, Policy), InvalidValue> {
    let path = PathBuf::from(text);
    match limits::read(&path) {
        Ok(policy) => Ok((path, policy)),
        Err(reason) => Err(InvalidValue::new(reason, "see docs/limits.md for the file's form")),
    }
}

fn rate(text: &str) -> Result<(Rate, String), InvalidValue> {
    let rate = text.split_once('/').and_then(|(count, period)| {
        let period = super::values::duration(period).ok()?;
        Rate::new(count.parse().ok().filter(|count| *count <= u32::MAX.into())?, period)
    });
    let accepts = "give a number of requests and a duration, e.g. 600/1m";
    rate.map(|rate| (rate, text.to_owned())).ok_or_else(|| InvalidValue::new("is not a rate", accepts))
}
