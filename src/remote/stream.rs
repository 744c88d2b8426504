//! What a legacy server says outside of requests: its stream, which is opened by GET, and opened again when it ends.

use super::fault::{Fault, Kind};
use super::headers::{self, LAST_EVENT_ID};
use super::reply::{Reply, Said};
use super::requests::renew;
use super::shared::Shared;
use crate::backoff::{Backoff, chance, jittered};
use crate::jsonrpc;
use crate::tasks;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The shortest and the longest time before a stream is opened again.
const SOON: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// Hears the server in each session that is ready.
pub(super) fn hear(shared: &Arc<Shared>) {
    let mut ready = shared.session.ready();
    ready.mark_unchanged();
    let its = Arc::clone(shared);
    let task = tasks::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = session(&its) => {
                    // Until there is another session, which may have a stream.
                    if ready.changed().await.is_err() {
                        return;
                    }
                }
                Ok(()) = ready.changed() => {}
            }
        }
    });
    shared.session.listen(Some(task.abort_handle()));
}

/// Hears the server in one session, until it is lost, or has no stream.
async fn session(shared: &Arc<Shared>) {
    let mut last = None;
    let mut pauses = Backoff::new(SOON, LATEST);
    while let Some(retry) = once(shared, &mut last, &mut pauses).await {
        let pause = pauses.advance();
        sleep(jittered(retry.map_or(pause, |retry| retry.clamp(SOON / 10, LATEST)), chance())).await;
    }
}

/// Hears one stream to its end. Returns when to open the next one; `None` if there is none.
async fn once(
    shared: &Arc<Shared>,
    last: &mut Option<HeaderValue>,
    pauses: &mut Backoff,
) -> Option<Option<Duration>> {
    let (mut headers, generation) = shared.session.onto(headers::get());
    if let Some(last) = last {
        headers.insert(LAST_EVENT_ID, last.clone());
    }
    let response = match shared.client.send(Method::GET, &headers, None).await {
        Ok(response) => response,
        Err(Fault { kind: Kind::Refused, .. }) => return None,
        Err(_) => return Some(None),
    };
    match response.status() {
        StatusCode::NOT_FOUND if shared.session.has_id() => {
            return match renew(shared, generation).await {
                Ok(()) | Err(Fault { kind: Kind::Refused, .. }) => None,
                Err(_) => Some(None),
            };
        }
        status if status.is_client_error() => return None,
        status if !status.is_success() => return Some(None),
        _ => {}
    }
    let mut reply = Reply::new(response, shared.longest, &shared.account).ok().filter(Reply::is_stream)?;
    while let Ok(said @ (Said::Before(..) | Said::Answer(..))) = reply.next(None).await {
        pauses.reset();
        // An answer belongs to the stream of its request.
        if let Said::Before(said, read) = said
            && read.kind != jsonrpc::Kind::Response
        {
            shared.say(said).await;
        }
    }
    *last = reply.last_id().or(last.take());
    Some(reply.retry())
}
