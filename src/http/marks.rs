//! Marks on connections with a request in progress, from its head to the end of its response.

use super::connections::{Connections, Pulse};
use super::visit::Visit;
use crate::budget::Charge;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Marks a connection as busy.
#[derive(Clone, Debug)]
pub struct Marker(Arc<Pulse>, Arc<Connections>);

impl Marker {
    /// A marker for this connection.
    pub fn new(pulse: Arc<Pulse>, connections: Arc<Connections>) -> Self {
        Marker(pulse, connections)
    }

    /// Busy until the mark is dropped.
    pub fn mark(&self, is_get: bool, has_body: bool) -> Mark {
        let Marker(pulse, connections) = self;
        pulse.busy.fetch_add(1, Ordering::Relaxed);
        pulse.has_asked.store(true, Ordering::Relaxed);
        pulse.is_get.store(is_get, Ordering::Relaxed);
        pulse.has_body.store(has_body, Ordering::Relaxed);
        connections.forget_head(pulse);
        pulse.active.store(connections.now(), Ordering::Relaxed);
        Mark(self.clone())
    }
}

/// One request on a connection.
#[derive(Debug)]
pub struct Mark(Marker);

impl Drop for Mark {
    fn drop(&mut self) {
        let Marker(pulse, connections) = &self.0;
        if !pulse.leaves_body.load(Ordering::Relaxed) {
            pulse.has_body.store(false, Ordering::Relaxed);
        }
        let now = connections.now();
        pulse.active.store(now, Ordering::Relaxed);
        // What the peer sent meanwhile has waited for this answer: its own time begins now.
        pulse.unasked_since.store(now, Ordering::Relaxed);
        pulse.busy.fetch_sub(1, Ordering::Relaxed);
        connections.freed.notify_waiters();
    }
}

/// A response body that keeps its connection busy for as long as it lasts.
#[derive(Debug)]
pub struct Marked<B> {
    body: B,
    _mark: Mark,
    _visit: Option<Visit>,
    /// What the request takes besides its messages.
    _charge: Option<Charge>,
}

impl<B> Marked<B> {
    /// The body, with the mark of its request, how that is seen, and what it takes.
    pub fn new(body: B, mark: Mark, visit: Option<Visit>, charge: Option<Charge>) -> Self {
        Marked { body, _mark: mark, _visit: visit, _charge: charge }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Marked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
