//! Replaces every child without losing a call, since the environment of new children has changed
//! (`--on-env-change restart`).
//!
//! - A shared child's successor starts beside it and takes over its post. The child is stopped once it has answered.
//!   One post is renewed at a time. A server that runs only once, or with `--max-children 1`, is stopped first, and
//!   its clients' requests wait.
//! - A session's own child is stopped once it is quiet. The session is resumed (`--resume-sessions`), or ends.
//! - A child that is not leased is stopped; a leased one when it is returned.

use super::Children;
use super::crew::Shared;
use crate::audience::Own;
use crate::backoff::Backoff;
use crate::clock::now;
use crate::era::probe::Choice;
use crate::exchange::{End, Failure, Link};
use crate::session::Session;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Interval between checks whether a child is quiet. Twice in a row, since a request may be on its way to the child.
const LOOK: Duration = Duration::from_millis(100);
/// Minimum and maximum delay before a successor that did not start is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

impl Children {
    /// Replaces every child.
    pub fn renew(self: &Arc<Self>) {
        self.renewals.begin();
        self.pool.renew();
        self.keep_warm();
    }

    /// Starts the successor of a shared child once it is to be replaced. The child serves until then, and goes on if no
    /// successor starts.
    pub(super) async fn successor(&self, shared: &Shared) -> Arc<Shared> {
        self.renewals.after(shared.renewal).await;
        let _turn = self.renewals.turn.lock().await;
        if self.single_instance.is_known() || self.settings.max_children == 1 {
            let (members, number) = (&shared.members, shared.link.number());
            let is_busy = || members.running.is_any_of(number);
            // A pause between requests is awaited before new ones have to wait.
            let _ = timeout(self.settings.request_timeout, self.quiet(&shared.link, is_busy)).await;
            members.post.vacate();
            self.quiet(&shared.link, is_busy).await;
            shared.link.stop();
            return std::future::pending().await;
        }
        let mut pauses = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let place = Arc::clone(&shared.place);
            let choice = Choice::from(shared.era);
            let tried = self.renewals.current();
            match self.raise(&shared.members, choice, self.start_timeout, place).await {
                Ok(next) => return next,
                Err(Failure::ShuttingDown) => return std::future::pending().await,
                Err(failure) => {
                    let pause = pauses.advance();
                    tracing::error!(
                        child = shared.link.number(),
                        "{}; the server does not start with its changed environment, and the running one continues with \
                         the previous values; trying again in {} s (--env-file)",
                        failure.for_log(),
                        pause.as_secs()
                    );
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.renewals.after(tried) => pauses.reset(),
                    }
                }
            }
        }
    }

    /// Stops a shared child whose successor serves, once it has answered all requests.
    pub(super) async fn retire(self: Arc<Self>, shared: Arc<Shared>) {
        let (link, running) = (&shared.link, &shared.members.running);
        let answered = self.quiet(link, || running.is_any_of(link.number()));
        tokio::select! {
            () = answered => {}
            _ = link.ended() => {}
        }
        link.stop();
        running.clear(link.number());
        tracing::info!(
            child = link.number(),
            "the server is stopped: another process has its changed environment"
        );
    }

    /// Returns the end of a child; meanwhile lets `renewed` stop the child when it is to be replaced.
    pub(super) async fn unless_renewed(
        &self,
        ended: impl Future<Output = End>,
        renewed: impl Future<Output = ()>,
    ) -> End {
        let mut ended = pin!(ended);
        tokio::select! {
            end = &mut ended => return end,
            () = renewed => {}
        }
        ended.await
    }

    /// Stops the own child of a session that will be resumed, once it is to be replaced and is quiet. Requests that
    /// arrive meanwhile wait for the next child.
    pub(super) async fn stop_when_quiet(&self, own: &Own, link: &Arc<Link>, renewal: u64) {
        self.renewals.after(renewal).await;
        loop {
            self.quiet(link, || false).await;
            own.post.vacate();
            sleep(LOOK).await;
            if link.calls() == 0 {
                return link.stop();
            }
            own.post.fill(link, None);
        }
    }

    /// Ends a session once its own child is to be replaced and is quiet. Its client gets 404 and initializes again.
    pub(super) async fn end_when_quiet(&self, session: &Weak<Session>, renewal: u64) {
        self.renewals.after(renewal).await;
        while let Some(session) = session.upgrade() {
            if self.directory.end_if_quiet_for(Duration::ZERO, &session, &Failure::SessionEnded, now()) {
                tracing::info!(session = %session.id(), "session ended: the environment of its server has changed");
                return;
            }
            drop(session);
            sleep(LOOK).await;
        }
    }

    /// Resolves once a child has answered all requests, and `is_busy` returns false; at the latest when no request may
    /// run longer.
    async fn quiet(&self, link: &Link, is_busy: impl Fn() -> bool) {
        let until = now() + self.settings.request_max + self.settings.cancel_grace;
        let mut looks = 0;
        while looks < 2 && now() < until {
            sleep(LOOK).await;
            let is_quiet = link.calls() == 0 && !link.has_notifications() && !is_busy();
            looks = if is_quiet { looks + 1 } else { 0 };
        }
    }
}
