//! The events of a modern request: its child's messages, then its answer. No event is kept: dropping the stream, as a
//! disconnect does, cancels the request (2026-07-28, streamable-http §Cancellation).

use super::expiry::{self, Expiry};
use super::outlook::Outlook;
use super::sse::encode;
use crate::budget::Charged;
use crate::shutdown::Shutdown;
use crate::telemetry::scope::within;
use crate::trace_context::Context as TraceContext;
use crate::upstream::{Happening, Listening, ModernCall, Reply};
use std::collections::VecDeque;
use std::fmt;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A modern request in progress.
pub enum Live {
    /// A request at a child, and its client's outlook on the answer.
    Call(Box<ModernCall>, Option<Box<Outlook>>),
    /// A subscription, and the time at which its caller's credentials end.
    Listening(Box<Listening>, Option<Expiry>),
}

impl Live {
    /// Returns the next event; for a request that is unanswered at the end of the drain, its error.
    pub async fn next(&mut self, shutdown: &Shutdown) -> Happening {
        match self {
            Live::Call(call, outlook) => {
                let happening = tokio::select! {
                    biased;
                    happening = call.next() => happening,
                    () = shutdown.over() => call.shut_down(),
                };
                if outlook.is_none() {
                    return happening;
                }
                match (happening, outlook.take()) {
                    (Happening::Answered(reply), Some(outlook)) => {
                        let message = Box::pin(outlook.apply(reply.message)).await;
                        Happening::Answered(Reply { message, ..reply })
                    }
                    (happening, kept) => {
                        *outlook = kept;
                        happening
                    }
                }
            }
            // The drain ends subscriptions itself, gracefully.
            Live::Listening(listening, ends) => tokio::select! {
                biased;
                () = expiry::passed(ends) => listening.close(),
                happening = listening.next() => happening,
            },
        }
    }
}

/// The next event of a request, and the request itself unless it is complete or did not begin.
pub type Next = Pin<Box<dyn Future<Output = (Option<Live>, Happening)> + Send>>;

/// The events of one modern request.
pub struct LiveEvents {
    /// The request's position in its trace.
    context: Option<TraceContext>,
    /// `None` once the answer is encoded.
    next: Option<Next>,
    shutdown: Shutdown,
}

impl fmt::Debug for LiveEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveEvents").finish_non_exhaustive()
    }
}

impl LiveEvents {
    /// Returns the events of `live`, whose first event is `first`.
    pub fn begun(
        shutdown: &Shutdown,
        context: Option<TraceContext>,
        live: Option<Live>,
        first: Happening,
        out: &mut VecDeque<Charged>,
    ) -> Self {
        let mut events = LiveEvents { context, next: None, shutdown: shutdown.clone() };
        events.put(live, first, out);
        events
    }

    /// Returns the events of a request that has yielded nothing yet, or has not begun.
    pub fn quiet(shutdown: &Shutdown, context: Option<TraceContext>, next: Next) -> Self {
        LiveEvents { context, next: Some(next), shutdown: shutdown.clone() }
    }

    /// Encodes the next event; false when the stream is complete.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Charged>) -> Poll<bool> {
        let Some(next) = &mut self.next else { return Poll::Ready(false) };
        let (live, happening) = ready!(within(self.context, || next.as_mut().poll(cx)));
        self.put(live, happening, out);
        Poll::Ready(true)
    }

    fn put(&mut self, live: Option<Live>, happening: Happening, out: &mut VecDeque<Charged>) {
        match (happening, live) {
            (Happening::Said(message), live) => {
                encode(None, &message, out);
                let shutdown = self.shutdown.clone();
                self.next = live.map(|mut live| -> Next {
                    Box::pin(async move {
                        let happening = live.next(&shutdown).await;
                        (Some(live), happening)
                    })
                });
            }
            (Happening::Answered(reply), _) => self.complete(&reply, out),
            (Happening::Asks, Some(Live::Call(call, _))) => self.complete(&call.park(), out),
            // Subscriptions ask no questions.
            (Happening::Asks, _) => self.next = None,
        }
    }

    fn complete(&mut self, reply: &Reply, out: &mut VecDeque<Charged>) {
        encode(None, &reply.message, out);
        self.next = None;
    }
}
