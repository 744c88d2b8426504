//! What requests to all servers share.

use super::super::core::Core;
use super::super::directory::{Origin, Server, Snapshot};
use super::changes::Lists;
use super::{headers, hints, names, owners};
use crate::policy::Policies;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Number of changes that a slow subscriber may lag behind before it is told that everything may have changed.
const LAG: usize = 64;
/// Time for which lists wait less for a server that has kept one waiting, and how long they wait.
const LATE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

/// What requests to all servers share.
#[derive(Debug)]
pub(crate) struct State {
    /// The servers, and the way to them.
    pub core: Arc<Core>,
    pub(super) names: names::Shortened,
    pub(super) owners: owners::Owners,
    pub(super) headers: headers::Learned,
    pub(super) annotations: hints::Known,
    /// The policies that decide on requests of clients.
    pub(super) policies: Option<Arc<Policies>>,
    /// Changes of lists at any server.
    pub(super) changes: broadcast::Sender<Lists>,
    /// The number of subscribers.
    pub(super) listeners: watch::Sender<usize>,
    /// The servers that have kept a list waiting, and until when others wait less for them.
    late: Mutex<HashMap<Box<str>, Instant>>,
    is_used: AtomicBool,
}

impl State {
    /// Creates the state of a gateway.
    pub fn new(core: &Arc<Core>, policies: Option<Arc<Policies>>) -> Arc<Self> {
        Arc::new(State {
            core: Arc::clone(core),
            names: names::Shortened::default(),
            owners: owners::Owners::default(),
            headers: headers::Learned::default(),
            annotations: hints::Known::default(),
            policies,
            changes: broadcast::Sender::new(LAG),
            listeners: watch::Sender::default(),
            late: Mutex::default(),
            is_used: AtomicBool::new(false),
        })
    }

    /// Returns the servers that are one. Those of another registry are not among them: nobody here has chosen them.
    pub(super) fn servers(&self) -> Arc<Snapshot> {
        let all = self.core.directory.snapshot();
        if all.values().all(|server| server.origin != Origin::Mirrored) {
            return all;
        }
        let own = all.iter().filter(|(_, server)| server.origin != Origin::Mirrored);
        Arc::new(own.map(|(segment, server)| (segment.clone(), Arc::clone(server))).collect())
    }

    /// Notes that there is a request.
    pub fn note_use(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Returns whether there has been any request. Before, no server is asked anything.
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Returns until when a list waits for a server.
    pub(super) fn patience(&self, server: &Server, until: Instant) -> Instant {
        let now = Instant::now();
        let is_late = self.late.lock().get(&server.about.segment).is_some_and(|over| now < *over);
        if is_late { until.min(now + SHORT) } else { until }
    }

    /// Notes that a server has kept a list waiting.
    pub(super) fn note_late(&self, server: &Server) {
        self.late.lock().insert(server.about.segment.clone(), Instant::now() + LATE);
    }
}
