//! Batches (2025-03-26, basic §Batching): split into messages for the child, and answered together.
//!
//! Up to [`SIDE_BY_SIDE`] requests of a batch run at a time. The others consist only of their bytes, and of an entry
//! in the session by which their client can cancel them.

#[cfg(feature = "gateway")]
use super::called::called;
use super::guard::Form;
use super::reject::Rejection;
use super::response::{self, Body};
use super::source::Source;
use super::stream::EventStream;
use super::{Server, body, clearance, guard, legacy, oneway, outcome, sessions};
use crate::budget::Charged;
use crate::exchange::Mailbox;
use crate::jsonrpc::{self, ClientId, Kind, Message, Spliced, text};
use crate::session::{Reader, Session, StreamId, Underway};
use crate::tasks;
use crate::telemetry::scope::scoped;
use crate::upstream::{Incoming, Refusal};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Maximum number of messages in one batch.
const MOST: usize = 1_024;
/// Maximum number of requests of one batch that run at a time, if the client may have that many in flight.
const SIDE_BY_SIDE: usize = 64;

/// Answers a batch: 202 if it has no request; an array if all answers come before any other message; else a stream.
/// If the client disconnects before the response has begun, it cannot resume it, and requests that have not been sent
/// to the child are not run.
///
/// # Errors
/// 400 for the whole batch, before any message is handled, if one message is invalid.
pub async fn respond(
    server: &Arc<Server>,
    session: &Arc<Session>,
    batch: Charged,
    source: &Source,
    headers: &HeaderMap,
) -> Result<Response<Body>, Rejection> {
    if !session.version().has_batches() {
        return Err(Rejection::invalid(
            "batches are not part of this session's protocol version; send one message",
        ));
    }
    let (requests, others) = split(&batch)?;
    let _present = sessions::receive(server, session)?;
    let mut refused = None;
    for frame in others {
        let incoming = parse(server, session, source, frame)?;
        let operation = Arc::clone(&incoming.operation);
        match scoped(operation.context(), oneway::accept(server, source, session, incoming)).await {
            // A notification has no answer, and the requests beside it have theirs.
            Err(rejection) if rejection.status().is_client_error() => refused = Some(rejection),
            accepted => accepted?,
        }
    }
    if requests.is_empty() {
        return refused.map_or_else(|| Ok(response::empty(StatusCode::ACCEPTED)), Err);
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down());
    }
    let form = guard::response_form(headers)?;
    source.persistence.end_with_connection();
    let unbegun = Unbegun(Some(session.open_stream()));
    let batch = Arc::new(Batch {
        server: Arc::clone(server),
        session: Arc::clone(session),
        source: source.clone(),
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
        Form::Either => timeout(response::delay_in(&server.settings, session), &mut work).await.is_ok(),
    };
    let mut reader = unbegun.begin();
    if finished && batch.only_answers.load(Ordering::Acquire) {
        return Ok(response::json(StatusCode::OK, array(&mut reader).await));
    }
    if !finished {
        tasks::spawn(work);
    }
    Ok(response::events(EventStream::resumable(server, reader, None)))
}

/// Splits a batch into requests and other messages.
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
    let message = jsonrpc::scan(frame).map_err(|fault| Rejection::fault(fault, frame))?;
    body::check_spelling(&message, frame)?;
    Ok(message)
}

/// Parses one message of a batch.
fn parse(server: &Server, session: &Session, source: &Source, frame: Charged) -> Result<Incoming, Rejection> {
    let message = read(&frame)?;
    #[cfg(feature = "gateway")]
    let (frame, message) = called(&server.settings, &frame, &message)?.unwrap_or((frame, message));
    let incoming = source.incoming(&server.settings, frame, message)?;
    sessions::describe(session, &incoming.operation);
    Ok(incoming)
}

/// The state that all requests of a batch share.
struct Batch {
    server: Arc<Server>,
    session: Arc<Session>,
    source: Source,
    stream: StreamId,
    form: Form,
    only_answers: AtomicBool,
}

/// The stream of a response that has not begun, which is discarded with its request.
struct Unbegun(Option<Reader>);

impl Unbegun {
    fn stream(&self) -> StreamId {
        self.0.as_ref().expect("present until the response begins").stream()
    }

    fn begin(mut self) -> Reader {
        self.0.take().expect("the response begins once")
    }
}

impl Drop for Unbegun {
    fn drop(&mut self) {
        if let Some(reader) = self.0.take() {
            reader.discard();
        }
    }
}

/// A request that does not run yet.
struct Queued {
    frame: Charged,
    underway: Underway,
}

/// Starts the requests in their order; the stream ends with the last answer. Dropping the future cancels requests
/// that have not been sent to the child.
async fn run(batch: Arc<Batch>, requests: Vec<Charged>) {
    let most = batch.server.upstream.max_client_in_flight().clamp(1, SIDE_BY_SIDE);
    let mut waiting: VecDeque<_> = requests.into_iter().filter_map(|frame| batch.queue(frame)).collect();
    let mut running = JoinSet::new();
    while let Some(next) = waiting.pop_front() {
        if running.len() >= most {
            running.join_next().await;
        }
        running.spawn(tasks::boxed(Arc::clone(&batch).run_one(next)));
    }
    while running.join_next().await.is_some() {}
    batch.session.finish(batch.stream, None);
}

impl Batch {
    fn queue(&self, frame: Charged) -> Option<Queued> {
        // Every message was scanned before.
        let id = ClientId::new(&frame[read(&frame).ok()?.id?]);
        let underway = Underway::begin(&self.session, id, Arc::new(Mailbox::default()));
        Some(Queued { frame, underway })
    }

    async fn run_one(self: Arc<Self>, Queued { frame, underway }: Queued) {
        let Ok(incoming) = parse(&self.server, &self.session, &self.source, frame) else { return };
        let operation = Arc::clone(&incoming.operation);
        let answer = match underway.failure() {
            Some(failure) => {
                let refused = Refusal::Failed(failure).into();
                outcome::refuse(&operation, incoming.id(), refused)
                    .unwrap_or_else(|rejection| rejection.message())
            }
            None => {
                // From here on the call itself can be cancelled.
                drop(underway);
                scoped(operation.context(), self.answer(incoming)).await
            }
        };
        self.session.push_answer(self.stream, answer);
    }

    async fn answer(&self, incoming: Incoming) -> Spliced {
        if clearance::is_needed(&self.server)
            && let Err(rejection) = Box::pin(clearance::pass(&self.server, &self.source, &incoming)).await
        {
            return rejection.message();
        }
        match legacy::start(&self.server, &self.source, &self.session, incoming).await {
            Ok(legacy::Started::Running(call)) if self.form == Form::Json => call.run_unheard().await,
            Ok(legacy::Started::Running(call)) => {
                call.run(|interim| {
                    self.only_answers.store(false, Ordering::Release);
                    self.session.push(self.stream, interim.frame, interim.class);
                })
                .await
            }
            Ok(legacy::Started::Answered(message)) => message,
            Err(rejection) => rejection.message(),
        }
    }
}

/// Returns the messages of a finished stream as a JSON array.
async fn array(reader: &mut Reader) -> Spliced {
    let mut array = Vec::new();
    while let Some(item) = poll_fn(|cx| reader.poll_next(cx)).await {
        array.push(Charged::fixed(if array.is_empty() { b"[" } else { b"," }));
        array.extend(item.frame);
    }
    array.push(Charged::fixed(b"]"));
    Spliced::of(array)
}
