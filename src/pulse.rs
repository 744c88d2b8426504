//! Whether the event loop still turns: a task of it beats, and whoever doubts looks when it last did. A thread of its own
//! looks too, and says so in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// How often it beats.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which it is stuck: many beats, since a loaded machine misses some.
const STUCK: Duration = Duration::from_secs(15);

/// The pulse of proxyrunner's event loop; clones share it.
#[derive(Clone, Debug)]
pub struct Pulse {
    begun: Instant,
    /// When it last beat, in milliseconds since it began.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// Beats as of now.
    pub fn new(now: Instant) -> Self {
        Pulse { begun: now, last: Arc::default() }
    }

    /// Beats for ever. Must be spawned on the event loop that is in doubt.
    pub async fn beat(self) {
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.note(Instant::now());
            tick.tick().await;
        }
    }

    /// Looks for ever, and logs when it stops and when it goes on. To be run by a thread of its own.
    pub fn watch(self) {
        let mut was_stuck = false;
        loop {
            std::thread::sleep(BEAT);
            let is_stuck = self.is_stuck(Instant::now());
            match (was_stuck, is_stuck) {
                (false, true) => tracing::error!(
                    "the event loop has not turned for {} s: /livez fails, please report this as a defect",
                    STUCK.as_secs()
                ),
                (true, false) => tracing::warn!("the event loop turns again"),
                _ => {}
            }
            was_stuck = is_stuck;
        }
    }

    /// Whether it has not beaten for too long.
    pub fn is_stuck(&self, now: Instant) -> bool {
        let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(last) >= STUCK
    }

    fn note(&self, now: Instant) {
        let since = now.saturating_duration_since(self.begun).as_millis();
        self.last.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stuck_when_it_has_not_beaten_for_long_and_no_longer_when_it_beats_again() {
        let begun = Instant::now();
        let pulse = Pulse::new(begun);
        assert!(!pulse.is_stuck(begun + STUCK - BEAT));
        assert!(pulse.is_stuck(begun + STUCK));
        pulse.note(begun + STUCK);
        assert!(!pulse.is_stuck(begun + STUCK * 2 - BEAT));
        assert!(pulse.is_stuck(begun + STUCK * 2));
    }

    #[tokio::test]
    async fn an_event_loop_that_turns_beats() {
        let begun = Instant::now().checked_sub(STUCK).expect("a clock that is not new");
        let pulse = Pulse::new(begun);
        assert!(pulse.is_stuck(Instant::now()));
        tokio::spawn(pulse.clone().beat());
        while pulse.is_stuck(Instant::now()) {
            tokio::task::yield_now().await;
        }
    }
}
