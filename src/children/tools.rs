//! The source of the tools that matter to a call: the shared child, or the child that the call leases.

use super::crew::Shared;
use super::pool::Leasable;
use crate::audience::ListKind;
use crate::catalogue::tools::{self, CALL_PATIENCE, Found, ToolCache, Tools};
use crate::tasks;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::timeout;

/// A child whose tools matter to a call.
#[derive(Clone, Debug)]
pub(crate) enum ToolSource {
    /// The child that the call shares.
    Shared(Arc<Shared>),
    /// The child that the call leases.
    Leased(Leasable),
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
        };
        let changes = self.changes();
        let read = tools::read(link, era).await;
        self.cache().put(read, changes);
    }

    fn cache(&self) -> &ToolCache {
        match self {
            ToolSource::Shared(shared) => &shared.tools,
            ToolSource::Leased(child) => &child.tools,
        }
    }

    fn changes(&self) -> u64 {
        match self {
            ToolSource::Shared(shared) => shared.members.changes.of(ListKind::Tools),
            ToolSource::Leased(child) => child.holder.changes.of(ListKind::Tools),
        }
    }
}
