//! One child as its callers see it: begin a request, send a notification, answer a question, ask it to stop.

use super::backlog::Backlog;
use super::inbox::{Inbox, Intake, Urgent, inbox};
use super::{Answering, End, Exchange, Failure, Held, Hint, LastWords, Mux, Noise, Places, Uptake};
use crate::admission::{Admission, Bounds};
use crate::jsonrpc::Spliced;
use crate::mux::{self, WireId};
use crate::telemetry::metrics::labels::Revision;
use crate::telemetry::{ChildOperation, counters};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a request did not begin.
#[derive(Debug)]
pub enum Refused {
    /// The child has as many requests in flight as it has slots.
    Full,
    /// The child has ended or is ending.
    Closed(Failure),
}

/// The callers' handle on one child.
#[derive(Debug)]
pub struct Link {
    number: u64,
    mux: Mux,
    inbox: Inbox,
    noise: Arc<Noise>,
    stop: CancellationToken,
    hung: CancellationToken,
    mute: CancellationToken,
    heard: AtomicU64,
    standing: AtomicUsize,
    end: watch::Receiver<Option<End>>,
    admission: OnceLock<Arc<Admission>>,
    notices: OnceLock<Arc<Admission>>,
    revision: OnceLock<Revision>,
    backlog: Arc<Backlog>,
}

/// A request that is not meant to be answered soon, such as a subscription.
#[derive(Debug)]
pub struct Standing(Arc<Link>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The child's side of a [`Link`], for whoever drives the process.
#[derive(Debug)]
pub struct Ends {
    /// Answers the requests.
    pub answering: Answering,
    /// What is to be written to stdin.
    pub intake: Intake,
    /// Where lines on stdout are noted that are no messages.
    pub noise: Arc<Noise>,
    /// Cancelled when the callers have no more use for the child.
    pub stop: CancellationToken,
    /// Cancelled when it was found to hang.
    pub hung: CancellationToken,
    /// To be cancelled when it can serve no longer, though it has not ended yet.
    pub mute: CancellationToken,
    /// Says how the child ended.
    pub end: watch::Sender<Option<End>>,
}

impl Link {
    /// A link with room for `slots` requests in flight. `number` names the child in logs.
    pub fn new(number: u64, slots: usize) -> (Arc<Link>, Ends) {
        let (mux, answering) = mux::table(slots);
        let backlog = Arc::<Backlog>::default();
        let (inbox, intake) = inbox(Arc::clone(&backlog));
        let noise = Arc::<Noise>::default();
        let [stop, hung, mute] = [(); 3].map(|()| CancellationToken::new());
        let (end_sender, end) = watch::channel(None);
        let link = Arc::new(Link {
            number,
            mux,
            inbox,
            noise: Arc::clone(&noise),
            stop: stop.clone(),
            hung: hung.clone(),
            mute: mute.clone(),
            heard: AtomicU64::new(0),
            standing: AtomicUsize::new(0),
            end,
            admission: OnceLock::new(),
            notices: OnceLock::new(),
            revision: OnceLock::new(),
            backlog,
        });
        (link, Ends { answering, intake, noise, stop, hung, mute, end: end_sender })
    }

    /// The child's number in logs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The revision that it speaks; set once, from its handshake.
    pub fn set_revision(&self, revision: &str) {
        let _ = self.revision.set(Revision::of(revision));
    }

    /// The revision that it speaks, as far as that is known.
    pub fn revision(&self) -> Revision {
        self.revision.get().copied().unwrap_or_default()
    }

    /// Requests in flight, cancelled ones included that the child may still answer.
    pub fn in_flight(&self) -> usize {
        self.mux.waiting()
    }

    /// A request in flight is not to count as one that the child is to answer.
    pub fn mark_standing(self: &Arc<Self>) -> Standing {
        self.standing.fetch_add(1, Ordering::Relaxed);
        Standing(Arc::clone(self))
    }

    /// Requests in flight that are meant to be answered.
    pub fn calls(&self) -> usize {
        self.in_flight().saturating_sub(self.standing.load(Ordering::Relaxed))
    }

    /// Whether a request that it was sent may still be answered in its time.
    pub fn is_at_work(&self) -> bool {
        self.mux.unanswered() > self.standing.load(Ordering::Relaxed)
    }

    /// How it takes what is written to it.
    pub fn uptake(&self) -> &Uptake {
        self.inbox.uptake()
    }

    /// Who may have requests at this child, of those that need a permit for it. The bounds are those of the first
    /// call.
    pub fn admission(&self, bounds: Bounds) -> &Arc<Admission> {
        self.admission.get_or_init(|| Admission::new(bounds))
    }

    /// The queue of notifications, which wait for it before they wait for a place among the requests. The first to ask
    /// says how long it is.
    pub fn notices(&self, bounds: Bounds) -> &Arc<Admission> {
        self.notices.get_or_init(|| Admission::new(bounds))
    }

    /// The notifications that it may not have handled.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// For the router and the writer.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// For the writer, which skips what was cancelled before its turn.
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Begins a request, which is seen as `operation`. It is written when its turn comes. `write` makes the frame.
    ///
    /// # Errors
    /// When the child has no free slot or is gone.
    pub fn begin(
        &self,
        held: Held,
        mut operation: Option<ChildOperation>,
        write: impl FnOnce(WireId) -> Spliced,
    ) -> Result<Exchange, Refused> {
        let (client, mailbox) = (held.client, Arc::clone(&held.mailbox));
        let pending = self.mux.reserve(held).map_err(|refused| match refused {
            mux::Refused::Full(_) => Refused::Full,
            mux::Refused::Closed(_) => Refused::Closed(self.closed_as(Failure::ClosedStdout)),
        })?;
        let wire_id = pending.wire_id();
        let orders = &self.inbox.orders;
        // Nothing is written, or noted as written, for a child that reads no more.
        if orders.is_closed() || !orders.request(client, wire_id, write(wire_id)) {
            return Err(Refused::Closed(self.closed_as(Failure::ClosedStdin)));
        }
        counters::EXCHANGES.increment();
        if let Some(operation) = &mut operation {
            operation.sent(wire_id.as_u64());
        }
        Ok(Exchange::new(pending, mailbox, self.inbox.clone(), operation))
    }

    /// Sends a notification, in order with the requests of the client that has these places; without places it is
    /// proxyrunner's own. Waits while many wait. One to a child that is gone is dropped with it.
    pub async fn notify(&self, frame: Spliced, places: Option<Places>) {
        self.inbox.orders.notification(frame, places).await;
    }

    /// Whether notifications wait for their turn.
    pub fn has_notifications(&self) -> bool {
        self.inbox.orders.has_notifications()
    }

    /// Sends an answer to a question of the child; never waits.
    pub fn answer(&self, frame: Spliced) {
        self.inbox.urge(Urgent(frame));
    }

    /// Asks for the child's end: close, terminate, kill, as far as it takes.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once its end was asked for.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Asks for the end of a child that hangs, without waiting for it to notice.
    pub fn stop_hung(&self) {
        self.hung.cancel();
    }

    /// The child said something. Only one task reads a child.
    pub fn note_frame(&self) {
        self.heard.store(self.heard.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How many frames the child has said.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// The likely reason why the child does not answer its handshake.
    pub fn hint(&self) -> Hint {
        self.noise.hint(self.heard())
    }

    /// Whether the child writes back what it reads.
    pub fn is_echo(&self) -> bool {
        self.noise.is_echo()
    }

    /// Whether the child has ended, was asked to, or can serve no longer.
    pub fn is_closed(&self) -> bool {
        let tokens = [&self.stop, &self.hung, &self.mute];
        tokens.iter().any(|token| token.is_cancelled()) || self.end.borrow().is_some()
    }

    /// Resolves when it can serve no longer, with the reason: it ends, or is to be ended.
    pub async fn closed(&self) -> Failure {
        let mut end = self.end.clone();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.hung.cancelled() => {}
            () = self.mute.cancelled() => {}
            _ = end.wait_for(Option::is_some) => {}
        }
        self.closed_as(Failure::ClosedPipe)
    }

    /// Whether it was asked to end, and has not yet.
    pub fn is_ending(&self) -> bool {
        self.stop.is_cancelled() && self.end.borrow().is_none()
    }

    /// Resolves with the way in which the child ended.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.map(|end| end.clone());
        ended.ok().flatten().unwrap_or_else(|| End {
            how: "ended".into(),
            code: 1,
            last_words: LastWords::default(),
        })
    }

    /// Why nothing can be begun: the child's end if that is known, else what of it was closed.
    fn closed_as(&self, closed: Failure) -> Failure {
        match &*self.end.borrow() {
            Some(end) => Failure::Ended(end.clone()),
            None if self.stop.is_cancelled() => Failure::SessionEnded,
            None if self.hung.is_cancelled() => Failure::Hung,
            None => closed,
        }
    }
}
