//! The callers' handle on one child: begin a request, send a notification, answer a question, ask the child to stop.

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

/// The reason why a request did not begin.
#[derive(Debug)]
pub enum Refused {
    /// All slots of the child are in use.
    Full,
    /// The child has ended or is ending.
    Closed(Failure),
}

/// The callers' handle on one child.
#[derive(Debug)]
pub struct Link {
    number: u64,
    mux: Mux,
    inbox: Arc<Inbox>,
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

/// A request that the child need not answer soon, such as a subscription. Counted until it is dropped.
#[derive(Debug)]
pub struct Standing(Arc<Link>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The child's side of a [`Link`], for the driver of its process.
#[derive(Debug)]
pub struct Ends {
    /// Answers requests.
    pub answering: Answering,
    /// The messages for stdin.
    pub intake: Intake,
    /// Records stdout lines that are not messages.
    pub noise: Arc<Noise>,
    /// Cancelled when the callers no longer need the child.
    pub stop: CancellationToken,
    /// Cancelled when the child is found to hang.
    pub hung: CancellationToken,
    /// To be cancelled when the child can no longer serve, before it has ended.
    pub mute: CancellationToken,
    /// Publishes the child's end.
    pub end: watch::Sender<Option<End>>,
}

impl Link {
    /// Creates a link with room for `slots` requests in flight. `number` identifies the child in logs.
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
            inbox: Arc::new(inbox),
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

    /// Returns the child's number in logs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sets the child's protocol revision. Only the first call, from its handshake, has an effect.
    pub fn set_revision(&self, revision: &str) {
        let _ = self.revision.set(Revision::of(revision));
    }

    /// Returns the child's protocol revision, as far as known.
    pub fn revision(&self) -> Revision {
        self.revision.get().copied().unwrap_or_default()
    }

    /// Returns the number of requests in flight, including cancelled ones that the child may still answer.
    pub fn in_flight(&self) -> usize {
        self.mux.waiting()
    }

    /// Excludes a request in flight from those that the child is expected to answer.
    pub fn mark_standing(self: &Arc<Self>) -> Standing {
        self.standing.fetch_add(1, Ordering::Relaxed);
        Standing(Arc::clone(self))
    }

    /// Returns the number of requests that the child has not answered, but is expected to.
    pub fn calls(&self) -> usize {
        self.mux.open().saturating_sub(self.standing.load(Ordering::Relaxed))
    }

    /// Returns whether the child has a request that may still be answered in time.
    pub fn is_at_work(&self) -> bool {
        self.mux.unanswered() > self.standing.load(Ordering::Relaxed)
    }

    /// Returns the child's progress with the written bytes.
    pub fn uptake(&self) -> &Uptake {
        self.inbox.uptake()
    }

    /// Returns the permits for requests at this child. The first call sets the bounds.
    pub fn admission(&self, bounds: Bounds) -> &Arc<Admission> {
        self.admission.get_or_init(|| Admission::new(bounds))
    }

    /// Returns the queue of notifications, in front of that of requests. The first call sets the bounds.
    pub fn notices(&self, bounds: Bounds) -> &Arc<Admission> {
        self.notices.get_or_init(|| Admission::new(bounds))
    }

    /// Returns the notifications that the child may not have handled yet.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Returns the queues in front of stdin, for the router and the writer.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Returns the multiplexer, for the writer, which skips requests that were cancelled before their turn.
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Begins a request, recorded as `operation` and written in its turn. `write` makes the frame.
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
        // Nothing is written, or recorded as written, for a child that no longer reads.
        if orders.is_closed() || !orders.request(client, wire_id, write(wire_id)) {
            return Err(Refused::Closed(self.closed_as(Failure::ClosedStdin)));
        }
        counters::EXCHANGES.increment();
        if let Some(operation) = &mut operation {
            operation.set_wire_id(wire_id.as_u64());
        }
        Ok(Exchange::new(pending, mailbox, Arc::clone(&self.inbox), operation))
    }

    /// Sends a notification, in order with the requests of the client that holds `places`; without places it is
    /// proxyrunner's own. Waits for room in the queue. If the child is gone, the notification is dropped.
    pub async fn notify(&self, frame: Spliced, places: Option<Places>) {
        self.inbox.orders.notification(frame, places).await;
    }

    /// Returns whether notifications wait to be written.
    pub fn has_notifications(&self) -> bool {
        self.inbox.orders.has_notifications()
    }

    /// Sends an answer to a question of the child. Never waits.
    pub fn answer(&self, frame: Spliced) {
        self.inbox.urge(Urgent(frame));
    }

    /// Asks the child to end: close stdin, then SIGTERM, then SIGKILL.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once the child was asked to end.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Ends a hanging child, without waiting for it to notice that stdin is closed.
    pub fn stop_hung(&self) {
        self.hung.cancel();
    }

    /// Counts a frame of the child, after it was handled: who sees the number also sees that its request is answered.
    /// Must only be called by the task that reads the child's stdout.
    pub fn note_frame(&self) {
        self.heard.store(self.heard.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Returns the number of frames that the child has written.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// Returns the likely reason why the child does not answer its handshake.
    pub fn hint(&self) -> Hint {
        self.noise.hint(self.heard())
    }

    /// Returns whether the child writes its input back.
    pub fn is_echo(&self) -> bool {
        self.noise.is_echo()
    }

    /// Returns whether the child has ended, was asked to end, or can no longer serve.
    pub fn is_closed(&self) -> bool {
        let tokens = [&self.stop, &self.hung, &self.mute];
        tokens.iter().any(|token| token.is_cancelled()) || self.end.borrow().is_some()
    }

    /// Resolves with the reason when the child can no longer serve.
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

    /// Returns whether the child was asked to end, and has not ended yet.
    pub fn is_ending(&self) -> bool {
        self.stop.is_cancelled() && self.end.borrow().is_none()
    }

    /// Resolves with the child's end.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.map(|end| end.clone());
        ended.ok().flatten().unwrap_or_else(|| End {
            how: "ended".into(),
            code: 1,
            last_words: LastWords::default(),
        })
    }

    /// Returns the reason why no request can begin: the child's end if known, else `closed`.
    fn closed_as(&self, closed: Failure) -> Failure {
        match &*self.end.borrow() {
            Some(end) => Failure::Ended(end.clone()),
            None if self.stop.is_cancelled() => Failure::SessionEnded,
            None if self.hung.is_cancelled() => Failure::Hung,
            None => closed,
        }
    }
}
