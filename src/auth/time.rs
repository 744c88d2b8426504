//! Points in time as tokens and files state them: seconds since the Unix epoch, and dates of RFC 3339.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds since the epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Parses `2027-01-31`, the start of that day, or `2027-01-31T23:00:00Z`, both in UTC.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time.strip_suffix(['Z', 'z'])?),
        None => (text, "00:00:00"),
    };
    let number = |text: &str, digits: usize| -> Option<u64> {
        let sound = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        if sound { text.parse().ok() } else { None }
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let in_month = *days.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let whole = parts.next().is_none() && clock.next().is_none();
    if !whole || year < 1970 || day == 0 || day > in_month || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let before: u64 = days[..usize::try_from(month).ok()? - 1].iter().sum();
    let day = (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before + day - 1;
    Some(day * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_seconds() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00:01Z", 1),
            ("2000-02-29", 951_782_400),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("2026-11-30T02:03:04Z", 1_796_004_184),
            ("2027-03-01 00:00:00z", 1_803_859_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "2027",
            "2027-13-01",
            "2027-02-29",
            "2027-00-01",
            "2027-01-00",
            "1969-12-31",
            "2027-1-1",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:00:00",
            "2027-01-01T00:00:00+01:00",
            "2027-01-01-01",
            "+027-01-01",
            "tomorrow",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
