//! Requests that siblings have passed on to this replica: their tickets, and what differs from requests of clients
//! ([`forwarding`](super::forwarding) is the other side).

use super::Server;
use super::reject::Rejection;
use super::response::Body;
use super::source::Source;
use crate::gateway::{PROOF, TICKET, Ticket};
use crate::telemetry::counters::SIBLING_REQUESTS;
use hyper::Response;
use hyper::http::request::Parts;

/// Returns what a sibling says about a request that it has passed on; `None` if it comes from a client.
///
/// # Errors
/// 403 when the ticket is not one of a sibling for this request.
pub fn ticket(server: &Server, head: &Parts) -> Option<Result<Box<Ticket>, Box<Rejection>>> {
    let siblings = server.siblings.as_ref().filter(|_| head.headers.contains_key(TICKET))?;
    let is_endpoint = head.uri.path() == server.settings.path;
    let opened = siblings.admit(&head.method, &head.headers).filter(|_| is_endpoint).map(Box::new);
    SIBLING_REQUESTS.increment(usize::from(opened.is_none()));
    Some(opened.ok_or_else(|| {
        let message = format!(
            "the header {TICKET} is not that of a replica with the same --state-key-file, or clocks differ"
        );
        Box::new(Rejection::forbidden(message))
    }))
}

/// Proves to the sibling that this replica has answered.
pub fn prove(response: &mut Response<Body>, ticket: &Ticket) {
    response.headers_mut().insert(PROOF, ticket.proof());
}

/// Refuses a request that a sibling has passed on while this replica shuts down, so that the client opens a session
/// elsewhere. Calls in progress still get their messages and answers.
///
/// # Errors
/// 404.
pub fn check_leaving(server: &Server, source: &Source, begins: bool) -> Result<(), Rejection> {
    if source.ticket.is_some() && begins && server.shutdown.has_begun() {
        return Err(Rejection::unknown_session());
    }
    Ok(())
}

/// Checks that a body is the one that the sibling has passed on.
///
/// # Errors
/// 403.
pub fn check_body(source: &Source, body: &[u8]) -> Result<(), Rejection> {
    match &source.ticket {
        Some(ticket) if !ticket.is_for(body) => {
            Err(Rejection::forbidden("the body is not that of its ticket"))
        }
        _ => Ok(()),
    }
}
