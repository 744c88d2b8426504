//! Keeps the shared children running: starts them, replaces children that end or hang, repeats the handshake, and
//! keeps the clients' sessions if the next child gives the same result (`docs/architecture.md#restarts`).

use super::Children;
use super::crew::Shared;
use super::guest::Guest;
use super::places::{ChildPlace, Use};
use super::settings::Isolation;
use crate::audience::{Audience, Members};
use crate::backoff::chance;
use crate::catalogue::names;
use crate::clock::now;
use crate::era::probe::Choice;
use crate::era::{Era, discover};
use crate::exchange::Failure;
use crate::jsonrpc::{Spliced, rewrite};
use crate::lifecycle::Restarts;
use crate::phase::Phase;
use crate::tasks;
use crate::telemetry::counters;
use crate::telemetry::names::{ATTEMPT, CHILD_RESTART};
use crate::telemetry::scope::spanned;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

impl Children {
    /// Starts the shared children; in `session` mode one child that only shows that the server starts.
    ///
    /// # Errors
    /// When a child cannot be started or does not complete its handshake, after all attempts that are allowed.
    pub async fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let started = match self.settings.isolation {
            Isolation::Session => self.try_one().await,
            _ => self.start_shared().await,
        };
        match started {
            Ok(()) => {
                self.phase.send_replace(Phase::Ready);
                self.keep_warm();
                Ok(())
            }
            Err(failure) => {
                self.fail(&failure);
                Err(failure)
            }
        }
    }

    async fn start_shared(self: &Arc<Self>) -> Result<(), Failure> {
        // All places are taken first, so that no exclusive child gets one while the first child starts.
        let mut places = Vec::with_capacity(self.settings.children);
        for _ in 0..self.settings.children {
            places.push(self.places.wait(Use::Shared).await);
        }
        let mut choice = self.settings.child_era;
        for place in places {
            let members = Arc::new(Members::default());
            let mut restarts = Restarts::new(self.settings.restarts);
            let child = self.fill(&members, choice, &place, &mut restarts).await?;
            // All children have the era of the first one.
            choice = Choice::from(child.era);
            let child = child.serve();
            self.learn_names(&child);
            self.crew.at_start().push(child);
        }
        Ok(())
    }

    async fn try_one(self: &Arc<Self>) -> Result<(), Failure> {
        let place = self.places.wait(Use::Shared).await;
        let guest = Guest::shared(Audience::Nobody, 16, self.settings.child_era, self.start_timeout);
        let begun = now();
        let greeted = self.greet(guest, place).await?;
        self.crew.learn(&greeted, now() - begun);
        if !names::are_wanted() {
            greeted.link.stop();
            return Ok(());
        }
        tasks::spawn(async move {
            names::read(&greeted.link, greeted.era, &greeted.words).await;
            greeted.link.stop();
        });
        Ok(())
    }

    /// Starts a shared child for a post.
    pub(super) async fn raise(
        &self,
        members: &Arc<Members>,
        choice: Choice,
        patience: Duration,
        place: ChildPlace,
    ) -> Result<Arc<Shared>, Failure> {
        let slots = self.settings.slots_to_share();
        let guest = Guest::shared(Audience::Shared(Arc::clone(members)), slots, choice, patience);
        let begun = now();
        let greeted = self.greet(guest, place).await?;
        self.crew.learn(&greeted, now() - begun);
        Ok(Shared::new(greeted, Arc::clone(members), self.settings.request_timeout))
    }

    /// Starts children for a post until one serves or the restart budget is used up. The post keeps its place, so
    /// that no exclusive child gets it in between.
    async fn fill(
        &self,
        members: &Arc<Members>,
        mut choice: Choice,
        place: &ChildPlace,
        restarts: &mut Restarts,
    ) -> Result<Arc<Shared>, Failure> {
        let is_first = |restarts: &Restarts| restarts.used() == 0 && restarts.limit().is_some();
        loop {
            let failure = match self.raise(members, choice, self.start_timeout, Arc::clone(place)).await {
                Ok(child) => {
                    restarts.note_serving(now());
                    return Ok(child);
                }
                Err(failure @ Failure::ShuttingDown) => return Err(failure),
                // A child that has never served is started again only if it exited; other failures need the operator.
                Err(failure) if is_first(restarts) && !matches!(failure, Failure::Ended(_)) => {
                    return Err(failure);
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::NotStarted(_)) {
                // The server may have changed its era.
                choice = self.settings.child_era;
            }
            self.pause(restarts, &failure).await.ok_or(failure)?;
        }
    }

    /// Waits for the backoff before the next start; `None` if the budget is used up.
    pub(super) async fn pause(&self, restarts: &mut Restarts, why: &Failure) -> Option<()> {
        let pause = restarts.next_pause(now(), chance())?;
        counters::RESTARTED_CHILDREN.increment();
        tracing::warn!(
            restart = restarts.used(),
            limit = restarts.limit(),
            "{}; restarting it in {:.1} s",
            why.for_log(),
            pause.as_secs_f64()
        );
        sleep(pause).await;
        Some(())
    }

    /// Keeps the initial posts filled; resolves with the end that exceeds the restart budget.
    pub async fn keep_filled(self: &Arc<Self>) -> Failure {
        let mut keepers = JoinSet::new();
        let first = Arc::new(Mutex::new(None));
        for shared in self.crew.at_start().iter() {
            let (children, shared, first) = (Arc::clone(self), Arc::clone(shared), Arc::clone(&first));
            keepers.spawn(tasks::boxed(async move {
                let failure = children.keep_post(shared).await;
                first.lock().get_or_insert(failure);
            }));
        }
        keepers.join_next().await;
        let failure = first.lock().take();
        match failure {
            Some(failure) => {
                self.fail(&failure);
                failure
            }
            // There is no shared child to wait for.
            _ => std::future::pending().await,
        }
    }

    /// Records that no server will run; waiting requests fail with this failure.
    fn fail(&self, failure: &Failure) {
        let _ = self.failed.set(failure.clone());
        self.phase.send_replace(Phase::Failed(failure.for_probes()));
    }

    /// Keeps one post filled until its restart budget is used up.
    pub(super) async fn keep_post(self: &Arc<Self>, mut shared: Arc<Shared>) -> Failure {
        let place = Arc::clone(&shared.place);
        let mut restarts = Restarts::new(self.settings.restarts);
        restarts.note_serving(now());
        loop {
            let end = {
                let mut accompanied = pin!(self.accompany(&shared.link, shared.era, || false));
                tokio::select! {
                    end = &mut accompanied => Ok(end),
                    // The child may take time to exit, but serves no longer.
                    why = shared.link.closed() => {
                        self.note_restart(&why);
                        Ok(accompanied.await)
                    }
                    next = self.successor(&shared) => Err(next),
                }
            };
            let members = &shared.members;
            let end = match end {
                Ok(end) => end,
                Err(next) => {
                    self.take_over(&shared, &next);
                    tasks::spawn(Arc::clone(self).retire(std::mem::replace(&mut shared, next)));
                    continue;
                }
            };
            members.post.vacate();
            members.running.clear(shared.link.number());
            let ended = Failure::Ended(end);
            self.note_restart(&ended);
            let next = async {
                self.pause(&mut restarts, &ended).await.ok_or(ended)?;
                let next = self.fill(members, Choice::from(shared.era), &place, &mut restarts).await?;
                Ok((next, restarts.used()))
            };
            let next = spanned(CHILD_RESTART, next, |(_, attempts), attributes| {
                attributes.number(ATTEMPT, (*attempts).into());
            });
            match next.await.map(|(next, _)| next) {
                Ok(next) => {
                    self.take_over(&shared, &next);
                    shared = next;
                }
                Err(failure) => {
                    members.post.close();
                    return failure;
                }
            }
        }
    }

    /// Records that a child serves no longer. While another one serves, proxyrunner stays ready.
    fn note_restart(&self, why: &Failure) {
        if !self.crew.is_serving() {
            self.phase.send_replace(Phase::Restarting(why.for_probes()));
        }
    }

    /// Makes the next child take over its predecessor's post.
    fn take_over(self: &Arc<Self>, before: &Shared, next: &Arc<Shared>) {
        let members = &next.members;
        let same = before.era == next.era && discover::same_words(&before.words, &next.words);
        if !same {
            tracing::warn!(
                "the restarted server reports a different version, different capabilities or instructions; ending its sessions"
            );
            self.directory.end_seated(members, &Failure::Changed);
            next.end_listens();
        }
        self.crew.succeed(next);
        Arc::clone(next).serve();
        self.learn_names(next);
        if self.crew.is_serving() {
            self.phase.send_replace(Phase::Ready);
        }
        tracing::info!(
            child = next.link.number(),
            sessions = members.count(),
            "the restarted server is serving"
        );
        if same {
            let (children, next) = (Arc::clone(self), Arc::clone(next));
            tasks::spawn(async move { children.restore(&next).await });
        }
    }

    /// Subscribes to the watched resources again, and reports that all lists may have changed.
    async fn restore(&self, shared: &Shared) {
        let members = &shared.members;
        for uri in members.watched() {
            let _turn = members.turn(&uri).await;
            let restored = !members.is_watched(&uri)
                || match shared.era {
                    Era::Legacy => {
                        let told = self.tell_subscription(&shared.link, "resources/subscribe", &uri).await;
                        told == Some(true)
                    }
                    Era::Modern => members.post.listen(None).await,
                };
            if !restored {
                tracing::warn!("the restarted server refused a subscription to a resource");
            }
        }
        members.changes.note_all();
        let declares = discover::capabilities_of(&shared.words);
        for kind in ["tools", "prompts", "resources"].into_iter().filter(|kind| declares(kind, "listChanged"))
        {
            let method = format!("notifications/{kind}/list_changed");
            members.tell_all(&method, &Spliced::from(rewrite::notification(&method, None)));
        }
    }

    /// Reads the names of a child's tools and prompts, if metrics or spans need them.
    pub(super) fn learn_names(&self, shared: &Arc<Shared>) {
        if names::are_wanted() {
            let shared = Arc::clone(shared);
            tasks::spawn(async move { names::read(&shared.link, shared.era, &shared.words).await });
        }
    }
}
