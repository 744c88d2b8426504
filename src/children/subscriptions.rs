//! Subscriptions to resources at shared children, on behalf of all sessions together.

use super::Children;
use super::crew::Shared;
use crate::era::Era;
use crate::exchange::Link;
use crate::ingress::Refusal;
use crate::inquiry;
use crate::jsonrpc::codes;
use crate::tasks;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Maximum number of orphaned subscriptions that are ended at once.
const ENDED_AT_ONCE: usize = 32;

/// Refuses a subscription beyond the limits of a session or a server, since URIs are remembered.
pub(crate) const WATCHES_ENOUGH: Refusal = Refusal::Withheld(
    codes::INVALID_PARAMS,
    "too many watched resources: the limits are 64 and 8 KiB of URIs per session, and 8,192 per server",
);

impl Children {
    /// Unsubscribes shared children from resources whose sessions have ended.
    pub async fn forget_orphaned_subscriptions(self: &Arc<Self>) {
        let mut ending = JoinSet::new();
        for shared in self.crew.all() {
            match shared.era {
                Era::Legacy => drop(ending.spawn(tasks::boxed(Arc::clone(self).end_orphaned(shared)))),
                Era::Modern if shared.members.take_orphaned(usize::MAX).is_empty() => {}
                Era::Modern => shared.members.post.listen_soon(),
            }
        }
        ending.join_all().await;
    }

    /// Ends orphaned subscriptions at a legacy child, several at a time.
    async fn end_orphaned(self: Arc<Self>, shared: Arc<Shared>) {
        let mut ending = JoinSet::new();
        loop {
            for uri in shared.members.take_orphaned(ENDED_AT_ONCE - ending.len()) {
                ending.spawn(tasks::boxed(Arc::clone(&self).end_subscription(Arc::clone(&shared), uri)));
            }
            if ending.join_next().await.is_none() {
                return;
            }
        }
    }

    async fn end_subscription(self: Arc<Self>, shared: Arc<Shared>, uri: String) {
        let _turn = shared.members.turn(&uri).await;
        if !shared.members.is_watched(&uri) {
            self.tell_subscription(&shared.link, "resources/unsubscribe", &uri).await;
        }
    }

    /// Subscribes to a resource or unsubscribes from it. Returns whether the child agreed; `None` if its
    /// answer is not known.
    pub async fn tell_subscription(&self, link: &Link, method: &str, uri: &str) -> Option<bool> {
        inquiry::ask_subscription(link, method, uri, self.settings.request_timeout).await
    }
}
