//! The annotations of a tool on which policies may decide.

use crate::jsonrpc::{Span, member};

/// The names of the annotations, in the order of their bits.
pub(crate) const NAMES: [&str; 4] = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];

/// The annotations of a tool, of which each may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Hints {
    given: u8,
    values: u8,
}

impl Hints {
    /// Returns the annotations that are given.
    pub(crate) fn given(self) -> impl Iterator<Item = (&'static str, bool)> {
        let (given, values) = (self.given, self.values);
        NAMES
            .into_iter()
            .enumerate()
            .filter(move |(at, _)| given & 1 << at != 0)
            .map(move |(at, name)| (name, values & 1 << at != 0))
    }

    /// Returns whether no annotation is given.
    pub(crate) fn is_empty(self) -> bool {
        self.given == 0
    }
}

/// Reads the annotations of a tool in a list.
pub(crate) fn hints_of(frame: &[u8], tool: &Span) -> Hints {
    let mut hints = Hints::default();
    let Some(annotations) = member(frame, tool, "annotations") else { return hints };
    for (at, name) in NAMES.into_iter().enumerate() {
        let value = member(frame, &annotations, name);
        match value.map(|value| &frame[value]) {
            Some(b"true") => {
                hints.given |= 1 << at;
                hints.values |= 1 << at;
            }
            Some(b"false") => hints.given |= 1 << at,
            _ => {}
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_booleans_count() {
        let tool = br#"{"annotations":{"title":"x","readOnlyHint":true,"destructiveHint":false,"openWorldHint":null}}"#;
        let given: Vec<_> = hints_of(tool, &(0..tool.len())).given().collect();
        assert_eq!(given, [("readOnlyHint", true), ("destructiveHint", false)]);
        assert!(hints_of(b"{}", &(0..2)).is_empty());
    }
}
