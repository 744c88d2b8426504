//! A reader of one stream, as HTTP holds it.

use super::Session;
use super::streams::{Attached, Item, StreamId};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Follows one stream; dropping it leaves the stream to whoever resumes it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    attached: Attached,
}

impl Reader {
    pub(super) fn new(session: Arc<Session>, attached: Attached) -> Self {
        Reader { session, attached }
    }

    /// Whose stream it is.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Which stream it is.
    pub fn stream(&self) -> StreamId {
        self.attached.stream
    }

    /// The number of the event after which it began.
    pub fn began_after(&self) -> u64 {
        self.attached.after
    }

    /// Drops the stream with all that is on it, since nobody knows of it who could come back.
    pub fn discard(self) {
        self.session.state().streams.discard(&self.attached);
    }

    /// Whether it is at the end already: the stream has ended, and nothing of it is left to read.
    pub fn is_over(&self) -> bool {
        self.session.state().streams.is_over(&self.attached)
    }

    /// The next event; `None` once the stream has ended or another reader took it over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.session.state().streams.poll_next(&self.attached, cx)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.state().streams.detach(&self.attached);
    }
}
