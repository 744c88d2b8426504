//! Deviations from the protocol that are tolerated. Each is logged once per child, since it may hide an error.

use std::cell::Cell;

/// A deviation from the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Lines begin with a byte order mark.
    ByteOrderMark,
    /// Integer ids and tokens are returned as strings.
    StringIds,
    /// Integer ids and tokens are returned as floating-point numbers.
    FloatIds,
    /// Messages have members that are null, and that the protocol does not allow there.
    NullMembers,
    /// Terminal escape sequences precede messages.
    Escapes,
    /// Notifications are answered with errors.
    AnswersNotifications,
    /// Several messages are written as one array.
    Batches,
}

/// The habits of one child that were logged already.
#[derive(Debug, Default)]
pub struct Habits {
    logged: Cell<u8>,
}

impl Habits {
    /// Logs a habit of child number `child`, the first time only.
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
            Habit::ByteOrderMark => "the server begins a line with a byte order mark; removed",
            Habit::StringIds => "the server returns integer ids as strings; accepted",
            Habit::FloatIds => "the server returns integer ids as floating-point numbers; accepted",
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
                "the server writes batches, which only revision 2025-03-26 allows; each message is handled separately"
            }
        }
    }
}
