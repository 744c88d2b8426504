//! One replica of a server: where it is, and how it does.

use super::lines::Lines;
use crate::outbound::Reach;
use crate::telemetry::counters;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Failures in a row that eject a replica.
const MOST_FAILURES: u32 = 5;
/// The first ejection; each further one in a row takes twice as long.
const FIRST_EJECTION: Duration = Duration::from_secs(5);
/// The longest ejection.
const LONGEST_EJECTION: Duration = Duration::from_secs(60);
/// Time in which a replica that returns gets more and more requests.
const SLOW_START: Duration = Duration::from_secs(30);
/// The part of the requests that it gets at the beginning.
const LEAST_WEIGHT: f64 = 0.1;

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The URL to connect to, with a port.
    url: Uri,
    /// The path of the URL, which is the target of requests.
    target: Uri,
    /// The Host header, which differs from the URL's authority if the URL's host is an address of a name.
    host: HeaderValue,
    /// The addresses at which the host may be.
    reach: Reach,
    /// The part of the requests that it should get, compared with those of the other replicas; 1 unless DNS says more.
    weight: u16,
}

impl Endpoint {
    /// Parses an absolute http or https URL without user, query and fragment.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))?;
        let authority = uri.authority()?;
        // The parser accepts ports that are no numbers.
        let behind = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        if behind.contains(':') && uri.port_u16().is_none_or(|port| port == 0) {
            return None;
        }
        if uri.query().is_some()
            || url.contains('#')
            || authority.as_str().contains('@')
            || uri.host()?.is_empty()
        {
            return None;
        }
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        let port = uri.port_u16().unwrap_or(if *scheme == Scheme::HTTP { 80 } else { 443 });
        let url = format!("{scheme}://{}:{port}{}", uri.host()?.to_ascii_lowercase(), uri.path());
        let target = uri.path().parse().ok()?;
        Some(Endpoint { url: url.parse().ok()?, target, host, reach: Reach::Anywhere, weight: 1 })
    }

    /// Returns the endpoint, which must be at an address within this reach.
    pub(super) fn within(self, reach: Reach) -> Self {
        Endpoint { reach, ..self }
    }

    /// Returns the addresses at which it may be.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// Returns the endpoint at one address of its name.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Self> {
        let port = self.url.port_u16()?;
        let socket = SocketAddr::new(address, port);
        let url = format!("{}://{socket}{}", self.url.scheme_str()?, self.url.path());
        Some(Endpoint { url: url.parse().ok()?, ..self.clone() })
    }

    /// Returns the endpoint at a host of the service that its URL names.
    pub(super) fn of_service(&self, host: &str, port: u16, weight: u16) -> Option<Self> {
        let named =
            Endpoint::parse(&format!("{}://{host}:{port}{}", self.url.scheme_str()?, self.url.path()))?;
        Some(Endpoint { reach: self.reach, weight: weight.max(1), ..named })
    }

    /// Returns the URL to connect to.
    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    /// Returns the target of requests.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// Returns the Host header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Returns host and port, which name the replica among those of its server.
    pub(crate) fn address(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }
}

/// The state of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes requests.
    Healthy,
    /// Its probe fails. It gets requests only if no other replica can take them, and only if it answers at all: a
    /// server that is still starting may hold them.
    Unready {
        /// Whether it answers the probe.
        answers: bool,
    },
    /// Requests have failed, so that it gets none until this time.
    Ejected {
        /// When one request tries it again.
        until: Instant,
    },
    /// After an ejection, one request tries it.
    Trial,
}

impl State {
    /// All names, in the order of metrics.
    pub(crate) const NAMES: [&str; 4] = ["healthy", "unready", "ejected", "trial"];

    /// Returns the name for metrics and the catalogue.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Unready { .. } => "unready",
            State::Ejected { .. } => "ejected",
            State::Trial => "trial",
        }
    }
}

/// How a request at a replica ended, as far as it tells of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has answered.
    Answered,
    /// It could not be reached, has broken the connection, or has said that it is overloaded.
    Failed,
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It serves.
    Ready,
    /// It answers that it does not serve now.
    Unready,
    /// It answers that it is shutting down.
    Draining,
    /// It does not answer.
    Silent,
}

/// One replica of a server.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its idle connections.
    pub(super) lines: Arc<Lines>,
    in_flight: AtomicUsize,
    is_draining: AtomicBool,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    state: State,
    /// Failures since the last answer.
    failures: u32,
    /// Ejections since the last answer.
    ejections: u32,
    /// When it began to take requests.
    since: Instant,
}

impl Replica {
    /// Creates a replica of which nothing is known yet. It takes requests, since a probe takes a while.
    pub(crate) fn new(endpoint: Endpoint, now: Instant) -> Self {
        let health = Health { state: State::Healthy, failures: 0, ejections: 0, since: now };
        Replica {
            endpoint,
            lines: Arc::default(),
            in_flight: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            health: Mutex::new(health),
        }
    }

    /// Returns the state.
    pub(crate) fn state(&self) -> State {
        self.health.lock().state
    }

    /// Returns the number of requests at it.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns whether it has said that it is shutting down.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Returns whether a request without a session may go to it.
    pub(super) fn takes(&self, now: Instant) -> bool {
        match self.state() {
            State::Healthy => true,
            State::Ejected { until } => until <= now,
            State::Unready { .. } | State::Trial => false,
        }
    }

    /// Returns whether a request may go to it if no replica [takes](Self::takes) requests.
    pub(super) fn may_hold(&self) -> bool {
        self.state() == State::Unready { answers: true }
    }

    /// Returns the part of the requests that it should get, which grows while it has just begun to take requests.
    pub(super) fn weight(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.health.lock().since);
        let grown = (age.as_secs_f64() / SLOW_START.as_secs_f64()).clamp(LEAST_WEIGHT, 1.0);
        f64::from(self.endpoint.weight) * grown
    }

    /// Begins a request that may go to any replica; `None` if it takes none any more.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> Option<InFlight> {
        let mut health = self.health.lock();
        let is_trial = match health.state {
            State::Healthy | State::Unready { answers: true } => false,
            State::Ejected { until } if until <= now => true,
            _ => return None,
        };
        if is_trial {
            health.state = State::Trial;
        }
        drop(health);
        Some(InFlight::new(self, is_trial))
    }

    /// Begins a request that can go to no other replica, whatever its state.
    pub(super) fn begin_bound(self: &Arc<Self>) -> InFlight {
        InFlight::new(self, false)
    }

    /// Notes the result of a probe; returns whether that has changed the state.
    pub(super) fn probed(&self, probed: Probed, now: Instant) -> bool {
        self.is_draining.store(probed == Probed::Draining, Ordering::Relaxed);
        let mut health = self.health.lock();
        let answers = probed != Probed::Silent;
        match (health.state, probed == Probed::Ready) {
            (State::Unready { .. }, true) => {
                *health = Health { state: State::Healthy, failures: 0, ejections: 0, since: now }
            }
            (_, true) => return false,
            (before, false) => {
                health.state = State::Unready { answers };
                return before != health.state;
            }
        }
        true
    }

    fn note(&self, outcome: Option<Outcome>, is_trial: bool, now: Instant) {
        let mut health = self.health.lock();
        match outcome {
            Some(Outcome::Answered) => {
                (health.failures, health.ejections) = (0, 0);
                if is_trial && health.state == State::Trial {
                    (health.state, health.since) = (State::Healthy, now);
                }
            }
            Some(Outcome::Failed) => {
                health.failures = health.failures.saturating_add(1);
                let is_active = health.state == State::Healthy && health.failures >= MOST_FAILURES;
                if is_active || (is_trial && health.state == State::Trial) {
                    let doubled = FIRST_EJECTION * 2_u32.pow(health.ejections.min(8));
                    health.ejections += 1;
                    health.state = State::Ejected { until: now + doubled.min(LONGEST_EJECTION) };
                    counters::GATEWAY_EJECTIONS.increment();
                }
            }
            // The client has left before anything was known.
            None if is_trial && health.state == State::Trial => health.state = State::Ejected { until: now },
            None => {}
        }
    }
}

/// A request at a replica, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    replica: Arc<Replica>,
    /// Whether its outcome decides on the replica's return, and is not known yet.
    is_trial: bool,
}

impl InFlight {
    fn new(replica: &Arc<Replica>, is_trial: bool) -> Self {
        replica.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { replica: Arc::clone(replica), is_trial }
    }

    /// Returns the replica.
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Notes how the replica has behaved. The request may go on.
    pub(crate) fn note(&mut self, outcome: Outcome, now: Instant) {
        self.replica.note(Some(outcome), std::mem::take(&mut self.is_trial), now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.replica.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_trial {
            self.replica.note(None, true, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_port_and_keeps_its_host() {
        let named = Endpoint::parse("http://Tools.example/mcp").expect("a URL");
        assert_eq!(named.url(), "http://tools.example:80/mcp");
        assert_eq!(named.host(), "Tools.example");
        let here = named.at([10, 0, 0, 1].into()).expect("an endpoint");
        assert_eq!((here.address(), here.url().path()), ("10.0.0.1:80", "/mcp"));
        assert_eq!(here.host(), "Tools.example");
        for bad in [
            "",
            "/mcp",
            "ftp://a/mcp",
            "http://u@a/mcp",
            "http://a/mcp?x",
            "http://a/mcp#x",
            "http://a:99999/",
            "http://a:0/",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad:?}");
        }
    }

    fn replica(now: Instant) -> Arc<Replica> {
        Arc::new(Replica::new(Endpoint::parse("http://127.0.0.1:1/mcp").expect("a URL"), now))
    }

    fn fail(replica: &Arc<Replica>, now: Instant) {
        replica.begin(now).expect("a request").note(Outcome::Failed, now);
    }

    #[test]
    fn failures_in_a_row_eject_and_one_trial_brings_back() {
        let begun = Instant::now();
        let replica = replica(begun);
        (1..MOST_FAILURES).for_each(|_| fail(&replica, begun));
        replica.begin(begun).expect("a request").note(Outcome::Answered, begun);
        (1..MOST_FAILURES).for_each(|_| fail(&replica, begun));
        assert_eq!(replica.state(), State::Healthy);
        fail(&replica, begun);
        assert!(!replica.takes(begun) && replica.begin(begun).is_none());
        let later = begun + FIRST_EJECTION;
        assert!(replica.takes(later));
        let mut trial = replica.begin(later).expect("the trial");
        assert!(!replica.takes(later) && replica.begin(later).is_none(), "one trial at a time");
        trial.note(Outcome::Failed, later);
        drop(trial);
        assert_eq!(replica.state(), State::Ejected { until: later + 2 * FIRST_EJECTION });
        let later = later + 2 * FIRST_EJECTION;
        drop(replica.begin(later).expect("a trial whose client leaves"));
        assert!(replica.takes(later + Duration::from_secs(3600)), "another one tries");
        let later = later + Duration::from_secs(3600);
        replica.begin(later).expect("a trial").note(Outcome::Answered, later);
        assert_eq!(replica.state(), State::Healthy);
        assert_eq!(replica.in_flight(), 0);
    }

    #[test]
    fn ejections_have_a_maximum() {
        let mut now = Instant::now();
        let replica = replica(now);
        (0..MOST_FAILURES).for_each(|_| fail(&replica, now));
        for _ in 0..40 {
            let State::Ejected { until } = replica.state() else { panic!("{:?}", replica.state()) };
            assert!(until <= now + LONGEST_EJECTION);
            now = until;
            fail(&replica, now);
        }
    }

    #[test]
    fn an_unready_replica_leaves_at_once_and_returns_slowly() {
        let begun = Instant::now();
        let replica = replica(begun);
        assert!(replica.probed(Probed::Silent, begun) && !replica.probed(Probed::Silent, begun));
        assert!(!replica.takes(begun));
        // Requests of sessions still go to it, since no other replica has them.
        drop(replica.begin_bound());
        let back = begun + Duration::from_secs(100);
        assert!(replica.probed(Probed::Ready, back) && replica.takes(back));
        assert!((replica.weight(back) - 0.1).abs() < 1e-9);
        assert!((replica.weight(back + SLOW_START) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_probe_does_not_end_an_ejection_early() {
        let begun = Instant::now();
        let replica = replica(begun);
        (0..MOST_FAILURES).for_each(|_| fail(&replica, begun));
        assert!(!replica.probed(Probed::Ready, begun) && !replica.takes(begun));
        assert!(replica.probed(Probed::Unready, begun));
        assert_eq!(replica.state(), State::Unready { answers: true });
    }
}
