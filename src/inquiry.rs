//! Requests of proxyrunner itself to a child: they take no permit, since requests of clients wait for them.

use crate::client::Client;
use crate::era::envelope::Envelope;
use crate::exchange::{Exchange, Failure, Held, Link, Mailbox, Outcome, Refused, Step};
use crate::jsonrpc::{self, Spliced, rewrite};
use crate::mux::WireId;
use crate::telemetry::ChildOperation;
use crate::trace_context::Trace;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Sends a child a request, and waits at most `patience` for its answer.
///
/// # Errors
/// When the child is gone, or does not answer in time.
pub(crate) async fn ask(
    link: &Link,
    method: &str,
    patience: Duration,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Outcome, Failure> {
    let asked = async { Ok(outcome(&mut begin(link, method, write)?).await) };
    timeout(patience, asked).await.unwrap_or(Err(Failure::TimedOut(patience)))
}

/// Subscribes to a resource at a legacy child, or unsubscribes from it. Returns whether the child accepted it; `None` if
/// its answer is not known.
pub(crate) async fn ask_subscription(
    link: &Link,
    method: &str,
    uri: &str,
    patience: Duration,
) -> Option<bool> {
    let params = serde_json::json!({"uri": uri}).to_string();
    let answer = ask(link, method, patience, |wire_id| legacy_request(wire_id, method, Some(&params))).await;
    answer.ok()?.ok().map(|answer| answer.result.is_some())
}

/// Asks a legacy child to log messages from a level on. Returns whether it accepted.
pub(crate) async fn ask_level(link: &Link, level: &str, patience: Duration) -> bool {
    const METHOD: &str = "logging/setLevel";
    let params = serde_json::json!({"level": level}).to_string();
    let answer = ask(link, METHOD, patience, |wire_id| legacy_request(wire_id, METHOD, Some(&params))).await;
    matches!(answer, Ok(Ok(answer)) if answer.result.is_some())
}

/// Writes a `ping` to a legacy child.
pub(crate) fn ping(wire_id: WireId) -> Spliced {
    legacy_request(wire_id, "ping", None)
}

/// Writes a request to a legacy child; `params` is raw JSON.
pub(crate) fn legacy_request(wire_id: WireId, method: &str, params: Option<&str>) -> Spliced {
    let id = wire_id.as_u64().to_string();
    Spliced::from(rewrite::request(id.as_bytes(), method, params.map(str::as_bytes)))
}

/// Writes a request to a modern child; `params` are raw members of it.
pub(crate) fn modern_request(wire_id: WireId, method: &str, params: &str) -> Spliced {
    let comma = if params.is_empty() { "" } else { "," };
    let params = format!("{{\"_meta\":{{{}}}{comma}{params}}}", Envelope::own().members());
    let id = wire_id.as_u64().to_string();
    Spliced::from(rewrite::request(id.as_bytes(), method, Some(params.as_bytes())))
}

/// Begins a request.
///
/// # Errors
/// When the child is gone.
pub(crate) fn begin(
    link: &Link,
    method: &str,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    begin_for(link, method, Arc::default(), write)
}

/// Begins a request whose interim messages go to an existing mailbox.
///
/// # Errors
/// When the child is gone.
pub(crate) fn begin_for(
    link: &Link,
    method: &str,
    mailbox: Arc<Mailbox>,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    let operation = ChildOperation::own(method, link.revision(), link.number());
    begin_as(link, None, operation, mailbox, write)
}

/// Begins a request that is recorded as `operation`, if there is one.
///
/// # Errors
/// When the child is gone.
pub(crate) fn begin_as(
    link: &Link,
    client: Option<Client>,
    operation: Option<ChildOperation>,
    mailbox: Arc<Mailbox>,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    begin_held(link, Held { client, ..Held::unasked(mailbox) }, operation, write)
}

/// Begins a request whose slot holds `held`.
///
/// # Errors
/// When the child is gone.
pub(crate) fn begin_held(
    link: &Link,
    held: Held,
    operation: Option<ChildOperation>,
    write: impl FnOnce(WireId) -> Spliced,
) -> Result<Exchange, Failure> {
    let trace = operation.as_ref().map(|operation| operation.traced(&Trace::default()).into_owned());
    let write = |wire_id| match &trace {
        Some(trace) if trace.replaces_context() => with_context(write(wire_id), trace),
        _ => write(wire_id),
    };
    link.begin(held, operation, write).map_err(|refused| match refused {
        Refused::Closed(failure) => failure,
        Refused::Full => Failure::Lost,
    })
}

/// Waits for the outcome of a request, and ignores its interim messages.
pub(crate) async fn outcome(exchange: &mut Exchange) -> Outcome {
    loop {
        if let Step::Outcome(outcome) = exchange.next().await {
            return outcome;
        }
    }
}

/// Puts the trace context into a request.
fn with_context(request: Spliced, trace: &Trace) -> Spliced {
    // The request is short, and written here.
    let Ok(frame) = request.clone().flatten() else { return request };
    match jsonrpc::scan(&frame) {
        Ok(message) => rewrite::request_for_child(&frame, &message, None, None, trace),
        Err(_) => request,
    }
}
