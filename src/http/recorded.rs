//! What other replicas need to take a session over (`--resume-sessions` with `--redis`): recorded when the session is opened, and
//! when its client tells the server something that the next one has to know ([`takeover`](super::takeover) is the other side).

use super::Server;
use crate::budget::Charged;
use crate::era::envelope::log_level;
use crate::gateway::{LONGEST_HANDSHAKE, Shelf, ToldByClient};
use crate::jsonrpc::{self, Span, Spliced, text};
use crate::session::Session;
use crate::telemetry::counters::{SESSION_TAKEOVERS, Takeover};
use crate::upstream::Incoming;
use hyper::header::HeaderName;
use std::sync::{Arc, Once};

/// The header of the answer to `initialize` that tells a gateway that other replicas can take the session over.
pub const RESUMES: HeaderName = HeaderName::from_static(crate::gateway::RESUMES);

/// Returns the records of the sessions; `None` if no other replica can take them over.
pub fn shelf(server: &Server) -> Option<&Arc<Shelf>> {
    server.siblings.as_ref()?.shelf()
}

/// Records a session that was opened by this `initialize` with this answer.
pub async fn opened(server: &Server, session: &Arc<Session>, initialize: Charged, answer: &Spliced) {
    static WARNED: Once = Once::new();
    let Some(shelf) = shelf(server) else { return };
    let result = result_of(answer).filter(|result| initialize.len() + result.len() <= LONGEST_HANDSHAKE);
    let is_recorded = match result {
        Some(result) => shelf.keep(session, (initialize, result), ToldByClient::default(), None).await,
        None => {
            WARNED.call_once(|| {
                tracing::warn!("a session's handshake exceeds {LONGEST_HANDSHAKE} bytes; such sessions cannot be taken over by other replicas");
            });
            false
        }
    };
    if !is_recorded {
        SESSION_TAKEOVERS.increment(Takeover::Unrecorded as usize);
    }
}

/// Returns the result in an answer.
pub fn result_of(answer: &Spliced) -> Option<Charged> {
    let whole = answer.clone().flatten().ok()?;
    let result = jsonrpc::scan(&whole).ok()?.result?;
    Some(whole.slice(result))
}

/// Records the log level and the subscriptions of a session before the server is told.
pub async fn note(server: &Server, session: &Session, incoming: &Incoming) {
    let Some(shelf) = shelf(server) else { return };
    let params = incoming.message.params.as_ref();
    let read = |span: Option<&Span>| span.map(|span| text(&incoming.frame, span));
    let uri = read(params.and_then(|params| params.uri.as_ref()));
    let level = read(params.and_then(|params| params.level.as_ref()));
    let method = incoming.method();
    let change = |told: &mut ToldByClient| match (&*method, &uri) {
        ("logging/setLevel", _) => {
            told.level = level.as_deref().and_then(log_level).or(told.level);
        }
        // One beyond the limit is refused by the child's own bounds.
        ("resources/subscribe", Some(uri)) => drop(told.watched.insert(uri)),
        ("resources/unsubscribe", Some(uri)) => told.watched.remove(uri),
        _ => {}
    };
    if matches!(&*method, "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe") {
        shelf.note(session, change).await;
    }
}
