//! Which tools of a server are shown among those of all servers, as the file says.

use std::collections::BTreeMap;

/// Which tools of a server are shown among those of all servers, and by which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tools {
    /// The only ones that are shown; `None`: all.
    pub allow: Option<Vec<String>>,
    /// Those that are not shown.
    pub deny: Vec<String>,
    /// Other names, by the server's own.
    pub rename: BTreeMap<String, String>,
}

impl Tools {
    /// Returns the name by which a tool is shown; `None` if it is not shown.
    pub fn shown<'a>(&'a self, own: &'a str) -> Option<&'a str> {
        let is_allowed = self.allow.as_ref().is_none_or(|allow| allow.iter().any(|name| name == own));
        if !is_allowed || self.deny.iter().any(|name| name == own) {
            return None;
        }
        match self.rename.get(own) {
            Some(other) => Some(other),
            // Another tool has taken its name.
            None if self.rename.values().any(|other| other == own) => None,
            None => Some(own),
        }
    }

    /// Returns the server's own name of a tool; `None` if it is not shown.
    pub fn own<'a>(&'a self, shown: &'a str) -> Option<&'a str> {
        let renamed = self.rename.iter().find(|(_, other)| *other == shown).map(|(own, _)| own.as_str());
        let own = renamed.unwrap_or(shown);
        self.shown(own).filter(|name| *name == shown).map(|_| own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_filtered_and_renamed() {
        let tools = Tools {
            allow: Some(["a", "b", "c", "d"].map(String::from).to_vec()),
            deny: vec!["b".to_owned()],
            rename: [("c", "see"), ("d", "a")].map(|(own, other)| (own.into(), other.into())).into(),
        };
        let shown = ["a", "b", "c", "d", "e"].map(|own| tools.shown(own));
        assert_eq!(shown, [None, None, Some("see"), Some("a"), None]);
        let own = ["a", "b", "c", "d", "see", "e"].map(|shown| tools.own(shown));
        assert_eq!(own, [Some("d"), None, None, None, Some("c"), None]);
        assert_eq!((Tools::default().shown("x"), Tools::default().own("x")), (Some("x"), Some("x")));
    }
}
