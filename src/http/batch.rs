//! Batches (2025-03-26, basic §Batching): split before the child, answered together. A child never sees one.

use super::reject::Rejection;
use super::response::{self, Body};
use super::sse::EventStream;
use super::{Server, call, oneway};
use crate::jsonrpc::{self, Kind, Spliced};
use crate::session::{Reader, Session, StreamId};
use crate::trace_context::Trace;
use crate::upstream::Incoming;
use bytes::{Bytes, BytesMut};
use hyper::{Response, StatusCode};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Messages in one batch.
const MOST: usize = 1_024;

/// Answers a batch: 202 if it holds no request; an array if all are answered before anything else happens; else a
/// stream.
///
/// # Errors
/// 400 for the whole batch, before any of it was begun, if one message of it is wrong.
pub async fn respond(
    server: &Arc<Server>,
    session: &Arc<Session>,
    batch: Bytes,
    trace: &Trace,
) -> Result<Response<Body>, Rejection> {
    if !session.version().batches() {
        return Err(Rejection::invalid(
            "batches are not part of this session's protocol version; send one message",
        ));
    }
    let (requests, others) = split(&batch, trace)?;
    session.heard(Instant::now());
    for incoming in others {
        oneway::accept(server, session, incoming).await?;
    }
    if requests.is_empty() {
        return Ok(response::empty(StatusCode::ACCEPTED));
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down());
    }
    let mut reader = session.open_stream();
    let stream = reader.stream();
    let only_answers = Arc::new(AtomicBool::new(true));
    tokio::spawn(run(Arc::clone(server), Arc::clone(session), requests, stream, Arc::clone(&only_answers)));
    let finished = poll_fn(|cx| reader.poll_finished(cx));
    let finished = timeout(call::commit_after(server, session), finished).await.is_ok();
    if finished && only_answers.load(Ordering::Acquire) {
        return Ok(response::json(StatusCode::OK, Spliced::from(array(&mut reader).await)));
    }
    Ok(response::events(EventStream::resumable(server, reader)))
}

/// The requests, and the rest.
fn split(batch: &Bytes, trace: &Trace) -> Result<(Vec<Incoming>, Vec<Incoming>), Rejection> {
    let elements = jsonrpc::elements(batch, MOST).map_err(|fault| Rejection::fault(fault, batch))?;
    if elements.is_empty() {
        return Err(Rejection::invalid("the batch is empty"));
    }
    let mut messages = Vec::with_capacity(elements.len());
    for element in elements {
        let frame = batch.slice(element);
        let message = jsonrpc::scan(&frame).map_err(|fault| Rejection::fault(fault, &frame))?;
        let incoming = Incoming { frame, message, trace: trace.clone() };
        if incoming.method() == "initialize" {
            return Err(Rejection::invalid("initialize may not be part of a batch"));
        }
        messages.push(incoming);
    }
    Ok(messages.into_iter().partition(|incoming| incoming.message.kind == Kind::Request))
}

/// Runs all requests side by side; the stream ends with the last answer.
async fn run(
    server: Arc<Server>,
    session: Arc<Session>,
    requests: Vec<Incoming>,
    stream: StreamId,
    only_answers: Arc<AtomicBool>,
) {
    let mut running = JoinSet::new();
    for incoming in requests {
        let (server, session, only_answers) =
            (Arc::clone(&server), Arc::clone(&session), Arc::clone(&only_answers));
        running.spawn(async move {
            let answer = run_one(&server, &session, incoming, stream, &only_answers).await;
            session.push_answer(stream, answer);
        });
    }
    while running.join_next().await.is_some() {}
    session.finish(stream, None);
}

async fn run_one(
    server: &Arc<Server>,
    session: &Arc<Session>,
    incoming: Incoming,
    stream: StreamId,
    only_answers: &AtomicBool,
) -> Spliced {
    let id = incoming.id().to_vec();
    match call::start(server, session, incoming).await {
        Ok(call::Started::Running(call)) => {
            call.run(|interim| {
                only_answers.store(false, Ordering::Release);
                session.push(stream, interim.frame, interim.class);
            })
            .await
        }
        Ok(call::Started::Answered(message)) => message,
        Err(rejection) => rejection.of(&id).message(),
    }
}

/// What a finished stream holds, as a JSON array.
async fn array(reader: &mut Reader) -> Bytes {
    let mut array = BytesMut::from(&b"["[..]);
    while let Some(item) = poll_fn(|cx| reader.poll_next(cx)).await {
        if array.len() > 1 {
            array.extend_from_slice(b",");
        }
        item.frame.segments().iter().for_each(|segment| array.extend_from_slice(segment));
    }
    array.extend_from_slice(b"]");
    array.freeze()
}
