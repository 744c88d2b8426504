//! The last checks before a request is dispatched, once its caller and its message are known: rate limits, and whether
//! its line fits into the audit log.

use super::Server;
use super::permit;
use super::reject::Rejection;
use super::source::Source;
use crate::audit;
use crate::jsonrpc::{Kind, text};
use crate::limits::{Asked, Caller, Limits, NotAdmitted};
use crate::upstream::Incoming;
use std::sync::Arc;
use tokio::time::timeout;

/// Returns whether any check is configured.
#[inline]
pub fn is_needed(server: &Server) -> bool {
    server.limits.is_some() || audit::is_enabled()
}

/// Admits a request. Notifications and pings always pass, because refusing them helps nobody.
///
/// # Errors
/// 400 when a server could read it as a call with another limit; 429 when a rate limit is exceeded; 503 while shared limits
/// cannot be checked, or the audit log cannot be written. The message's operation is ended.
pub async fn pass(server: &Server, source: &Source, incoming: &Incoming) -> Result<(), Rejection> {
    if incoming.message.kind != Kind::Request || incoming.method() == "ping" {
        return Ok(());
    }
    let passed = match &server.limits {
        Some(limits) => limited(limits, source, incoming).await,
        None => Ok(()),
    };
    let passed = match passed {
        Ok(()) => audited(server, source).await,
        refused => refused,
    };
    passed.map_err(|rejection| {
        let rejection = rejection.of(incoming.id());
        incoming.operation.end(&rejection.verdict());
        rejection
    })
}

/// Takes the tokens of a request. Its operation holds its place among the calls at the same time.
async fn limited(limits: &Arc<Limits>, source: &Source, incoming: &Incoming) -> Result<(), Rejection> {
    permit::check_spelling(incoming)?;
    let principal = &source.identity.principal;
    let caller = match principal.is_anonymous() {
        false => Caller::Named(principal.name()),
        true => Caller::At(source.peer.socket.ip()),
    };
    let name = incoming.message.params.as_ref().and_then(|params| params.name.as_ref());
    let tool = name.filter(|_| incoming.method() == "tools/call").map(|name| text(&incoming.frame, name));
    let call = limits.admit(Asked { caller, tool: tool.as_deref() }).await;
    let call = call.map_err(|why| match why {
        NotAdmitted::Exceeded(refused) => Rejection::limited(&refused),
        NotAdmitted::Unknown(why) => {
            Rejection::busy(format!("the shared rate limits cannot be checked: {why}; try again (--redis)"))
        }
    })?;
    if let Some(call) = call {
        incoming.operation.hold(call);
    }
    Ok(())
}

/// Waits until the line of a call can be written, at most for `--request-timeout`.
async fn audited(server: &Server, source: &Source) -> Result<(), Rejection> {
    if !audit::is_enabled() {
        return Ok(());
    }
    let admitting = timeout(server.upstream.request_timeout(), audit::admit());
    // A waiting request leaves if its client disconnects.
    let admitted = source.persistence.while_connected(admitting).await;
    match admitted {
        Ok(Ok(())) => Ok(()),
        _ => {
            Err(Rejection::busy("the audit log cannot be written, so no call is served (--audit-on-failure)"))
        }
    }
}
