//! Times of RFC 3339, in seconds since 1970.

/// Returns `2026-11-30T02:03:04Z`.
pub(in crate::gateway) fn shown(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Parses a time with any offset; a fraction of a second is dropped.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let number = |text: &str, digits: usize| -> Option<u64> {
        let sound = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        if sound { text.parse().ok() } else { None }
    };
    let [year, month, day] = three(date, '-')?;
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = three(clock, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
            let offset = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if zone.starts_with('-') { -offset } else { offset }
        }
    };
    let is_sound = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let days = (1970..=9999).contains(&year).then(|| days(year, month, day))?;
    if !is_sound || hour > 23 || minute > 59 || second > 60 || self::date(days) != (year, month, day) {
        return None;
    }
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    local.checked_add_signed(-offset)
}

fn three(text: &str, mark: char) -> Option<[&str; 3]> {
    let mut parts = text.split(mark);
    let all = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(all)
}

/// Returns the days since 1970 of a date, which may not exist.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March, so that the leap day is the last one (Hinnant, chrono-compatible low-level date algorithms).
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).saturating_sub(719_468)
}

/// Returns the date of a day since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_and_parsed() {
        for (text, at) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-30T02:03:04Z", 1_796_004_184),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!((shown(at).as_str(), seconds(text)), (text, Some(at)));
        }
        assert_eq!(seconds("2026-11-30t03:33:04.999+01:30"), Some(1_796_004_184));
        assert_eq!(seconds("2026-11-29 21:03:04-05:00"), Some(1_796_004_184));
    }

    #[test]
    fn other_texts_are_no_times() {
        for bad in [
            "",
            "2026-11-30",
            "2026-11-30T02:03:04",
            "2026-11-30T02:03Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T00:00:00.Z",
            "2026-11-30T00:00:00.xZ",
            "2026-11-30T00:00:00+1:00",
            "2026-11-30T00:00:00+24:00",
            "2026-1-1T00:00:00Z",
            "+026-11-30T00:00:00Z",
            "2026-11-30T00:00:00Zx",
            "1970-01-01T00:00:00+01:00",
            "é",
            "é-é-éT",
            "2026-11-30T00:00:00é",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
