//! Requests that a shared child must not see, since their effect would cross from one client to another.

use crate::audience::Seat;
use crate::era::envelope::log_level;
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{codes, text};

/// Answers or refuses a request that a shared child must not see, since its effect would cross from one client to
/// another. Returns `None` for other requests.
pub(super) fn answered_here(seat: &Seat, incoming: &Incoming) -> Result<Option<&'static [u8]>, Refusal> {
    let params = incoming.message.params.as_ref();
    match &*incoming.method() {
        // The level belongs to the child, not to the session, and its log messages are withheld, since they name no
        // request. A modern child is told the level with each request.
        "logging/setLevel" => {
            let level = params.and_then(|params| params.level.as_ref());
            let level = level.and_then(|level| log_level(&text(&incoming.frame, level)));
            let level =
                level.ok_or(Refusal::Withheld(codes::INVALID_PARAMS, "params.level is not a log level"))?;
            if let Seat::Stateless(seat) = seat {
                seat.set_level(level);
            }
            Ok(Some(b"{}"))
        }
        // A modern child would attribute these requests to a modern client.
        "server/discover" | "subscriptions/listen" if matches!(seat, Seat::Stateless(_)) => Err(
            Refusal::Withheld(codes::METHOD_NOT_FOUND, "this method is not part of the session's revision"),
        ),
        method if method.starts_with("tasks/") => Err(Refusal::Withheld(
            codes::METHOD_NOT_FOUND,
            "tasks are disabled on a server that clients share, because one client could reach another's; start proxyrunner with --isolation session",
        )),
        _ if params.is_some_and(|params| params.task.is_some()) => Err(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "tasks are disabled on a server that clients share, because one client could reach another's; start proxyrunner with --isolation session",
        )),
        _ => Ok(None),
    }
}
