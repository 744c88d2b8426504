//! Checks `Mcp-Param-*` headers against the body of a call, by the child's list of tools.

use super::Caller;
use crate::catalogue::tools::Tools;
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::member;

/// Handles a call whose tool is not known yet. A router may have relied on `Mcp-Param-*` headers that cannot be
/// verified, so a call that has any is refused with 503 until they can.
pub(super) fn unchecked(caller: &Caller) -> Result<(), Refusal> {
    if caller.params.is_empty() {
        return Ok(());
    }
    Err(Refusal::Busy("Mcp-Param headers cannot be verified until the server has listed its tools"))
}

/// Checks a call's headers against its body, using the child's description of the tool.
pub(super) fn agrees(caller: &Caller, tools: &Tools, name: &str, incoming: &Incoming) -> Result<(), Refusal> {
    if tools.are_unread {
        return unchecked(caller);
    }
    if tools.headers.of(name).is_empty() {
        return Ok(());
    }
    let frame = &incoming.frame;
    let params = incoming.message.params.as_ref();
    let arguments = params.and_then(|params| member(frame, &params.span, "arguments"));
    let header = |name: &str| caller.param(name);
    tools.headers.check(name, frame, arguments.as_ref(), header).map_err(Refusal::Mismatch)
}
