//! The servers and their replicas. Readers take a snapshot, which later changes do not alter.

use super::balance::RetryBudget;
use super::bearers::Bearers;
use super::combined::Tools;
use super::replica::{Endpoint, Replica, State};
use crate::telemetry::Seldom;
use crate::telemetry::metrics::gateway::{Ending, Endings, ServerLevels};
use crate::telemetry::metrics::{CONVENTION, Histogram};
use hyper::HeaderMap;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time for a server that is new in the directory to start.
const STARTING: Duration = Duration::from_secs(30);

/// What the file says of a server, except for its replicas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Description {
    /// The name in the file: `weather` or `team/weather`.
    pub name: String,
    /// The last part of the name, which is the segment of its path: `/servers/weather/mcp`. Unique.
    pub segment: Box<str>,
    /// One sentence for the catalogue.
    pub description: Option<String>,
    /// Labels for the catalogue.
    pub labels: BTreeMap<String, String>,
    /// Headers of each request to it. They may contain secrets, and are never shown.
    pub headers: HeaderMap,
    /// The audiences of tokens for it.
    pub audiences: Vec<String>,
    /// Which of its tools are shown among those of all servers.
    pub tools: Tools,
    /// Whether lists of all servers fail without it.
    pub is_required: bool,
}

/// Where a server comes from, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The file.
    File,
    /// Its replicas have registered themselves.
    Registered,
    /// Another registry has it.
    Mirrored,
}

/// A server and its replicas at this moment.
#[derive(Debug)]
pub(crate) struct Server {
    /// What the file says of it.
    pub about: Description,
    /// Where it comes from.
    pub(super) origin: Origin,
    /// What is counted of it, since it was first in the directory.
    pub(super) stats: Arc<Stats>,
    /// What its last callers are known by.
    pub(super) bearers: Bearers,
    replicas: RwLock<Arc<[Arc<Replica>]>>,
}

/// What is counted of a server, and what depends on the past.
#[derive(Debug)]
pub(super) struct Stats {
    /// Its requests by their end.
    pub endings: Endings,
    /// The time to the head of each answer.
    pub latency: Histogram,
    /// Its retries.
    pub retries: Mutex<RetryBudget>,
    /// Limits the lines on failed requests.
    pub failures: Seldom,
    /// Limits the lines on items of its lists that clients would refuse.
    pub unfit: Seldom,
    /// When it was first in the directory.
    since: Instant,
}

impl Stats {
    fn new() -> Self {
        Stats {
            endings: Endings::default(),
            latency: Histogram::new(&CONVENTION),
            retries: Mutex::new(RetryBudget::new(Instant::now())),
            failures: Seldom::new(),
            unfit: Seldom::new(),
            since: Instant::now(),
        }
    }
}

impl Server {
    /// Counts a request.
    pub(crate) fn count(&self, ending: Ending) {
        self.stats.endings.count(ending);
    }

    /// Returns whether it may still be starting.
    pub(super) fn is_new(&self) -> bool {
        self.stats.since.elapsed() < STARTING
    }

    /// Returns the replicas at this moment.
    pub(crate) fn replicas(&self) -> Arc<[Arc<Replica>]> {
        Arc::clone(&self.replicas.read())
    }

    /// Replaces the replicas. One whose endpoint stays keeps its state.
    fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        let mut replicas = self.replicas.write();
        *replicas = kept(&replicas, endpoints);
    }
}

/// Returns the replicas of these endpoints, without repetitions; those that exist already keep their state.
fn kept(before: &[Arc<Replica>], endpoints: Vec<Endpoint>) -> Arc<[Arc<Replica>]> {
    let mut replicas: Vec<Arc<Replica>> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        if replicas.iter().any(|replica| replica.endpoint.address() == endpoint.address()) {
            continue;
        }
        let same = before.iter().find(|replica| replica.endpoint == endpoint);
        replicas.push(same.map_or_else(|| Arc::new(Replica::new(endpoint, Instant::now())), Arc::clone));
    }
    replicas.into()
}

/// All servers at one moment, by segment.
pub(crate) type Snapshot = BTreeMap<Box<str>, Arc<Server>>;

/// The servers that exist.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    current: RwLock<Arc<Snapshot>>,
    /// The number of times that servers were added, changed or removed.
    replaced: watch::Sender<u64>,
}

impl Directory {
    /// Returns all servers at this moment.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// Returns what tells that servers were added, changed or removed.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Returns a server by the segment of its path.
    pub(crate) fn find(&self, segment: &str) -> Option<Arc<Server>> {
        self.current.read().get(segment).map(Arc::clone)
    }

    /// Returns what metrics show.
    pub(super) fn levels(&self) -> Vec<ServerLevels> {
        let snapshot = self.snapshot();
        let levels = |server: &Arc<Server>| {
            let mut replicas = [0; State::NAMES.len()];
            for replica in server.replicas().iter() {
                let name = replica.state().name();
                let at = State::NAMES.iter().position(|known| *known == name);
                replicas[at.expect("every state has a name")] += 1;
            }
            ServerLevels {
                server: server.about.segment.clone(),
                endings: server.stats.endings.values(),
                latency: server.stats.latency.read(),
                replicas: State::NAMES.into_iter().zip(replicas).collect(),
            }
        };
        snapshot.values().map(levels).collect()
    }

    /// Replaces all servers of the file. `None` as endpoints keeps those that the server has, or begins with none: something else
    /// finds them and calls [`set_endpoints`](Self::set_endpoints).
    pub(crate) fn replace(&self, servers: Vec<(Description, Option<Vec<Endpoint>>)>) {
        self.replace_all(Origin::File, servers);
    }

    /// Replaces all servers that have registered themselves. Those whose path one of the file has are left out.
    pub(super) fn replace_registered(&self, servers: Vec<(Description, Option<Vec<Endpoint>>)>) {
        self.replace_all(Origin::Registered, servers);
    }

    /// Replaces all servers of another registry. Those whose path another origin has are left out.
    pub(super) fn replace_mirrored(&self, servers: Vec<(Description, Option<Vec<Endpoint>>)>) {
        self.replace_all(Origin::Mirrored, servers);
    }

    fn replace_all(&self, origin: Origin, servers: Vec<(Description, Option<Vec<Endpoint>>)>) {
        let mut current = self.current.write();
        let mut next: Snapshot = current
            .iter()
            .filter(|(_, server)| server.origin != origin)
            .map(|(segment, server)| (segment.clone(), Arc::clone(server)))
            .collect();
        for (about, endpoints) in servers {
            if next.get(&about.segment).is_some_and(|other| other.origin < origin) {
                continue;
            }
            let known = current.get(&about.segment);
            // Another origin's replicas are not those of this server.
            let same = known.filter(|server| server.origin == origin);
            let before = same.map(|server| server.replicas()).unwrap_or_default();
            let stats = known.map_or_else(|| Arc::new(Stats::new()), |server| Arc::clone(&server.stats));
            let replicas = match endpoints {
                Some(endpoints) => kept(&before, endpoints),
                None => before,
            };
            let replicas = RwLock::new(replicas);
            next.insert(
                about.segment.clone(),
                Arc::new(Server { about, origin, stats, bearers: Bearers::default(), replicas }),
            );
        }
        let is_changed =
            !next.values().map(|server| &server.about).eq(current.values().map(|server| &server.about));
        *current = Arc::new(next);
        // Leases are renewed all the time, and mirrored servers are not among all servers.
        if is_changed && origin != Origin::Mirrored {
            self.replaced.send_modify(|count| *count += 1);
        }
    }

    /// Replaces the replicas of a server, if it still exists.
    pub(crate) fn set_endpoints(&self, segment: &str, endpoints: Vec<Endpoint>) {
        // The lock of the directory is held, so that no `replace` in between loses the endpoints.
        if let Some(server) = self.current.read().get(segment) {
            server.set_endpoints(endpoints);
        }
    }
}

/// Returns the description of a server for tests.
#[cfg(test)]
pub(super) fn about(segment: &str) -> Description {
    Description {
        name: segment.to_owned(),
        segment: segment.into(),
        description: None,
        labels: BTreeMap::new(),
        headers: HeaderMap::new(),
        audiences: Vec::new(),
        tools: Tools::default(),
        is_required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("a URL")
    }

    fn addresses(directory: &Directory, segment: &str) -> Vec<String> {
        let server = directory.find(segment).expect("a server");
        server.replicas().iter().map(|replica| replica.endpoint.address().to_owned()).collect()
    }

    #[test]
    fn replicas_that_stay_keep_their_state() {
        let directory = Directory::default();
        let (one, two) = ("http://127.0.0.1:1/mcp", "http://127.0.0.1:2/mcp");
        directory.replace(vec![(about("a"), Some(vec![endpoint(one), endpoint(two), endpoint(one)]))]);
        assert_eq!(addresses(&directory, "a"), ["127.0.0.1:1", "127.0.0.1:2"]);
        let before = directory.find("a").expect("a server").replicas();
        directory.replace(vec![(about("a"), Some(vec![endpoint(two)])), (about("b"), None)]);
        let after = directory.find("a").expect("a server").replicas();
        assert!(Arc::ptr_eq(&before[1], &after[0]) && after.len() == 1);
        assert!(addresses(&directory, "b").is_empty());
        directory.set_endpoints("b", vec![endpoint(one)]);
        assert_eq!(addresses(&directory, "b"), ["127.0.0.1:1"]);
        directory.replace(vec![(about("b"), None)]);
        assert_eq!(addresses(&directory, "b"), ["127.0.0.1:1"]);
        assert!(directory.find("a").is_none());
    }
}
