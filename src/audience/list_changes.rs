//! Counts how often each of a child's lists changed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of list that a child offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list` and `resources/templates/list`
    Resources,
}

impl ListKind {
    /// Returns the kind of list whose change the notification `method` announces.
    pub fn changed_by(method: &str) -> Option<Self> {
        Some(match method {
            "notifications/tools/list_changed" => ListKind::Tools,
            "notifications/prompts/list_changed" => ListKind::Prompts,
            "notifications/resources/list_changed" => ListKind::Resources,
            _ => return None,
        })
    }
}

/// The number of changes of each list of one child. Changes are counted as the child's frames are read, so that every
/// later answer of the child counts as newer.
#[derive(Debug, Default)]
pub struct ListChanges([AtomicU64; 3]);

impl ListChanges {
    /// Returns how often a list changed.
    pub fn of(&self, kind: ListKind) -> u64 {
        self.0[kind as usize].load(Ordering::Acquire)
    }

    /// Counts a change of a list.
    pub fn note(&self, kind: ListKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Release);
    }

    /// Counts a change of every list: without a listener for a while, any of them may have changed.
    pub fn note_all(&self) {
        [ListKind::Tools, ListKind::Prompts, ListKind::Resources]
            .into_iter()
            .for_each(|kind| self.note(kind));
    }
}
