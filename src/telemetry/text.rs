//! Truncation of texts that clients and children choose.

/// Truncates a text to at most `longest` bytes, at a character boundary.
pub(crate) fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
