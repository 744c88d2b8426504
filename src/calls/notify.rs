//! Notifications of clients. They wait in the same queues as requests, so that no client fills a child's stdin with
//! messages that need no answer.

use super::Calls;
use crate::audience::Seat;
use crate::children::await_initialized;
use crate::exchange::{Failure, Link};
use crate::ingress::{Incoming, Received, Refusal};
use crate::inquiry;
use crate::jsonrpc::rewrite;
use crate::session::Session;
use crate::tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Time a child has to answer the ping that proves that it has handled its notifications.
const PROOF: Duration = Duration::from_secs(5);
/// Delay after a ping that could not be sent.
const AGAIN: Duration = Duration::from_millis(100);

impl Calls {
    /// Forwards a client's notification in the form that the child may see.
    ///
    /// # Errors
    /// When too many requests and notifications wait already, or its turn does not come in time.
    pub async fn notify(&self, session: &Session, incoming: &Incoming) -> Result<(), Refusal> {
        let Some(seat) = session.seat() else { return Ok(()) };
        let method = incoming.method();
        if let Seat::Stateless(seat) = seat {
            // A modern child has no handshake, and the client's roots are requested when they are needed
            // (client/roots).
            if method == "notifications/initialized" {
                seat.members.post.listen_soon();
            }
            return Ok(());
        }
        let passed = match &*method {
            // Without an id this is a notification, but a child might mistake it for a request.
            "initialize" => false,
            "notifications/initialized" | "notifications/roots/list_changed" => seat.is_exclusive(),
            _ => true,
        };
        // A child that is being replaced needs no notifications.
        let Some(link) = seat.link().filter(|_| passed) else { return Ok(()) };
        let (operation, client) = (&incoming.operation, session.client());
        let mut places = match seat.is_exclusive() {
            true => self.entrance.enter(operation, client, &link).await?,
            false => self.entrance.enter_notice(operation, client, &link).await?,
        };
        places.accepted = Some(self.entrance.accept_notification());
        let Received { frame, message, trace, operation, .. } = &**incoming;
        let trace = operation.traced(trace);
        let proves = places.notice.is_some();
        let notification = rewrite::request_for_child(frame, message, None, None, &trace);
        let notify = link.notify(notification, Some(places));
        match seat {
            Seat::Exclusive(own) if method == "notifications/initialized" => {
                own.initialized().send(notify).await
            }
            Seat::Exclusive(own) => {
                await_initialized(own, incoming).await;
                notify.await;
            }
            _ => notify.await,
        }
        // A client with an exclusive child delays only itself.
        if proves && link.backlog().add() {
            tasks::spawn(prove(link));
        }
        Ok(())
    }
}

/// Measures how many of its notifications a child has handled: it answers a ping after them.
async fn prove(link: Arc<Link>) {
    loop {
        let held = link.backlog().held();
        let proof = tokio::select! {
            _ = link.closed() => return,
            proof = inquiry::ask(&link, "ping", PROOF, inquiry::ping) => proof,
        };
        // The vigil detects a child that does not answer; its notifications need not wait for that.
        if !matches!(proof, Ok(_) | Err(Failure::TimedOut(_))) {
            sleep(AGAIN).await;
        }
        if link.is_closed() || !link.backlog().note_proven(held, link.has_notifications()) {
            return;
        }
    }
}
