//! Durations as Go writes them, such as `1m0s` and `1.5h`, because ToolHive's files have them.

use std::time::Duration;

/// The units in nanoseconds; longer names first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Maximum number of digits of a fraction that are read.
const DIGITS: usize = 9;

/// Parses a duration that is not negative. `None` if it is malformed or too long.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit_on) = rest.split_at(end);
        let next = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let (name, after) = unit_on.split_at(next);
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        total = total.checked_add(nanos(number, *unit)?)?;
        rest = after;
    }
    (!text.is_empty() && text != "+").then(|| Duration::from_nanos(total))
}

fn nanos(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(DIGITS)];
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u128::from(part) * u128::from(unit) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("0", 0),
            ("1m0s", 60_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("+2s", 2_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("1h1m1s1ms1000us1000000ns", 3_661_003),
            ("10µs990μs", 1),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "+", "1", "-1s", "1d", "s", ".s", "1..s", "1s1", "1 s", "99999999999999h", "1é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
