//! In which span something happens, for the lines that are logged meanwhile: known to the thread as long as it works on it.

use super::span::{Parent, SpanKind, tracer};
use crate::telemetry::otlp::Attributes;
use crate::trace_context::Context;
use std::cell::Cell;
use std::fmt::Display;
use std::pin::Pin;
use std::task::{self, Poll};

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

/// A future whose work is within a span. It is on the heap: a future is copied by each one that it becomes part of, and
/// these are the large ones.
#[inline]
pub fn scoped<F: Future>(context: Option<Context>, future: F) -> Scoped<F> {
    Scoped { context, future: Box::pin(future) }
}

/// The last that a [`scoped`] future does, within another span than it began in: that one is changed once, at this call,
/// and not again each time that both are polled. To be awaited at once, by that future itself: what runs beside it there
/// would be within the other span too.
#[inline]
pub fn scoped_to_the_end<F: Future>(context: Option<Context>, future: F) -> Scoped<F> {
    let changes = context.is_some() && current().is_some();
    if changes {
        CURRENT.set(context);
    }
    scoped(context.filter(|_| !changes), future)
}

/// See [`scoped`].
#[derive(Debug)]
pub struct Scoped<F> {
    context: Option<Context>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Scoped { context, future } = &mut *self;
        /// Back to where it was; but the future may have gone on to another, see [`scoped_to_the_end`].
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
        let Some(own) = context else { return future.as_mut().poll(cx) };
        let before = CURRENT.replace(Some(*own));
        let _entered = Entered { own, before };
        future.as_mut().poll(cx)
    }
}

/// A future whose work is a span of its own, of this name, below the one where it is begun; `describe` says what came of it.
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
                scoped_to_the_end(span(own + 2), last).await;
            })
        };
        tokio::join!(task(1), task(2), async { assert_eq!(current(), None) });
        assert_eq!(current(), None);
        scoped_to_the_end(span(5), async { assert_eq!(current(), span(5)) }).await;
        assert_eq!(current(), None, "there was none that could be changed");
        let panics = scoped(span(6), async move {
            scoped_to_the_end(span(7), async { panic!("on purpose") }).await;
        });
        assert!(tokio::spawn(panics).await.is_err());
        assert_eq!(current(), None, "a panic leaves it as it was");
    }
}
