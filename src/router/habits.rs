//! Deviations from the protocol that a child is forgiven. Each is logged once per child, since it may hide an error.

use std::cell::Cell;

/// What a child does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It begins lines with a byte order mark.
    ByteOrderMark,
    /// It returns ids and tokens as strings that it was given as integers.
    StringIds,
    /// It returns them as floating-point numbers.
    FloatIds,
    /// It writes members that are null and decide nothing.
    NullMembers,
    /// It writes escape sequences for a terminal in front of messages.
    Escapes,
    /// It answers notifications with errors.
    AnswersNotifications,
    /// It writes several messages as one array.
    Batches,
}

/// The habits of one child that were logged.
#[derive(Debug, Default)]
pub struct Habits {
    logged: Cell<u8>,
}

impl Habits {
    /// Logs a habit of child number `child` the first time.
    pub fn note(&self, child: u64, habit: Habit) {
        let bit = 1 << habit as u8;
        if self.logged.get() & bit == 0 {
            self.logged.set(self.logged.get() | bit);
            tracing::warn!(child, "{}", habit.description());
        }
    }
}

impl Habit {
    fn description(self) -> &'static str {
        match self {
            Habit::ByteOrderMark => "the server begins a line with a byte order mark; it is removed",
            Habit::StringIds => "the server returns integer ids as strings; they are accepted",
            Habit::FloatIds => "the server returns integer ids as floating-point numbers; they are accepted",
            Habit::NullMembers => {
                "the server writes members that are null, such as \"error\":null beside a result; they are removed"
            }
            Habit::Escapes => {
                "the server writes terminal escape sequences in front of a message; they are removed (set TERM=dumb)"
            }
            Habit::AnswersNotifications => {
                "the server wrote an error without an id that is about no known request, probably the answer to a \
                 notification; such errors are discarded"
            }
            Habit::Batches => {
                "the server writes batches, which revision 2025-03-26 allows; each message is taken by itself"
            }
        }
    }
}
