//! The current span of a thread, for the log lines written while it works on a task.

use super::attributes::Attributes;
use super::span::{Parent, SpanKind, tracer};
use crate::trace_context::Context;
use std::cell::Cell;
use std::fmt::Display;
use std::pin::Pin;
use std::task::{self, Poll};

thread_local! {
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// Returns the current span.
pub fn current() -> Option<Context> {
    CURRENT.get()
}

/// Runs `work` within a span; without one, leaves the current span unchanged.
pub fn within<T>(context: Option<Context>, work: impl FnOnce() -> T) -> T {
    /// Restores the previous span, also after a panic.
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

/// Wraps a future so that it is polled within a span. The future is boxed because these futures are large, and an
/// unboxed future is copied into each future that contains it.
#[inline]
pub fn scoped<F: Future>(context: Option<Context>, future: F) -> Scoped<Pin<Box<F>>> {
    Scoped { context, future: Box::pin(future) }
}

/// Wraps the last part of a [`scoped`] future so that it runs within another span. The current span is changed once,
/// by this call, instead of on each poll. Await the result immediately, in the same future: anything that runs
/// concurrently within it would be in the other span, too.
#[inline]
pub fn scoped_to_the_end<F: Future + Unpin>(context: Option<Context>, future: F) -> Scoped<F> {
    let changes = context.is_some() && current().is_some();
    if changes {
        CURRENT.set(context);
    }
    Scoped { context: context.filter(|_| !changes), future }
}

/// A future that is polled within a span; see [`scoped`].
#[derive(Debug)]
pub struct Scoped<F> {
    context: Option<Context>,
    future: F,
}

impl<F: Future + Unpin> Scoped<F> {
    /// As [`scoped`], for a future that is boxed or pinned already.
    pub fn new(context: Option<Context>, future: F) -> Self {
        Scoped { context, future }
    }
}

impl<F: Future + Unpin> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Scoped { context, future } = &mut *self;
        /// Restores the previous span, and keeps a change by [`scoped_to_the_end`].
        struct Entered<'a> {
            own: &'a mut Context,
            before: Option<Context>,
        }
        impl Drop for Entered<'_> {
            fn drop(&mut self) {
                if let Some(now) = CURRENT.replace(self.before) {
                    *self.own = now;
                }
            }
        }
        let Some(own) = context else { return Pin::new(future).poll(cx) };
        let before = CURRENT.replace(Some(*own));
        let _entered = Entered { own, before };
        Pin::new(future).poll(cx)
    }
}

/// Runs `work` in a new span of this name below the current one; `describe` adds attributes from its result.
pub async fn spanned<T, E: Display>(
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
    describe: impl FnOnce(&T, &mut Attributes),
) -> Result<T, E> {
    let Some(tracer) = tracer() else { return work.await };
    let parent = current().map(|context| Parent { context, tracestate: None, remote: false });
    let mut span = tracer.begin(SpanKind::Internal, parent);
    span.name(name);
    let done = scoped(Some(span.context()), work).await;
    match &done {
        Ok(done) => span.describe(|attributes| describe(done, attributes)),
        Err(error) => span.fail(error.to_string()),
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

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
                let last = async {
                    for _ in 0..3 {
                        assert_eq!(current(), span(own + 2));
                        tokio::task::yield_now().await;
                    }
                };
                scoped_to_the_end(span(own + 2), pin!(last)).await;
            })
        };
        tokio::join!(task(1), task(2), async { assert_eq!(current(), None) });
        assert_eq!(current(), None);
        scoped_to_the_end(span(5), pin!(async { assert_eq!(current(), span(5)) })).await;
        assert_eq!(current(), None, "there was no span to change");
        let panics = scoped(span(6), async move {
            scoped_to_the_end(span(7), pin!(async { panic!("on purpose") })).await;
        });
        assert!(tokio::spawn(panics).await.is_err());
        assert_eq!(current(), None, "a panic restores it");
    }
}
