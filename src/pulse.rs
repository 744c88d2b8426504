//! Detects a blocked event loop. A task on the loop records heartbeats; `/livez` checks the last one, and so does a
//! separate thread, which logs when the loop blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// Interval between heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Age of the last heartbeat after which the loop counts as blocked. A loaded machine may miss several.
const STUCK: Duration = Duration::from_secs(15);

/// The heartbeat of the event loop. Clones share it.
#[derive(Clone, Debug)]
pub struct Pulse {
    begun: Instant,
    /// Time of the last heartbeat, in milliseconds since `begun`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// Creates a pulse with a heartbeat at `now`.
    pub fn new(now: Instant) -> Self {
        Pulse { begun: now, last: Arc::default() }
    }

    /// Records heartbeats forever. Must be spawned on the event loop to be watched.
    pub async fn beat(self) {
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.note(Instant::now());
            tick.tick().await;
        }
    }

    /// Checks the heartbeat forever, and logs when the loop blocks and when it recovers. Must run on its own thread.
    pub fn watch(self) {
        let mut was_stuck = false;
        loop {
            std::thread::sleep(BEAT);
            let is_stuck = self.is_stuck(Instant::now());
            match (was_stuck, is_stuck) {
                (false, true) => tracing::error!(
                    "the event loop has been blocked for {} s and /livez fails; please report this as a defect",
                    STUCK.as_secs()
                ),
                (true, false) => tracing::warn!("the event loop has recovered"),
                _ => {}
            }
            was_stuck = is_stuck;
        }
    }

    /// Returns whether the last heartbeat is too old.
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
    fn it_is_stuck_without_heartbeats_and_recovers_with_the_next_one() {
        let begun = Instant::now();
        let pulse = Pulse::new(begun);
        assert!(!pulse.is_stuck(begun + STUCK - BEAT));
        assert!(pulse.is_stuck(begun + STUCK));
        pulse.note(begun + STUCK);
        assert!(!pulse.is_stuck(begun + STUCK * 2 - BEAT));
        assert!(pulse.is_stuck(begun + STUCK * 2));
    }

    #[tokio::test]
    async fn a_running_event_loop_records_heartbeats() {
        let begun = Instant::now().checked_sub(STUCK).expect("a clock that is not new");
        let pulse = Pulse::new(begun);
        assert!(pulse.is_stuck(Instant::now()));
        tokio::spawn(pulse.clone().beat());
        while pulse.is_stuck(Instant::now()) {
            tokio::task::yield_now().await;
        }
    }
}
