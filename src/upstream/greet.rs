//! A child's first words: which era it is of, found out on its own pipe, and its handshake.

use super::greeting::{DISCOVER, Greeting, Met, Stage};
use super::revisions::Revisions;
use super::{Place, Upstream, Want, initialize, refusal};
use crate::budget::Charged;
use crate::child::StartError;
use crate::client::Client;
use crate::era::envelope::Envelope;
use crate::era::probe::{Choice, Decision, Probe, Step as Next};
use crate::era::{Era, MODERN_VERSION};
use crate::exchange::{Exchange, Failure, Held, Link, Mailbox, Outcome, Step};
use crate::jsonrpc::{self, Spliced, rewrite};
use crate::mux::WireId;
use crate::session::Audience;
use crate::telemetry::Attributes;
use crate::telemetry::scope::spanned;
use crate::telemetry::{ChildOperation, names};
use crate::trace_context::Trace;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The longest `InitializeResult` or `DiscoverResult`: it is kept as long as the child serves, and copied into others.
const LONGEST_WORDS: usize = 1024 * 1024;

/// How much of a server's refusal is told, in bytes.
pub(super) const LONGEST_QUOTE: usize = 2048;

/// A child that is ready to serve.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The child.
    pub link: Arc<Link>,
    /// Its era.
    pub era: Era,
    /// Its `InitializeResult` or `DiscoverResult`.
    pub words: Charged,
    /// Whether a process of it that is spoken to in the other era serves that too, if that is known.
    pub other: Option<bool>,
    /// Its place among `--max-children`.
    pub place: Place,
}

/// Writes `initialize` for a revision.
pub(super) type Initialize = fn(WireId, &str) -> Spliced;

/// What is to be started, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Guest {
    /// Who listens to it.
    pub audience: Audience,
    /// Requests that it may have in flight.
    pub slots: usize,
    /// Which era it is taken to be of.
    pub choice: Choice,
    /// Its `initialize`, if it is sent one, for a revision.
    pub initialize: Initialize,
    /// How long it may take.
    pub patience: Duration,
}

impl Guest {
    /// A child that several share.
    pub fn shared(audience: Audience, slots: usize, choice: Choice, patience: Duration) -> Self {
        Guest { audience, slots, choice, initialize: initialize::for_shared, patience }
    }
}

impl Upstream {
    /// Starts a child, finds out its era as far as that is open, and completes its handshake.
    ///
    /// # Errors
    /// When it can't be started, or serves no era that it may be of.
    pub(super) async fn greet(&self, guest: Guest, place: Place) -> Result<Greeted, Failure> {
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
        // On the heap, since few requests start a child, and all would carry the room for it.
        Box::pin(spanned(names::CHILD_START, greeting, of_child)).await
    }

    async fn meet(&self, guest: Guest, place: Place, stage: &mut Stage) -> Result<Greeted, Failure> {
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
        place: Place,
        stage: &mut Stage,
        revisions: &mut Revisions,
    ) -> Result<Greeted, Failure> {
        let (mut probe, mut next) = Probe::start(guest.choice);
        loop {
            let link = self.want(guest.audience.clone(), guest.slots, Arc::clone(&place)).await?;
            let unmet = StopOnDrop::new(&link);
            stage.link = Some(Arc::clone(&link));
            let greeting =
                Greeting::new(&link, guest.initialize, self.settings.probe_timeout, stage, revisions);
            let handshake = self.handshake(greeting, &mut probe, next);
            let (era, words, other) = match spanned(names::CHILD_HANDSHAKE, handshake, |_, _| ()).await? {
                Met::Decided(Decision::Modern, Some(words)) => (Era::Modern, words, None),
                Met::Decided(Decision::Legacy { modern_too }, Some(words)) => {
                    (Era::Legacy, words, Some(modern_too))
                }
                Met::Decided(_, None) => return Err(Failure::Lost),
                Met::Again(first) => {
                    tracing::info!(
                        child = link.number(),
                        "the server exited over a handshake that it does not know; it is started once more \
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
            link.speaks(&revision(era, &words));
            tracing::info!(child = link.number(), "the server speaks the {era} protocol era");
            return Ok(Greeted { link, era, words, other, place });
        }
    }

    async fn handshake(
        &self,
        mut greeting: Greeting<'_>,
        probe: &mut Probe,
        next: Next,
    ) -> Result<Met, Failure> {
        Ok(match greeting.run(probe, next).await? {
            Met::Decided(Decision::Modern, None) => {
                Met::Decided(Decision::Modern, Some(self.discover_again(greeting.link).await?))
            }
            met => met,
        })
    }

    /// What a child says of itself, that was found out to be modern by other words.
    async fn discover_again(&self, link: &Arc<Link>) -> Result<Charged, Failure> {
        let answer = self.ask(link, DISCOVER, self.start_timeout, discover).await.flatten()?;
        let result = answer.result.clone().ok_or_else(|| {
            let error = &answer.frame[..answer.frame.len().min(LONGEST_QUOTE)];
            let error = String::from_utf8_lossy(error).into_owned();
            Failure::NotStarted(format!("the server refused server/discover: {error}").into())
        })?;
        Ok(answer.frame.slice(result))
    }

    /// Asks for a child and waits until it has started; its handshake is still to come.
    pub(super) async fn want(
        &self,
        audience: Audience,
        slots: usize,
        place: Place,
    ) -> Result<Arc<Link>, Failure> {
        let (reply, started) = oneshot::channel();
        let want = Want { audience, slots, place: Arc::clone(&place), reply };
        self.wants.send(want).await.map_err(|_| Failure::ShuttingDown)?;
        let mut awaited = Awaited(started);
        let started = (&mut awaited.0).await.map_err(|_| Failure::ShuttingDown)?;
        let link = started.map_err(|error| Failure::NoProgram(error.to_string().into()))?;
        place.seat(&link);
        Ok(link)
    }

    /// A request of proxyrunner's own.
    pub(super) async fn ask(
        &self,
        link: &Link,
        method: &str,
        patience: Duration,
        write: impl FnOnce(WireId) -> Spliced,
    ) -> Result<Outcome, Failure> {
        let asked = async { Ok(outcome(&mut begin(link, method, write)?).await) };
        timeout(patience, asked).await.unwrap_or(Err(Failure::TimedOut(patience)))
    }
}

/// A child that is being started. If it comes just when nobody waits for it any more, it is ended.
struct Awaited(oneshot::Receiver<Result<Arc<Link>, StartError>>);

impl Drop for Awaited {
    fn drop(&mut self) {
        // What comes after this is refused, and what came before it is found.
        self.0.close();
        if let Ok(Ok(link)) = self.0.try_recv() {
            link.stop();
        }
    }
}

/// The revision that a child speaks that says this of itself.
fn revision(era: Era, words: &Charged) -> String {
    match era {
        Era::Modern => MODERN_VERSION.to_owned(),
        Era::Legacy => initialize::negotiated_version(words, &(0..words.len()))
            .map_or_else(String::new, |version| version.as_str().to_owned()),
    }
}

/// `server/discover`, on nobody's behalf.
pub(super) fn discover(wire_id: WireId) -> Spliced {
    own_request(wire_id, DISCOVER, "")
}

/// A request to a modern child, on nobody's behalf; `params` are raw members of it.
pub(super) fn own_request(wire_id: WireId, method: &str, params: &str) -> Spliced {
    let comma = if params.is_empty() { "" } else { "," };
    let params = format!("{{\"_meta\":{{{}}}{comma}{params}}}", Envelope::own().members());
    let id = wire_id.as_u64().to_string();
    Spliced::from(rewrite::request(id.as_bytes(), method, Some(params.as_bytes())))
}

/// A request of proxyrunner's own, with its place in its trace.
fn with_context(request: Spliced, trace: &Trace) -> Spliced {
    // It is short, and written here.
    let Ok(frame) = request.clone().flatten() else { return request };
    match jsonrpc::scan(&frame) {
        Ok(message) => rewrite::request_for_child(&frame, &message, None, None, trace),
        Err(_) => request,
    }
}

/// Begins a request of proxyrunner's own: without a permit, since the work of others waits for it.
pub(super) fn begin(
    link: &Link,
    method: &str,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    begin_for(link, method, Arc::default(), write)
}

/// The same, where what the child says of it goes to a mailbox that is there already.
pub(super) fn begin_for(
    link: &Link,
    method: &str,
    mailbox: Arc<Mailbox>,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    let operation = ChildOperation::own(method, link.revision(), link.number());
    begin_as(link, None, operation, mailbox, write)
}

/// The same, as it is seen already.
pub(super) fn begin_as(
    link: &Link,
    client: Option<Client>,
    operation: Option<ChildOperation>,
    mailbox: Arc<Mailbox>,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    let held = Held { mailbox, token: None, takes_questions: false, client, places: Default::default() };
    let trace = operation.as_ref().map(|operation| operation.traced(&Trace::default()).into_owned());
    let write = |wire_id| match &trace {
        Some(trace) if trace.replaces_context() => with_context(write(wire_id), trace),
        _ => write(wire_id),
    };
    link.begin(held, operation, write).map_err(|refused| match refusal(refused) {
        super::Refusal::Failed(failure) => failure,
        _ => Failure::Lost,
    })
}

pub(super) async fn outcome(exchange: &mut Exchange) -> Outcome {
    loop {
        if let Step::Outcome(outcome) = exchange.next().await {
            return outcome;
        }
    }
}

/// Stops a child unless it was kept.
#[derive(Debug)]
pub(super) struct StopOnDrop(Option<Arc<Link>>);

impl StopOnDrop {
    /// For a child that nobody else would end.
    pub fn new(link: &Arc<Link>) -> Self {
        StopOnDrop(Some(Arc::clone(link)))
    }

    /// It goes on without this.
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
