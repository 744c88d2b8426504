//! Names of servers: `time`, or the registry's form `com.example/time`.

/// Maximum length of a whole name (the registry's schema).
const LONGEST: usize = 200;
/// Maximum length of a segment.
const LONGEST_SEGMENT: usize = 63;

const SEGMENTS: &str =
    "give 1 to 63 of a-z, 0-9, '.', '_' and '-', of which the first is a letter or a digit";

/// The reason why a text was refused, and the remedy.
pub(super) type Refusal = (&'static str, &'static str);

/// Returns the segment of the path for a server.
pub(super) fn segment(name: &str) -> Result<&str, Refusal> {
    if name.len() > LONGEST {
        return Err(("is longer than 200 bytes", SEGMENTS));
    }
    let (namespace, segment) =
        name.rsplit_once('/').map_or((None, name), |(space, rest)| (Some(space), rest));
    let is_in_space = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if namespace.is_some_and(|space| space.is_empty() || !space.bytes().all(is_in_space)) {
        return Err((
            "has an unusable namespace",
            "give letters, digits, '.' and '-' before the only slash, e.g. com.example/time",
        ));
    }
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_next = |byte: u8| is_first(byte) || matches!(byte, b'.' | b'_' | b'-');
    let sound = segment.bytes().next().is_some_and(is_first) && segment.bytes().all(is_next);
    if !sound || segment.len() > LONGEST_SEGMENT {
        return Err(("is not a segment of a path", SEGMENTS));
    }
    if segment.contains("__") {
        return Err(("contains __, which separates servers from their tools", "use a single _ or a -"));
    }
    Ok(segment)
}
