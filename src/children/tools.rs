//! The source of the tools that matter to a call: the shared child, the child that the call leases, or the child of one
//! session.

use super::crew::Shared;
use super::pool::Leasable;
use crate::audience::{ListChanges, ListKind, Members};
use crate::catalogue::tools::{self, CALL_PATIENCE, Found, ToolCache, Tools};
use crate::era::Era;
use crate::exchange::Link;
use crate::tasks;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::timeout;

/// A child whose tools matter to a call.
#[derive(Clone, Debug)]
pub(crate) enum ToolSource {
    /// The child that the call shares.
    Shared(Arc<Shared>),
    /// The child that the call leases.
    Leased(Leasable),
    /// The only child of a session.
    Own(OwnTools),
}

/// The tools of a session's own child.
#[derive(Clone, Debug)]
pub(crate) struct OwnTools {
    /// The child.
    pub link: Arc<Link>,
    /// What is remembered of its tools.
    pub cache: Arc<ToolCache>,
    /// How often its list has changed.
    pub changes: OwnChanges,
}

/// Where changes of the lists of a session's own child are counted.
#[derive(Clone, Debug)]
pub(crate) enum OwnChanges {
    /// With the session, for a legacy child.
    Legacy(Arc<ListChanges>),
    /// With the subscribers of a modern child.
    Modern(Arc<Members>),
}

/// The remembered tools of children that have one session each.
#[derive(Debug, Default)]
pub(super) struct OwnCaches(Mutex<Vec<(Weak<Link>, Arc<ToolCache>)>>);

impl OwnCaches {
    /// Returns the cache for a child.
    pub fn of(&self, link: &Arc<Link>) -> Arc<ToolCache> {
        let mut caches = self.0.lock();
        caches.retain(|(link, _)| link.upgrade().is_some_and(|link| !link.is_closed()));
        match caches.iter().find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(link))) {
            Some((_, cache)) => Arc::clone(cache),
            None => {
                let cache = Arc::default();
                caches.push((Arc::downgrade(link), Arc::clone(&cache)));
                cache
            }
        }
    }
}

impl ToolSource {
    /// Returns the tools; reads them if need be. `None` if they are not read in time.
    pub async fn tools(&self) -> Option<Arc<Tools>> {
        let reading = match self.cache().look(self.changes()) {
            Found::Read(tools) => return Some(tools),
            Found::Awaited(reading) => reading,
            Found::Unknown(reading, over) => {
                // The task continues if this call gives up, since the next call needs the tools too.
                tasks::spawn(self.clone().read(over));
                reading
            }
        };
        reading.over().await;
        self.known_tools()
    }

    /// Returns the tools if they are read already.
    pub fn known_tools(&self) -> Option<Arc<Tools>> {
        self.cache().tools(self.changes())
    }

    async fn read(self, _over: watch::Sender<()>) {
        let (link, era) = match &self {
            ToolSource::Shared(shared) => {
                // The tools are read even if the child does not accept the subscription in time.
                let _ = timeout(CALL_PATIENCE / 2, shared.hear_of_changes()).await;
                (&shared.link, shared.era)
            }
            ToolSource::Leased(child) => (&child.link, child.era),
            ToolSource::Own(own) => match &own.changes {
                OwnChanges::Legacy(_) => (&own.link, Era::Legacy),
                OwnChanges::Modern(members) => {
                    let _ = timeout(CALL_PATIENCE / 2, members.post.listen(None)).await;
                    (&own.link, Era::Modern)
                }
            },
        };
        let changes = self.changes();
        let read = tools::read(link, era).await;
        self.cache().put(read, changes);
    }

    fn cache(&self) -> &ToolCache {
        match self {
            ToolSource::Shared(shared) => &shared.tools,
            ToolSource::Leased(child) => &child.tools,
            ToolSource::Own(own) => &own.cache,
        }
    }

    fn changes(&self) -> u64 {
        match self {
            ToolSource::Shared(shared) => shared.members.changes.of(ListKind::Tools),
            ToolSource::Leased(child) => child.holder.changes.of(ListKind::Tools),
            ToolSource::Own(own) => match &own.changes {
                OwnChanges::Legacy(changes) => changes.of(ListKind::Tools),
                OwnChanges::Modern(members) => members.changes.of(ListKind::Tools),
            },
        }
    }
}
