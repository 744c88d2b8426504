//! Timestamps by RFC 3339, and version 4 UUIDs.

/// Appends a time, in nanoseconds since the Unix epoch, in UTC: `2026-11-30T02:36:31.000000001Z`.
pub(super) fn put_time(out: &mut String, unix_nanos: u64) {
    let (seconds, nanos) = (unix_nanos / 1_000_000_000, unix_nanos % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    put_digits(out, year, 4);
    for (mark, number) in [('-', month), ('-', day), ('T', hour), (':', minute), (':', second)] {
        out.push(mark);
        put_digits(out, number, 2);
    }
    out.push('.');
    put_digits(out, nanos, 9);
    out.push('Z');
}

/// Appends a random UUID. It need only be unique.
pub(super) fn put_uuid(out: &mut String) {
    let random = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut uuid = [b'-'; 36];
    let mut at = 0;
    for byte in random.to_be_bytes() {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        uuid[at..at + 2].copy_from_slice(&pair(byte));
        at += 2;
    }
    push(out, &uuid);
}

/// Appends bytes in hexadecimal.
pub(super) fn put_hex(out: &mut String, bytes: &[u8]) {
    for part in bytes.chunks(32) {
        let mut hex = [0; 64];
        let pairs = hex.chunks_exact_mut(2).zip(part);
        pairs.for_each(|(digits, byte)| digits.copy_from_slice(&pair(*byte)));
        push(out, &hex[..2 * part.len()]);
    }
}

fn pair(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]
}

/// Appends ASCII.
fn push(out: &mut String, ascii: &[u8]) {
    out.push_str(std::str::from_utf8(ascii).unwrap_or_default());
}

/// Appends the last `width` digits of a number.
fn put_digits(out: &mut String, number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    push(out, &digits[..width]);
}

/// Returns year, month and day of a number of days since 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", civil_from_days).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_796_006_191, "2026-11-30T02:36:31.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            let mut time = String::new();
            put_time(&mut time, seconds * 1_000_000_000 + 7);
            assert_eq!(time, shown);
        }
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        for _ in 0..100 {
            let mut uuid = String::new();
            put_uuid(&mut uuid);
            let bytes = uuid.as_bytes();
            assert_eq!((uuid.len(), bytes[14]), (36, b'4'), "{uuid}");
            assert!(matches!(bytes[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
        }
    }
}
