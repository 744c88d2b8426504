//! Shared children: initialised once by proxyrunner, with no client capabilities, so that they never ask; and
//! what of them no client may see, since it would cross from one to another.

use super::{Begun, Incoming, Refusal, SEATED, Upstream, initialize, listen, refusal};
use crate::era::discover;
use crate::era::results::Hint;
use crate::exchange::{Failure, Held, Link, Mailbox, Outcome, Step};
use crate::jsonrpc::{Spliced, codes, rewrite, text};
use crate::mux::WireId;
use crate::phase::Phase;
use crate::session::{Audience, Members, Seat, Session};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// What a subscription may be to, in bytes.
const LONGEST_URI: usize = 8 * 1024;

/// RFC 5424's levels (server/utilities/logging §Log Levels).
const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// A shared child whose handshake is complete.
#[derive(Debug)]
pub struct Shared {
    /// The child.
    pub link: Arc<Link>,
    /// Who shares it.
    pub members: Arc<Members>,
    /// Its `InitializeResult`.
    pub initialized: Bytes,
    /// The same as a `DiscoverResult`, for modern clients.
    pub discovered: Bytes,
}

impl Shared {
    fn new(link: Arc<Link>, members: Arc<Members>, initialized: Bytes) -> Arc<Self> {
        let discovered = discover::from_initialize(&initialized, Hint::default());
        Arc::new(Shared { link, members, initialized, discovered })
    }

    /// Its `serverInfo`, in raw JSON.
    pub fn server_info(&self) -> Option<&[u8]> {
        discover::server_info(&self.initialized).map(|span| &self.initialized[span])
    }
}

impl Upstream {
    /// Starts the shared children, or in `session` mode one that is only to show that it starts.
    ///
    /// # Errors
    /// When one can't be started or doesn't complete its handshake.
    pub async fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let started = match self.settings.isolation {
            super::Isolation::Session => self.try_one().await.map(|()| Vec::new()),
            _ => self.start_shared().await,
        };
        match started {
            Ok(shared) => {
                let _ = self.shared.set(shared);
                self.phase.send_replace(Phase::Ready);
                Ok(())
            }
            Err(failure) => {
                self.phase.send_replace(Phase::Failed(failure.to_string()));
                Err(failure)
            }
        }
    }

    /// Resolves with the first shared child that ends.
    pub async fn shared_ended(&self) -> crate::exchange::End {
        let shared = self.shared.get().map(Vec::as_slice).unwrap_or_default();
        let mut ends = tokio::task::JoinSet::new();
        for child in shared {
            let link = Arc::clone(&child.link);
            ends.spawn(async move { link.ended().await });
        }
        match ends.join_next().await {
            Some(Ok(end)) => {
                self.phase.send_replace(Phase::Failed(end.to_string()));
                end
            }
            // No shared child: nothing to wait for.
            _ => std::future::pending().await,
        }
    }

    async fn start_shared(&self) -> Result<Vec<Arc<Shared>>, Failure> {
        // All places are taken first: an exclusive child must not get one of them while the first child still starts.
        let mut places = Vec::with_capacity(self.settings.children);
        for _ in 0..self.settings.children {
            places.push(self.place_at_start().await?);
        }
        let mut shared = Vec::with_capacity(places.len());
        for place in places {
            let members = Arc::new(Members::default());
            let (link, initialized) = self.greet(Audience::Shared(Arc::clone(&members)), place).await?;
            shared.push(Shared::new(link, members, initialized));
        }
        Ok(shared)
    }

    async fn try_one(&self) -> Result<(), Failure> {
        let place = self.place_at_start().await?;
        let (link, _) = self.greet(Audience::Nobody, place).await?;
        link.stop();
        Ok(())
    }

    async fn place_at_start(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| Failure::ShuttingDown)
    }

    /// Starts a child and completes its handshake.
    async fn greet(
        &self,
        audience: Audience,
        place: OwnedSemaphorePermit,
    ) -> Result<(Arc<Link>, Bytes), Failure> {
        let link = self.want(audience, self.settings.max_in_flight, place).await?;
        match self.handshake(&link, initialize::for_shared).await {
            Ok(initialized) => Ok((link, initialized)),
            Err(failure) => {
                link.stop();
                Err(failure)
            }
        }
    }

    pub(super) async fn handshake(
        &self,
        link: &Arc<Link>,
        initialize: impl FnOnce(WireId) -> Spliced,
    ) -> Result<Bytes, Failure> {
        let answer = match self.ask(link, self.start_timeout, initialize).await.flatten() {
            Ok(answer) => answer,
            // An exit is reported in full: the status and the last words may come a moment after the pipe's end.
            Err(Failure::ClosedStdout | Failure::ClosedStdin) => {
                return Err(Failure::Ended(link.ended().await));
            }
            Err(Failure::TimedOut(patience)) => return Err(Failure::SlowStart(patience)),
            Err(failure) => return Err(failure),
        };
        let result = answer.result.clone().ok_or_else(|| {
            let error = String::from_utf8_lossy(&answer.frame).into_owned();
            Failure::NotStarted(format!("the server refused to initialize: {error}").into())
        })?;
        link.notify(Spliced::from(rewrite::notification("notifications/initialized", None))).await;
        Ok(answer.frame.slice(result))
    }

    /// A request of proxyrunner's own.
    async fn ask(
        &self,
        link: &Link,
        patience: Duration,
        write: impl FnOnce(crate::mux::WireId) -> Spliced,
    ) -> Result<Outcome, Failure> {
        let held = Held { mailbox: Arc::new(Mailbox::default()), token: None, permit: None };
        let asked = async {
            let mut exchange = link.begin(held, write).await.map_err(|refused| match refusal(refused) {
                Refusal::Failed(failure) => failure,
                _ => Failure::Lost,
            })?;
            loop {
                if let Step::Outcome(outcome) = exchange.next().await {
                    return Ok(outcome);
                }
            }
        };
        timeout(patience, asked).await.unwrap_or(Err(Failure::TimedOut(patience)))
    }

    async fn until_ready(&self) -> Result<(), Refusal> {
        let mut phase = self.phase.subscribe();
        let ready = timeout(self.start_timeout, phase.wait_for(|phase| *phase != Phase::Starting)).await;
        if matches!(ready, Ok(Ok(_))) { Ok(()) } else { Err(Refusal::Busy("the server is still starting")) }
    }

    /// The shared child with the fewest sessions, once it is ready. With `--isolation session` there is none from the
    /// start: the first modern client's is started then.
    pub(super) async fn shared(&self) -> Result<Arc<Shared>, Refusal> {
        self.until_ready().await?;
        let open = self.shared.get().into_iter().flatten().filter(|shared| !shared.link.is_closed());
        if let Some(shared) = open.min_by_key(|shared| shared.members.count()) {
            return Ok(Arc::clone(shared));
        }
        if self.settings.isolation != super::Isolation::Session {
            return Err(Refusal::Busy("the server has ended"));
        }
        let mut on_demand = self.on_demand.lock().await;
        if let Some(shared) = on_demand.as_ref().filter(|shared| !shared.link.is_closed()) {
            return Ok(Arc::clone(shared));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Refusal::Busy("--max-children servers run already"))?;
        let members = Arc::new(Members::default());
        let (link, initialized) =
            self.greet(Audience::Shared(Arc::clone(&members)), place).await.map_err(Refusal::Failed)?;
        let shared = Shared::new(link, members, initialized);
        *on_demand = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// Seats a session at the shared child with the fewest sessions; its answer to `initialize` is ours.
    pub(super) async fn seat_shared(
        &self,
        session: &Arc<Session>,
        incoming: &Incoming,
    ) -> Result<Spliced, Refusal> {
        let shared = self.shared().await?;
        let asked = initialize::requested_version(&incoming.frame, &incoming.message);
        let (version, result) = initialize::welcome(&shared.initialized, asked.as_ref());
        session.negotiated(version);
        session.heard(Instant::now());
        if !session.take_seat(Seat::Shared(Arc::clone(&shared.link), Arc::clone(&shared.members))) {
            return Err(SEATED);
        }
        Ok(Spliced::from(rewrite::result(incoming.id(), &result)))
    }

    /// `resources/subscribe` and `unsubscribe` at a shared child: the child hears of the first and the last. The caller
    /// bounds the wait.
    pub(super) async fn change_subscription(
        &self,
        link: &Arc<Link>,
        members: &Arc<Members>,
        session: &Arc<Session>,
        incoming: Incoming,
        subscribe: bool,
    ) -> Result<Begun, Refusal> {
        let uri = incoming.message.params.as_ref().and_then(|params| params.uri.clone());
        let uri = uri.ok_or(Refusal::Withheld(codes::INVALID_PARAMS, "params.uri is missing"))?;
        let uri = text(&incoming.frame, &uri).into_owned();
        if uri.len() > LONGEST_URI {
            return Err(Refusal::Withheld(codes::INVALID_PARAMS, "params.uri is too long"));
        }
        let _turn = members.turn(&uri).await;
        if subscribe && !members.may_watch(session.id()) {
            return Err(Refusal::Withheld(
                codes::INVALID_PARAMS,
                "this session watches as many resources as it may",
            ));
        }
        let needs_child =
            if subscribe { !members.is_watched(&uri) } else { members.unwatch(&uri, session.id()) };
        if !needs_child {
            if subscribe {
                members.watch(&uri, session.id());
            }
            return Ok(Begun::Local(b"{}"));
        }
        let (mut exchange, underway) = self.begin_at(session, link, incoming).await?;
        let outcome = loop {
            if let Step::Outcome(outcome) = exchange.next().await {
                break outcome;
            }
        };
        underway.finish(Instant::now());
        if subscribe && matches!(&outcome, Ok(answer) if answer.result.is_some()) {
            members.watch(&uri, session.id());
        }
        Ok(Begun::Outcome(outcome))
    }

    /// Tells shared children which resources nobody watches any more, since their sessions have ended.
    pub async fn forget_orphaned_subscriptions(&self) {
        for shared in self.shared.get().into_iter().flatten() {
            for uri in shared.members.take_orphaned() {
                let _turn = shared.members.turn(&uri).await;
                if !shared.members.is_watched(&uri) {
                    self.tell_subscription(&shared.link, "resources/unsubscribe", &uri).await;
                }
            }
        }
    }

    /// Subscribes to a resource, or unsubscribes from it, on nobody's behalf; whether the child agreed.
    pub(super) async fn tell_subscription(&self, link: &Link, method: &str, uri: &str) -> bool {
        let params = serde_json::json!({"uri": uri}).to_string();
        let write = |wire_id: WireId| {
            let id = wire_id.as_u64().to_string();
            Spliced::from(rewrite::request(id.as_bytes(), method, Some(params.as_bytes())))
        };
        let answer = self.ask(link, self.settings.request_timeout, write).await;
        matches!(answer, Ok(Ok(answer)) if answer.result.is_some())
    }

    /// Ends the subscriptions of modern clients: proxyrunner ends.
    pub async fn end_listens(&self) {
        let on_demand = self.on_demand.lock().await;
        for shared in self.shared.get().into_iter().flatten().chain(on_demand.iter()) {
            listen::end_all(shared);
        }
    }
}

/// Requests that a shared child must not see: what they change or show would cross from one client to another.
pub(super) fn answered_here(incoming: &Incoming) -> Result<Option<&'static [u8]>, Refusal> {
    let params = incoming.message.params.as_ref();
    match &*incoming.method() {
        // The level is the child's, not the session's; and its messages are withheld, since they name no request.
        "logging/setLevel" => {
            let level =
                params.and_then(|params| params.level.as_ref()).map(|level| text(&incoming.frame, level));
            match level {
                Some(level) if LOG_LEVELS.contains(&&*level) => Ok(Some(b"{}")),
                _ => Err(Refusal::Withheld(codes::INVALID_PARAMS, "params.level is no log level")),
            }
        }
        method if method.starts_with("tasks/") => Err(Refusal::Withheld(
            codes::METHOD_NOT_FOUND,
            "tasks would cross from one client to another at a shared server; start proxyrunner with --isolation session",
        )),
        _ if params.is_some_and(|params| params.task.is_some()) => Err(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "tasks would cross from one client to another at a shared server; start proxyrunner with --isolation session",
        )),
        _ => Ok(None),
    }
}
