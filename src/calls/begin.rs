//! Begins requests of legacy sessions: at a child, or with an answer of proxyrunner's own.

use super::legacy::{self, LegacyCall};
use super::{Calls, withheld};
use crate::audience::Seat;
use crate::catalogue::lists::{self, ListRequest};
use crate::children::await_initialized;
use crate::clock::now;
use crate::era::capabilities::Capabilities;
use crate::exchange::Failure;
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{Spliced, codes, rewrite};
use crate::session::Session;
use crate::tasks;
use crate::telemetry::scope::scoped;
use crate::telemetry::{Verdict, counters};
use std::sync::Arc;
use tokio::time::timeout;

/// An accepted request.
#[derive(Debug)]
pub enum Begun {
    /// The request is at the child, and registered in its session.
    Running(Box<LegacyCall>),
    /// The request is answered already.
    Answered(Spliced),
}

impl Calls {
    /// Begins a request of a session at its child.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, or it is shared and must not see the request.
    pub async fn begin(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Begun, Refusal> {
        let operation = Arc::clone(&incoming.operation);
        let begun = self.begin_seen(session, incoming).await;
        if let Ok(Begun::Answered(_)) = &begun {
            operation.end(&Verdict::Success);
        }
        begun
    }

    async fn begin_seen(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Begun, Refusal> {
        let accepted = self.entrance.accept(&incoming).await?;
        let uninitialized = Refusal::Withheld(codes::INVALID_REQUEST, "send initialize first");
        let seat = session.seat().ok_or(uninitialized)?;
        if let Seat::Exclusive(own) = seat {
            self.children.note_told(own, &incoming)?;
            if !own.initialized().is_sent() {
                Box::pin(await_initialized(own, &incoming)).await;
            }
            return Box::pin(self.pass(session, seat, incoming, accepted, false, None))
                .await
                .map(Begun::Running);
        }
        if let Some(result) = withheld::answered_here(seat, &incoming)? {
            return Ok(Begun::Answered(Spliced::from(rewrite::result(incoming.id(), result))));
        }
        let subscribing = match &*incoming.method() {
            "resources/subscribe" => Some(true),
            "resources/unsubscribe" => Some(false),
            _ => None,
        };
        let asked = self.asks_for_list(session, seat, &incoming);
        if let Some(fresh) = asked.as_ref().and_then(|asked| self.lists.find(asked, now())) {
            return Ok(Begun::Answered(legacy::from_memory(session, seat, &incoming, &fresh.answer)));
        }
        match (seat, subscribing) {
            (_, Some(subscribe)) => {
                let patience = self.children.settings().request_timeout;
                let (calls, session, seat) = (Arc::clone(self), Arc::clone(session), seat.clone());
                let context = incoming.operation.context();
                let change = async move {
                    let change = calls.change_subscription(&session, &seat, incoming, accepted, subscribe);
                    let changed = timeout(patience, change).await;
                    changed.unwrap_or_else(|_| {
                        counters::TIMED_OUT_REQUESTS.increment();
                        Err(Refusal::Failed(Failure::TimedOut(patience)))
                    })
                };
                // A task of its own, since a client that disconnects has not cancelled its subscription.
                let changed = tasks::run(scoped(context, change)).await;
                changed.unwrap_or(Err(Refusal::Failed(Failure::Lost))).map(Begun::Answered)
            }
            (Seat::Stateless(seat), None) => {
                Box::pin(self.translate(session, seat, incoming, accepted, asked)).await.map(Begun::Running)
            }
            (seat, None) => {
                let newer = matches!(seat, Seat::Shared { newer: true, .. });
                Box::pin(self.pass(session, seat, incoming, accepted, newer, asked)).await.map(Begun::Running)
            }
        }
    }

    /// Describes a session's request as a list request, if the answer may be kept.
    fn asks_for_list(&self, session: &Session, seat: &Seat, incoming: &Incoming) -> Option<ListRequest> {
        lists::kind_of(&incoming.method())?;
        let members = seat.members()?;
        let shared = self.children.serving(members)?;
        let class = match seat {
            Seat::Stateless(seat) => Capabilities::read(&seat.capabilities, &(0..seat.capabilities.len())),
            _ => Capabilities::default(),
        };
        shared.asks_for_list(incoming, class, session.principal(), self.children.settings())
    }
}
