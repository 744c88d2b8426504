//! The stream of a modern request: what its child says as it says it, then its answer. Nothing is kept: dropping
//! the body, as a disconnect does, cancels the request (streamable-http §Cancellation).

use super::Server;
use super::sse::{KEEP_ALIVE, encode};
use crate::upstream::{Happening, ModernCall, Reply};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

type Next = Pin<Box<dyn Future<Output = (Box<ModernCall>, Happening)> + Send>>;

/// The body.
pub struct LiveStream {
    /// What happens next; none once the answer is out.
    next: Option<Next>,
    waiting: VecDeque<Bytes>,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
}

impl fmt::Debug for LiveStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveStream").finish_non_exhaustive()
    }
}

impl LiveStream {
    /// The stream of `call`; `first` is what it has said already.
    pub fn new(server: &Server, call: Box<ModernCall>, first: Option<Happening>) -> Self {
        let keep_alive = server.settings.keep_alive;
        let silence = Box::pin(sleep(keep_alive));
        let mut stream = LiveStream { next: None, waiting: VecDeque::new(), keep_alive, silence };
        match first {
            Some(happening) => stream.put(call, happening),
            None => stream.next = Some(next(call)),
        }
        stream
    }

    /// The next bytes of the body.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            let Some(next) = &mut self.next else { return Poll::Ready(None) };
            if let Poll::Ready((call, happening)) = next.as_mut().poll(cx) {
                self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
                self.put(call, happening);
                continue;
            }
            ready!(self.silence.as_mut().poll(cx));
            self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
            return Poll::Ready(Some(KEEP_ALIVE));
        }
    }

    fn put(&mut self, call: Box<ModernCall>, happening: Happening) {
        match happening {
            Happening::Said(message) => {
                encode(None, &message, &mut self.waiting);
                self.next = Some(next(call));
            }
            Happening::Answered(reply) => self.end(&reply),
            Happening::Asks => self.end(&call.park()),
        }
    }

    fn end(&mut self, reply: &Reply) {
        encode(None, &reply.message, &mut self.waiting);
        self.next = None;
    }
}

fn next(mut call: Box<ModernCall>) -> Next {
    Box::pin(async move {
        let happening = call.next().await;
        (call, happening)
    })
}
