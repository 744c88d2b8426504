//! Watches a child until it exits, and ends it if it hangs. An idle child is sent `ping`, or `server/discover` if it
//! is modern; a busy child has the time of its requests. A child that reads nothing from its stdin hangs, too, even
//! if it writes.

use super::Children;
use crate::clock::now;
use crate::era::Era;
use crate::exchange::{End, Failure, Link};
use crate::inquiry::{self, modern_request};
use crate::lifecycle::{Diagnosis, Leeway, Patience, Seen, Silence, Stall, Stdin};
use crate::mux::WireId;
use crate::telemetry::counters;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Minimum and maximum interval between checks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Minimum time for a child to read its stdin after its last request.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// The result of a ping.
enum Sign {
    Given,
    None,
    /// No answer, but a request overtook the ping, and the child may be busy with it.
    Undecided,
}

impl Children {
    /// Resolves with the child's end; never, if proxyrunner shuts down. `waits` returns whether the child waits for a
    /// client's answer.
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
                    "the server has read nothing for {} s, longer than a request may take; stopping it as hung",
                    leeway.whole.as_secs_f64()
                );
                return;
            }
        }
    }

    async fn until_it_hangs(&self, link: &Arc<Link>, era: Era, waits: impl Fn() -> bool) {
        // By then a request has timed out, and its cancellation had no effect.
        let busy = self.settings.request_timeout + self.settings.cancel_grace;
        let patience = Patience { idle: self.settings.ping_interval, busy };
        let mut silence = Silence::new(patience, now());
        let mut looks = interval((patience.idle / 4).clamp(LOOKS.0, LOOKS.1));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let seen = Seen { heard: link.heard(), in_flight: link.calls(), waits: waits() };
            match silence.look(seen, now()) {
                Diagnosis::Fine => {}
                Diagnosis::Ask => match self.ask_for_a_sign(link, era).await {
                    Sign::Given => self.pings.note_answer(),
                    Sign::Undecided => {}
                    Sign::None if self.pings.note_silence() => {}
                    Sign::None => {
                        tracing::error!(
                            child = link.number(),
                            "the server did not answer a ping within {} s (--ping-timeout); stopping it as hung",
                            self.settings.ping_timeout.as_secs_f64()
                        );
                        return;
                    }
                },
                Diagnosis::Hangs => {
                    tracing::error!(
                        child = link.number(),
                        "the server has written nothing for {} s, longer than a request may take; stopping it as hung",
                        busy.as_secs_f64()
                    );
                    return;
                }
            }
        }
    }

    /// Pings the child; any answer within `--ping-timeout`, even an error, is a sign of life.
    async fn ask_for_a_sign(&self, link: &Arc<Link>, era: Era) -> Sign {
        let heard = link.heard();
        let mut overtaken = false;
        let ping = |wire_id: WireId| {
            // The ping itself counts as one call.
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
            // The child's end is handled elsewhere.
            _ => Sign::Given,
        }
    }
}
