//! Starts tasks. Their futures are boxed, so that the code of each exists once, and not once per kind of runtime.

use std::future::Future;
use std::pin::Pin;
use tokio::task::JoinHandle;

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
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(boxed(future))
}
