//! Polls rare events beside frequent ones. A task polls all that it waits for whenever it is woken; what is polled
//! aside costs a load until it is itself woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A rare event of a task, as a function to poll.
#[derive(Debug)]
pub struct Aside<P> {
    poll: P,
    /// The waker of the event; `None` before the first poll.
    signal: Option<(Arc<Signal>, Waker)>,
}

#[derive(Debug)]
struct Signal {
    /// Whether the event was woken since it was last polled.
    is_woken: AtomicBool,
    task: Waker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Set before the task is woken, which then finds it set.
        self.is_woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<T, P: FnMut(&mut Context<'_>) -> Poll<T>> Aside<P> {
    /// Wraps a function that polls the event. It must poll the same futures as long as they are pending.
    pub fn new(poll: P) -> Self {
        Aside { poll, signal: None }
    }

    /// Polls the event if it was woken since the last poll. After it was ready, it may be polled for the next one.
    #[inline]
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<T> {
        let (signal, waker) = match &mut self.signal {
            Some(own) if own.0.task.will_wake(cx.waker()) => own,
            own => {
                let signal = Arc::new(Signal { is_woken: AtomicBool::new(true), task: cx.waker().clone() });
                let waker = Waker::from(Arc::clone(&signal));
                own.insert((signal, waker))
            }
        };
        // A wake-up before this is seen here, and one after it wakes the task.
        if !signal.is_woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // A swap also sees what a wake-up since the check has written.
        signal.is_woken.swap(false, Ordering::AcqRel);
        let event = (self.poll)(&mut Context::from_waker(waker));
        if event.is_ready() {
            signal.is_woken.store(true, Ordering::Release);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn it_is_polled_only_when_it_was_woken() {
        let (event, polls, passes) = (Notify::new(), Cell::new(0), Cell::new(0));
        let mut notified = Box::pin(event.notified());
        let mut aside = Aside::new(|cx| {
            polls.set(polls.get() + 1);
            let happens = notified.as_mut().poll(cx);
            if happens.is_ready() {
                notified.set(event.notified());
            }
            happens
        });
        let happens = async {
            for _ in 0..2 {
                poll_fn(|cx| {
                    passes.set(passes.get() + 1);
                    aside.poll(cx)
                })
                .await;
            }
        };
        let notifies = async {
            for _ in 0..2 {
                for _ in 0..10 {
                    yield_now().await;
                }
                event.notify_one();
            }
        };
        tokio::join!(biased; happens, notifies);
        assert!(passes.get() > 20, "{passes:?}");
        assert_eq!(polls.get(), 4, "first, and when it happens; twice");
    }
}
