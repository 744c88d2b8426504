//! A request in flight, as its session knows it.

use super::Session;
use crate::exchange::Mailbox;
use crate::jsonrpc::ClientId;
use crate::mux::WireId;
use std::sync::Arc;
use std::time::Instant;

/// Notes a request in its session from before the child can read it, so that what the child says of it finds its way,
/// until this is finished or dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the request is over"]
pub struct Underway {
    session: Arc<Session>,
    wire_id: WireId,
}

impl Underway {
    /// Notes it.
    pub fn begin(
        session: &Arc<Session>,
        client_id: ClientId,
        wire_id: WireId,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        session.began(client_id, wire_id, mailbox);
        Underway { session: Arc::clone(session), wire_id }
    }

    /// The request has its outcome.
    pub fn finish(self, now: Instant) {
        self.session.finished(self.wire_id, now);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.session.forget(self.wire_id);
    }
}
