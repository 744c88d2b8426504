//! Siblings: the other replicas of one sidecar, behind one address without session affinity (`--forward-sessions`). Each
//! passes requests of the others' sessions on to their owner, and so retries of the others' parked calls
//! (docs/operating.md#several-replicas).
//!
//! The owner's address comes only out of a sealed session id or state. A [`ticket`] proves to the owner that a sibling sends
//! the request, and names the caller. A request with a ticket is never passed on again.
//!
//! With `--resume-sessions` and `--redis`, the [`shelf`] says who owns a session, and has its [`record`] for the sibling that
//! takes it over when its owner is gone.

mod links;
mod record;
mod shelf;
mod ticket;

pub use record::subscriptions_in;
pub(crate) use record::{LONGEST_HANDSHAKE, Record, Told as ToldByClient};
pub(crate) use shelf::{LEASE, Lease, Owner, Seen, Shelf};
pub(crate) use ticket::{PROOF, TICKET, Ticket, Told};

use super::Waiting;
use super::lines::Received;
use super::pool::{Lost, Place};
use super::session_id::SessionId;
use crate::audience;
use crate::budget::Charged;
use crate::calls::{Purpose, Seal, SealKeys};
use crate::client::Client;
use crate::identity::Principal;
use crate::outbound::{BadTls, Tls, never};
use crate::redis::Redis;
use crate::shutdown::DRAINING;
use crate::telemetry::Seldom;
use crate::telemetry::metrics::gateway::Ending;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use links::Links;
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::body::Body;

/// Maximum length of a ticket. Claims as long as a head may be are not passed on.
const LONGEST_TICKET: usize = 48 << 10;
/// Maximum time for a sibling to show that it lives.
const PROBE: Duration = Duration::from_millis(1_500);

/// The operator's settings of forwarding.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where siblings reach this replica.
    pub own: SocketAddr,
    /// `--path`: the path of the endpoint.
    pub path: String,
    /// The certificates of https; `None`: http.
    pub tls: Option<Tls>,
    /// Maximum number of requests in flight at all siblings together.
    pub most: usize,
    /// Maximum time to the head of an answer, and between parts of one that is no event stream.
    pub patience: Duration,
}

/// The siblings of this replica.
#[derive(Debug)]
pub struct Siblings {
    settings: Settings,
    seal: Arc<Seal>,
    /// What others need to take sessions over; `None` if they cannot.
    shelf: Option<Arc<Shelf>>,
    /// The path of the endpoint, which is the target of requests.
    target: Uri,
    /// Replaced when the own certificate changes.
    links: RwLock<Arc<Links>>,
    waiting: Arc<()>,
}

/// A request to a sibling.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// Who sends it.
    pub client: Client,
    /// The method.
    pub method: Method,
    /// The headers that pass.
    pub headers: HeaderMap,
    /// The session; `None` for a retry of the modern era.
    pub session: Option<&'a str>,
    /// The whole body; empty for GET and DELETE.
    pub body: Charged,
    /// The caller.
    pub told: Told,
}

/// The head of a sibling's answer, with a body that is still being received.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The answer.
    pub response: Response<Received>,
    /// The place of its connection.
    pub place: Place,
}

impl Siblings {
    /// Creates the siblings. No connection is made yet.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub fn new(settings: Settings, seal: Seal) -> Result<Self, BadTls> {
        let links = RwLock::new(Links::new(settings.tls.as_ref(), settings.most)?);
        let target = settings.path.parse().unwrap_or_default();
        let seal = Arc::new(seal);
        Ok(Siblings { settings, seal, shelf: None, target, links, waiting: Arc::default() })
    }

    /// Lets siblings take sessions over, whose records are kept for this time without being written. Returns false if the
    /// system has no randomness.
    #[must_use]
    pub(crate) fn record(&mut self, redis: Arc<Redis>, idle: Duration) -> bool {
        let Settings { own, path, .. } = &self.settings;
        let seal = Arc::clone(&self.seal);
        self.shelf = Shelf::new(redis, seal, own.to_string(), path.clone(), idle).map(Arc::new);
        self.shelf.is_some()
    }

    /// Returns what siblings need to take sessions over; `None` if they cannot.
    pub(crate) fn shelf(&self) -> Option<&Arc<Shelf>> {
        self.shelf.as_ref()
    }

    /// Returns whether a process serves at a sibling's address.
    pub(crate) async fn answers(&self, address: SocketAddr) -> bool {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/livez");
        let Ok(host) = HeaderValue::try_from(address.to_string()) else { return false };
        request.headers_mut().insert(HOST, host);
        let links = Arc::clone(&self.links.read());
        let answered = timeout(PROBE, links.send(request, address)).await;
        answered.is_ok_and(|answered| answered.is_ok_and(|response| response.status().is_success()))
    }

    /// Replaces the keys.
    pub fn reseal(&self, keys: &SealKeys) {
        self.seal.replace(keys);
    }

    /// Replaces the certificates of new connections.
    ///
    /// # Errors
    /// When they are unusable; then the previous ones stay in use.
    pub fn renew(&self, tls: &Tls) -> Result<(), BadTls> {
        *self.links.write() = Links::new(Some(tls), self.settings.most)?;
        Ok(())
    }

    /// Returns a new session id, which siblings can open; `None` if the system has no randomness.
    pub(crate) fn mint(&self, principal: &Principal) -> Option<audience::SessionId> {
        let inner = audience::SessionId::mint().ok()?.secret().to_owned();
        let id = SessionId { address: self.settings.own.to_string(), inner, resumes: false };
        Some(audience::SessionId::sealed(&id.seal(&self.seal, &self.settings.path, principal)?))
    }

    /// Returns the sibling that owns the session with this id; `None` if none does, or it is not known to this caller.
    pub(crate) fn owner(&self, id: &str, principal: &Principal) -> Option<SocketAddr> {
        self.opener(id, principal)?
    }

    /// Returns the sibling that has opened the session with this id: `Some(None)` if it was at the address of this replica.
    /// `None` if the id is not known to this caller.
    pub(crate) fn opener(&self, id: &str, principal: &Principal) -> Option<Option<SocketAddr>> {
        let id = SessionId::open(id, &self.seal, &self.settings.path, principal)?;
        Some(self.named(&id.address))
    }

    /// Returns the sibling at an address; `None` if there can be none.
    pub(crate) fn named(&self, address: &str) -> Option<SocketAddr> {
        self.sibling(address.parse().ok()?)
    }

    /// Returns the sibling in which the call of a state is parked.
    pub(crate) fn owner_of_state(&self, state: &str, purpose: &Purpose) -> Option<SocketAddr> {
        self.sibling(self.seal.owner(state, purpose)?)
    }

    fn sibling(&self, address: SocketAddr) -> Option<SocketAddr> {
        may_be_sibling(self.settings.own, address).then_some(address)
    }

    /// Returns a place for a request that waits until its session is taken over; `None` if too many wait, in all or of this
    /// client.
    pub(crate) fn place(&self, client: Client) -> Option<Place> {
        self.links.read().place(client)
    }

    /// Begins a request whose client waits for its answer.
    pub(crate) fn wait(&self) -> Waiting {
        Waiting(Arc::clone(&self.waiting))
    }

    /// Returns the number of requests whose clients wait for a sibling's answer.
    pub fn underway(&self) -> usize {
        Arc::strong_count(&self.waiting) - 1
    }

    /// Returns the number of requests in flight, with streams.
    pub fn in_flight(&self) -> usize {
        self.settings.most.saturating_sub(self.links.read().left())
    }

    /// Closes the connections that were idle for too long.
    pub fn close_idle(&self, now: Instant) {
        let links = Arc::clone(&self.links.read());
        links.close_idle(now);
    }

    /// Returns the maximum time between parts of an answer that is no event stream.
    pub(crate) fn patience(&self) -> Duration {
        self.settings.patience
    }

    /// Returns what a request's ticket says; `None` if it is not one of a sibling for this request.
    pub(crate) fn admit(&self, method: &Method, headers: &HeaderMap) -> Option<Ticket> {
        Ticket::open(&self.seal, method, headers)
    }

    /// Passes a request on. Dropping the future, or the body of the answer, ends the request.
    ///
    /// # Errors
    /// How the request has ended without an answer: [`Ending::OwnerGone`] if the owner is not there, is ending or is not a
    /// sibling.
    pub(crate) async fn forward(&self, owner: SocketAddr, outgoing: Outgoing<'_>) -> Result<Answer, Ending> {
        let links = Arc::clone(&self.links.read());
        let place = links.place(outgoing.client).ok_or(Ending::Full)?;
        let sealed =
            ticket::seal(&self.seal, &outgoing.told, &outgoing.method, outgoing.session, &outgoing.body);
        let sealed = sealed.filter(|sealed| sealed.len() <= LONGEST_TICKET).ok_or(Ending::ServerError)?;
        let request = self.request(owner, outgoing, &sealed).ok_or(Ending::ServerError)?;
        match timeout(self.settings.patience, links.send(request, owner)).await {
            Ok(Ok(response)) if !ticket::is_proved(&self.seal, &sealed, response.headers()) => {
                tell(
                    owner,
                    &"its answer is not that of a replica with the same --state-key-file, or clocks differ",
                );
                Err(Ending::OwnerGone)
            }
            Ok(Ok(response)) if is_draining(&response) => Err(Ending::OwnerGone),
            Ok(Ok(response)) => Ok(Answer { response, place }),
            // Whoever does not answer a connection does not run, as far as can be known. Nothing was sent.
            Ok(Err(lost @ (Lost::Gone(_) | Lost::Unreachable(_)))) => {
                tell(owner, &lost);
                Err(Ending::OwnerGone)
            }
            Ok(Err(lost @ Lost::Broken(_))) => {
                tell(owner, &lost);
                Err(Ending::Broken)
            }
            Err(_) => Err(Ending::Timeout),
        }
    }

    fn request(&self, owner: SocketAddr, outgoing: Outgoing<'_>, sealed: &str) -> Option<Request<Body>> {
        let Outgoing { method, headers, session, body, .. } = outgoing;
        let body = match body.is_empty() {
            true => Body::empty(),
            false => Body::new(Full::new(Bytes::from_owner(body))),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.target.clone();
        let target = request.headers_mut();
        *target = headers;
        if let Some(session) = session {
            target.insert(super::SESSION_ID, HeaderValue::from_str(session).ok()?);
        }
        let mut ticket = HeaderValue::from_str(sealed).ok()?;
        ticket.set_sensitive(true);
        target.insert(TICKET, ticket);
        target.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        target.insert(HOST, HeaderValue::try_from(owner.to_string()).ok()?);
        Some(request)
    }
}

/// Returns whether a sibling may be at this address: at the same port of another host. Only replicas that share a host in
/// tests, and know each other by its loopback addresses, have ports of their own.
fn may_be_sibling(own: SocketAddr, address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_near = ip.is_loopback();
    let is_like =
        own.ip().to_canonical().is_loopback() == is_near && (is_near || address.port() == own.port());
    is_like && address != own && address.port() != 0 && never(ip).is_none()
}

/// Returns whether a sibling refuses a request because it ends.
fn is_draining(response: &Response<Received>) -> bool {
    let refused = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND];
    refused.contains(&response.status()) && response.headers().contains_key(DRAINING)
}

fn tell(owner: SocketAddr, reason: &dyn std::fmt::Display) {
    static LOST: Seldom = Seldom::new();
    if LOST.is_due() {
        tracing::warn!(%owner, %reason, "a request could not be passed on to the replica that owns its session (--forward-sessions); logged at most once a minute");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_has_the_same_port_of_another_host() {
        let may = |own: &str, address: &str| {
            may_be_sibling(own.parse().expect("an address"), address.parse().expect("an address"))
        };
        for (own, address) in [
            ("10.0.0.1:8080", "10.0.0.2:8080"),
            ("10.0.0.1:8080", "[fd00::2]:8080"),
            ("[fd00::1]:8080", "[fd00::2]:8080"),
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "[::1]:1"),
        ] {
            assert!(may(own, address), "{own} {address}");
        }
        for (own, address) in [
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("10.0.0.1:8080", "10.0.0.2:8081"),
            ("10.0.0.1:8080", "127.0.0.1:8080"),
            ("10.0.0.1:8080", "[::ffff:127.0.0.1]:8080"),
            ("10.0.0.1:8080", "[::1]:8080"),
            ("10.0.0.1:80", "169.254.169.254:80"),
            ("10.0.0.1:80", "0.0.0.0:80"),
            ("10.0.0.1:80", "224.0.0.1:80"),
            ("127.0.0.1:1", "10.0.0.1:1"),
            ("127.0.0.1:1", "127.0.0.1:0"),
        ] {
            assert!(!may(own, address), "{own} {address}");
        }
    }
}
