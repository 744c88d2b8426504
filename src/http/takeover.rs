//! Sessions of other replicas (`--forward-sessions`) that this one takes over when their owner is gone (`--resume-sessions` with
//! `--redis`; docs/operating.md#several-replicas). A request of a session that is not here waits until it is clear who owns the
//! session: it is passed on to the owner, or the session is started anew here, with the client's own handshake.

use super::forwarding::Forwarding;
use super::recorded::{result_of, shelf};
use super::reject::Rejection;
use super::response::Body;
use super::sessions::{self, Found};
use super::source::Source;
use super::{Server, guard, modern};
use crate::audience::SessionId;
use crate::budget::Charged;
use crate::client::Client;
use crate::era::discover;
use crate::exchange::Failure;
use crate::gateway::{
    Lease, Record, SESSION_ID, SESSION_LEASE, Seen, SessionOwner as Owner, Shelf, Siblings, ToldByClient,
};
use crate::identity::Identity;
use crate::jsonrpc::{self, Kind, Message, rewrite, text};
use crate::session::Session;
use crate::tasks;
use crate::telemetry::counters::{SESSION_TAKEOVERS, Takeover};
use crate::telemetry::metrics::gateway::Ending;
use crate::trace_context::Trace;
use crate::upstream::{Begun, Incoming, Received};
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Time for which a request waits until it is clear who owns its session: a lease may have to end first.
const PATIENCE: Duration = SESSION_LEASE.saturating_add(Duration::from_secs(4));
/// Interval between looks at a lease.
const LOOKS: Duration = Duration::from_millis(100);

/// A request of a session that may belong to another replica.
pub struct Carried<'a> {
    /// This replica.
    pub server: &'a Arc<Server>,
    /// Where the request came from.
    pub source: &'a Source,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its method.
    pub method: Method,
    /// Its body.
    pub frame: &'a Charged,
}

/// Returns whether a request's session may have been taken over, or may have to be.
pub fn concerns(server: &Server, found: Option<&Found>) -> bool {
    found.is_some() && shelf(server).is_some()
}

/// Returns whether a message belongs to a session, and does not open one.
pub fn is_of_session(headers: &HeaderMap, frame: &Charged, message: &Message) -> bool {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let is_modern =
        meta.is_some_and(|meta| meta.era_version.is_some()) || modern::has_modern_version(headers);
    let method = message.method.as_ref().map(|method| text(frame, method)).unwrap_or_default();
    !is_modern && method != "initialize"
}

/// Returns whether a caller may use a session with this id, here or elsewhere.
pub fn may_exist(server: &Server, source: &Source, headers: &HeaderMap) -> bool {
    let siblings = server.siblings.as_ref().filter(|siblings| siblings.shelf().is_some());
    let id = guard::agreed(headers, &SESSION_ID).ok().flatten();
    siblings.zip(id).is_some_and(|(siblings, id)| siblings.opener(id, &source.identity.principal).is_some())
}

impl<'a> Carried<'a> {
    /// Passes the request on if another replica owns its session. `None`: it is for this replica, and `found` says whether the
    /// session exists. `message` is its only one.
    pub async fn settle(
        &self,
        found: &mut Found,
        message: Option<&Message>,
    ) -> Option<Result<Response<Body>, Rejection>> {
        let (server, siblings) = (self.server, self.server.siblings.as_ref()?);
        let shelf = siblings.shelf()?;
        if let Ok(session) = found {
            if shelf.owns(session, &server.directory, &server.shutdown).await {
                return None;
            }
            *found = Err(Rejection::unknown_session());
        }
        let id = guard::agreed(self.headers, &SESSION_ID).ok()??;
        let opener = siblings.opener(id, &self.source.identity.principal)?;
        let opener = opener.filter(|_| self.source.ticket.is_none());
        let begins = message.is_none_or(|message| message.kind == Kind::Request);
        let until = Instant::now() + PATIENCE;
        let mut search =
            Search { carried: self, siblings, shelf, id, opener, begins, until, doubted: None, last: None };
        loop {
            let owner = match search.owner().await {
                Ok(Settled::There(owner)) => owner,
                Ok(Settled::Here) => {
                    *found = sessions::find(server, self.headers, &self.source.identity.principal);
                    return None;
                }
                Err(rejection) => {
                    *found = Err(rejection);
                    return None;
                }
            };
            if begins && server.shutdown.is_refusing() {
                *found = Err(Rejection::shutting_down());
                return None;
            }
            let (source, headers) = (self.source, self.headers);
            let forwarding = Forwarding { server, source, headers, owner, is_retry: false };
            let waits = begins && self.method != Method::GET;
            match forwarding.attempt(self.method.clone(), self.frame.clone(), waits).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => search.doubt(Doubt::Unknown),
                Err(Ending::OwnerGone) => search.doubt(Doubt::Silent),
                Ok(response) => return Some(Ok(response)),
                Err(ending) => return Some(Err(forwarding.refused(ending, self.frame, message))),
            }
        }
    }
}

/// Where a session is.
enum Settled {
    Here,
    There(SocketAddr),
}

/// Why an owner does not serve a session.
#[derive(Clone, Copy)]
enum Doubt {
    /// It is not there, or is shutting down.
    Silent,
    /// It does not know the session.
    Unknown,
}

/// The search for a session's owner.
struct Search<'a> {
    carried: &'a Carried<'a>,
    siblings: &'a Siblings,
    shelf: &'a Arc<Shelf>,
    id: &'a str,
    /// The sibling that has opened the session, for when Redis does not know.
    opener: Option<SocketAddr>,
    /// Whether the request begins something, which a replica that shuts down refuses.
    begins: bool,
    until: Instant,
    /// An owner that does not serve the session.
    doubted: Option<(Owner, Doubt)>,
    /// The owner that was asked last; none: the opener.
    last: Option<Owner>,
}

impl Search<'_> {
    /// Notes that the owner that was asked last does not serve the session.
    fn doubt(&mut self, doubt: Doubt) {
        match self.last.take() {
            Some(last) => self.doubted = Some((last, doubt)),
            None => self.opener = None,
        }
    }

    /// Returns where the session is, and takes it over if its owner is gone.
    ///
    /// # Errors
    /// 404 when the session does not exist; 503 when that cannot be known now, or there is no room for it.
    async fn owner(&mut self) -> Result<Settled, Rejection> {
        let source = self.carried.source;
        let client = source.identity.principal.client_or(|| Client::at(Some(source.peer.socket.ip())));
        let full = "too many requests wait until a replica takes their session over; try again";
        let _place = self.siblings.place(client).ok_or_else(|| Rejection::busy(full))?;
        loop {
            if self.is_here() {
                return Ok(Settled::Here);
            }
            let owner = match self.shelf.look(self.id).await {
                Ok(Seen::Owned(owner)) => owner,
                Ok(Seen::Ended) => return Err(Rejection::unknown_session()),
                Ok(Seen::Unknown) => return self.opener(Rejection::unknown_session()),
                Err(unavailable) => return self.opener(unknowable(unavailable)),
            };
            match self.is_gone(&owner).await? {
                Some(true) => {
                    if self.take_over(&owner).await? {
                        return Ok(Settled::Here);
                    }
                }
                Some(false) => {
                    let there = self.siblings.named(&owner.address);
                    self.last = Some(owner);
                    // A request is passed on once.
                    let there = there.filter(|_| source.ticket.is_none());
                    return there.map(Settled::There).ok_or_else(Rejection::unknown_session);
                }
                None => sleep(LOOKS).await,
            }
            if Instant::now() > self.until {
                return Err(unknowable("the replica that owns it does not answer"));
            }
        }
    }

    fn is_here(&self) -> bool {
        let Carried { server, source, .. } = self.carried;
        server.directory.find(self.id, &source.identity.principal).is_some() && !self.shelf.has_lost(self.id)
    }

    /// Returns the sibling that has opened the session, unless it was asked already.
    fn opener(&mut self, otherwise: Rejection) -> Result<Settled, Rejection> {
        self.last = None;
        self.opener.map(Settled::There).ok_or(otherwise)
    }

    /// Returns whether an owner is gone; `None` if that is not known yet.
    async fn is_gone(&self, owner: &Owner) -> Result<Option<bool>, Rejection> {
        if self.shelf.is_own(owner) {
            // It has just ended, unless it could not be started when it was taken over.
            let has_ended = self.shelf.has_ended(self.id);
            return if has_ended { Err(Rejection::unknown_session()) } else { Ok(Some(true)) };
        }
        let doubt = self.doubted.as_ref().filter(|(doubted, _)| doubted == owner).map(|(_, doubt)| *doubt);
        let is_doubted = doubt.is_some();
        Ok(match self.shelf.lease_of(owner).await.map_err(unknowable)? {
            Lease::Over => Some(true),
            Lease::Held => match doubt {
                None => Some(false),
                Some(Doubt::Silent) => None,
                Some(Doubt::Unknown) => return Err(Rejection::unknown_session()),
            },
            // It still takes answers, and what concerns its calls in flight.
            Lease::Released => Some(self.begins || is_doubted),
            Lease::Expired if is_doubted => Some(true),
            // It may only be cut off from Redis, and then goes on.
            Lease::Expired => match self.siblings.named(&owner.address) {
                Some(address) => Some(!self.siblings.answers(address).await),
                None => Some(true),
            },
        })
    }

    /// Takes the session over. Returns false if that has to be looked at again.
    async fn take_over(&self, owner: &Owner) -> Result<bool, Rejection> {
        let Carried { server, source, .. } = self.carried;
        if server.shutdown.is_refusing() {
            return Err(Rejection::shutting_down());
        }
        if source.ticket.is_some() && !self.shelf.is_own(owner) {
            return Err(Rejection::unknown_session());
        }
        let turn = self.shelf.turn(self.id).lock_owned().await;
        let principal = &source.identity.principal;
        if self.is_here() {
            return Ok(false);
        }
        let taken = self.shelf.take(self.id, principal, owner).await.map_err(unknowable)?;
        let Some((owner, record)) = taken else { return Ok(false) };
        let Some(record) = record else {
            SESSION_TAKEOVERS.increment(Takeover::Failed as usize);
            tracing::warn!("what Redis has of a session was not written with this --state-key-file");
            return Err(Rejection::unknown_session());
        };
        let address = Some(source.peer.socket.ip());
        let account = source.account.sibling(principal.client_or(|| source.account.client()));
        let id = SessionId::sealed(self.id);
        let session = server.directory.open_as(id, principal.clone(), address, account, Instant::now());
        let session = session.map_err(|_| Rejection::busy("--max-sessions sessions are open"))?;
        let (shelf, server) = (Arc::clone(self.shelf), Arc::clone(server));
        let identity = Arc::clone(&source.identity);
        // A task of its own, since the session is this replica's from now on, whether or not the client waits.
        let reviving = async move {
            let _turn = turn;
            revive(&server, &shelf, &session, (identity, owner), record).await
        };
        match tasks::run(reviving).await {
            Ok(revived) => revived.map(|()| true),
            Err(_) => Err(unknowable("it could not be started here")),
        }
    }
}

/// Starts a session anew at a child of this replica.
async fn revive(
    server: &Server,
    shelf: &Shelf,
    session: &Arc<Session>,
    (identity, owner): (Arc<Identity>, Owner),
    record: Record,
) -> Result<(), Rejection> {
    let _place = shelf.place().await;
    session.take_over(owner.epoch);
    let begun = begin(server, session, &identity, &record).await;
    match begun {
        Ok(initialize) => {
            tell(server, session, &identity, &record.told).await;
            let result = session.account().hold(record.result);
            shelf.keep(session, (initialize, result), record.told, Some(&owner)).await;
            server.directory.list(session);
            SESSION_TAKEOVERS.increment(Takeover::Taken as usize);
            tracing::info!(session = %session.id(), "took a session over, whose replica is gone (--resume-sessions)");
            Ok(())
        }
        Err(failure) => {
            session.end(&failure);
            SESSION_TAKEOVERS.increment(Takeover::Failed as usize);
            if !matches!(failure, Failure::Changed) {
                return Err(unknowable(failure));
            }
            tracing::warn!(session = %session.id(), "a session was not taken over: this server reports a different version, different capabilities or instructions than that of the replica that is gone");
            shelf.give_up(session.id().secret(), &owner).await;
            Err(Rejection::unknown_session())
        }
    }
}

/// Repeats the client's handshake, and returns its `initialize`.
async fn begin(
    server: &Server,
    session: &Arc<Session>,
    identity: &Arc<Identity>,
    record: &Record,
) -> Result<Charged, Failure> {
    let account = session.account();
    let frame = account.try_hold(record.initialize.clone()).ok_or(Failure::NoRoom)?;
    let initialize = incoming(frame.clone(), identity).ok_or(Failure::Changed)?;
    let answered = tokio::select! {
        biased;
        answered = server.upstream.initialize(session, initialize) => answered,
        () = server.shutdown.over() => return Err(Failure::ShuttingDown),
        () = session.ended() => return Err(session.why_ended()),
    };
    let answer = answered.map_err(|refused| match refused {
        crate::upstream::Refusal::Failed(failure) => failure,
        _ => Failure::Lost,
    })?;
    let result = result_of(&answer).filter(|_| session.seat().is_some()).ok_or(Failure::Changed)?;
    if !discover::same_words(&record.result, &result) {
        return Err(Failure::Changed);
    }
    Ok(frame)
}

/// Tells the child what its predecessor was told.
async fn tell(server: &Server, session: &Arc<Session>, identity: &Arc<Identity>, told: &ToldByClient) {
    let telling = async {
        let initialized = rewrite::notification("notifications/initialized", None);
        if let Some(initialized) = incoming(initialized, identity) {
            let _ = server.upstream.notify(session, &initialized).await;
        }
        let level = told.level.map(|level| ("logging/setLevel", json!({"level": level}).to_string()));
        let uris = told.watched.uris().map(|uri| ("resources/subscribe", json!({"uri": uri}).to_string()));
        for (method, params) in level.into_iter().chain(uris) {
            let request = rewrite::request(b"0", method, Some(params.as_bytes()));
            let Some(request) = incoming(request, identity) else { continue };
            if let Ok(Begun::Running(call)) = server.upstream.begin(session, request).await {
                let _ = call.run(|_| {}).await;
            }
        }
    };
    if timeout(server.upstream.request_timeout(), telling).await.is_err() {
        tracing::warn!(session = %session.id(), "the server did not take a session's log level and subscriptions in time");
    }
}

/// Returns a message that is not recorded as one of the client.
fn incoming(frame: Charged, identity: &Arc<Identity>) -> Option<Incoming> {
    let message = jsonrpc::scan(&frame).ok()?;
    let (trace, identity) = (Trace::default(), Arc::clone(identity));
    Some(Received { frame, message, trace, identity, operation: Arc::default() }.into())
}

fn unknowable(why: impl Display) -> Rejection {
    Rejection::busy(format!("the session is not at this replica, and {why}; try again (--resume-sessions)"))
}
