//! One request of a client, from the child's first word to the response: JSON if the first word is the answer, else
//! a stream (D7).

use super::Server;
use super::guard::Form;
use super::reject::{self, Rejection};
use super::response::{self, Body};
use super::sse::EventStream;
use crate::exchange::{Class, Interim};
use crate::jsonrpc::{Spliced, rewrite};
use crate::session::{Session, StreamId};
use crate::telemetry::scope::scoped;
use crate::telemetry::{Operation, Verdict, counters};
use crate::trace_context::Context;
use crate::upstream::{Begun, Incoming, LegacyCall, LegacyStep, Refusal};
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
    Running(Call),
    /// It is answered.
    Answered(Spliced),
}

/// A request at the child. Dropping it does not cancel: a legacy client that disconnects has not cancelled
/// (2025-11-25, transports §Sending Messages); the request goes on without anyone listening.
pub struct Call {
    call: Option<Box<LegacyCall>>,
    session: Arc<Session>,
    /// Where it stands in its trace.
    context: Option<Context>,
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
    let (client_id, operation) = (incoming.client_id(), Arc::clone(&incoming.operation));
    if incoming.method() == "ping" {
        operation.end(&Verdict::Success);
        return Ok(Started::Answered(Spliced::from(rewrite::result(client_id.raw(), b"{}"))));
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down().of(client_id.raw()));
    }
    let begun = tokio::select! {
        biased;
        begun = server.upstream.begin(session, incoming) => begun,
        // Until it has begun, the session does not know of it, and could not tell it.
        () = session.ended() => Err(Refusal::Failed(session.why_ended())),
    };
    match begun {
        Ok(Begun::Running(call)) => {
            let (call, session) = (Some(call), Arc::clone(session));
            Ok(Started::Running(Call { call, session, context: operation.context() }))
        }
        Ok(Begun::Answered(message)) => Ok(Started::Answered(message)),
        Err(refused) => reject::refusal(refused, client_id.raw(), &operation).map(Started::Answered),
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
    form: Form,
) -> Result<Response<Body>, Rejection> {
    let mut call = match start(server, session, incoming).await? {
        Started::Running(call) => call,
        Started::Answered(message) => return Ok(response::json(StatusCode::OK, message)),
    };
    if form == Form::Json {
        return Ok(response::json(StatusCode::OK, call.run_unheard().await));
    }
    let commit_at = Instant::now() + commit_after(server, session);
    let first = match timeout_at(commit_at.into(), call.next()).await {
        Ok(LegacyStep::Answered(message)) => return Ok(response::json(StatusCode::OK, message)),
        Ok(LegacyStep::Said(interim)) => Some(interim),
        Err(_) => None,
    };
    let reader = session.open_stream();
    let stream = reader.stream();
    if let Some(interim) = first {
        session.push(stream, interim.frame, interim.class);
    }
    tokio::spawn(scoped(call.context, call.follow(stream)));
    Ok(response::events(EventStream::resumable(server, reader)))
}

/// How long the head waits for the child's first word.
pub fn commit_after(server: &Server, session: &Session) -> Duration {
    let default = if session.version().has_priming_events() { COMMIT_PRIMED_AFTER } else { COMMIT_AFTER };
    server.settings.sse_commit_after.unwrap_or(default)
}

impl Call {
    async fn next(&mut self) -> LegacyStep {
        // Nobody asks on after the answer.
        let Some(call) = &mut self.call else { return std::future::pending().await };
        let step = call.next().await;
        if let LegacyStep::Answered(_) = step {
            // Nothing is left that would have to go on alone.
            self.call = None;
        }
        step
    }

    /// Puts all that happens on a stream, which then ends.
    async fn follow(self, stream: StreamId) {
        let session = Arc::clone(&self.session);
        let last = self.run(|interim| session.push(stream, interim.frame, interim.class)).await;
        session.finish(stream, Some(last));
    }

    /// Runs to the end. Messages before the answer go to the session's standalone stream.
    pub async fn run_unheard(self) -> Spliced {
        let session = Arc::clone(&self.session);
        self.run(|interim| say_elsewhere(&session, interim)).await
    }

    /// Runs to the end, handing what happens meanwhile to `each`.
    pub async fn run(mut self, mut each: impl FnMut(Interim)) -> Spliced {
        loop {
            match self.next().await {
                LegacyStep::Said(interim) => each(interim),
                LegacyStep::Answered(message) => return message,
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        // One that goes on alone is dropped with the runtime, at the very end: that cancels it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = Arc::clone(&self.session);
            let run = call.run(move |interim| say_elsewhere(&session, interim));
            runtime.spawn(scoped(self.context, run));
        }
    }
}

/// Delivers a message of a request without a stream of its own: questions go to the standalone stream, the rest is dropped.
pub fn say_elsewhere(session: &Session, interim: Interim) {
    match interim.class {
        Class::Dear => session.say(interim.frame, interim.class),
        _ => counters::DROPPED_EVENTS.increment(),
    }
}

/// What `work` comes to, if that is within `patience`. The time does not count in which its message waits for its turn: it
/// may still be refused then, and a refusal is a status.
pub async fn within<F: Future + Unpin>(
    operation: &Operation,
    patience: Duration,
    work: &mut F,
) -> Option<F::Output> {
    loop {
        if let Ok(output) = timeout(patience, &mut *work).await {
            return Some(output);
        }
        if !operation.waits() {
            return None;
        }
        tokio::select! {
            biased;
            output = &mut *work => return Some(output),
            () = operation.turned() => {}
        }
    }
}

/// Waits for `work` as long as the head may wait for a child, then commits a stream on which its message follows.
pub async fn respond_slowly<F>(
    server: &Server,
    session: &Arc<Session>,
    operation: &Operation,
    form: Form,
    work: F,
) -> Response<Body>
where
    F: Future<Output = Result<Spliced, Rejection>> + Send + 'static,
{
    let mut work = Box::pin(work);
    let patience = server.settings.sse_commit_after.unwrap_or(COMMIT_AFTER);
    let done = match form {
        Form::Json => Some(work.as_mut().await),
        Form::Either => within(operation, patience, &mut work).await,
    };
    match done {
        Some(Ok(message)) => response::json(StatusCode::OK, message),
        Some(Err(rejection)) => rejection.response(),
        None => {
            let reader = session.open_stream();
            let (session, stream) = (Arc::clone(session), reader.stream());
            tokio::spawn(scoped(operation.context(), async move {
                let message = work.await.unwrap_or_else(|rejection| rejection.message());
                session.finish(stream, Some(message));
            }));
            response::events(EventStream::handshake(server, reader))
        }
    }
}
