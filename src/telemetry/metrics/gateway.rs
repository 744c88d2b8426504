//! The metrics of a gateway's servers. Their names come from the operator's file, so their number is bounded.

use super::definitions::{GATEWAY_LATENCY, GATEWAY_REPLICAS, GATEWAY_REQUESTS};
use super::family::{Family, Sample, Value};
use super::histogram::Distribution;
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a request that was passed to a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer that is no error.
    Ok,
    /// With an answer of status 4xx.
    ClientError,
    /// With an answer of status 5xx, or one that may not be passed on.
    ServerError,
    /// The client has left before the end of the answer.
    Cancelled,
    /// Too many requests were in flight.
    Full,
    /// No replica takes requests.
    NoReplica,
    /// The session's owner does not exist any more.
    OwnerGone,
    /// No replica could be reached.
    Unreachable,
    /// The replica broke the connection.
    Broken,
    /// The replica did not answer in time.
    Timeout,
}

const NAMES: [&str; 10] = [
    "ok",
    "client_error",
    "server_error",
    "cancelled",
    "full",
    "no_replica",
    "owner_gone",
    "unreachable",
    "broken",
    "timeout",
];

/// The requests to a server by their end.
#[derive(Debug, Default)]
pub struct Endings([AtomicU64; NAMES.len()]);

impl Endings {
    /// Counts a request.
    pub fn count(&self, ending: Ending) {
        self.0[ending as usize].fetch_add(1, Relaxed);
    }

    /// Returns the counts since the start.
    pub fn values(&self) -> [u64; NAMES.len()] {
        std::array::from_fn(|at| self.0[at].load(Relaxed))
    }
}

/// What metrics show of one server.
#[derive(Debug)]
pub struct ServerLevels {
    /// The segment of its path.
    pub server: Box<str>,
    /// Its requests by their end.
    pub endings: [u64; NAMES.len()],
    /// The time to the head of each answer.
    pub latency: Distribution,
    /// Its replicas by state.
    pub replicas: Vec<(&'static str, u64)>,
}

/// Reads the levels of all servers.
struct Source(Box<dyn Fn() -> Vec<ServerLevels> + Send + Sync>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source(…)")
    }
}

static SOURCE: OnceLock<Source> = OnceLock::new();

/// Installs the source of the levels. Only the first call has an effect.
pub fn install(levels: impl Fn() -> Vec<ServerLevels> + Send + Sync + 'static) {
    let _ = SOURCE.set(Source(Box::new(levels)));
}

pub(super) fn families() -> [Family; 3] {
    let servers = SOURCE.get().map(|source| (source.0)()).unwrap_or_default();
    let (mut requests, mut latencies, mut replicas) = (Vec::new(), Vec::new(), Vec::new());
    for ServerLevels { server, endings, latency, replicas: states } in servers {
        let server: Cow<'static, str> = String::from(server).into();
        for (name, count) in NAMES.into_iter().zip(endings) {
            let labels = vec![("server", server.clone()), ("result", name.into())];
            requests.push(Sample { labels, value: Value::Count(count) });
        }
        for (state, count) in states {
            let labels = vec![("server", server.clone()), ("state", state.into())];
            replicas.push(Sample { labels, value: Value::Count(count) });
        }
        latencies
            .push(Sample { labels: vec![("server", server)], value: Value::Distribution(Box::new(latency)) });
    }
    [GATEWAY_REQUESTS.family(requests), GATEWAY_LATENCY.family(latencies), GATEWAY_REPLICAS.family(replicas)]
}
