//! The texts that may name a caller or a client.

/// Maximum length of a name, in bytes.
pub const LONGEST_NAME: usize = 1024;

/// Characters other than white space and controls that show nothing, or that change the direction of what stands around
/// them: Unicode's Default_Ignorable_Code_Point and Bidi_Control, the marks of annotations, and the empty Braille pattern.
const UNSEEN: [(char, char); 18] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Returns whether a text may name a caller or a client: it is not empty, not longer than [`LONGEST_NAME`], and shows
/// all of its characters. Two names that look alike in a log or in a policy would otherwise be different callers.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.trim() == text && is_visible(text)
}

/// Returns whether a text shows all of its characters.
pub fn is_visible(text: &str) -> bool {
    !text.chars().any(is_unseen)
}

/// Returns whether a character shows nothing; the blank between words does.
fn is_unseen(c: char) -> bool {
    let is_listed = || UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c));
    !c.is_ascii_graphic() && c != ' ' && (c.is_control() || c.is_whitespace() || is_listed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_all_of_their_characters() {
        let longest = "x".repeat(LONGEST_NAME);
        for good in ["ann", "Ωmega 世界 <a@b>", "Zoë", "e\u{301}", "אבג", "+1 (2)", "🦀", longest.as_str()]
        {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", " ", " ann", "ann ", &format!("{longest}x")] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for unseen in [
            '\0',
            '\t',
            '\n',
            '\u{1f}',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{1160}',
            '\u{180e}',
            '\u{2003}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fffa}',
            '\u{1d173}',
            '\u{e0061}',
            '\u{e01ef}',
        ] {
            assert!(!is_name(&format!("a{unseen}b")), "{unseen:?}");
        }
    }
}
