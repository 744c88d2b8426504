//! One request of a client, from the child's first word to the response: JSON if the first word is the answer, else
//! a stream (D7).

use super::Server;
use super::reject::{self, Rejection};
use super::response::{self, Body};
use super::sse::EventStream;
use crate::exchange::{Class, Exchange, Failure, Interim, Outcome, Step};
use crate::jsonrpc::{ClientId, Spliced, rewrite};
use crate::session::{Session, StreamId, Underway};
use crate::telemetry::counters;
use crate::upstream::{Begun, Incoming};
use hyper::{Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

/// A quiet child delays the response head no longer.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// For 2025-11-25, where a client that is cut off before the priming event could not come back for its answer.
const COMMIT_PRIMED_AFTER: Duration = Duration::from_millis(250);

/// What became of a request right away.
pub enum Started {
    /// It is at the child.
    Running(Box<Call>),
    /// It is answered.
    Answered(Spliced),
}

/// A request at the child. Dropping it does not cancel: a legacy client that disconnects has not cancelled
/// (2025-11-25, transports §Sending Messages); the request goes on without anyone listening.
pub struct Call {
    exchange: Option<Exchange>,
    underway: Option<Underway>,
    client_id: ClientId,
    session: Arc<Session>,
    deadline: Instant,
    patience: Duration,
    /// It goes on without its client.
    alone: bool,
}

/// Sends a request to the session's child; but `ping` is answered here, promptly, whatever the child is doing
/// (2025-11-25, utilities/ping).
///
/// # Errors
/// When a bound is reached, or proxyrunner takes nothing new.
pub async fn start(
    server: &Server,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<Started, Rejection> {
    let client_id = incoming.client_id();
    if incoming.method() == "ping" {
        return Ok(Started::Answered(Spliced::from(rewrite::result(client_id.raw(), b"{}"))));
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down().of(client_id.raw()));
    }
    let patience = server.upstream.request_timeout();
    let deadline = Instant::now() + patience;
    let begun = tokio::select! {
        biased;
        begun = timeout_at(deadline.into(), server.upstream.begin(session, incoming)) => match begun {
            Ok(begun) => begun,
            // The child's stdin was full all the while.
            Err(_) => {
                counters::TIMED_OUT_REQUESTS.increment();
                return Ok(answered(Err(Failure::TimedOut(patience)), &client_id));
            }
        },
        // Until it has begun, the session does not know of it, and could not tell it.
        () = session.ended() => return Ok(answered(Err(ended_as(server)), &client_id)),
    };
    match begun {
        Ok(Begun::Exchange(exchange, underway)) => {
            let session = Arc::clone(session);
            let call = Call {
                exchange: Some(exchange),
                underway: Some(underway),
                client_id,
                session,
                deadline,
                patience,
                alone: false,
            };
            Ok(Started::Running(Box::new(call)))
        }
        Ok(Begun::Outcome(outcome)) => Ok(answered(outcome, &client_id)),
        Ok(Begun::Local(result)) => {
            Ok(Started::Answered(Spliced::from(rewrite::result(client_id.raw(), result))))
        }
        Err(refused) => reject::refusal(refused, client_id.raw()).map(Started::Answered),
    }
}

/// Why a session has ended.
fn ended_as(server: &Server) -> Failure {
    if server.shutdown.is_refusing() { Failure::ShuttingDown } else { Failure::SessionEnded }
}

fn answered(outcome: Outcome, client_id: &ClientId) -> Started {
    Started::Answered(message(outcome, client_id))
}

/// The message that tells a client its outcome.
fn message(outcome: Outcome, client_id: &ClientId) -> Spliced {
    match outcome {
        Ok(answer) => answer.restored(client_id),
        Err(failure) => Spliced::from(failure.response(client_id.raw())),
    }
}

/// Answers a request of a Streamable HTTP client.
///
/// # Errors
/// When a bound is reached.
pub async fn respond(
    server: &Server,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    let mut call = match start(server, session, incoming).await? {
        Started::Running(call) => call,
        Started::Answered(message) => return Ok(response::json(StatusCode::OK, message)),
    };
    let commit_at = Instant::now() + commit_after(server, session);
    let first = match timeout_at(commit_at.into(), call.next()).await {
        Ok(Step::Outcome(outcome)) => {
            return Ok(response::json(StatusCode::OK, call.finish(outcome)));
        }
        Ok(Step::Interim(interim)) => Some(interim),
        Err(_) => None,
    };
    let reader = session.open_stream();
    let stream = reader.stream();
    if let Some(interim) = first {
        session.push(stream, interim.frame, interim.class);
    }
    tokio::spawn(call.follow(stream));
    Ok(response::events(EventStream::resumable(server, reader)))
}

/// How long the head waits for the child's first word.
pub fn commit_after(server: &Server, session: &Session) -> Duration {
    let default = if session.version().primes() { COMMIT_PRIMED_AFTER } else { COMMIT_AFTER };
    server.settings.sse_commit_after.unwrap_or(default)
}

impl Call {
    /// What happens next; the outcome at the latest when the request's time is over.
    pub async fn next(&mut self) -> Step {
        let Some(exchange) = self.exchange.as_mut() else { return Step::Outcome(Err(Failure::Lost)) };
        match timeout_at(self.deadline.into(), exchange.next()).await {
            Ok(step) => step,
            Err(_) => {
                counters::TIMED_OUT_REQUESTS.increment();
                let failure = Failure::TimedOut(self.patience);
                if let Some(exchange) = self.exchange.take() {
                    exchange.cancel(&failure.to_string());
                }
                Step::Outcome(Err(failure))
            }
        }
    }

    /// The outcome as the client's message; nothing follows.
    pub fn finish(mut self: Box<Self>, outcome: Outcome) -> Spliced {
        self.exchange = None;
        if let Some(underway) = self.underway.take() {
            underway.finish(Instant::now());
        }
        message(outcome, &self.client_id)
    }

    /// Puts all that happens on a stream, which then ends.
    pub async fn follow(self: Box<Self>, stream: StreamId) {
        let session = Arc::clone(&self.session);
        let last = self.run(|interim| session.push(stream, interim.frame, interim.class)).await;
        session.finish(stream, Some(last));
    }

    /// Runs to the end, handing what happens meanwhile to `each`.
    pub async fn run(mut self: Box<Self>, mut each: impl FnMut(Interim)) -> Spliced {
        loop {
            match self.next().await {
                Step::Interim(interim) => each(interim),
                Step::Outcome(outcome) => return self.finish(outcome),
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // One that went on alone is dropped with the runtime, at the very end: dropping the exchange cancels it.
        let Some(exchange) = self.exchange.take().filter(|_| !self.alone) else { return };
        let call = Call {
            exchange: Some(exchange),
            underway: self.underway.take(),
            client_id: self.client_id.clone(),
            session: Arc::clone(&self.session),
            deadline: self.deadline,
            patience: self.patience,
            alone: true,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = Arc::clone(&self.session);
            // Its own stream never opened; a question must still find its client.
            runtime.spawn(Box::new(call).run(move |interim| match interim.class {
                Class::Dear => session.say(interim.frame, interim.class),
                _ => counters::DROPPED_EVENTS.increment(),
            }));
        }
    }
}

/// Waits for `work` as long as the head may wait for a child, then commits a stream on which its message follows.
pub async fn respond_slowly<F>(server: &Server, session: &Arc<Session>, work: F) -> Response<Body>
where
    F: Future<Output = Result<Spliced, Rejection>> + Send + 'static,
{
    let mut work = Box::pin(work);
    let patience = server.settings.sse_commit_after.unwrap_or(COMMIT_AFTER);
    match timeout(patience, &mut work).await {
        Ok(Ok(message)) => response::json(StatusCode::OK, message),
        Ok(Err(rejection)) => rejection.response(),
        Err(_) => {
            let reader = session.open_stream();
            let (session, stream) = (Arc::clone(session), reader.stream());
            tokio::spawn(async move {
                let message = work.await.unwrap_or_else(|rejection| rejection.message());
                session.finish(stream, Some(message));
            });
            response::events(EventStream::handshake(server, reader))
        }
    }
}
