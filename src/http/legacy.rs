//! The front for 2025-03-26, 2025-06-18 and 2025-11-25: one message of a session, or the `initialize` that opens one.
//! The response to a request is JSON if the child's first message is the answer, else an event stream
//! (docs/architecture.md#commit).

use super::guard::Form;
use super::outcome::{self, NoAnswer};
use super::outlook::Outlook;
use super::permit::permit;
#[cfg(feature = "gateway")]
use super::recorded;
use super::reject::Rejection;
use super::response::{self, Body};
use super::sessions::{self, Found};
use super::source::Source;
use super::stream::EventStream;
use super::{Server, cursors, guard, oneway};
use crate::clock::now;
use crate::exchange::{Class, Interim};
use crate::jsonrpc::{Kind, Spliced, rewrite};
use crate::session::{Session, StreamId};
use crate::tasks;
use crate::telemetry::counters;
use crate::telemetry::scope::scoped;
use crate::trace_context::Context;
use crate::upstream::{Begun, Incoming, LegacyCall, LegacyStep, Refusal};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use std::sync::Arc;
use std::time::Instant;

/// Serves one message; `found` is the session that its request names.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub async fn respond(
    server: &Arc<Server>,
    headers: &HeaderMap,
    found: Option<Found>,
    source: &Source,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    if incoming.message.kind == Kind::Request && incoming.method() == "initialize" {
        source.persistence.end_with_connection();
        return Box::pin(sessions::initialize(server, headers, source, incoming)).await;
    }
    let of = |rejection: Rejection| rejection.of(incoming.id());
    let session =
        found.unwrap_or_else(|| sessions::find(server, headers, &source.identity.principal)).map_err(of)?;
    let _present = sessions::receive(server, &session).map_err(of)?;
    sessions::describe(&session, &incoming.operation);
    if incoming.message.kind == Kind::Request {
        let form = guard::response_form(headers).map_err(of)?;
        // A waiting request leaves its queue if its client disconnects. `Attended` keeps a request that has begun.
        source.persistence.end_with_connection();
        return answer(server, source, &session, incoming, form).await;
    }
    Box::pin(oneway::accept(server, source, &session, incoming)).await?;
    Ok(response::empty(StatusCode::ACCEPTED))
}

/// The state of a request after its start.
pub enum Started {
    /// The child is processing it.
    Running(Attended),
    /// It was answered without the child.
    Answered(Spliced),
}

/// A request at the child. Dropping it does not cancel the request, since a legacy client that disconnects has not
/// cancelled (2025-11-25, transports §Sending Messages). The request continues without a listener.
pub struct Attended {
    call: Option<Box<LegacyCall>>,
    session: Arc<Session>,
    /// The request's position in its trace.
    context: Option<Context>,
    /// The client's outlook on the answer.
    outlook: Option<Box<Outlook>>,
}

impl From<Spliced> for Started {
    fn from(message: Spliced) -> Self {
        Started::Answered(message)
    }
}

/// Starts a request at the session's child. `ping` is answered here at once, even if the child is busy (2025-11-25,
/// utilities/ping).
///
/// # Errors
/// 503 when a limit is reached, or proxyrunner is shutting down.
pub async fn start(
    server: &Server,
    source: &Source,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<Started, Rejection> {
    let (client_id, operation) = (incoming.client_id(), Arc::clone(&incoming.operation));
    let permit = permit(server, &source.identity, Some(session), session.client(), &incoming).await;
    let permit = match permit {
        Ok(permit) => permit,
        Err(rejection) => return outcome::settle(&operation, client_id.raw(), Err(rejection.into())),
    };
    let (incoming, outlook) = match cursors::open(server, permit, incoming) {
        Ok(opened) => opened,
        Err(refused) => return outcome::settle(&operation, client_id.raw(), Err(refused)),
    };
    let outcome = match begin(server, session, incoming).await {
        // Its operation ends with the child's answer.
        Ok(Begun::Running(call)) => {
            let (call, session) = (Some(call), Arc::clone(session));
            return Ok(Started::Running(Attended { call, session, context: operation.context(), outlook }));
        }
        Ok(Begun::Answered(message)) => Ok(Started::Answered(match outlook {
            Some(outlook) => Box::pin(outlook.apply(message)).await,
            None => message,
        })),
        Err(refused) => Err(refused),
    };
    outcome::settle(&operation, client_id.raw(), outcome)
}

async fn begin(server: &Server, session: &Arc<Session>, incoming: Incoming) -> Result<Begun, NoAnswer> {
    if incoming.method() == "ping" {
        return Ok(Begun::Answered(Spliced::from(rewrite::result(incoming.id(), b"{}"))));
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down().into());
    }
    #[cfg(feature = "gateway")]
    if recorded::shelf(server).is_some() {
        Box::pin(recorded::note(server, session, &incoming)).await;
    }
    tokio::select! {
        biased;
        begun = server.upstream.begin(session, incoming) => begun.map_err(NoAnswer::from),
        // The session does not know a request that has not begun, so the session's end would not reach the request.
        () = session.ended() => Err(NoAnswer::from(Refusal::Failed(session.why_ended()))),
    }
}

/// Answers a request of a Streamable HTTP client.
///
/// # Errors
/// As [`start`].
async fn answer(
    server: &Server,
    source: &Source,
    session: &Arc<Session>,
    incoming: Incoming,
    form: Form,
) -> Result<Response<Body>, Rejection> {
    // Boxed, since a call soon begins, and then takes its time.
    let mut call = match Box::pin(start(server, source, session, incoming)).await? {
        Started::Running(call) => call,
        Started::Answered(message) => return Ok(response::json(StatusCode::OK, message)),
    };
    if form == Form::Json {
        return Ok(response::json(StatusCode::OK, call.run_unheard().await));
    }
    let commit_at = now() + response::delay_in(&server.settings, session);
    let first = match call.next_until(commit_at).await {
        Some(LegacyStep::Answered(message)) => return Ok(response::json(StatusCode::OK, message)),
        Some(LegacyStep::Said(interim)) => Some(interim),
        None => None,
    };
    let reader = session.open_stream();
    let stream = reader.stream();
    if let Some(interim) = first {
        session.push(stream, interim.frame, interim.class);
    }
    tasks::spawn(scoped(call.context, call.follow(stream)));
    Ok(response::events(EventStream::resumable(server, reader, None)))
}

impl Attended {
    async fn next(&mut self) -> LegacyStep {
        // No caller polls again after the answer.
        let Some(call) = &mut self.call else { return std::future::pending().await };
        let step = call.next().await;
        if self.outlook.is_some() { Box::pin(self.seen(step)).await } else { self.noted(step) }
    }

    /// Returns the next event, or `None` if there is none until then.
    async fn next_until(&mut self, until: Instant) -> Option<LegacyStep> {
        let step = self.call.as_mut()?.next_until(until).await?;
        Some(if self.outlook.is_some() { Box::pin(self.seen(step)).await } else { self.noted(step) })
    }

    /// Returns the step as the client sees it.
    async fn seen(&mut self, step: LegacyStep) -> LegacyStep {
        let message = match self.noted(step) {
            LegacyStep::Answered(message) => message,
            said => return said,
        };
        let Some(outlook) = self.outlook.take() else { return LegacyStep::Answered(message) };
        LegacyStep::Answered(outlook.apply(message).await)
    }

    /// Forgets the request once it is complete, so that dropping it spawns nothing.
    fn noted(&mut self, step: LegacyStep) -> LegacyStep {
        if let LegacyStep::Answered(_) = step {
            self.call = None;
        }
        step
    }

    /// Writes all messages to a stream, which ends with the answer.
    async fn follow(self, stream: StreamId) {
        let session = Arc::clone(&self.session);
        let last = self.run(|interim| session.push(stream, interim.frame, interim.class)).await;
        session.finish(stream, Some(last));
    }

    /// Returns the answer. Questions before it go to the session's standalone stream, other messages are dropped.
    pub async fn run_unheard(self) -> Spliced {
        let session = Arc::clone(&self.session);
        self.run(|interim| say_elsewhere(&session, interim)).await
    }

    /// Returns the answer, and passes each message before it to `each`.
    pub async fn run(mut self, mut each: impl FnMut(Interim)) -> Spliced {
        loop {
            match self.next().await {
                LegacyStep::Said(interim) => each(interim),
                LegacyStep::Answered(message) => return message,
            }
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        // At exit the runtime drops the spawned request, which cancels it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = Arc::clone(&self.session);
            let run = call.run(move |interim| say_elsewhere(&session, interim));
            runtime.spawn(tasks::boxed(scoped(self.context, run)));
        }
    }
}

/// Delivers a message of a request without a stream: questions go to the standalone stream, others are dropped.
pub fn say_elsewhere(session: &Session, interim: Interim) {
    match interim.class {
        Class::Dear => session.say(interim.frame, interim.class),
        _ => counters::DROPPED_EVENTS.increment(),
    }
}
