//! Objects and arrays within validated JSON: finding members, iterating over elements, and adding or removing members
//! without touching the others.
//!
//! Of several members with one name the last one counts. If that is not safe to assume, [`scan`](super::scan()) has
//! refused the message already.

use super::lexer::Lexer;
use super::message::Span;
use super::splice::Edits;
use super::text::{key_of, text};
use std::collections::HashMap;

/// Iterates over the members of a validated JSON object, as (key, value) spans of `bytes`. Any other value has none.
pub fn members(bytes: &[u8], object: Span) -> Members<'_> {
    let mut lexer = Lexer::starting_at(&bytes[..object.end], object.start);
    let open = lexer.take(b'{');
    lexer.space();
    let more = open && !lexer.take(b'}');
    Members { lexer, more }
}

/// The members of an object, in order; see [`members`].
pub struct Members<'a> {
    lexer: Lexer<'a>,
    more: bool,
}

impl Iterator for Members<'_> {
    type Item = (Span, Span);

    fn next(&mut self) -> Option<Self::Item> {
        if !std::mem::take(&mut self.more) {
            return None;
        }
        let key = self.lexer.key().ok()?;
        let value = self.lexer.validated_value().ok()?;
        self.more = self.lexer.more(b'}').ok()?;
        Some((key, value))
    }
}

/// Returns the span of a member's value. Of several members with that name the last one counts, as in most parsers.
/// `None` if `object` is not an object.
pub fn member(bytes: &[u8], object: &Span, name: &str) -> Option<Span> {
    members(bytes, object.clone())
        .filter(|(key, _)| *key_of(&bytes[key.clone()]) == *name.as_bytes())
        .last()
        .map(|(_, value)| value)
}

/// Returns the members of an object, as spans of names and values. Of several with one name, only the last, as for
/// [`member`].
pub fn distinct_members(bytes: &[u8], object: &Span) -> Vec<(Span, Span)> {
    let mut last = HashMap::new();
    let all: Vec<_> = members(bytes, object.clone()).collect();
    for (at, (key, _)) in all.iter().enumerate() {
        last.insert(key_of(&bytes[key.clone()]), at);
    }
    let is_last = |at: &usize| last.get(&key_of(&bytes[all[*at].0.clone()])) == Some(at);
    (0..all.len()).filter(is_last).map(|at| all[at].clone()).collect()
}

/// Returns the value of a member, if it is a string.
pub fn string_member<'a>(bytes: &'a [u8], object: &Span, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    member(bytes, object, name).filter(|value| bytes[value.start] == b'"').map(|value| text(bytes, &value))
}

/// Iterates over the elements of a validated JSON array, as spans of `bytes`. Any other value has none.
pub fn items(bytes: &[u8], array: Span) -> Items<'_> {
    let mut lexer = Lexer::starting_at(&bytes[..array.end], array.start);
    let open = lexer.take(b'[');
    lexer.space();
    let more = open && !lexer.take(b']');
    Items { lexer, more }
}

/// The elements of an array, in order; see [`items`].
pub struct Items<'a> {
    lexer: Lexer<'a>,
    more: bool,
}

impl Iterator for Items<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        if !std::mem::take(&mut self.more) {
            return None;
        }
        let value = self.lexer.validated_value().ok()?;
        self.more = self.lexer.more(b']').ok()?;
        Some(value)
    }
}

/// A change to an object: members to remove, and members to add in front of the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amendment<'a> {
    /// The names of the members to remove.
    pub drop: &'a [&'a str],
    /// Raw members to add, `"key":value`, separated by commas; may be empty.
    pub add: &'a [u8],
}

/// Amends the object at `object`. Returns true if none of its members stayed.
///
/// Each object must be amended at most once: two amendments would disagree about the commas.
pub fn amend(bytes: &[u8], object: &Span, amendment: Amendment<'_>, edits: &mut Edits) -> bool {
    let first = object.start + 1;
    if amendment.drop.is_empty() {
        let empty = bytes[first..].trim_ascii_start().starts_with(b"}");
        put_first(first, amendment.add, empty, edits);
        return empty;
    }
    let kept = |name: &[u8]| !amendment.drop.iter().any(|dropped| *dropped.as_bytes() == *name);
    amend_by(bytes, object, kept, amendment.add, edits)
}

/// Removes the members whose names `keep` rejects, and adds members in front of the others; as [`amend`].
pub fn amend_by(
    bytes: &[u8],
    object: &Span,
    keep: impl Fn(&[u8]) -> bool,
    add: &[u8],
    edits: &mut Edits,
) -> bool {
    let none_kept = retain(bytes, object, edits, |name, _| keep(name));
    put_first(object.start + 1, add, none_kept, edits);
    none_kept
}

/// Removes the members that `keep` rejects from the object at `object`. `keep` is called with each name and the span
/// of the value, in order. Returns true if no member stayed. As with [`amend`], at most once for an object.
pub fn retain(
    bytes: &[u8],
    object: &Span,
    edits: &mut Edits,
    mut keep: impl FnMut(&[u8], &Span) -> bool,
) -> bool {
    let first = object.start + 1;
    let mut none_kept = true;
    // The end of the previous member. The comma after it is removed with this member.
    let mut from = first;
    for (key, value) in members(bytes, object.clone()) {
        let name = key_of(&bytes[key.clone()]);
        if !keep(&name, &value) {
            edits.delete(&(from..value.end));
        } else {
            if none_kept && from > first {
                // Between two members there are only whitespace and one comma.
                let gap = &bytes[from..key.start];
                let comma = gap.iter().position(|byte| *byte == b',').map_or(0, |at| at + 1);
                edits.delete(&(from..from + comma));
            }
            none_kept = false;
        }
        from = value.end;
    }
    none_kept
}

/// Removes the elements that `keep` rejects from the array at `array`. `keep` is called with the position of each, in
/// order. As with [`retain`], at most once for an array.
pub fn retain_items(bytes: &[u8], array: &Span, edits: &mut Edits, mut keep: impl FnMut(usize) -> bool) {
    let first = array.start + 1;
    let mut none_kept = true;
    // The end of the previous element. The comma after it is removed with this element.
    let mut from = first;
    for (at, item) in items(bytes, array.clone()).enumerate() {
        if !keep(at) {
            edits.delete(&(from..item.end));
        } else {
            if none_kept && from > first {
                // Between two elements there are only whitespace and one comma.
                let gap = &bytes[from..item.start];
                let comma = gap.iter().position(|byte| *byte == b',').map_or(0, |at| at + 1);
                edits.delete(&(from..from + comma));
            }
            none_kept = false;
        }
        from = item.end;
    }
}

/// Inserts members at the front of an object; `empty` is true if no others follow.
fn put_first(at: usize, new: &[u8], empty: bool, edits: &mut Edits) {
    if !new.is_empty() {
        edits.insert_members(at, new, !empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Charged;
    use crate::jsonrpc::splice;

    fn amended(text: &'static str, drop: &[&str], add: &str) -> (String, bool) {
        let bytes = Charged::fixed(text.as_bytes());
        let whole = 0..bytes.len();
        let mut edits = Edits::new();
        let empty = amend(&bytes, &whole, Amendment { drop, add: add.as_bytes() }, &mut edits);
        let out = splice(&bytes, &whole, edits).to_vec();
        (String::from_utf8(out.to_vec()).unwrap(), empty)
    }

    #[test]
    fn members_are_removed_and_added_with_their_commas() {
        for (text, drop, add, expected) in [
            ("{}", &["a"][..], "", "{}"),
            ("{ }", &["a"], "\"n\":1", "{\"n\":1 }"),
            (r#"{"a":1}"#, &["a"], "", "{}"),
            (r#"{"a":1}"#, &["a"], "\"n\":1", "{\"n\":1}"),
            (r#"{"a":1, "b":2}"#, &["a"], "", r#"{ "b":2}"#),
            (r#"{"a":1 , "b":2,"c":3}"#, &["a", "b"], "\"n\":1", r#"{"n":1,"c":3}"#),
            (r#"{"a":1,"b":2,"a":3}"#, &["a"], "", r#"{"b":2}"#),
            (r#"{"a":1,"b":2,"c":3}"#, &["b", "c"], "\"n\":1", r#"{"n":1,"a":1}"#),
            (r#"{"\u0061":1,"b":{"a":1}}"#, &["a"], "", r#"{"b":{"a":1}}"#),
            (r#"{"b":2}"#, &[], "\"n\":1,\"m\":2", r#"{"n":1,"m":2,"b":2}"#),
            ("{ }", &[], "\"n\":1", "{\"n\":1 }"),
        ] {
            let (out, empty) = amended(text, drop, add);
            assert_eq!(out, expected, "{text} without {drop:?}");
            assert_eq!(empty, !expected.replace(add, "").contains(':'), "{text}");
        }
    }

    #[test]
    fn items_are_removed_with_their_commas() {
        for (text, removed, expected) in [
            ("[]", &[][..], "[]"),
            ("[ 1 , 2,3 ]", &[], "[ 1 , 2,3 ]"),
            ("[1]", &[0], "[]"),
            ("[ 1 ]", &[0], "[ ]"),
            ("[1, 2,3]", &[0], "[ 2,3]"),
            ("[1, 2 ,3]", &[1], "[1 ,3]"),
            ("[1, 2, 3 ]", &[2], "[1, 2 ]"),
            ("[1,2,3]", &[0, 1], "[3]"),
            ("[1,2,3]", &[0, 2], "[2]"),
            ("[1,2,3]", &[0, 1, 2], "[]"),
            (r#"["a,]",[2,3],{"b":[4]}]"#, &[1], r#"["a,]",{"b":[4]}]"#),
        ] {
            let bytes = Charged::own(text.as_bytes());
            let mut edits = Edits::new();
            retain_items(&bytes, &(0..bytes.len()), &mut edits, |at| !removed.contains(&at));
            assert_eq!(edits.is_empty(), removed.is_empty());
            let out = splice(&bytes, &(0..bytes.len()), edits).to_vec();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text} without {removed:?}");
        }
    }

    #[test]
    fn members_added_in_front_can_be_removed_again() {
        for text in ["{ \"a\" : 1 }", "{}", "{ }", r#"{"a":[1, 2],"b":{}}"#] {
            let bytes = Charged::own(text.as_bytes());
            let mut edits = Edits::new();
            let add = Amendment { drop: &[], add: b"\"x\":1,\"y\":{\"a\":2}" };
            amend(&bytes, &(0..bytes.len()), add, &mut edits);
            let more = splice(&bytes, &(0..bytes.len()), edits).flatten().unwrap();
            let mut edits = Edits::new();
            amend(&more, &(0..more.len()), Amendment { drop: &["x", "y"], add: b"" }, &mut edits);
            assert_eq!(splice(&more, &(0..more.len()), edits).to_vec(), text.as_bytes());
        }
    }

    #[test]
    fn the_last_member_of_a_name_counts() {
        let text = r#"{"a":1,"b":2,"\u0061":3,"c":4,"b":5}"#;
        let bytes = text.as_bytes();
        let found = distinct_members(bytes, &(0..bytes.len()));
        let found: Vec<_> = found.into_iter().map(|(_, value)| &text[value]).collect();
        assert_eq!(found, ["3", "4", "5"]);
        assert!(distinct_members(b"[1]", &(0..3)).is_empty());
    }

    #[test]
    fn members_and_items_are_found_only_in_containers() {
        let text = br#"{"a":1,"b":"x\u0079","\u0061":[ 1 , {"c":2},[] ]}"#;
        let whole = 0..text.len();
        let array = member(text, &whole, "a").unwrap();
        let found: Vec<_> = items(text, array.clone()).map(|item| &text[item]).collect();
        assert_eq!(found, [&b"1"[..], b"{\"c\":2}", b"[]"]);
        assert_eq!(string_member(text, &whole, "b").unwrap(), "xy");
        assert_eq!(string_member(text, &whole, "a"), None);
        assert_eq!(member(text, &array, "c"), None);
        assert_eq!(member(text, &whole, "d"), None);
        assert_eq!(items(text, whole).count(), 0);
        assert_eq!(items(b"[ ]", 0..3).count(), 0);
    }
}
