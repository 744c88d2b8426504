//! Starts tasks. To tokio they are all of one type, so that the code of each future exists once, and not once per kind of
//! runtime, and tokio's own code for tasks once, and not once per type.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

/// Boxes a future for other `spawn` methods, which are generic, too.
pub(crate) fn boxed<T>(
    future: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    Box::pin(future)
}

/// Starts a task.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(boxed(future))
}

/// Starts a task that has a result.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    run_on(&Handle::current(), future)
}

/// Starts a task that has a result on this runtime.
pub(crate) fn run_on<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let result = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&result);
    let handle = runtime.spawn(boxed(async move {
        let value = future.await;
        *slot.lock() = Some(value);
    }));
    Task { handle, result }
}

/// Runs a function that blocks, on a thread that may, and returns its result; `None` if it panics or the runtime ends.
pub(crate) async fn block<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let result = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&result);
    let function: Box<dyn FnOnce() + Send> = Box::new(move || {
        let value = function();
        *slot.lock() = Some(value);
    });
    tokio::task::spawn_blocking(function).await.ok()?;
    result.lock().take()
}

/// A task that has a result.
#[derive(Debug)]
pub(crate) struct Task<T> {
    handle: JoinHandle<()>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Task<T> {
    /// Ends the task where it waits next.
    pub(crate) fn abort(&self) {
        self.handle.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(Pin::new(&mut self.handle).poll(cx))?;
        Poll::Ready(Ok(self.result.lock().take().expect("a task that has ended left its result")))
    }
}
