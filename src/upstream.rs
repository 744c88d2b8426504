//! The façade that `http` uses: it delegates to [`calls`](crate::calls), where a request runs to its end, and to
//! [`children`](crate::children), which select the child that serves.

pub use crate::calls::{
    Begun, Caller, Happening, LegacyCall, LegacyStep, Listening, ModernCall, Purpose, Reply, Seal, SealKeys,
    is_retry,
};
pub use crate::children::{AtCap, ChildPlace, Isolation, Settings, Want};
pub use crate::ingress::{Incoming, Received, Refusal};

use crate::budget::{Account, Budget, Charged};
use crate::calls::Calls;
use crate::children::Children;
use crate::client::Client;
use crate::exchange::Failure;
use crate::ingress::Entrance;
use crate::jsonrpc::Spliced;
use crate::phase::Phase;
use crate::policy::Hints;
use crate::session::{Directory, Session};
use crate::telemetry::Operation;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// All children of this process, and the requests at them.
#[derive(Debug)]
pub struct Upstream {
    /// The children: starts, replaces and evicts them, and seats sessions at them.
    children: Arc<Children>,
    /// The requests of clients, each from its beginning to its one answer.
    calls: Arc<Calls>,
}

impl Upstream {
    /// Creates the modules' state without a child; the receiver yields the requests for children.
    pub fn new(
        settings: Settings,
        start_timeout: Duration,
        directory: Arc<Directory>,
        phase: watch::Sender<Phase>,
        seal: Seal,
        budget: &Budget,
    ) -> (Arc<Self>, mpsc::Receiver<Want>) {
        let entrance = Arc::new(Entrance::new(&settings.limits()));
        let (children, wanted) =
            Children::new(settings, start_timeout, directory, phase, Arc::clone(&entrance));
        let calls = Calls::new(Arc::clone(&children), entrance, seal, budget);
        (Arc::new(Upstream { children, calls }), wanted)
    }

    /// Starts the shared children; in `session` mode one child that only shows that the server starts.
    ///
    /// # Errors
    /// When a child cannot be started or does not complete its handshake, after all attempts that are allowed.
    pub async fn start(&self) -> Result<(), Failure> {
        self.children.start().await
    }

    /// Replaces shared children that end; resolves with the end that exceeds `--restart-limit`.
    pub async fn keep_filled(&self) -> Failure {
        self.children.keep_filled().await
    }

    /// Answers a legacy client's `initialize`, and seats its session at a child.
    ///
    /// # Errors
    /// When there is no room, or the child does not start.
    pub fn initialize(
        &self,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Spliced, Refusal>> {
        self.children.initialize(session, incoming)
    }

    /// Begins a request of a legacy session.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, or it is shared and must not see the request.
    pub fn begin(
        &self,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Begun, Refusal>> {
        self.calls.begin(session, incoming)
    }

    /// Forwards a notification of a legacy session in the form that its child may see.
    ///
    /// # Errors
    /// When too many requests and notifications wait already, or its turn does not come in time.
    pub fn notify(
        &self,
        session: &Session,
        incoming: &Incoming,
    ) -> impl Future<Output = Result<(), Refusal>> {
        self.calls.notify(session, incoming)
    }

    /// Returns the result of `server/discover` for a legacy child; `None` if the child is modern, and answers itself.
    ///
    /// # Errors
    /// When no child has completed its handshake.
    pub fn discover(&self, operation: &Operation) -> impl Future<Output = Result<Option<Charged>, Refusal>> {
        self.children.discover(operation)
    }

    /// Begins a modern request, or resumes the parked request that it retries.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, it does not offer the method, or the retry's `requestState` was
    /// not issued for this request.
    pub fn begin_modern(
        &self,
        caller: Caller,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Box<ModernCall>, Refusal>> {
        self.calls.begin_modern(caller, incoming)
    }

    /// Returns the annotations of a tool at the child that would serve the call of a session, or of a modern client.
    ///
    /// # Errors
    /// When no child serves, or it does not list its tools in time.
    pub(crate) fn hints(
        &self,
        session: Option<&Session>,
        client: Client,
        incoming: &Incoming,
        tool: &str,
    ) -> impl Future<Output = Result<Hints, Refusal>> {
        self.calls.hints(session, client, incoming, tool)
    }

    /// Opens a modern client's subscription.
    ///
    /// # Errors
    /// When too many are open, or the filter is malformed.
    pub fn listen(
        &self,
        caller: &Caller,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Box<Listening>, Refusal>> {
        self.calls.listen(caller, incoming)
    }

    /// Cancels parked requests whose clients did not retry in time, closes idle leased children, and removes lists
    /// that are no longer fresh.
    pub fn expire(&self, now: Instant) {
        self.calls.expire(now);
        self.children.expire(now);
    }

    /// Tells shared children which resources are no longer watched, since the sessions that watched them have ended.
    pub async fn forget_orphaned_subscriptions(&self) {
        self.children.forget_orphaned_subscriptions().await;
    }

    /// Cancels a parked request whose questions are charged to this account; returns false if there is none.
    pub fn give_way(&self, account: &Account) -> bool {
        self.calls.give_way(account)
    }

    /// Returns the seal of parked requests' states and of cursors.
    pub fn seal(&self) -> &Seal {
        self.calls.seal()
    }

    /// Replaces the keys of the seal.
    pub fn reseal(&self, keys: &SealKeys) {
        self.calls.reseal(keys);
    }

    /// Replaces every child without losing a call, since the environment of new children has changed.
    pub fn renew(&self) {
        self.children.renew();
    }

    /// Clears the cached lists.
    pub fn forget_lists(&self) {
        self.calls.forget_lists();
    }

    /// Stops replacing children that end: proxyrunner shuts down.
    pub fn close(&self) {
        self.children.close();
    }

    /// Cancels all parked requests: proxyrunner shuts down.
    pub fn end_parked(&self) {
        self.calls.end_parked();
    }

    /// Ends the subscriptions of modern clients: proxyrunner shuts down.
    pub fn end_listens(&self) {
        self.children.end_listens();
    }

    /// Returns the operator's settings.
    pub fn settings(&self) -> &Settings {
        self.children.settings()
    }

    /// Returns `--request-timeout`.
    pub fn request_timeout(&self) -> Duration {
        self.settings().request_timeout
    }

    /// Returns `--max-client-in-flight`.
    pub fn max_client_in_flight(&self) -> usize {
        self.settings().max_client_in_flight
    }

    /// Counts the requests that a client waits for: at a child, waiting for their turn or for a child, or parked
    /// until a modern client's retry. Cancelled and timed-out requests are over, though their child may not have
    /// answered yet.
    pub fn underway(&self) -> usize {
        self.calls.underway()
    }

    /// Counts the requests in flight, over all children.
    pub fn in_flight(&self) -> usize {
        self.calls.in_flight()
    }

    /// Counts the requests that wait for a permit to be in flight.
    pub fn queued(&self) -> usize {
        self.calls.queued()
    }

    /// Counts the requests that wait for their client: for a modern client's retry, or a legacy client's answer.
    pub fn parked(&self) -> usize {
        self.calls.parked()
    }

    /// Returns what the server says of itself: its `serverInfo` in raw JSON, empty until it has started.
    pub fn server_info(&self) -> Vec<u8> {
        self.children.server_info()
    }

    /// Counts the children that run, or are being started or ended.
    pub fn children(&self) -> usize {
        self.children.count()
    }
}
