//! Polls again at once what has woken itself. Hyper and the handling of a request on the same connection wake each
//! other while one of them is polled: when the handling asks for the body, and when the body arrives. Each such
//! wake-up would cost the task another run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Nothing is being polled: a wake-up wakes the task.
const IDLE: u8 = 0;
const POLLING: u8 = 1;
/// Woken while it was polled.
const WOKEN: u8 = 2;

/// The waker of what is polled; `None` before the first poll.
#[derive(Debug, Default)]
pub struct Again(Option<(Arc<Signal>, Waker)>);

#[derive(Debug)]
struct Signal {
    state: AtomicU8,
    task: Waker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if woken == Err(IDLE) {
            self.task.wake_by_ref();
        }
    }
}

impl Again {
    /// Polls, and once more if that was woken meanwhile. If it was woken even then, other tasks run first.
    pub fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let (signal, waker) = match &mut self.0 {
            Some(own) if own.0.task.will_wake(cx.waker()) => own,
            own => {
                let signal = Arc::new(Signal { state: AtomicU8::new(IDLE), task: cx.waker().clone() });
                let waker = Waker::from(Arc::clone(&signal));
                own.insert((signal, waker))
            }
        };
        for _ in 0..2 {
            signal.state.store(POLLING, Ordering::Release);
            let done = poll(&mut Context::from_waker(waker));
            // A wake-up before this is noted, and one after it wakes the task.
            let was_woken = signal.state.swap(IDLE, Ordering::AcqRel) == WOKEN;
            if done.is_ready() || !was_woken {
                return done;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;

    /// Polls what wakes itself on its first `wakes` polls and is ready after `needs` polls; returns how often its task
    /// was run.
    async fn runs(wakes: usize, needs: usize) -> usize {
        let (mut again, polls, runs) = (Again::default(), Cell::new(0), Cell::new(0));
        poll_fn(|cx| {
            runs.set(runs.get() + 1);
            again.poll(cx, |cx| {
                polls.set(polls.get() + 1);
                if polls.get() <= wakes {
                    cx.waker().wake_by_ref();
                }
                if polls.get() == needs { Poll::Ready(()) } else { Poll::Pending }
            })
        })
        .await;
        runs.get()
    }

    #[tokio::test]
    async fn what_wakes_itself_is_polled_again_in_the_same_run() {
        assert_eq!(runs(1, 2).await, 1);
        assert_eq!(runs(3, 4).await, 2, "others run after two polls");
    }

    #[tokio::test]
    async fn a_wake_up_between_polls_runs_the_task() {
        let (mut again, polls) = (Again::default(), Cell::new(0));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            let _ = sender.send(());
        });
        let mut receiver = std::pin::pin!(receiver);
        poll_fn(|cx| {
            again.poll(cx, |cx| {
                polls.set(polls.get() + 1);
                receiver.as_mut().poll(cx)
            })
        })
        .await
        .unwrap();
        assert_eq!(polls.get(), 2);
    }
}
