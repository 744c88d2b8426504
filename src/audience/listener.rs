//! The listeners at a shared child: legacy sessions, and modern subscriptions with their filters.

use super::{ListKind, SeatedSession};
use crate::exchange::{Class, Failure, Interim, Interruption, Mailbox, Topic};
use crate::jsonrpc::Spliced;
use crate::telemetry::counters;
use std::sync::{Arc, Weak};

/// A listener at a shared child.
#[derive(Debug)]
pub(super) enum Ear {
    /// A legacy session, which is notified of every changed list.
    Session(Weak<dyn SeatedSession>),
    /// A modern subscription, which is notified of the lists in its filter.
    Subscription(Filter, Arc<Mailbox>),
}

impl Ear {
    /// Returns whether the listener is notified of the changed list that `method` names.
    pub(super) fn hears(&self, method: &str) -> bool {
        match self {
            Ear::Session(_) => true,
            Ear::Subscription(filter, _) => filter.includes(method),
        }
    }

    /// Returns the session, if the listener is a session that still exists.
    pub(super) fn session(&self) -> Option<Arc<dyn SeatedSession>> {
        match self {
            Ear::Session(session) => session.upgrade(),
            Ear::Subscription(..) => None,
        }
    }

    /// Ends the listener if it is a modern subscription.
    pub(super) fn end_subscription(&self, failure: &Failure) {
        if let Ear::Subscription(_, mailbox) = self {
            mailbox.interrupt(Interruption { failure: failure.clone(), cancellation: None });
        }
    }

    /// Returns the recipient to tell once the lock on the members is released.
    pub(super) fn recipient(&self) -> Option<Recipient> {
        match self {
            Ear::Session(session) => session.upgrade().map(Recipient::Session),
            Ear::Subscription(_, mailbox) => Some(Recipient::Subscription(Arc::clone(mailbox))),
        }
    }
}

/// The lists whose changes a modern subscription is notified of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `toolsListChanged`
    pub tools: bool,
    /// `promptsListChanged`
    pub prompts: bool,
    /// `resourcesListChanged`
    pub resources: bool,
}

impl Filter {
    fn includes(self, method: &str) -> bool {
        match ListKind::changed_by(method) {
            Some(ListKind::Tools) => self.tools,
            Some(ListKind::Prompts) => self.prompts,
            Some(ListKind::Resources) => self.resources,
            None => false,
        }
    }
}

/// A listener to notify, held without the lock on the members.
pub(super) enum Recipient {
    Session(Arc<dyn SeatedSession>),
    Subscription(Arc<Mailbox>),
}

impl Recipient {
    pub(super) fn tell(self, frame: Spliced) {
        match self {
            Recipient::Session(session) => session.notify(frame, Class::Idempotent),
            Recipient::Subscription(mailbox) => {
                let interim = Interim { frame, class: Class::Idempotent, topic: Topic::Other };
                if mailbox.push(interim).is_err() {
                    counters::DROPPED_EVENTS.increment();
                }
            }
        }
    }
}
