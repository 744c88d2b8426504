//! The front for 2025-03-26, 2025-06-18 and 2025-11-25: one message of a session, or the `initialize` that opens one.

use super::origin::Origin;
use super::reject::Rejection;
use super::response::{self, Body};
use super::{Server, call, guard, oneway, sessions};
use crate::jsonrpc::Kind;
use crate::session::Principal;
use crate::upstream::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use std::sync::Arc;

/// Serves one message.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub async fn respond(
    server: &Arc<Server>,
    headers: &HeaderMap,
    principal: Principal,
    origin: &Origin,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    if incoming.message.kind == Kind::Request && incoming.method() == "initialize" {
        return Box::pin(sessions::initialize(server, headers, principal, origin, incoming)).await;
    }
    let of = |rejection: Rejection| rejection.of(incoming.id());
    let session = sessions::find(server, headers, &principal).map_err(of)?;
    let _present = sessions::receive(server, &session).map_err(of)?;
    sessions::describe(&session, &incoming.operation);
    if incoming.message.kind == Kind::Request {
        let form = guard::response_form(headers).map_err(of)?;
        return call::respond(server, &session, incoming, form).await;
    }
    Box::pin(oneway::accept(server, &session, incoming)).await?;
    Ok(response::empty(StatusCode::ACCEPTED))
}
