//! Batches (2025-03-26, basic §Batching): split before the child, answered together. A child never sees one.
//!
//! Of one batch a few requests are in work at a time; the others are no more than their bytes, and a note in the session
//! by which their client can cancel them.

use super::guard::Form;
use super::origin::Origin;
use super::reject::Rejection;
use super::response::{self, Body};
use super::sse::EventStream;
use super::{Server, call, legacy, oneway};
use crate::budget::Charged;
use crate::exchange::Mailbox;
use crate::jsonrpc::{self, ClientId, Kind, Message, Spliced, text};
use crate::session::{Reader, Session, StreamId, Underway};
use crate::telemetry::scope::scoped;
use crate::upstream::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Messages in one batch.
const MOST: usize = 1_024;
/// Requests of one batch that are in work at a time; no more than its client may have in flight.
const SIDE_BY_SIDE: usize = 64;

/// Answers a batch: 202 if it holds no request; an array if all are answered before anything else happens; else a
/// stream. A client that leaves before the response has begun could not come back for it: what has not been sent to the
/// child by then is not run.
///
/// # Errors
/// 400 for the whole batch, before any of it was begun, if one message of it is wrong.
pub async fn respond(
    server: &Arc<Server>,
    session: &Arc<Session>,
    batch: Charged,
    origin: &Origin,
    headers: &HeaderMap,
) -> Result<Response<Body>, Rejection> {
    if !session.version().has_batches() {
        return Err(Rejection::invalid(
            "batches are not part of this session's protocol version; send one message",
        ));
    }
    let (requests, others) = split(&batch)?;
    let _present = legacy::receive(server, session)?;
    for frame in others {
        let incoming = take(server, session, origin, frame)?;
        let operation = Arc::clone(&incoming.operation);
        let accepted = scoped(operation.context(), oneway::accept(server, session, incoming)).await;
        accepted.inspect_err(|rejection| operation.end(&rejection.verdict()))?;
    }
    if requests.is_empty() {
        return Ok(response::empty(StatusCode::ACCEPTED));
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down());
    }
    let form = legacy::form(headers)?;
    let unbegun = Unbegun(Some(session.open_stream()));
    let batch = Arc::new(Batch {
        server: Arc::clone(server),
        session: Arc::clone(session),
        origin: origin.clone(),
        stream: unbegun.stream(),
        form,
        only_answers: AtomicBool::new(true),
    });
    let mut work = Box::pin(run(Arc::clone(&batch), requests));
    let finished = match form {
        Form::Json => {
            work.as_mut().await;
            true
        }
        Form::Either => timeout(call::commit_after(server, session), &mut work).await.is_ok(),
    };
    let mut reader = unbegun.begin();
    if finished && batch.only_answers.load(Ordering::Acquire) {
        return Ok(response::json(StatusCode::OK, array(&mut reader).await));
    }
    if !finished {
        tokio::spawn(work);
    }
    Ok(response::events(EventStream::resumable(server, reader)))
}

/// The requests, and the rest.
fn split(batch: &Charged) -> Result<(Vec<Charged>, Vec<Charged>), Rejection> {
    let elements = jsonrpc::elements(batch, MOST).map_err(|fault| Rejection::fault(fault, batch))?;
    if elements.is_empty() {
        return Err(Rejection::invalid("the batch is empty"));
    }
    let (mut requests, mut others) = (Vec::new(), Vec::new());
    for element in elements {
        let frame = batch.slice(element);
        let message = read(&frame)?;
        if message.method.as_ref().is_some_and(|method| text(&frame, method) == "initialize") {
            return Err(Rejection::invalid("initialize may not be part of a batch"));
        }
        let kind = if message.kind == Kind::Request { &mut requests } else { &mut others };
        kind.push(frame);
    }
    Ok((requests, others))
}

fn read(frame: &Charged) -> Result<Message, Rejection> {
    jsonrpc::scan(frame).map_err(|fault| Rejection::fault(fault, frame))
}

/// One message of a batch, whose turn has come.
fn take(server: &Server, session: &Session, origin: &Origin, frame: Charged) -> Result<Incoming, Rejection> {
    let message = read(&frame)?;
    let incoming = origin.incoming(&server.settings, frame, message);
    legacy::see(session, &incoming.operation);
    Ok(incoming)
}

/// What all requests of a batch have in common.
struct Batch {
    server: Arc<Server>,
    session: Arc<Session>,
    origin: Origin,
    stream: StreamId,
    form: Form,
    only_answers: AtomicBool,
}

/// The stream of a response that has not begun. It goes with its request: nobody else knows of it.
struct Unbegun(Option<Reader>);

impl Unbegun {
    fn stream(&self) -> StreamId {
        self.0.as_ref().expect("there until it begins").stream()
    }

    fn begin(mut self) -> Reader {
        self.0.take().expect("it begins once")
    }
}

impl Drop for Unbegun {
    fn drop(&mut self) {
        if let Some(reader) = self.0.take() {
            reader.discard();
        }
    }
}

/// A request that is not in work yet.
struct Waiting {
    frame: Charged,
    underway: Underway,
}

/// Runs the requests in their order, some side by side; the stream ends with the last answer. Dropping it takes those out
/// of their queues that are not at the child yet.
async fn run(batch: Arc<Batch>, requests: Vec<Charged>) {
    let most = batch.server.upstream.max_client_in_flight().clamp(1, SIDE_BY_SIDE);
    let mut waiting: VecDeque<_> = requests.into_iter().filter_map(|frame| batch.wait(frame)).collect();
    let mut running = JoinSet::new();
    while let Some(next) = waiting.pop_front() {
        if running.len() >= most {
            running.join_next().await;
        }
        running.spawn(Arc::clone(&batch).run_one(next));
    }
    while running.join_next().await.is_some() {}
    batch.session.finish(batch.stream, None);
}

impl Batch {
    fn wait(&self, frame: Charged) -> Option<Waiting> {
        // It was read before, so that it can be read.
        let id = ClientId::new(&frame[read(&frame).ok()?.id?]);
        let underway = Underway::begin(&self.session, id, Arc::new(Mailbox::default()));
        Some(Waiting { frame, underway })
    }

    async fn run_one(self: Arc<Self>, Waiting { frame, underway }: Waiting) {
        let Ok(incoming) = take(&self.server, &self.session, &self.origin, frame) else { return };
        let operation = Arc::clone(&incoming.operation);
        let answer = match underway.failure() {
            Some(failure) => {
                operation.end(&failure.verdict());
                Spliced::from(failure.response(incoming.id()))
            }
            None => {
                // From here on it is noted by who begins it.
                drop(underway);
                scoped(operation.context(), self.answer(incoming)).await
            }
        };
        self.session.push_answer(self.stream, answer);
    }

    async fn answer(&self, incoming: Incoming) -> Spliced {
        let (id, operation) = (incoming.id().to_vec(), Arc::clone(&incoming.operation));
        match call::start(&self.server, &self.session, incoming).await {
            Ok(call::Started::Running(call)) if self.form == Form::Json => call.run_unheard().await,
            Ok(call::Started::Running(call)) => {
                call.run(|interim| {
                    self.only_answers.store(false, Ordering::Release);
                    self.session.push(self.stream, interim.frame, interim.class);
                })
                .await
            }
            Ok(call::Started::Answered(message)) => message,
            Err(rejection) => {
                operation.end(&rejection.verdict());
                rejection.of(&id).message()
            }
        }
    }
}

/// What a finished stream holds, as a JSON array.
async fn array(reader: &mut Reader) -> Spliced {
    let mut array = Vec::new();
    while let Some(item) = poll_fn(|cx| reader.poll_next(cx)).await {
        array.push(Charged::fixed(if array.is_empty() { b"[" } else { b"," }));
        array.extend(item.frame);
    }
    array.push(Charged::fixed(b"]"));
    Spliced::of(array)
}
