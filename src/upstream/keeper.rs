//! Keeps the posts of the shared children filled: starts the first ones, replaces those that end or hang, says the
//! handshake again, and lets the clients stay as long as the next child says the same of itself (D15).

use super::crew::Shared;
use super::greet::Guest;
use super::{Isolation, Place, RESTARTING, Refusal, Upstream, Use, listen, names, now};
use crate::audience::{Audience, Members};
use crate::backoff::chance;
use crate::client::Client;
use crate::era::probe::Choice;
use crate::era::{Era, discover};
use crate::exchange::Failure;
use crate::jsonrpc::{Spliced, rewrite};
use crate::lifecycle::Restarts;
use crate::phase::Phase;
use crate::telemetry::names::{ATTEMPT, CHILD_RESTART};
use crate::telemetry::scope::spanned;
use crate::telemetry::{Operation, counters};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

impl Upstream {
    /// Starts the shared children, or in `session` mode one that is only to show that it starts.
    ///
    /// # Errors
    /// When one can't be started or doesn't complete its handshake, as often as it may be tried.
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
        // All places are taken first: an exclusive child must not get one of them while the first child still starts.
        let mut places = Vec::with_capacity(self.settings.children);
        for _ in 0..self.settings.children {
            places.push(self.places.wait(Use::Shared).await);
        }
        let mut choice = self.settings.child_era;
        for place in places {
            let members = Arc::new(Members::default());
            let mut restarts = Restarts::new(self.settings.restarts);
            let child = self.fill(&members, choice, &place, &mut restarts).await?;
            // What the first one was found to be, the others are.
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
        let upstream = Arc::clone(self);
        tokio::spawn(async move {
            upstream.list_names(&greeted.link, greeted.era, &greeted.words).await;
            greeted.link.stop();
        });
        Ok(())
    }

    /// Starts a shared child for a post.
    async fn raise(
        &self,
        members: &Arc<Members>,
        choice: Choice,
        patience: Duration,
        place: Place,
    ) -> Result<Arc<Shared>, Failure> {
        let slots = self.settings.slots_to_share();
        let guest = Guest::shared(Audience::Shared(Arc::clone(members)), slots, choice, patience);
        let begun = now();
        let greeted = self.greet(guest, place).await?;
        self.crew.learn(&greeted, now() - begun);
        Ok(Shared::new(greeted, Arc::clone(members), self.settings.request_timeout))
    }

    /// Starts a child for a post until one serves or the budget is used up. The place is the post's, so that no
    /// exclusive child gets it in between.
    async fn fill(
        &self,
        members: &Arc<Members>,
        mut choice: Choice,
        place: &Place,
        restarts: &mut Restarts,
    ) -> Result<Arc<Shared>, Failure> {
        loop {
            let failure = match self.raise(members, choice, self.start_timeout, Arc::clone(place)).await {
                Ok(child) => {
                    restarts.note_serving(now());
                    return Ok(child);
                }
                Err(failure @ Failure::ShuttingDown) => return Err(failure),
                // What has never served is tried again only if it ended: the rest needs the operator.
                Err(failure) if restarts.used() == 0 && !matches!(failure, Failure::Ended(_)) => {
                    return Err(failure);
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::NotStarted(_)) {
                // It may have become of the other era.
                choice = self.settings.child_era;
            }
            self.pause(restarts, &failure).await.ok_or(failure)?;
        }
    }

    /// Waits until the next child may be started; `None` if none may.
    pub(super) async fn pause(&self, restarts: &mut Restarts, why: &Failure) -> Option<()> {
        let pause = restarts.next_pause(now(), chance())?;
        counters::RESTARTED_CHILDREN.increment();
        tracing::warn!(
            restart = restarts.used(),
            limit = restarts.limit(),
            "{}: starting it again in {:.1} s",
            why.for_log(),
            pause.as_secs_f64()
        );
        sleep(pause).await;
        Some(())
    }

    /// Keeps the posts filled that are there from the start; resolves with the end that was one too many.
    pub async fn keep_filled(self: &Arc<Self>) -> Failure {
        let mut keepers = JoinSet::new();
        for shared in self.crew.at_start().iter() {
            let (upstream, shared) = (Arc::clone(self), Arc::clone(shared));
            keepers.spawn(async move { upstream.keep_post(shared).await });
        }
        match keepers.join_next().await {
            Some(Ok(failure)) => {
                self.fail(&failure);
                failure
            }
            // No shared child: nothing to wait for.
            _ => std::future::pending().await,
        }
    }

    /// Notes that no server will run. Requests that wait for one fail with this.
    fn fail(&self, failure: &Failure) {
        let _ = self.failed.set(failure.clone());
        self.phase.send_replace(Phase::Failed(failure.for_probes()));
    }

    /// Sees to one post until its budget is used up.
    async fn keep_post(self: &Arc<Self>, mut shared: Arc<Shared>) -> Failure {
        let place = Arc::clone(&shared.place);
        let mut restarts = Restarts::new(self.settings.restarts);
        restarts.note_serving(now());
        loop {
            let end = {
                let mut accompanied = pin!(self.accompany(&shared.link, shared.era, || false));
                tokio::select! {
                    end = &mut accompanied => end,
                    // It may take its time to end, but serves nobody any more.
                    why = shared.link.closed() => {
                        self.note_restart(&why);
                        accompanied.await
                    }
                }
            };
            let members = &shared.members;
            members.post.vacate();
            members.running.clear();
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

    /// A child serves no longer. Where another does, proxyrunner is as ready as before.
    fn note_restart(&self, why: &Failure) {
        if !self.crew.is_serving() {
            self.phase.send_replace(Phase::Restarting(why.for_probes()));
        }
    }

    /// The next child serves where its predecessor did.
    fn take_over(self: &Arc<Self>, before: &Shared, next: &Arc<Shared>) {
        let members = &next.members;
        let same = before.era == next.era && discover::same_words(&before.words, &next.words);
        if !same {
            tracing::warn!("the restarted server says something else of itself: its sessions are ended");
            self.directory.end_seated(members, &Failure::Changed);
            listen::end_all(next);
        }
        self.crew.succeed(next);
        Arc::clone(next).serve();
        self.learn_names(next);
        if self.crew.is_serving() {
            self.phase.send_replace(Phase::Ready);
        }
        tracing::info!(child = next.link.number(), sessions = members.count(), "restarted: it serves again");
        if same {
            let (upstream, next) = (Arc::clone(self), Arc::clone(next));
            tokio::spawn(async move { upstream.restore(&next).await });
        }
    }

    /// Subscribes to what is watched, and tells those who stayed that anything may have changed.
    async fn restore(&self, shared: &Shared) {
        let members = &shared.members;
        for uri in members.watched() {
            let _turn = members.turn(&uri).await;
            let restored = !members.is_watched(&uri)
                || match shared.era {
                    Era::Legacy => self.tell_subscription(&shared.link, "resources/subscribe", &uri).await,
                    Era::Modern => members.post.listen(None).await,
                };
            if !restored {
                tracing::warn!("the restarted server refused to be subscribed to a resource again");
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

    pub(super) async fn until_ready(&self, operation: &Operation) -> Result<(), Refusal> {
        if *self.phase.borrow() == Phase::Starting {
            let _waits = operation.wait_for_start();
            let mut phase = self.phase.subscribe();
            let started =
                timeout(self.start_timeout, phase.wait_for(|phase| *phase != Phase::Starting)).await;
            if !matches!(started, Ok(Ok(_))) {
                return Err(Refusal::Busy("the server is still starting"));
            }
        }
        self.failed.get().map_or(Ok(()), |failure| Err(Refusal::Failed(failure.clone())))
    }

    /// The same for a request of a client, which waits among others where there is no child at the moment.
    pub(super) async fn shared_for(
        self: &Arc<Self>,
        era: Era,
        client: Client,
        operation: &Operation,
    ) -> Result<Arc<Shared>, Refusal> {
        if let Some(shared) = self.at_hand(era) {
            return Ok(shared);
        }
        let _place = self.entrance.wait(client)?;
        self.shared(era, operation).await
    }

    /// The shared child for clients of an era, if it is there and known to be the one.
    fn at_hand(&self, client: Era) -> Option<Arc<Shared>> {
        if *self.phase.borrow() == Phase::Starting {
            return None;
        }
        let translated = || (self.crew.serves(client) == Some(false)).then(|| self.crew.open(client.other()));
        self.crew.open(client).or_else(|| translated().flatten())
    }

    /// The shared child for clients of an era, once it is ready: one of their own era if the server serves that, else
    /// one that is translated for.
    pub(super) async fn shared(
        self: &Arc<Self>,
        client: Era,
        operation: &Operation,
    ) -> Result<Arc<Shared>, Refusal> {
        self.until_ready(operation).await?;
        if let Some(shared) = self.crew.open(client) {
            return Ok(shared);
        }
        if let Some(shared) = self.refilled(client, operation).await {
            return Ok(shared);
        }
        let other = match self.crew.open(client.other()) {
            None => self.refilled(client.other(), operation).await,
            open => open,
        };
        if other.is_none() && self.settings.isolation != Isolation::Session {
            return Err(Refusal::Busy(RESTARTING));
        }
        if self.crew.serves(client) != Some(false) {
            match self.start_late(client, operation).await {
                Ok(started) => return Ok(started),
                Err(refusal) if other.is_none() && self.crew.serves(client.other()) != Some(true) => {
                    return Err(refusal);
                }
                Err(_) => {}
            }
        }
        match other {
            Some(other) => Ok(other),
            None => self.start_late(client.other(), operation).await,
        }
    }

    /// The next child of this era, where one has ended and is being replaced. Waits for `--restart-wait`.
    async fn refilled(&self, era: Era, operation: &Operation) -> Option<Arc<Shared>> {
        let members = self.crew.vacant(era)?;
        let _waits = operation.wait();
        members.post.serving(self.settings.restart_wait).await?;
        self.crew.open(era)
    }

    /// The child of an era that nobody needed until now.
    async fn start_late(self: &Arc<Self>, era: Era, operation: &Operation) -> Result<Arc<Shared>, Refusal> {
        let _waits = operation.wait_for_start();
        let late = self.crew.late(era);
        let _turn = late.turn.lock().await;
        if let Some(shared) = self.crew.open(era) {
            return Ok(shared);
        }
        // One that is being replaced is not to be started beside its successor.
        if self.crew.vacant(era).is_some() {
            return Err(Refusal::Busy(RESTARTING));
        }
        let unserved = Refusal::Busy("the server does not serve this protocol era");
        if self.crew.serves(era) == Some(false) {
            return Err(unserved);
        }
        let place =
            self.place(Use::Shared).await.ok_or(Refusal::Busy("--max-children servers run already"))?;
        let known = self.crew.serves(era) == Some(true);
        tracing::info!(
            "the first client of the {era} protocol era: starting the server once more, for that era"
        );
        let members = Arc::new(Members::default());
        match self.raise(&members, Choice::from(era), self.patience_for(known), place).await {
            Ok(shared) => {
                *late.child() = Some(Arc::clone(&shared).serve());
                self.learn_names(&shared);
                let (upstream, kept) = (Arc::clone(self), Arc::clone(&shared));
                tokio::spawn(async move { upstream.keep_late(era, kept).await });
                Ok(shared)
            }
            Err(failure @ Failure::ShuttingDown) => Err(Refusal::Failed(failure)),
            Err(failure) if known => Err(Refusal::Failed(failure)),
            Err(failure) => {
                tracing::info!(
                    "{}: it is translated for clients of the {era} protocol era",
                    failure.for_log()
                );
                self.crew.note(era, false);
                Err(unserved)
            }
        }
    }

    /// Sees to the post of the other era. When its budget is used up, that era's clients are translated for.
    async fn keep_late(self: &Arc<Self>, era: Era, shared: Arc<Shared>) {
        let members = Arc::clone(&shared.members);
        let failure = self.keep_post(shared).await;
        tracing::warn!(
            "{}: clients of the {era} protocol era are translated for from now on",
            failure.for_log()
        );
        self.crew.note(era, false);
        *self.crew.late(era).child() = None;
        self.directory.end_seated(&members, &failure);
        members.end_listeners(&failure);
    }

    /// How long a child may take to start that may turn out not to serve its era: what the first one took, with room.
    pub(super) fn patience_for(&self, known: bool) -> Duration {
        if known {
            return self.start_timeout;
        }
        self.start_timeout.min(self.crew.took() * 2 + self.settings.probe_timeout)
    }

    /// Ends the subscriptions of modern clients: proxyrunner ends.
    pub fn end_listens(&self) {
        self.crew.all().iter().for_each(|shared| listen::end_all(shared));
    }
}
