//! The audience of a child: its clients, and the messages that each of them may receive.
//!
//! A message that names no request reaches only clients that caused it or subscribed to it
//! (`docs/architecture.md#isolation`).

mod lease_holder;
mod list_changes;
mod listener;
mod members;
mod notices;
mod post;
mod roster;
mod running;
mod seat;
mod seated_session;
mod session_id;
mod watched;

pub use lease_holder::LeaseHolder;
pub use list_changes::{ListChanges, ListKind};
pub use listener::Filter;
pub use members::{Members, ResourceTurn};
pub use post::{Post, Wish};
pub use running::Running;
pub use seat::{Own, Seat, Stateless};
pub use seated_session::{SeatedSession, TooManyQuestions};
pub use session_id::SessionId;
#[cfg(feature = "gateway")]
pub use watched::WatchedResources;

use crate::budget::Charged;
use crate::exchange::{Class, Topic};
use crate::jsonrpc::{Message, Span, rewrite};
use crate::telemetry::counters;
use std::sync::{Arc, Weak};

/// The audience of one child.
#[derive(Clone, Debug)]
pub enum Audience {
    /// The child was started only to check that it starts.
    Nobody,
    /// The one client of an exclusive child.
    Exclusive {
        /// The client's session.
        session: Weak<dyn SeatedSession>,
        /// Whether the child may ask for roots (`--forward-roots`), even beyond the capabilities declared to it.
        roots: bool,
    },
    /// The sessions and subscriptions at a shared child.
    Shared(Arc<Members>),
    /// The one exchange that leases the child.
    Leased(Arc<LeaseHolder>),
}

/// The reason why a child's question is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// A leased child has no exchange at the moment, or its exchange has no room.
    NoExchange,
    /// The client has left too many questions unanswered.
    TooMany,
    /// No client may receive this question.
    Withheld,
}

impl Audience {
    /// Returns the audience of a session's exclusive child, which may ask for roots if `roots`.
    pub fn exclusive<S: SeatedSession + 'static>(session: &Arc<S>, roots: bool) -> Self {
        let session = Arc::downgrade(session);
        Audience::Exclusive { session, roots }
    }

    /// Returns whether several clients share the child.
    pub fn is_shared(&self) -> bool {
        matches!(self, Audience::Shared(_))
    }

    /// Returns whether one session has the child to itself.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Audience::Exclusive { .. })
    }

    /// Counts a notification of a changed list before any client receives it: a client that then asks again must get
    /// the new list.
    pub fn note_change(&self, method: &str) {
        let Some(kind) = ListKind::changed_by(method) else { return };
        match self {
            Audience::Shared(members) => members.changes.note(kind),
            Audience::Leased(holder) => holder.changes.note(kind),
            Audience::Exclusive { session, .. } => {
                if let Some(session) = session.upgrade() {
                    session.changes().note(kind);
                }
            }
            Audience::Nobody => {}
        }
    }

    /// Returns the calls that proxyrunner turned into tasks and that continue, if the child has any.
    pub fn running(&self) -> Option<&Running> {
        match self {
            Audience::Shared(members) => Some(&members.running),
            Audience::Leased(holder) => Some(&holder.running),
            Audience::Nobody | Audience::Exclusive { .. } => None,
        }
    }

    /// Notifies of a changed list, or of the changed resource `uri`. Members of a shared child get the changes that
    /// they subscribed to.
    pub fn tell_changed(&self, frame: Charged, message: &Message, method: &str, uri: Option<&str>) {
        let Audience::Shared(members) = self else {
            return self.tell(frame, message, Class::Idempotent, Topic::Other);
        };
        let frame = rewrite::unchanged(&frame, message);
        match uri {
            Some(uri) => members.tell_watchers(uri, &frame),
            None => members.tell_changed(method, &frame),
        }
    }

    /// Passes on a notification that names no request to the only client of the child. A shared child's is dropped.
    pub fn tell(&self, mut frame: Charged, message: &Message, class: Class, topic: Topic) {
        match self {
            Audience::Leased(holder) => {
                if !holder.tell(&mut frame, class, topic, |frame| rewrite::unchanged(frame, message)) {
                    counters::DROPPED_EVENTS.increment();
                }
            }
            Audience::Exclusive { session, .. } if let Some(session) = session.upgrade() => {
                session.deliver(frame, message, class);
            }
            _ => counters::WITHHELD_MESSAGES.increment(),
        }
    }

    /// Forwards a question named `method`, whose id is at `id`, to the only client of the child.
    ///
    /// # Errors
    /// Returns the reason why the client is not asked; the child is to be told.
    pub fn ask(
        &self,
        method: &str,
        frame: &mut Charged,
        message: &Message,
        id: &Span,
    ) -> Result<(), NotAsked> {
        match self {
            Audience::Leased(holder) => {
                let topic = Topic::Question(Charged::own(&frame[id.clone()]));
                let told = holder.tell(frame, Class::Dear, topic, |frame| rewrite::unchanged(frame, message));
                if told { Ok(()) } else { Err(NotAsked::NoExchange) }
            }
            Audience::Exclusive { session, roots }
                if (*roots || method != "roots/list")
                    && let Some(session) = session.upgrade() =>
            {
                session.ask(frame, message).map_err(|TooManyQuestions| NotAsked::TooMany)
            }
            _ => {
                counters::WITHHELD_MESSAGES.increment();
                Err(NotAsked::Withheld)
            }
        }
    }

    /// Withdraws the question whose id is at `id` in the child's `notifications/cancelled`.
    pub fn withdraw_question(&self, frame: Charged, message: &Message, id: Span) {
        match self {
            Audience::Leased(_) => {
                let topic = Topic::Withdrawn(Charged::own(&frame[id]));
                self.tell(frame, message, Class::Dear, topic);
            }
            Audience::Exclusive { session, .. } => {
                if let Some(session) = session.upgrade() {
                    session.withdraw_question(&frame[id], &frame, message);
                }
            }
            Audience::Nobody | Audience::Shared(_) => {}
        }
    }
}
