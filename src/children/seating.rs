//! Seats sessions at shared children. proxyrunner initializes a legacy child once, without client capabilities, so
//! that it never asks questions.

use super::crew::Shared;
use super::initialize::{self, MOST_REMEMBERED};
use super::{Children, SEATED};
use crate::audience::{Seat, Stateless};
use crate::clock::now;
use crate::era::envelope::Envelope;
use crate::era::{Era, discover};
use crate::ingress::{Incoming, Received, Refusal};
use crate::jsonrpc::{Span, Spliced, codes, rewrite};
use crate::session::{Session, Version};
use std::sync::Arc;

impl Children {
    /// Seats a session at a shared child; proxyrunner answers its `initialize`.
    pub(super) async fn seat_shared(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: &Incoming,
    ) -> Result<Spliced, Refusal> {
        let shared = self.shared(Era::Legacy, &incoming.operation).await?;
        if shared.era == Era::Modern {
            return self.seat_stateless(session, incoming, &shared, false);
        }
        let asked = initialize::requested_version(&incoming.frame, &incoming.message);
        let (version, newer, result) = initialize::welcome(&shared.words, asked.as_ref());
        let members = Arc::clone(&shared.members);
        self.take_seat(session, version, Seat::Shared { members, newer })?;
        Ok(rewrite::result_of(incoming.id(), &Spliced::from(result)))
    }

    /// Seats a session at a modern child; `own` means that no other session uses the child.
    pub(super) fn seat_stateless(
        &self,
        session: &Arc<Session>,
        incoming: &Incoming,
        child: &Shared,
        own: bool,
    ) -> Result<Spliced, Refusal> {
        let Received { frame, message, .. } = &**incoming;
        let version = discover::negotiated(initialize::requested_version(frame, message).as_ref());
        let params = message.params.as_ref();
        let raw = |part: Option<&Span>| part.map(|span| frame.slice(span.clone()));
        let capabilities = raw(params.and_then(|params| params.capabilities.as_ref())).unwrap_or_default();
        let info = raw(params.and_then(|params| params.client_info.as_ref()));
        let roots = self.settings.forward_roots;
        let envelope = Envelope::of_session(&version, info.as_ref(), &capabilities, roots);
        let (members, declared) = (Arc::clone(&child.members), envelope.client_capabilities.clone());
        let envelope = envelope.members();
        if declared.len() + envelope.len() > MOST_REMEMBERED {
            let why = "capabilities and clientInfo are too long to be repeated with each request";
            return Err(Refusal::Withheld(codes::INVALID_PARAMS, why));
        }
        let seat = Stateless::new(members, own, declared, envelope);
        let result = discover::to_initialize(&child.words, &version);
        self.take_seat(session, version, Seat::Stateless(Arc::new(seat)))?;
        Ok(rewrite::result_of(incoming.id(), &Spliced::from(result)))
    }

    fn take_seat(&self, session: &Arc<Session>, version: Version, seat: Seat) -> Result<(), Refusal> {
        session.set_version(version);
        session.note_message(now());
        if session.take_seat(seat) { Ok(()) } else { Err(SEATED) }
    }
}
