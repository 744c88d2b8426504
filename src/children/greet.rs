//! Starts a child, detects its era on its own pipe, and completes its handshake.

use super::greeting::{self, DISCOVER, Greeting, LONGEST_QUOTE, Met, Stage};
use super::guest::{Greeted, Guest};
use super::revisions::Revisions;
use super::{ChildPlace, Children, Want, initialize};
use crate::audience::Audience;
use crate::budget::Charged;
use crate::child::StartError;
use crate::era::probe::{DetectedEra, Probe, Step as Next};
use crate::era::{Era, MODERN_VERSION};
use crate::exchange::{Failure, Link};
use crate::identity::Variables;
use crate::inquiry;
use crate::telemetry::Attributes;
use crate::telemetry::names;
use crate::telemetry::scope::spanned;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Maximum length of an `InitializeResult` or `DiscoverResult`, which is kept while the child serves, and copied.
const LONGEST_WORDS: usize = 1024 * 1024;

impl Children {
    /// Starts a child, detects its era unless it is configured, and completes its handshake.
    ///
    /// # Errors
    /// When it cannot be started, or serves no expected era.
    pub(super) async fn greet(&self, guest: Guest, place: ChildPlace) -> Result<Greeted, Failure> {
        let patience = guest.patience;
        let mut stage = Stage { link: None, asked: DISCOVER };
        let greeting = async {
            let met = timeout(patience, self.meet(guest, place, &mut stage)).await;
            met.unwrap_or_else(|_| Err(stage.timed_out(patience)))
        };
        let of_child = |greeted: &Greeted, attributes: &mut Attributes| {
            attributes.number(names::CHILD, greeted.link.number().cast_signed());
            attributes.text(names::ERA, &greeted.era.to_string());
        };
        // Boxed: few requests start a child, but every future would reserve the space.
        Box::pin(spanned(names::CHILD_START, greeting, of_child)).await
    }

    async fn meet(&self, guest: Guest, place: ChildPlace, stage: &mut Stage) -> Result<Greeted, Failure> {
        let mut revisions = self.revisions.start(self.crew.is_serving());
        let met = self.meet_for(guest, place, stage, &mut revisions).await;
        let is_legacy = |met: &Greeted| met.era == Era::Legacy;
        match &met {
            Ok(greeted) if is_legacy(greeted) => self.revisions.learn(&revisions, true),
            Err(Failure::Ended(_)) => self.revisions.learn(&revisions, false),
            _ => {}
        }
        met
    }

    async fn meet_for(
        &self,
        guest: Guest,
        place: ChildPlace,
        stage: &mut Stage,
        revisions: &mut Revisions,
    ) -> Result<Greeted, Failure> {
        let (mut probe, mut next) = Probe::start(guest.choice);
        loop {
            let renewal = self.renewals.current();
            let (audience, variables) = (guest.audience.clone(), guest.variables.clone());
            let link = self.want(audience, guest.slots, variables, Arc::clone(&place)).await?;
            let unmet = StopOnDrop::new(&link);
            stage.link = Some(Arc::clone(&link));
            let greeting =
                Greeting::new(&link, guest.initialize, self.settings.probe_timeout, stage, revisions);
            let handshake = self.handshake(greeting, &mut probe, next);
            let (era, words, other) = match spanned(names::CHILD_HANDSHAKE, handshake, |_, _| ()).await? {
                Met::Decided(DetectedEra::Modern, Some(words)) => (Era::Modern, words, None),
                Met::Decided(DetectedEra::Legacy { modern_too }, Some(words)) => {
                    (Era::Legacy, words, Some(modern_too))
                }
                Met::Decided(_, None) => return Err(Failure::Lost),
                Met::Again(first) => {
                    tracing::info!(
                        child = link.number(),
                        "the server exited after an unknown handshake request; it is started once more \
                         (--child-era avoids probing)"
                    );
                    next = first;
                    continue;
                }
            };
            if words.len() > LONGEST_WORDS {
                return Err(Failure::NotStarted("the server's answer to the handshake exceeds 1 MiB".into()));
            }
            unmet.keep();
            link.set_revision(&revision(era, &words));
            tracing::info!(child = link.number(), "the server speaks the {era} protocol era");
            return Ok(Greeted { link, era, words, other, place, renewal });
        }
    }

    async fn handshake(
        &self,
        mut greeting: Greeting<'_>,
        probe: &mut Probe,
        next: Next,
    ) -> Result<Met, Failure> {
        Ok(match greeting.run(probe, next).await? {
            Met::Decided(DetectedEra::Modern, None) => {
                Met::Decided(DetectedEra::Modern, Some(self.discover_again(greeting.link).await?))
            }
            met => met,
        })
    }

    /// Fetches the `DiscoverResult` of a child already known to be modern.
    async fn discover_again(&self, link: &Arc<Link>) -> Result<Charged, Failure> {
        let answer = inquiry::ask(link, DISCOVER, self.start_timeout, greeting::discover).await.flatten()?;
        let result = answer.result.clone().ok_or_else(|| {
            let error = &answer.frame[..answer.frame.len().min(LONGEST_QUOTE)];
            let error = String::from_utf8_lossy(error).into_owned();
            Failure::NotStarted(format!("the server refused server/discover: {error}").into())
        })?;
        Ok(answer.frame.slice(result))
    }

    /// Requests a child from the supervisor, and waits until it has started.
    pub(super) async fn want(
        &self,
        audience: Audience,
        slots: usize,
        variables: Option<Variables>,
        place: ChildPlace,
    ) -> Result<Arc<Link>, Failure> {
        let (reply, started) = oneshot::channel();
        let want = Want { audience, slots, variables, place: Arc::clone(&place), reply };
        self.wants.send(want).await.map_err(|_| Failure::ShuttingDown)?;
        let mut awaited = Awaited(started);
        let started = (&mut awaited.0).await.map_err(|_| Failure::ShuttingDown)?;
        let link = started.map_err(|error| Failure::NoProgram(error.to_string().into(), error.code()))?;
        place.seat(&link);
        Ok(link)
    }
}

/// A child that is being started. It is ended if it is no longer awaited.
struct Awaited(oneshot::Receiver<Result<Arc<Link>, StartError>>);

impl Drop for Awaited {
    fn drop(&mut self) {
        // A child that arrives later is refused; an earlier one is found below.
        self.0.close();
        if let Ok(Ok(link)) = self.0.try_recv() {
            link.stop();
        }
    }
}

/// Returns the revision that a child negotiated.
fn revision(era: Era, words: &Charged) -> String {
    match era {
        Era::Modern => MODERN_VERSION.to_owned(),
        Era::Legacy => initialize::negotiated_version(words, &(0..words.len()))
            .map_or_else(String::new, |version| version.as_str().to_owned()),
    }
}

/// Stops a child when dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct StopOnDrop(Option<Arc<Link>>);

impl StopOnDrop {
    /// Guards a child that is not owned otherwise yet.
    pub fn new(link: &Arc<Link>) -> Self {
        StopOnDrop(Some(Arc::clone(link)))
    }

    /// Releases the child.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.stop();
        }
    }
}
