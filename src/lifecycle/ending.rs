//! The end of a child: close stdin, then SIGTERM, then SIGKILL.

use std::time::{Duration, Instant};

/// Time between SIGKILL and giving up on the child.
pub const KILLING: Duration = Duration::from_millis(1500);

/// The timeout of each step.
#[derive(Clone, Copy, Debug)]
pub struct Graces {
    /// The timeout after stdin was closed (`--close-grace`).
    pub close: Duration,
    /// The timeout after SIGTERM (`--terminate-grace`).
    pub terminate: Duration,
}

/// An event in a child's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The child is no longer needed, or can no longer answer.
    Stop,
    /// The child hangs, and would not notice that its stdin is closed.
    Hang,
    /// The deadline of [`Lifecycle::deadline`] has passed.
    Deadline,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close its stdin: a server exits on EOF (basic/lifecycle §Shutdown).
    Close,
    /// Send SIGTERM to its process group.
    Terminate,
    /// Send SIGKILL to its process group.
    Kill,
    /// Send SIGKILL to its guardian and all descendants: the child's end is not reported.
    Abandon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Closing { until: Instant },
    Terminating { until: Instant },
    Killed { until: Instant },
    Abandoned,
}

/// One process, from its start to its exit.
#[derive(Debug)]
pub struct Lifecycle {
    graces: Graces,
    state: State,
}

impl Lifecycle {
    /// Creates the lifecycle of a running child.
    pub fn new(graces: Graces) -> Self {
        Lifecycle { graces, state: State::Running }
    }

    /// Handles an event at `now`, and returns the next step.
    pub fn handle(&mut self, event: Event, now: Instant) -> Option<Action> {
        let (state, action) = match (self.state, event) {
            (State::Running, Event::Stop) => {
                (State::Closing { until: now + self.graces.close }, Action::Close)
            }
            (State::Running | State::Closing { .. }, Event::Hang) => {
                (self.terminating(now), Action::Terminate)
            }
            (State::Closing { until }, Event::Deadline) if now >= until => {
                (self.terminating(now), Action::Terminate)
            }
            (State::Terminating { until }, Event::Deadline) if now >= until => {
                (State::Killed { until: now + KILLING }, Action::Kill)
            }
            (State::Killed { until }, Event::Deadline) if now >= until => (State::Abandoned, Action::Abandon),
            _ => return None,
        };
        self.state = state;
        Some(action)
    }

    fn terminating(&self, now: Instant) -> State {
        State::Terminating { until: now + self.graces.terminate }
    }

    /// Returns the time at which to report [`Event::Deadline`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closing { until } | State::Terminating { until } | State::Killed { until } => Some(until),
            State::Running | State::Abandoned => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACES: Graces = Graces { close: Duration::from_secs(5), terminate: Duration::from_secs(3) };

    #[test]
    fn goes_from_eof_to_sigkill_step_by_step() {
        let start = Instant::now();
        let mut child = Lifecycle::new(GRACES);
        assert_eq!(child.deadline(), None);
        assert_eq!(child.handle(Event::Stop, start), Some(Action::Close));
        assert_eq!(child.handle(Event::Stop, start), None, "stopping twice changes nothing");
        assert_eq!(child.deadline(), Some(start + GRACES.close));
        assert_eq!(child.handle(Event::Deadline, start), None, "too early");
        let later = start + GRACES.close;
        assert_eq!(child.handle(Event::Deadline, later), Some(Action::Terminate));
        assert_eq!(child.deadline(), Some(later + GRACES.terminate));
        assert_eq!(child.handle(Event::Deadline, later), None, "too early");
        let killed = later + GRACES.terminate;
        assert_eq!(child.handle(Event::Deadline, killed), Some(Action::Kill));
        assert_eq!(child.deadline(), Some(killed + KILLING));
        assert_eq!(child.handle(Event::Deadline, killed), None, "too early");
        assert_eq!(child.handle(Event::Deadline, killed + KILLING), Some(Action::Abandon));
        assert_eq!(child.deadline(), None);
        assert_eq!(child.handle(Event::Deadline, killed + KILLING), None);
    }

    #[test]
    fn a_hanging_child_is_terminated_at_once() {
        let start = Instant::now();
        let mut child = Lifecycle::new(GRACES);
        assert_eq!(child.handle(Event::Hang, start), Some(Action::Terminate));
        assert_eq!(child.handle(Event::Hang, start), None, "hanging twice changes nothing");
        assert_eq!(child.handle(Event::Stop, start), None);
        assert_eq!(child.handle(Event::Deadline, start + GRACES.terminate), Some(Action::Kill));

        let mut closing = Lifecycle::new(GRACES);
        closing.handle(Event::Stop, start);
        assert_eq!(closing.handle(Event::Hang, start), Some(Action::Terminate));
    }

    #[test]
    fn a_running_child_has_no_deadline() {
        let mut child = Lifecycle::new(GRACES);
        assert_eq!(child.handle(Event::Deadline, Instant::now()), None);
    }
}
