//! Legacy sessions: their requests in flight, the questions to their clients, and their streams with replay buffers.
//!
//! [`Session`] is the object that both the HTTP side and the router know. Time is always an argument.

mod directory;
mod event_id;
mod from_child;
mod in_flight;
mod kept;
mod old_sse;
mod owed;
mod presence;
mod questions;
mod reader;
mod streams;
mod underway;
mod version;

#[cfg(test)]
mod directory_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod streams_tests;
#[cfg(test)]
mod tests;

pub use directory::Directory;
pub use event_id::StreamId;
pub use kept::Since;
pub use owed::Owed;
pub use presence::Presence;
pub use reader::Reader;
pub use underway::Underway;
pub use version::{LEGACY_VERSIONS, Version};

use crate::admission::Share;
use crate::audience::{ListChanges, Seat, SessionId};
use crate::audit;
use crate::budget::Account;
use crate::client::Client;
use crate::exchange::{Class, Failure, Interruption};
use crate::identity::Principal;
use crate::jsonrpc::Spliced;
use crate::telemetry::metrics;
use crate::telemetry::metrics::labels::Side;
use in_flight::InFlight;
use parking_lot::{Mutex, MutexGuard};
use questions::Questions;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use streams::{StreamEvent, Streams};
use tokio_util::sync::CancellationToken;

/// The operator's limits on sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--session-idle`: time without a message or a read keep-alive after which a session ends.
    pub idle: Duration,
    /// `--session-max-age`: maximum age of a session, active or not.
    pub max_age: Duration,
    /// `--max-sessions`: maximum number of sessions.
    pub max_sessions: usize,
    /// `--evict-after`: time without a message after which a quiet session may be evicted at `--max-sessions`.
    pub evict_after: Duration,
    /// `--replay-events`: maximum number of delivered events kept per session for a client that reconnects.
    pub replay_events: usize,
    /// `--replay-bytes`: maximum size of these events, in bytes.
    pub replay_bytes: usize,
}

/// Name and version of a client's software.
pub type ClientInfo = (Box<str>, Box<str>);

/// A client's legacy session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    principal: Principal,
    client: Client,
    opener: Client,
    opened: Instant,
    account: Account,
    version: OnceLock<Version>,
    client_info: OnceLock<Arc<ClientInfo>>,
    is_announced: AtomicBool,
    seat: OnceLock<Seat>,
    ended: CancellationToken,
    why_ended: OnceLock<Failure>,
    /// Set if another replica has opened it.
    #[cfg(feature = "gateway")]
    is_taken_over: OnceLock<()>,
    /// Set for HTTP+SSE: the time at which its caller's credentials end.
    old_sse: OnceLock<Mutex<Option<Instant>>>,
    state: Mutex<SessionState>,
    place: Mutex<Option<Share>>,
    changes: Arc<ListChanges>,
}

#[derive(Debug)]
struct SessionState {
    last_active: Instant,
    last_message: Instant,
    in_flight: Vec<InFlight>,
    questions: Questions,
    streams: Streams,
    /// Number of answers that are expected on the standalone stream.
    owed: usize,
    /// Number of the client's messages that are being handled.
    present: usize,
    /// The time until which a client whose stream was closed for its age is expected to resume.
    back_until: Option<Instant>,
}

impl SessionState {
    fn note_message(&mut self, now: Instant) {
        self.last_active = now;
        self.last_message = now;
    }
}

impl Session {
    fn new(
        id: SessionId,
        principal: Principal,
        opener: Client,
        settings: &Settings,
        account: Account,
        place: Share,
        now: Instant,
    ) -> Self {
        let streams = Streams::new(settings.replay_events, settings.replay_bytes);
        Session {
            client: principal.client_or(|| Client::of_session(id.secret())),
            id,
            principal,
            opener,
            opened: now,
            account,
            version: OnceLock::new(),
            client_info: OnceLock::new(),
            is_announced: AtomicBool::new(false),
            seat: OnceLock::new(),
            ended: CancellationToken::new(),
            why_ended: OnceLock::new(),
            #[cfg(feature = "gateway")]
            is_taken_over: OnceLock::new(),
            old_sse: OnceLock::new(),
            state: Mutex::new(SessionState {
                last_active: now,
                last_message: now,
                in_flight: Vec::new(),
                questions: Questions::default(),
                streams,
                owed: 0,
                present: 0,
                back_until: None,
            }),
            place: Mutex::new(Some(place)),
            changes: Arc::default(),
        }
    }

    /// Returns the changes of the lists of the session's exclusive child.
    pub fn list_changes(&self) -> &Arc<ListChanges> {
        &self.changes
    }

    /// Returns the account that its messages are charged to.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Returns its id, a secret that only its client knows.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the client that counts as the sender of its requests.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Returns the client that its session and children count against; for an anonymous session, its address.
    pub fn opener(&self) -> Client {
        self.opener
    }

    /// Sets the client's software, as its `initialize` names it.
    pub fn set_client_info(&self, info: Arc<ClientInfo>) {
        let _ = self.client_info.set(info);
    }

    /// Returns the client's software, if the audit log needs it.
    pub fn client_info(&self) -> Option<Arc<ClientInfo>> {
        self.client_info.get().cloned()
    }

    /// Records that the session can be found, for the audit log.
    fn announce(&self) {
        self.is_announced.store(true, Ordering::Relaxed);
        audit::session_started(&self.id, &self.principal.shown());
    }

    /// Returns the principal that it belongs to.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the negotiated revision, or the newest one before the negotiation.
    pub fn version(&self) -> Version {
        self.version.get().cloned().unwrap_or_else(|| Version::new(LEGACY_VERSIONS[0]))
    }

    /// Sets the negotiated revision once, from the answer to `initialize`.
    pub fn set_version(&self, version: Version) {
        let _ = self.version.set(version);
    }

    /// Records that another replica has opened the session, which has changed hands so often.
    #[cfg(feature = "gateway")]
    pub fn take_over(&self, epoch: u64) {
        let _ = self.is_taken_over.set(());
        self.state().streams.number_from(epoch);
    }

    /// Returns whether another replica has opened it, whose streams are not known here.
    #[cfg(feature = "gateway")]
    pub fn is_taken_over(&self) -> bool {
        self.is_taken_over.get().is_some()
    }

    /// Returns its seat at a child; `None` before `initialize` was answered.
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// Sets its seat once, when the child is chosen; returns false if it has one already, because its client sent
    /// `initialize` twice at once. A session that has ended meanwhile gives up the seat at once.
    #[must_use]
    pub fn take_seat(self: &Arc<Self>, seat: Seat) -> bool {
        if self.seat.set(seat).is_err() {
            return false;
        }
        if let Some(seat) = self.seat() {
            seat.join(self);
        }
        // Checked after the seat was set, since an end before that found no seat to give up.
        if self.is_ended() {
            self.leave_seat();
        }
        true
    }

    fn leave_seat(&self) {
        if let Some(seat) = self.seat() {
            seat.leave(&self.id);
        }
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Returns whether it has ended.
    pub fn is_ended(&self) -> bool {
        // Set before `ended` is cancelled, and read without a lock.
        self.why_ended.get().is_some()
    }

    /// Returns the reason for its end, for requests that arrive later.
    pub fn why_ended(&self) -> Failure {
        self.why_ended.get().cloned().unwrap_or(Failure::SessionEnded)
    }

    /// Records that a message of the client arrived or was answered.
    pub fn note_message(&self, now: Instant) {
        self.state().note_message(now);
    }

    /// Records that the client is still active: it read a keep-alive, or resumed a stream.
    pub fn note_alive(&self, now: Instant) {
        self.state().last_active = now;
    }

    /// Returns the time at which its last message arrived or was answered; an open stream does not change that.
    pub fn last_message(&self) -> Instant {
        self.state().last_message
    }

    /// Puts a message on a stream.
    pub fn push(&self, stream: StreamId, frame: Spliced, class: Class) {
        self.state().streams.push(stream, StreamEvent { frame, class });
    }

    /// Puts an answer on a stream that stays open.
    pub fn push_answer(&self, stream: StreamId, answer: Spliced) {
        self.push(stream, answer, Class::Dear);
    }

    /// Returns the standalone stream that new messages go to.
    pub fn newest_standalone(&self) -> Option<StreamId> {
        self.state().streams.newest_standalone()
    }

    /// Puts the last message on a stream, which ends when it is read.
    pub fn finish(&self, stream: StreamId, last: Option<Spliced>) {
        let event = last.map(|frame| StreamEvent { frame, class: Class::Dear });
        self.state().streams.finish(stream, event);
    }

    /// Records that a stream was closed for its age, and that its client is expected to resume it until then.
    pub fn expect_back(&self, until: Instant) {
        self.state().back_until = Some(until);
    }

    /// Returns whether an answer waits for a client that is expected to resume.
    pub fn is_client_expected(&self, now: Instant) -> bool {
        let state = self.state();
        state.back_until.is_some_and(|until| now < until) && state.streams.owes()
    }

    /// Drops the events that are kept only in case the client did not receive them.
    pub fn forget_delivered(&self) {
        self.state().streams.forget_delivered();
    }

    /// Returns the time from which the oldest question or answer is kept for a disconnected client.
    pub fn oldest_owed(&self) -> Option<Since> {
        self.state().streams.oldest_owed()
    }

    /// Drops and counts the oldest question or answer of a disconnected client.
    pub fn forget_oldest_owed(&self) {
        self.state().streams.forget_oldest_owed();
    }

    /// Frees memory for other clients; returns false if there is nothing to free. The order: events kept only in case
    /// they were not received; events for a disconnected client; a request in flight, which fails; and last, events
    /// that a slow client has not read yet.
    /// client has not read yet.
    pub fn give_way(&self) -> bool {
        let mut state = self.state();
        state.streams.forget_delivered();
        if state.streams.oldest_owed().is_some() {
            state.streams.forget_oldest_owed();
            return true;
        }
        if let Some(request) = state.in_flight.iter_mut().find(|request| !request.gave_way) {
            request.gave_way = true;
            let mailbox = Arc::clone(&request.mailbox);
            drop(state);
            mailbox.interrupt(Interruption { failure: Failure::GaveWay, cancellation: None });
            return true;
        }
        state.streams.end_slow_readers()
    }

    /// Ends the session: interrupts its requests in flight, ends its streams, and stops its exclusive child.
    pub fn end(&self, failure: &Failure) {
        self.mark_ended(failure);
        self.wind_up();
    }

    fn mark_ended(&self, failure: &Failure) {
        if self.why_ended.set(failure.clone()).is_ok() {
            if self.seat().is_some() {
                let revision = self.version().revision();
                metrics::session(Side::Server, revision, self.opened.elapsed());
            }
            if self.is_announced.load(Ordering::Relaxed) {
                let lasted = self.opened.elapsed();
                let reason = match failure {
                    Failure::SessionEnded => "deleted, expired or evicted",
                    Failure::ShuttingDown => "proxyrunner is shutting down",
                    Failure::Changed => "the restarted server differs",
                    _ => "the server exited",
                };
                audit::session_ended(&self.id, &self.principal.shown(), reason, lasted);
            }
        }
        self.ended.cancel();
    }

    fn wind_up(&self) {
        let failure = self.why_ended();
        let mut state = self.state();
        let in_flight: Vec<_> = state.in_flight.iter().map(|request| Arc::clone(&request.mailbox)).collect();
        if state.owed == 0 {
            state.streams.finish_standalone();
        }
        drop(state);
        for mailbox in in_flight {
            mailbox.interrupt(Interruption { failure: failure.clone(), cancellation: None });
        }
        self.leave_seat();
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock()
    }
}
