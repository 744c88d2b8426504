//! Watches a child until it ends, and ends one that hangs: by `ping`, or `server/discover` if it is modern, while
//! nothing is in flight; else by the time that its requests may take. One that takes nothing of what is written to it
//! hangs too, whatever it says.

use super::Children;
use crate::clock::now;
use crate::era::Era;
use crate::exchange::{End, Failure, Link};
use crate::inquiry::{self, modern_request};
use crate::lifecycle::{Leeway, Patience, Seen, Silence, Stall, Stdin, Verdict};
use crate::mux::WireId;
use crate::telemetry::counters;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often a child is looked at, at least and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a child may take at least, after its last request is over, to read on.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// What is known of the server's answers to pings. Servers exist that have none, and must not be ended for that.
#[derive(Debug, Default)]
pub(super) struct Pings {
    answered: AtomicBool,
    silences: AtomicU32,
}

impl Pings {
    /// Whether silence proves nothing: no ping was ever answered, though a second process had the chance.
    fn note_silence(&self) -> bool {
        if self.answered.load(Relaxed) {
            return false;
        }
        let before = self.silences.fetch_add(1, Relaxed);
        if before == 1 {
            tracing::warn!("the server answers no pings, so that its silence says nothing while it is idle");
        }
        before > 0
    }
}

/// What came of asking for a sign of life.
enum Sign {
    Given,
    None,
    /// None, but a request overtook the question, and it may be busy with that.
    Undecided,
}

impl Children {
    /// Resolves with the child's end; never, if proxyrunner ends it together with itself. `waits` says whether it waits for a client's answer.
    pub(super) async fn accompany(&self, link: &Arc<Link>, era: Era, waits: impl Fn() -> bool) -> End {
        let end = self.watch_over(link, era, waits).await;
        if self.closed.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        end
    }

    async fn watch_over(&self, link: &Arc<Link>, era: Era, waits: impl Fn() -> bool) -> End {
        if self.settings.ping_interval.is_zero() {
            return link.ended().await;
        }
        tokio::select! {
            end = link.ended() => return end,
            () = self.until_it_hangs(link, era, waits) => {}
            () = self.until_it_takes_nothing(link) => {}
        }
        counters::HUNG_CHILDREN.increment();
        link.stop_hung();
        link.ended().await
    }

    async fn until_it_takes_nothing(&self, link: &Link) {
        let idle = self.settings.cancel_grace.max(LEAST_IDLE);
        let leeway = Leeway { whole: self.settings.request_timeout + self.settings.cancel_grace, idle };
        let mut stall = Stall::new(leeway, now());
        let mut looks = interval((leeway.whole / 4).clamp(LOOKS.0, LOOKS.1));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let (waits, taken) = (link.uptake().waits(), link.uptake().taken());
            let seen = Stdin { waits, taken, works: waits && link.is_at_work() };
            if stall.look(seen, now()) {
                tracing::error!(
                    child = link.number(),
                    "the server has read nothing for {} s, longer than its requests may take: it hangs, and is ended",
                    leeway.whole.as_secs_f64()
                );
                return;
            }
        }
    }

    async fn until_it_hangs(&self, link: &Arc<Link>, era: Era, waits: impl Fn() -> bool) {
        // By then a request has had its time, and was cancelled without an effect.
        let busy = self.settings.request_timeout + self.settings.cancel_grace;
        let patience = Patience { idle: self.settings.ping_interval, busy };
        let mut silence = Silence::new(patience, now());
        let mut looks = interval((patience.idle / 4).clamp(LOOKS.0, LOOKS.1));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let seen = Seen { heard: link.heard(), in_flight: link.calls(), waits: waits() };
            match silence.look(seen, now()) {
                Verdict::Fine => {}
                Verdict::Ask => match self.ask_for_a_sign(link, era).await {
                    Sign::Given => self.pings.answered.store(true, Relaxed),
                    Sign::Undecided => {}
                    Sign::None if self.pings.note_silence() => {}
                    Sign::None => {
                        tracing::error!(
                            child = link.number(),
                            "the server did not answer a ping within {} s (--ping-timeout): it hangs, and is ended",
                            self.settings.ping_timeout.as_secs_f64()
                        );
                        return;
                    }
                },
                Verdict::Hangs => {
                    tracing::error!(
                        child = link.number(),
                        "the server has said nothing for {} s, longer than its requests may take: it hangs, and is ended",
                        busy.as_secs_f64()
                    );
                    return;
                }
            }
        }
    }

    /// Whether the child says anything within `--ping-timeout` of being asked. An error is a sign of life too.
    async fn ask_for_a_sign(&self, link: &Arc<Link>, era: Era) -> Sign {
        let heard = link.heard();
        let mut overtaken = false;
        let ping = |wire_id: WireId| {
            // The question itself is one.
            overtaken = link.calls() > 1;
            match era {
                Era::Modern => modern_request(wire_id, "server/discover", ""),
                Era::Legacy => inquiry::ping(wire_id),
            }
        };
        let method = if era == Era::Modern { "server/discover" } else { "ping" };
        match inquiry::ask(link, method, self.settings.ping_timeout, ping).await {
            Err(Failure::TimedOut(_)) if link.heard() != heard => Sign::Given,
            Err(Failure::TimedOut(_)) if overtaken => Sign::Undecided,
            Err(Failure::TimedOut(_)) => Sign::None,
            // Or it has ended, which is seen elsewhere.
            _ => Sign::Given,
        }
    }
}
