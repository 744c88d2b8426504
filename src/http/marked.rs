//! The body of a response, with the state of its request that must last as long as the body.

use super::peers::Mark;
use super::visit::Visit;
use crate::budget::Charge;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response body that keeps its connection busy as long as it exists.
#[derive(Debug)]
pub struct Marked<B> {
    body: B,
    _mark: Mark,
    _visit: Option<Box<Visit>>,
    /// The memory that the request takes besides its messages.
    _charge: Option<Charge>,
}

impl<B> Marked<B> {
    /// Adds the state of its request to a body.
    pub fn new(body: B, mark: Mark, visit: Option<Box<Visit>>, charge: Option<Charge>) -> Self {
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
