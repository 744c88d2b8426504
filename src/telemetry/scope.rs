//! In which span something happens, for the lines that are logged meanwhile: known to the thread as long as it works on it.

use crate::trace_context::Context;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

thread_local! {
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// The span in which the thread works now.
pub fn current() -> Option<Context> {
    CURRENT.get()
}

/// Does something within a span; without one, where it is.
pub fn within<T>(context: Option<Context>, work: impl FnOnce() -> T) -> T {
    /// Back to where it was, whatever happens.
    struct Before(Option<Context>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let Some(context) = context else { return work() };
    let _before = Before(CURRENT.replace(Some(context)));
    work()
}

/// A future whose work is within a span.
pub async fn scoped<F: Future>(context: Option<Context>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| within(context, || future.as_mut().poll(cx))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_task_is_in_its_own_span() {
        let span = |span: u8| Some(Context { trace: [1; 16], span: [span; 8], flags: 1 });
        let task = |own| {
            scoped(span(own), async move {
                for _ in 0..3 {
                    assert_eq!(current(), span(own));
                    tokio::task::yield_now().await;
                }
                scoped(span(9), async { assert_eq!(current(), span(9)) }).await;
                assert_eq!(current(), span(own));
            })
        };
        tokio::join!(task(1), task(2), async { assert_eq!(current(), None) });
        assert_eq!(current(), None);
    }
}
