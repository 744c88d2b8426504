//! The messages of legacy clients that get no answer: notifications, and answers to a child's questions.

use super::Server;
use super::permit;
use super::reject::Rejection;
use super::source::Source;
use crate::budget::Charged;
use crate::exchange::Link;
use crate::jsonrpc::{ClientId, Kind, Message};
use crate::session::Session;
use crate::telemetry::Verdict;
use crate::telemetry::metrics::labels::Method;
use crate::upstream::{Incoming, Received, Refusal};
use std::sync::Arc;
use tokio::time::timeout;

/// Handles a notification or an answer of the client. Notifications keep their order with requests, so they wait for
/// a child that reads slowly.
///
/// # Errors
/// 400 when it is a request without an id, or a server could read it as one; 403 when the policies do not know its
/// method; 503 when too many notifications wait already, or the child reads nothing for `--request-timeout`.
pub async fn accept(
    server: &Server,
    source: &Source,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<(), Rejection> {
    let operation = Arc::clone(&incoming.operation);
    let accepted = match incoming.message.kind {
        Kind::Response => {
            answer(session, &incoming.frame, &incoming.message);
            return Ok(());
        }
        _ => match check(server, source, session, &incoming).await {
            Ok(()) => notify(server, session, &incoming).await,
            refused => refused,
        },
    };
    operation.end(&accepted.as_ref().map_or_else(Rejection::verdict, |()| Verdict::Success));
    accepted
}

/// Checks that a server takes a notification for one. A request without an id would pass policies and limits, and some
/// servers would serve it.
async fn check(
    server: &Server,
    source: &Source,
    session: &Arc<Session>,
    incoming: &Incoming,
) -> Result<(), Rejection> {
    check_id(incoming)?;
    if server.limits.is_some() {
        permit::check_spelling(incoming)?;
    }
    permit::permit(server, &source.identity, Some(session), session.client(), incoming).await.map(drop)
}

/// Checks that a notification is none of the known requests, whose id is missing.
///
/// # Errors
/// 400 when it is.
pub fn check_id(incoming: &Incoming) -> Result<(), Rejection> {
    let method = incoming.method();
    match Method::of(&*method).is_request() {
        true => Err(Rejection::invalid(format!("{method} is a request; give it an id"))),
        false => Ok(()),
    }
}

async fn notify(server: &Server, session: &Arc<Session>, incoming: &Incoming) -> Result<(), Rejection> {
    let Received { frame, message, .. } = &**incoming;
    let params = message.params.as_ref();
    match &*incoming.method() {
        "notifications/cancelled" => {
            if let Some(id) = params.and_then(|params| params.request_id.clone()) {
                session.cancel(&ClientId::new(&frame[id]), frame, message);
            }
            Ok(())
        }
        "notifications/progress" => {
            let token = params.and_then(|params| params.progress_token.clone());
            let progress = token
                .and_then(|token| session.question_progress(&ClientId::new(&frame[token]), frame, message));
            if let (Some(progress), Some(link)) = (progress, link(session)) {
                link.answer(progress);
            }
            Ok(())
        }
        _ => {
            let notified = server.upstream.notify(session, incoming);
            match timeout(server.upstream.request_timeout(), notified).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Refusal::Busy(why))) => Err(Rejection::busy(why)),
                // Notifications are refused for no other reason.
                Ok(Err(_)) | Err(_) => Err(Rejection::busy("the server does not read its stdin")),
            }
        }
    }
}

fn answer(session: &Session, frame: &Charged, message: &Message) {
    let Some(id) = message.id.clone() else { return };
    let restored = session.take_answer(&ClientId::new(&frame[id]), frame, message);
    if let (Some(answer), Some(link)) = (restored, link(session)) {
        link.answer(answer);
    }
}

/// Returns the link to the session's child.
fn link(session: &Session) -> Option<Arc<Link>> {
    session.seat()?.link()
}
