//! Passes one request to a replica.

use super::balance;
use super::directory::Server;
use super::headers::SESSION_ID;
use super::lines::Received;
use super::pool::{Lost, Place, Pool};
use super::replica::{InFlight, Outcome, Probed, Replica};
use crate::budget::Charged;
use crate::client::Client;
use crate::shutdown::DRAINING;
use crate::telemetry::counters;
use crate::telemetry::metrics::gateway::Ending;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::body::Body;

/// A request without what differs between replicas.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Who sends it.
    pub client: Client,
    /// The method.
    pub method: Method,
    /// The headers that pass.
    pub headers: HeaderMap,
    /// The whole body; empty for GET and DELETE.
    pub body: Charged,
    /// What tells the server who calls.
    pub authorization: Option<HeaderValue>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Aim {
    /// To the replica that has little to do.
    Any,
    /// To the replica that requests with the same key go to.
    Key([u8; 32]),
    /// The same for a retry with the answers to questions, which the replica that has asked still takes while it is
    /// shutting down.
    Retry([u8; 32]),
    /// To the owner of its session.
    Owner(Arc<Owner>),
    /// To another replica than the owner of its session, which is shutting down: it takes the session over.
    Heir(Arc<Owner>),
}

/// The replica that owns a session.
#[derive(Debug)]
pub(crate) struct Owner {
    /// The address of the replica.
    pub address: Box<str>,
    /// Its id of the session.
    pub inner: HeaderValue,
    /// Whether other replicas can take the session over.
    pub resumes: bool,
}

/// The head of a replica's answer, with a body that is still being received.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The answer.
    pub response: Response<Received>,
    /// The request, which is in flight until the body ends.
    pub in_flight: InFlight,
    /// The place of its connection.
    pub place: Place,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Too many requests are in flight.
    Full,
    /// No replica takes requests.
    NoReplica,
    /// The owner of the session does not exist any more.
    OwnerGone,
    /// No replica could be reached. Nothing was sent.
    Unreachable,
    /// The replica broke the connection. It may have worked on the request.
    Broken,
    /// No answer began in time. The replica may work on the request.
    Late(Duration),
}

impl Failure {
    /// Returns how the request counts.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Failure::Full => Ending::Full,
            Failure::NoReplica => Ending::NoReplica,
            Failure::OwnerGone => Ending::OwnerGone,
            Failure::Unreachable => Ending::Unreachable,
            Failure::Broken => Ending::Broken,
            Failure::Late(_) => Ending::Timeout,
        }
    }
}

/// Passes a request, and returns the head of its answer. Dropping the future ends the request.
///
/// # Errors
/// When there is no answer. Only a request of which nothing was sent is tried at another replica.
pub(super) async fn forward(
    pool: &Pool,
    server: &Server,
    aim: &Aim,
    outgoing: Outgoing,
    patience: Duration,
) -> Result<Answer, Failure> {
    let place = pool.place(outgoing.client).ok_or(Failure::Full)?;
    let mut sending = Sending { pool, server, outgoing, patience };
    match aim {
        Aim::Owner(owner) => sending.at_owner(owner, place).await,
        Aim::Heir(owner) => sending.at_any(&Aim::Any, Some(&owner.inner), place).await,
        Aim::Any | Aim::Key(_) | Aim::Retry(_) => sending.at_any(aim, None, place).await,
    }
}

struct Sending<'a> {
    pool: &'a Pool,
    server: &'a Server,
    outgoing: Outgoing,
    patience: Duration,
}

impl Sending<'_> {
    async fn at_owner(&mut self, owner: &Owner, place: Place) -> Result<Answer, Failure> {
        let replicas = self.server.replicas();
        let replica = replicas.iter().find(|replica| *replica.endpoint.address() == *owner.address);
        // An owner that shuts down still takes answers and notifications; requests are not aimed at it.
        let serves = |replica: &&Arc<Replica>| replica.takes(Instant::now()) || replica.is_draining();
        let Some(replica) = replica.filter(|replica| !owner.resumes || serves(replica)) else {
            return match owner.resumes {
                true => self.at_any(&Aim::Any, Some(&owner.inner), place).await,
                false => Err(Failure::OwnerGone),
            };
        };
        let session = Some(owner.inner.clone());
        match self.send(replica.begin_bound(), session, place, !owner.resumes).await {
            Err((Failed::Gone | Failed::Unreachable, place)) if owner.resumes => {
                self.at_any(&Aim::Any, Some(&owner.inner), place).await
            }
            Err((Failed::Gone, _)) => Err(Failure::OwnerGone),
            Err((Failed::Unreachable, _)) => Err(Failure::Unreachable),
            Err((Failed::Final(failure), _)) => Err(failure),
            Ok(answer) => Ok(answer),
        }
    }

    async fn at_any(
        &mut self,
        aim: &Aim,
        session: Option<&HeaderValue>,
        mut place: Place,
    ) -> Result<Answer, Failure> {
        let mut left: Vec<Arc<Replica>> = self.server.replicas().to_vec();
        let mut has_failed = false;
        self.server.stats.retries.lock().note_request(Instant::now());
        loop {
            let now = Instant::now();
            let chosen = match aim {
                Aim::Key(key) => balance::by_key(&left, key, false, now),
                Aim::Retry(key) => balance::by_key(&left, key, true, now),
                _ => balance::least(&left, now),
            };
            let none = if has_failed { Failure::Unreachable } else { Failure::NoReplica };
            let Some(chosen) = chosen else { return Err(none) };
            if has_failed {
                if !self.server.stats.retries.lock().take(now) {
                    return Err(none);
                }
                counters::GATEWAY_RETRIES.increment();
            }
            left.retain(|replica| !Arc::ptr_eq(replica, &chosen));
            // Another request may have begun the only trial meanwhile.
            let Some(in_flight) = chosen.begin(now) else { continue };
            match self.send(in_flight, session.cloned(), place, left.is_empty()).await {
                Ok(answer) => return Ok(answer),
                Err((Failed::Final(failure), _)) => return Err(failure),
                Err((Failed::Gone | Failed::Unreachable, unused)) => (place, has_failed) = (unused, true),
            }
        }
    }

    /// Sends the request to a replica. `is_last`: no other one can be tried after it.
    async fn send(
        &mut self,
        mut in_flight: InFlight,
        session: Option<HeaderValue>,
        place: Place,
        is_last: bool,
    ) -> Result<Answer, (Failed, Place)> {
        let replica = Arc::clone(in_flight.replica());
        let begun = Instant::now();
        let request = self.request(&replica, session, is_last);
        let sent = {
            let endpoint = (replica.endpoint.url(), replica.endpoint.reach());
            timeout(self.patience, self.pool.send(request, endpoint, &replica.lines)).await
        };
        let now = Instant::now();
        let failed = match sent {
            Ok(Ok(response)) => {
                if response.headers().contains_key(DRAINING) {
                    replica.probed(Probed::Draining, now);
                    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                        // It has not begun with the request.
                        return Err((Failed::Gone, place));
                    }
                }
                let outcome =
                    if is_overloaded(response.status()) { Outcome::Failed } else { Outcome::Answered };
                in_flight.note(outcome, now);
                self.server.stats.latency.record((now - begun).as_nanos() as u64, None);
                return Ok(Answer { response, in_flight, place });
            }
            Ok(Err(lost)) => {
                self.tell(&replica, &lost);
                match lost {
                    Lost::Gone(_) => {
                        // A request cannot succeed there, so there is no need to count up to an ejection.
                        replica.probed(Probed::Silent, now);
                        Failed::Gone
                    }
                    Lost::Unreachable(_) => Failed::Unreachable,
                    Lost::Broken(_) => Failed::Final(Failure::Broken),
                }
            }
            // One tool may take longer than all others. Whether the replica hangs, its probes tell.
            Err(_) => return Err((Failed::Final(Failure::Late(self.patience)), place)),
        };
        in_flight.note(Outcome::Failed, now);
        Err((failed, place))
    }

    fn tell(&self, replica: &Replica, lost: &Lost) {
        if self.server.stats.failures.is_due() {
            let (server, address) = (&self.server.about.name, replica.endpoint.address());
            tracing::warn!(server, address, reason = %lost, "a request to a replica failed; logged at most once a minute");
        }
    }

    fn request(&mut self, replica: &Replica, session: Option<HeaderValue>, is_last: bool) -> Request<Body> {
        let Outgoing { method, headers, body, authorization, .. } = &mut self.outgoing;
        let body = match body.is_empty() {
            true => Body::empty(),
            false => Body::new(Full::new(Bytes::from_owner(body.clone()))),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = replica.endpoint.target().clone();
        let target = request.headers_mut();
        *target = if is_last { std::mem::take(headers) } else { headers.clone() };
        if let Some(authorization) = authorization {
            target.insert(AUTHORIZATION, authorization.clone());
        }
        for (name, value) in &self.server.about.headers {
            target.insert(name.clone(), value.clone());
        }
        if let Some(session) = session {
            target.insert(SESSION_ID, session);
        }
        // What a client could not read is not asked for.
        target.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        target.insert(HOST, replica.endpoint.host().clone());
        request
    }
}

/// Why one replica did not answer.
enum Failed {
    /// Nothing listens at its address, or it says that it is ending.
    Gone,
    /// It could not be reached. Nothing was sent.
    Unreachable,
    /// No other replica may be tried.
    Final(Failure),
}

/// Returns whether a status says that the replica cannot serve at all now.
fn is_overloaded(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}
