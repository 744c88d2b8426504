//! Exclusive children: when a session gets one, and how it is seated there with the client's own handshake.

use super::crew::Shared;
use super::greet::StopOnDrop;
use super::guest::Guest;
use super::places::{ChildPlace, Use};
use super::resume::Handshake;
use super::settings::Isolation;
use super::single_instance::EXITS_WITHIN;
use super::{Children, SEATED, initialize};
use crate::audience::{Audience, Own, Seat};
use crate::clock::now;
use crate::era::probe::Choice;
use crate::era::{Era, errors};
use crate::exchange::{Answer, Failure, Link};
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{Spliced, codes};
use crate::session::{Session, Version};
use crate::tasks;
use crate::telemetry::scope::spanned;
use crate::telemetry::{counters, names};
use std::sync::Arc;
use tokio::time::timeout;

impl Children {
    /// Answers a client's `initialize`, and seats its session at a child.
    ///
    /// # Errors
    /// When there is no room, or the child does not start.
    pub async fn initialize(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Spliced, Refusal> {
        initialize::is_short(&incoming.message)?;
        if !self.wants_exclusive(&incoming) {
            return self.seat_shared(session, &incoming).await;
        }
        if self.crew.serves(Era::Legacy).is_none() {
            self.until_ready(&incoming.operation).await?;
        }
        let era = self.crew.serves(Era::Legacy);
        // A modern child's questions name their request, so no client needs an exclusive child.
        if era == Some(false) && self.settings.isolation != Isolation::Session {
            return self.seat_shared(session, &incoming).await;
        }
        if self.single_instance.is_known() {
            return self.seat_at_only_child(session, &incoming).await;
        }
        match self.place(Use::Call(session.opener())).await {
            Some(place) if era == Some(false) => self.seat_own_modern(session, &incoming, place).await,
            Some(place) => {
                let seated = self.seat_exclusive(session, incoming.clone(), Arc::clone(&place)).await;
                let seated = place.outcome(seated);
                if !(self.shares(Era::Legacy) && self.single_instance.note(&seated)) {
                    return seated;
                }
                self.seat_at_only_child(session, &incoming).await
            }
            None if era.is_none()
                && self.crew.serves(Era::Modern) == Some(true)
                && self.settings.disclosure.is_none() =>
            {
                self.seat_shared(session, &incoming).await
            }
            None if self.settings.may_share() => {
                counters::SHARED_AT_CAP.increment();
                tracing::warn!(session = %session.id(), "--max-children is reached; a client that declares sampling or elicitation shares a server without them");
                self.seat_shared(session, &incoming).await
            }
            None => Err(Refusal::Busy("--max-children servers are running, and none is idle")),
        }
    }

    /// Seats a client at the shared child, since the server runs only once.
    async fn seat_at_only_child(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: &Incoming,
    ) -> Result<Spliced, Refusal> {
        if !self.settings.may_share() {
            return Err(Refusal::Busy("the server exits when started a second time (--at-cap refuse)"));
        }
        counters::SHARED_AT_CAP.increment();
        self.seat_shared(session, incoming).await
    }

    fn wants_exclusive(&self, incoming: &Incoming) -> bool {
        let declares = |capability| initialize::declares(&incoming.frame, &incoming.message, capability);
        match self.settings.isolation {
            Isolation::Shared => false,
            Isolation::Session => true,
            Isolation::Auto => {
                declares("sampling")
                    || declares("elicitation")
                    || (self.settings.forward_roots && declares("roots"))
            }
        }
    }

    async fn seat_exclusive(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
        place: ChildPlace,
    ) -> Result<Spliced, Refusal> {
        let audience = Audience::exclusive(session, self.settings.forward_roots);
        let slots = self.settings.slots_for_one();
        let renewal = self.renewals.current();
        let variables = self.variables_for(&incoming.identity);
        let starting = self.want(audience, slots, variables, Arc::clone(&place));
        let started = spanned(names::CHILD_START, starting, |link, attributes| {
            attributes.number(names::CHILD, link.number().cast_signed());
        });
        let link = started.await.map_err(Refusal::Failed)?;
        // A client that disconnects during its handshake leaves no child behind.
        let unseated = StopOnDrop::new(&link);
        let client_id = incoming.client_id();
        let known =
            self.crew.serves(Era::Legacy) == Some(true) || self.crew.serves(Era::Modern) != Some(true);
        let patience = self.patience_for(known);
        let forwarded = self.forward_initialize(&link, session, incoming.clone(), patience).await;
        if !known && refuses_era(&forwarded) {
            tracing::info!(
                "the server refused initialize; translating for clients of the legacy protocol era"
            );
            self.crew.note(Era::Legacy, false);
            drop(unseated);
            return self.seat_translated(session, &incoming).await;
        }
        let (answer, version) = forwarded?;
        let Some(version) = version else {
            // If the server exits after the refusal, it runs only once, like a server that exits without an answer.
            if self.crew.open(Era::Legacy).is_some()
                && let Ok(end) = timeout(EXITS_WITHIN, link.ended()).await
            {
                return Err(Refusal::Failed(Failure::Ended(end)));
            }
            incoming.operation.end(&answer.verdict());
            return Ok(answer.restored(&client_id));
        };
        self.crew.note(Era::Legacy, true);
        session.set_version(version);
        // The child's slow start does not count as the client's idle time.
        session.note_message(now());
        let own = Arc::new(Own::new(&link));
        if !session.take_seat(Seat::Exclusive(Arc::clone(&own))) {
            return Err(SEATED);
        }
        unseated.keep();
        // Without a handshake to resume, the place is released with the process.
        let handshake = self.remember(&incoming, &answer, &place);
        place.pass_to(Use::Session(session.opener()));
        self.watch(session, link, renewal, Some((own, handshake)));
        Ok(answer.restored(&client_id))
    }

    /// Seats a session at a modern child, as `--isolation` requires: a shared or an exclusive one.
    async fn seat_translated(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: &Incoming,
    ) -> Result<Spliced, Refusal> {
        if self.settings.isolation != Isolation::Session {
            return self.seat_shared(session, incoming).await;
        }
        let full = Refusal::Busy("--max-children servers are running, and none is idle");
        let place = self.place(Use::Call(session.opener())).await.ok_or(full)?;
        self.seat_own_modern(session, incoming, place).await
    }

    async fn seat_own_modern(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: &Incoming,
        place: ChildPlace,
    ) -> Result<Spliced, Refusal> {
        let audience = Audience::exclusive(session, false);
        let slots = self.settings.slots_for_one();
        let guest = Guest {
            variables: self.variables_for(&incoming.identity),
            ..Guest::shared(audience, slots, Choice::Modern, self.start_timeout)
        };
        let greeted = self.greet(guest, Arc::clone(&place)).await.map_err(Refusal::Failed);
        let greeted = place.outcome(greeted)?;
        let unseated = StopOnDrop::new(&greeted.link);
        let child = Shared::new(greeted, Arc::default(), self.settings.request_timeout).serve();
        let answer = self.seat_stateless(session, incoming, &child, true)?;
        unseated.keep();
        child.place.pass_to(Use::Session(session.opener()));
        self.watch(session, Arc::clone(&child.link), child.renewal, None);
        Ok(answer)
    }

    /// Ends the session with its child, unless it is resumed; its client gets 404 and initializes again.
    fn watch(
        self: &Arc<Self>,
        session: &Arc<Session>,
        link: Arc<Link>,
        renewal: u64,
        legacy: Option<(Arc<Own>, Option<Handshake>)>,
    ) {
        let mut exclusive = self.exclusive.lock();
        exclusive.retain(|session| session.strong_count() > 0);
        exclusive.push(Arc::downgrade(session));
        drop(exclusive);
        let (children, session) = (Arc::clone(self), Arc::downgrade(session));
        tasks::spawn(async move {
            let failure = match legacy {
                Some((own, handshake)) => children.keep_own(&session, &own, link, renewal, handshake).await,
                None => {
                    let ended = children.accompany(&link, Era::Modern, || false);
                    Failure::Ended(
                        children.unless_renewed(ended, children.end_when_quiet(&session, renewal)).await,
                    )
                }
            };
            if let Some(session) = session.upgrade() {
                children.directory.end(&session, &failure);
            }
        });
    }
}

/// Returns whether a child that is known to be modern rejects legacy clients. Another error may be the client's own
/// fault, and is passed on.
fn refuses_era(forwarded: &Result<(Answer, Option<Version>), Refusal>) -> bool {
    match forwarded {
        Ok((answer, _)) => {
            let code = answer.error.as_ref().and_then(|error| errors::code(&answer.frame, error));
            let refusals = [codes::UNSUPPORTED_VERSION, codes::METHOD_NOT_FOUND];
            code.is_some_and(|(code, _)| refusals.contains(&code))
        }
        Err(Refusal::Failed(failure)) => matches!(failure, Failure::Ended(_) | Failure::SlowStart { .. }),
        Err(_) => false,
    }
}
