//! What a client posts that gets no answer: notifications, and its answers to a child's questions.

use crate::jsonrpc::{ClientId, Kind, Message};
use crate::session::Session;
use crate::upstream::{self, Incoming};
use bytes::Bytes;
use std::sync::Arc;

/// Takes a notification or an answer of the client.
pub async fn accept(session: &Arc<Session>, incoming: Incoming) {
    let Incoming { frame, message, .. } = &incoming;
    if message.kind == Kind::Response {
        return answer(session, frame, message);
    }
    let params = message.params.as_ref();
    match &*incoming.method() {
        "notifications/cancelled" => {
            if let Some(id) = params.and_then(|params| params.request_id.clone()) {
                session.cancel(&ClientId::new(&frame[id]), frame, message);
            }
        }
        "notifications/progress" => {
            let token = params.and_then(|params| params.progress_token.clone());
            let progress = token
                .and_then(|token| session.question_progress(&ClientId::new(&frame[token]), frame, message));
            if let (Some(progress), Some(seat)) = (progress, session.seat()) {
                seat.link().answer(progress);
            }
        }
        _ => upstream::notify(session, &incoming).await,
    }
}

fn answer(session: &Session, frame: &Bytes, message: &Message) {
    let Some(id) = message.id.clone() else { return };
    let restored = session.answered(&ClientId::new(&frame[id]), frame, message);
    if let (Some(answer), Some(seat)) = (restored, session.seat()) {
        seat.link().answer(answer);
    }
}
