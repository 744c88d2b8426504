//! Readers of a session's streams, as HTTP holds them.

use super::Session;
use super::event_id::{StreamId, parse_event_id};
use super::streams::{Attached, Item, UnknownEvent};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A reader of one stream. Dropping it leaves the stream to the next reader that resumes it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    attached: Attached,
}

impl Session {
    /// Opens the stream of a request.
    pub fn open_stream(self: &Arc<Self>) -> Reader {
        let attached = self.state().streams.open();
        Reader { session: Arc::clone(self), attached }
    }

    /// Opens the standalone stream of a GET, which gets the messages that waited for one.
    pub fn open_standalone(self: &Arc<Self>) -> Reader {
        let attached = self.state().streams.open_standalone();
        Reader { session: Arc::clone(self), attached }
    }

    /// Resumes a stream after the event that `last_event_id` names; an earlier reader of the stream ends.
    ///
    /// # Errors
    /// Fails if the session has no such event, or keeps nothing of its stream.
    pub fn resume(self: &Arc<Self>, last_event_id: &str) -> Result<Reader, UnknownEvent> {
        let (stream, seq) = parse_event_id(last_event_id).ok_or(UnknownEvent)?;
        let attached = self.state().streams.attach(stream, seq).ok_or(UnknownEvent)?;
        Ok(Reader { session: Arc::clone(self), attached })
    }
}

impl Reader {
    /// Returns the session that the stream belongs to.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Returns the number of the stream.
    pub fn stream(&self) -> StreamId {
        self.attached.stream
    }

    /// Returns the number of the event after which it began.
    pub fn began_after(&self) -> u64 {
        self.attached.after
    }

    /// Drops the stream with all its events, if no client knows its id and could resume it.
    pub fn discard(self) {
        self.session.state().streams.discard(&self.attached);
    }

    /// Returns whether the stream has ended and every event was read.
    pub fn is_over(&self) -> bool {
        self.session.state().streams.is_over(&self.attached)
    }

    /// Polls for the next event; `None` once the stream has ended or another reader took it over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.session.state().streams.poll_next(&self.attached, cx)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.state().streams.detach(&self.attached);
    }
}
