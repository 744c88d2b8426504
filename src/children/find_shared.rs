//! Finds the shared child for clients of an era: a running one, one that is being restarted, or another process that
//! is started for the era's first client.

use super::crew::Shared;
use super::places::Use;
use super::settings::Isolation;
use super::{Children, RESTARTING};
use crate::audience::Members;
use crate::budget::Charged;
use crate::era::Era;
use crate::era::probe::Choice;
use crate::exchange::Failure;
use crate::ingress::Refusal;
use crate::phase::Phase;
use crate::tasks;
use crate::telemetry::Operation;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

impl Children {
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

    /// Returns the shared child for clients of an era if it is ready.
    pub fn at_hand(&self, client: Era) -> Option<Arc<Shared>> {
        if *self.phase.borrow() == Phase::Starting {
            return None;
        }
        let translated = || (self.crew.serves(client) == Some(false)).then(|| self.crew.open(client.other()));
        self.crew.open(client).or_else(|| translated().flatten())
    }

    /// Returns the result of `server/discover` for a legacy child; `None` if the child is modern, and answers itself.
    ///
    /// # Errors
    /// When no child has completed its handshake.
    pub async fn discover(self: &Arc<Self>, operation: &Operation) -> Result<Option<Charged>, Refusal> {
        let shared = self.shared(Era::Modern, operation).await?;
        Ok((shared.era == Era::Legacy).then(|| shared.discovered.clone()))
    }

    /// Returns the shared child for clients of an era once it is ready: a child of their own era if the server serves
    /// that, else a child whose requests are translated.
    pub async fn shared(
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

    /// Waits for `--restart-wait` for the next child of this era, if one is being restarted.
    async fn refilled(&self, era: Era, operation: &Operation) -> Option<Arc<Shared>> {
        let members = self.crew.vacant(era)?;
        let _waits = operation.wait();
        members.post.serving(self.settings.restart_wait).await?;
        self.crew.open(era)
    }

    /// Starts the child of an era that had no clients until now.
    async fn start_late(self: &Arc<Self>, era: Era, operation: &Operation) -> Result<Arc<Shared>, Refusal> {
        let _waits = operation.wait_for_start();
        let late = self.crew.late(era);
        let _turn = late.turn.lock().await;
        if let Some(shared) = self.crew.open(era) {
            return Ok(shared);
        }
        // A child that is being replaced must not be started beside its successor.
        if self.crew.vacant(era).is_some() {
            return Err(Refusal::Busy(RESTARTING));
        }
        let unserved = Refusal::Busy("the server does not serve this protocol era");
        if self.crew.serves(era) == Some(false) {
            return Err(unserved);
        }
        let place =
            self.place(Use::Shared).await.ok_or(Refusal::Busy("--max-children servers are running"))?;
        let known = self.crew.serves(era) == Some(true);
        tracing::info!(
            "first client of the {era} protocol era; starting another server process for that era"
        );
        let members = Arc::new(Members::default());
        match self.raise(&members, Choice::from(era), self.patience_for(known), place).await {
            Ok(shared) => {
                *late.child() = Some(Arc::clone(&shared).serve());
                self.learn_names(&shared);
                let (children, kept) = (Arc::clone(self), Arc::clone(&shared));
                tasks::spawn(async move { children.keep_late(era, kept).await });
                Ok(shared)
            }
            Err(failure @ Failure::ShuttingDown) => Err(Refusal::Failed(failure)),
            Err(failure) if known => Err(Refusal::Failed(failure)),
            Err(failure) => {
                tracing::info!("{}; translating for clients of the {era} protocol era", failure.for_log());
                self.crew.note(era, false);
                Err(unserved)
            }
        }
    }

    /// Keeps the post of the other era filled. Once its restart budget is used up, requests of that era's clients are
    /// translated.
    async fn keep_late(self: &Arc<Self>, era: Era, shared: Arc<Shared>) {
        let members = Arc::clone(&shared.members);
        let failure = self.keep_post(shared).await;
        tracing::warn!(
            "{}; translating for clients of the {era} protocol era from now on",
            failure.for_log()
        );
        self.crew.note(era, false);
        *self.crew.late(era).child() = None;
        self.directory.end_seated(&members, &failure);
        members.end_listeners(&failure);
    }

    /// Returns the start timeout of a child that may not serve its era: twice the time of the first child, plus the
    /// probe timeout.
    pub(super) fn patience_for(&self, known: bool) -> Duration {
        if known {
            return self.start_timeout;
        }
        self.start_timeout.min(self.crew.took() * 2 + self.settings.probe_timeout)
    }
}
