//! A client's own handshake with its exclusive child: its `initialize`, and its `notifications/initialized`.

use super::greeting::INITIALIZE;
use super::{Children, initialize};
use crate::audience::Own;
use crate::exchange::{Answer, Failure, Held, Link, Step};
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{Spliced, rewrite};
use crate::mux::WireId;
use crate::session::{Session, Version};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::time::timeout;

/// Time a client's first request is held back for its `notifications/initialized`.
const INITIALIZED_WITHIN: Duration = Duration::from_millis(500);

impl Children {
    /// Forwards a client's `initialize`. Returns the child's answer, and the revision in it if it is a result.
    pub(super) async fn forward_initialize(
        &self,
        link: &Arc<Link>,
        session: &Session,
        incoming: Incoming,
        patience: Duration,
    ) -> Result<(Answer, Option<Version>), Refusal> {
        let places = self.entrance.enter(&incoming.operation, session.client(), link).await?;
        let asked = incoming.ask(link);
        let trace = incoming.trace_for(asked.as_ref());
        let (client, places) = (Some(session.client()), Some(places).into());
        let held = Held { client, places, ..Held::unasked(incoming.mailbox()) };
        let write = |wire_id: WireId| {
            let roots = self.settings.forward_roots;
            let ceiling = self.revisions.ceiling();
            initialize::for_exclusive(&incoming.frame, &incoming.message, wire_id, roots, ceiling, &trace)
        };
        let handshake = async {
            let mut exchange = link.begin(held, asked, write).map_err(Refusal::from)?;
            loop {
                if let Step::Outcome(outcome) = exchange.next().await {
                    return outcome.map_err(Refusal::Failed);
                }
            }
        };
        let timed_out = |_| {
            let (after, asked, hint) = (patience, INITIALIZE, link.hint());
            Err(Refusal::Failed(Failure::SlowStart { after, asked, hint }))
        };
        let answer = match timeout(patience, handshake).await.unwrap_or_else(timed_out) {
            Err(Refusal::Failed(Failure::ClosedStdout | Failure::ClosedStdin)) => {
                return Err(Refusal::Failed(Failure::Ended(link.ended().await)));
            }
            other => other?,
        };
        let version = answer.result.as_ref().map(|result| {
            initialize::negotiated_version(&answer.frame, result)
                .unwrap_or_else(|| Version::new("2025-03-26"))
        });
        if let Some(version) = &version {
            link.set_revision(version.as_str());
        }
        Ok((answer, version))
    }
}

/// Holds a message back until the child was sent `notifications/initialized`, since a client may send both on
/// different connections. If the client does not send the notification in time, proxyrunner does.
pub(crate) async fn await_initialized(own: &Own, incoming: &Incoming) {
    static WARNED: Once = Once::new();
    let initialized = own.initialized();
    // A ping may precede it (lifecycle §Initialization).
    if initialized.is_sent() || incoming.method() == "ping" {
        return;
    }
    if timeout(INITIALIZED_WITHIN, initialized.sent()).await.is_ok() {
        return;
    }
    let Some(link) = own.post.link() else { return };
    WARNED.call_once(|| {
        tracing::warn!(
            child = link.number(),
            "a client did not send notifications/initialized; sending it to the server on the client's behalf"
        );
    });
    let notification = rewrite::notification("notifications/initialized", None);
    initialized.send(link.notify(Spliced::from(notification), None)).await;
}
