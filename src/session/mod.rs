//! Legacy sessions: their settings.

use std::time::Duration;

/// How long sessions last, and what they keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A session that nobody has used for so long ends.
    pub idle: Duration,
    /// A session ends so long after it began.
    pub max_age: Duration,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Events kept per session for replay.
    pub replay_events: usize,
    /// Bytes of events kept per session for replay.
    pub replay_bytes: usize,
}
