//! A request of a session's client that has no outcome yet.

use crate::exchange::Mailbox;
use crate::jsonrpc::ClientId;
use crate::mux::WireId;
use std::sync::Arc;

/// A request of the client that has no outcome yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) client_id: ClientId,
    /// Unset while the request waits to be sent: the child does not know it, and sends no messages about it.
    pub(super) wire_id: Option<WireId>,
    pub(super) mailbox: Arc<Mailbox>,
    /// Whether it was interrupted to free the memory that it holds.
    pub(super) gave_way: bool,
}
