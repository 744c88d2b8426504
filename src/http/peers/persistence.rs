//! Keeps handling a message that was received completely although its client has disconnected since. Hyper drops the
//! handling of a request together with its connection, but a notification, an answer or a DELETE has no response that
//! its client would stay for, and a legacy client that disconnects has not cancelled its request.

use crate::tasks;
use hyper::Method;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Maximum time that a message is handled after its client has disconnected.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the handling of a request ends with its connection at this moment. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Persistence(Option<Arc<AtomicBool>>);

impl Persistence {
    /// Returns the state of a request of this method: only a POST or DELETE persists.
    pub fn of(method: &Method) -> Self {
        let persists = matches!(*method, Method::POST | Method::DELETE);
        Persistence(persists.then(Arc::default))
    }

    /// From now on, the handling ends with the connection.
    pub fn end_with_connection(&self) {
        self.set(true);
    }

    /// Waits for something that only a connected client may wait for.
    pub async fn while_connected<T>(&self, waiting: impl Future<Output = T>) -> T {
        let before = self.ends_with_connection();
        self.set(true);
        let waited = waiting.await;
        self.set(before);
        waited
    }

    fn set(&self, ends: bool) {
        if let Some(state) = &self.0 {
            state.store(ends, Ordering::Relaxed);
        }
    }

    fn ends_with_connection(&self) -> bool {
        self.0.as_ref().is_none_or(|state| state.load(Ordering::Relaxed))
    }
}

/// The handling of a request. Dropping it continues the handling as a task, until it is complete or ends with its
/// connection.
pub struct Persistent<F: Future + Send + 'static> {
    handling: Option<Pin<Box<F>>>,
    persistence: Persistence,
}

impl<F: Future + Send + 'static> Persistent<F> {
    /// Wraps the handling of a request, which changes `persistence` on its way.
    pub fn new(persistence: Persistence, handling: F) -> Self {
        Persistent { handling: Some(Box::pin(handling)), persistence }
    }

    fn poll_handling(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Nobody polls again after completion.
        let Some(handling) = &mut self.handling else { return Poll::Pending };
        let result = handling.as_mut().poll(cx);
        if result.is_ready() {
            self.handling = None;
        }
        result
    }
}

impl<F: Future + Send + 'static> Future for Persistent<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_handling(cx)
    }
}

impl<F: Future + Send + 'static> Drop for Persistent<F> {
    fn drop(&mut self) {
        let Some(mut handling) = self.handling.take() else { return };
        let persistence = self.persistence.clone();
        // At exit the runtime drops what is left.
        let Ok(runtime) = Handle::try_current() else { return };
        if persistence.ends_with_connection() {
            return;
        }
        let rest = std::future::poll_fn(move |cx| {
            let is_complete = handling.as_mut().poll(cx).is_ready();
            if is_complete || persistence.ends_with_connection() { Poll::Ready(()) } else { Poll::Pending }
        });
        runtime.spawn(tasks::boxed(async move {
            let _ = timeout(PATIENCE, rest).await;
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    /// A handling that waits for `go`, then takes a step that `ends` with the connection or not, then reports.
    fn handling(
        persistence: &Persistence,
        go: oneshot::Receiver<()>,
        ends: bool,
        done: oneshot::Sender<()>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let persistence = persistence.clone();
        async move {
            let _ = go.await;
            if ends {
                persistence.end_with_connection();
            }
            yield_now().await;
            let _ = done.send(());
        }
    }

    async fn is_completed(method: &Method, ends: bool, waits: bool) -> bool {
        let persistence = Persistence::of(method);
        let ((go, gone), (done, completed)) = (oneshot::channel(), oneshot::channel());
        let inner = handling(&persistence, gone, ends, done);
        let outer = persistence.clone();
        let all = async move { if waits { outer.while_connected(inner).await } else { inner.await } };
        let mut handling = Persistent::new(persistence, all);
        assert!(std::future::poll_fn(|cx| Poll::Ready(handling.poll_handling(cx))).await.is_pending());
        drop(handling);
        let _ = go.send(());
        completed.await.is_ok()
    }

    #[tokio::test]
    async fn a_message_is_handled_to_its_end_unless_it_ends_with_its_connection() {
        assert!(is_completed(&Method::POST, false, false).await);
        assert!(is_completed(&Method::DELETE, false, false).await);
        assert!(!is_completed(&Method::POST, true, false).await);
        assert!(!is_completed(&Method::POST, false, true).await);
        assert!(!is_completed(&Method::GET, false, false).await);
    }
}
