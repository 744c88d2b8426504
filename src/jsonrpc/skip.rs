//! Steps over objects and arrays of validated JSON, 64 bytes at a time. Only the brackets outside of strings matter, since
//! all else was checked before.

/// Length of a block, in bytes: one bit each in a word.
const BLOCK: usize = 64;

/// The bytes of a block that matter, one bit each.
struct Marks {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
}

/// Returns the end of the object or array that begins at `at`; `None` if the text ends before.
pub(super) fn container_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    // All bits are set while a string goes on, and the lowest one if the next byte is escaped.
    let (mut in_string, mut is_escaped) = (0, 0);
    let mut last = [0; BLOCK];
    while at < bytes.len() {
        let block = match bytes[at..].first_chunk::<BLOCK>() {
            Some(block) => block,
            None => {
                let rest = &bytes[at..];
                last[..rest.len()].copy_from_slice(rest);
                &last
            }
        };
        let Marks { quotes, backslashes, opens, closes } = Marks::of(block);
        let quotes = match backslashes | is_escaped {
            0 => quotes,
            _ => quotes & !escaped(backslashes, &mut is_escaped),
        };
        let strings = up_to_each(quotes) ^ in_string;
        in_string = ((strings as i64) >> 63) as u64;
        let (opens, mut closes) = (opens & !strings, closes & !strings);
        let mut closed = 0;
        while closes != 0 {
            let first = closes.trailing_zeros();
            closed += 1;
            // Brackets that were opened before this one.
            if depth + (opens & ((1 << first) - 1)).count_ones() as usize == closed {
                return Some(at + first as usize + 1);
            }
            // Too few are closed in this block: none of them is the last one.
            if depth > closed + closes.count_ones() as usize - 1 {
                closed += closes.count_ones() as usize - 1;
                break;
            }
            closes &= closes - 1;
        }
        depth = (depth + opens.count_ones() as usize).saturating_sub(closed);
        at += BLOCK;
    }
    None
}

/// Returns the bits from each first of two bits, including it, up to the second.
fn up_to_each(mut quotes: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        quotes ^= quotes << shift;
    }
    quotes
}

/// Returns the bytes that a backslash escapes. `carry` is 1 if the first byte is, and becomes 1 if the next block's first is.
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslashes = backslashes & !*carry;
    let behind = (backslashes << 1) | *carry;
    // Backslashes in a row escape each other. The sum carries through a row that begins at an odd place.
    let odd = backslashes & !EVEN & !behind;
    let (even, overflows) = odd.overflowing_add(backslashes);
    *carry = u64::from(overflows);
    (EVEN ^ (even << 1)) & behind
}

impl Marks {
    #[cfg(target_arch = "x86_64")]
    fn of(block: &[u8; BLOCK]) -> Self {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
        };
        let mut marks = Marks { quotes: 0, backslashes: 0, opens: 0, closes: 0 };
        for (at, part) in block.as_chunks::<16>().0.iter().enumerate() {
            let whole = u128::from_le_bytes(*part);
            // SAFETY: every processor of this architecture has SSE2, and only registers are used.
            let [quotes, backslashes, opens, closes] = unsafe {
                let part = _mm_set_epi64x((whole >> 64) as i64, whole as i64);
                // `[` and `]` become `{` and `}`.
                let folded = _mm_or_si128(part, _mm_set1_epi8(0x20));
                [(part, b'"'), (part, b'\\'), (folded, b'{'), (folded, b'}')].map(|(part, byte)| {
                    u64::from(_mm_movemask_epi8(_mm_cmpeq_epi8(part, _mm_set1_epi8(byte as i8))) as u32)
                })
            };
            marks.quotes |= quotes << (16 * at);
            marks.backslashes |= backslashes << (16 * at);
            marks.opens |= opens << (16 * at);
            marks.closes |= closes << (16 * at);
        }
        marks
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(block: &[u8; BLOCK]) -> Self {
        Self::in_words(block)
    }

    /// The same for all processors, eight bytes at a time.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn in_words(block: &[u8; BLOCK]) -> Self {
        const EACH: u64 = 0x0101_0101_0101_0101;
        const LOW: u64 = EACH * 0x7f;
        let mut marks = Marks { quotes: 0, backslashes: 0, opens: 0, closes: 0 };
        for (at, part) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*part);
            let bits = |word: u64, byte: u8| {
                let differs = word ^ (EACH * u64::from(byte));
                // The high bit of each byte that is 0, without carries between bytes.
                let zeros = !(((differs & LOW) + LOW) | differs | LOW);
                // Gathers the high bits of all bytes.
                ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at)
            };
            let folded = word | (EACH * 0x20);
            marks.quotes |= bits(word, b'"');
            marks.backslashes |= bits(word, b'\\');
            marks.opens |= bits(folded, b'{');
            marks.closes |= bits(folded, b'}');
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    /// Text made of a few characters, so that all combinations occur.
    fn random(random: &mut fastrand::Rng, depth: usize) -> String {
        let text = |random: &mut fastrand::Rng| {
            let parts = [
                "a",
                "{",
                "]",
                "\\\\",
                "\\\"",
                "\\\\\\\"",
                "\u{e9}",
                "}[",
                "0123456789012345678901234567890",
            ];
            let length = random.usize(..12);
            (0..length).map(|_| parts[random.usize(..parts.len())]).collect::<String>()
        };
        match random.usize(..if depth == 0 { 2 } else { 4 }) {
            0 => format!("\"{}\"", text(random)),
            1 => ["0", "-1.5e3", "true", "null", "{}", "[ ]"][random.usize(..6)].to_owned(),
            kind => {
                let length = random.usize(..6);
                let parts: Vec<String> = (0..length)
                    .map(|_| {
                        let key = if kind == 2 { format!("\"{}\" :", text(random)) } else { String::new() };
                        format!("{key}{}", self::random(random, depth - 1))
                    })
                    .collect();
                let (open, close) = if kind == 2 { ('{', '}') } else { ('[', ']') };
                format!("{open}{}{close}", parts.join(" , "))
            }
        }
    }

    #[test]
    fn the_end_is_where_the_lexer_finds_it() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let (before, after) = (rng.usize(..70), rng.usize(..70));
            let value = format!("[{}]", random(&mut rng, 4));
            let whole = " ".repeat(before) + &value + &"]".repeat(after);
            let end = Lexer::starting_at(whole.as_bytes(), before).value().expect("JSON").end;
            assert_eq!(container_end(whole.as_bytes(), before), Some(end), "{whole}");
            assert_eq!(container_end(&whole.as_bytes()[..end - 1], before), None, "{whole}");
        }
    }

    #[test]
    fn all_processors_mark_the_same() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let near = b"\"\\{}[]!#Z^z|~\x00\x7f\x80\xa2\xdc\xfb\xfd";
            let block = std::array::from_fn(|_| near[rng.usize(..near.len())]);
            let (one, other) = (Marks::of(&block), Marks::in_words(&block));
            assert_eq!((one.quotes, one.backslashes), (other.quotes, other.backslashes), "{block:?}");
            assert_eq!((one.opens, one.closes), (other.opens, other.closes), "{block:?}");
            for (at, byte) in block.iter().enumerate() {
                assert_eq!(one.quotes >> at & 1 == 1, *byte == b'"');
                assert_eq!(one.opens >> at & 1 == 1, matches!(byte, b'{' | b'['));
                assert_eq!(one.closes >> at & 1 == 1, matches!(byte, b'}' | b']'));
            }
        }
    }
}
