//! How often a child said that one of its lists has changed.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a child lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list` and `resources/templates/list`
    Resources,
}

impl Kind {
    /// The kind whose change a notification tells of.
    pub fn changed_by(method: &str) -> Option<Self> {
        Some(match method {
            "notifications/tools/list_changed" => Kind::Tools,
            "notifications/prompts/list_changed" => Kind::Prompts,
            "notifications/resources/list_changed" => Kind::Resources,
            _ => return None,
        })
    }
}

/// The changes of one child's lists, counted as its frames are read: what it answers later is of after them.
#[derive(Debug, Default)]
pub struct Changes([AtomicU64; 3]);

impl Changes {
    /// How often a list has changed.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Acquire)
    }

    /// A list has changed.
    pub fn note(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::Release);
    }

    /// Any list may have changed, since for a while nobody listened.
    pub fn note_all(&self) {
        [Kind::Tools, Kind::Prompts, Kind::Resources].into_iter().for_each(|kind| self.note(kind));
    }
}
