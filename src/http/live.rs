//! The stream of a modern request: what its child says as it says it, then its answer. Nothing is kept: dropping
//! the body, as a disconnect does, cancels the request (streamable-http §Cancellation).

use super::Server;
use super::sse::{KEEP_ALIVE, encode};
use crate::budget::Charged;
use crate::shutdown::Shutdown;
use crate::telemetry::scope::within;
use crate::trace_context::Context as TraceContext;
use crate::upstream::{Happening, Listening, ModernCall, Reply};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// What a modern request has at a child.
pub enum Live {
    /// A request.
    Call(Box<ModernCall>),
    /// A subscription.
    Listening(Box<Listening>),
}

impl Live {
    /// What happens next; of a request that is not answered when the drain is over, that. Safe to drop and call again.
    pub async fn next(&mut self, shutdown: &Shutdown) -> Happening {
        match self {
            Live::Call(call) => tokio::select! {
                biased;
                happening = call.next() => happening,
                () = shutdown.over() => call.shut_down(),
            },
            // It is told itself, and ends gracefully.
            Live::Listening(listening) => listening.next().await,
        }
    }
}

/// What happens next, and to what; nothing is left after an answer, or where a request did not begin.
pub type Next = Pin<Box<dyn Future<Output = (Option<Live>, Happening)> + Send>>;

/// The body.
pub struct LiveStream {
    /// Where its request stands in its trace.
    context: Option<TraceContext>,
    /// What happens next; none once the answer is out.
    next: Option<Next>,
    waiting: VecDeque<Charged>,
    shutdown: Shutdown,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
}

impl fmt::Debug for LiveStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveStream").finish_non_exhaustive()
    }
}

impl LiveStream {
    /// The stream of `live`, which has said `first`.
    pub fn begun(
        server: &Server,
        context: Option<TraceContext>,
        live: Option<Live>,
        first: Happening,
    ) -> Self {
        let mut stream = Self::new(server, context);
        stream.put(live, first);
        stream
    }

    /// The stream of what has said nothing yet, or not even begun.
    pub fn quiet(server: &Server, context: Option<TraceContext>, next: Next) -> Self {
        LiveStream { next: Some(next), ..Self::new(server, context) }
    }

    fn new(server: &Server, context: Option<TraceContext>) -> Self {
        let keep_alive = server.settings.keep_alive;
        let silence = Box::pin(sleep(keep_alive));
        let shutdown = server.shutdown.clone();
        LiveStream { context, next: None, waiting: VecDeque::new(), shutdown, keep_alive, silence }
    }

    /// The next bytes of the body.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Charged>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            let Some(next) = &mut self.next else { return Poll::Ready(None) };
            if let Poll::Ready((live, happening)) = within(self.context, || next.as_mut().poll(cx)) {
                self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
                self.put(live, happening);
                continue;
            }
            ready!(self.silence.as_mut().poll(cx));
            self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
            return Poll::Ready(Some(KEEP_ALIVE));
        }
    }

    fn put(&mut self, live: Option<Live>, happening: Happening) {
        match (happening, live) {
            (Happening::Said(message), live) => {
                encode(None, &message, &mut self.waiting);
                let shutdown = self.shutdown.clone();
                self.next = live.map(|mut live| -> Next {
                    Box::pin(async move {
                        let happening = live.next(&shutdown).await;
                        (Some(live), happening)
                    })
                });
            }
            (Happening::Answered(reply), _) => self.end(&reply),
            (Happening::Asks, Some(Live::Call(call))) => self.end(&call.park()),
            // Nothing else asks.
            (Happening::Asks, _) => self.next = None,
        }
    }

    fn end(&mut self, reply: &Reply) {
        encode(None, &reply.message, &mut self.waiting);
        self.next = None;
    }
}
