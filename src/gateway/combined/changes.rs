//! Changes of lists.

use serde_json::{Map, Value};

/// Some of the lists of tools, prompts and resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lists(u8);

/// The lists: the member of a filter, and the notification of a change.
const NAMES: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

impl Lists {
    /// No list.
    pub const NONE: Lists = Lists(0);
    /// All lists.
    pub const ALL: Lists = Lists(7);

    /// Returns these lists.
    pub fn of(tools: bool, prompts: bool, resources: bool) -> Self {
        Lists(u8::from(tools) | u8::from(prompts) << 1 | u8::from(resources) << 2)
    }

    /// Returns the list of a notification.
    pub fn of_method(method: &str) -> Self {
        let at = NAMES.iter().position(|(_, notification)| *notification == method);
        at.map_or(Lists::NONE, |at| Lists(1 << at))
    }

    /// Returns the lists that are in either.
    pub fn or(self, other: Lists) -> Self {
        Lists(self.0 | other.0)
    }

    /// Returns the lists that are in both.
    pub fn and(self, other: Lists) -> Self {
        Lists(self.0 & other.0)
    }

    fn names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        NAMES.into_iter().enumerate().filter(move |(at, _)| self.0 & (1 << at) != 0).map(|(_, names)| names)
    }

    /// Returns the notifications of their changes.
    pub fn methods(self) -> impl Iterator<Item = &'static str> {
        self.names().map(|(_, method)| method)
    }

    /// Returns the filter of a subscription to them.
    pub fn filter(self) -> Map<String, Value> {
        self.names().map(|(name, _)| (name.to_owned(), Value::from(true))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_their_notifications() {
        let lists = Lists::of(true, false, true);
        let methods: Vec<_> = lists.methods().collect();
        assert_eq!(methods, ["notifications/tools/list_changed", "notifications/resources/list_changed"]);
        assert_eq!(Lists::of_method(methods[1]).and(lists), Lists::of(false, false, true));
        assert_eq!(Lists::of_method("notifications/progress"), Lists::NONE);
        assert_eq!(lists.or(Lists::of(false, true, false)), Lists::ALL);
        assert_eq!(Lists::ALL.filter().len(), 3);
    }
}
