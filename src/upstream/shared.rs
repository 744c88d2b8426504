//! Shared children: initialised once by proxyrunner, with no client capabilities, so that they never ask; and
//! what of them no client may see, since it would cross from one to another.

use super::{Incoming, MOST_REMEMBERED, Refusal, SEATED, Shared, Upstream, initialize, now};
use crate::admission::Accepted;
use crate::audience::{Members, ResourceTurn, Seat, Stateless};
use crate::era::envelope::{Envelope, log_level};
use crate::era::{Era, discover};
use crate::exchange::{Failure, Link};
use crate::jsonrpc::{self, ClientId, Span, Spliced, codes, rewrite, text};
use crate::mux::WireId;
use crate::session::{Session, Underway, Version};
use std::sync::Arc;
use tokio::task::JoinSet;

/// What a subscription may be to, in bytes.
const LONGEST_URI: usize = 2 * 1024;
/// Subscriptions that nobody has any more which a child is asked to end at once.
const ENDED_AT_ONCE: usize = 32;

/// What a session watches is remembered as long as it lasts.
pub(super) const WATCHES_ENOUGH: Refusal = Refusal::Withheld(
    codes::INVALID_PARAMS,
    "no more resources can be watched: a session may watch 64, and 8 KiB of URIs; all sessions at a server 8,192",
);

impl Upstream {
    /// Seats a session at a shared child; its answer to `initialize` is ours.
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

    /// Seats a session at a modern child; `own` says that this runs for the session only.
    pub(super) fn seat_stateless(
        &self,
        session: &Arc<Session>,
        incoming: &Incoming,
        child: &Shared,
        own: bool,
    ) -> Result<Spliced, Refusal> {
        let Incoming { frame, message, .. } = incoming;
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

    /// `resources/subscribe` and `unsubscribe` at a shared child, which hears of the first and the last. The caller
    /// bounds the wait.
    pub(super) async fn change_subscription(
        self: &Arc<Self>,
        session: &Arc<Session>,
        seat: &Seat,
        incoming: Incoming,
        accepted: Accepted,
        subscribe: bool,
    ) -> Result<Spliced, Refusal> {
        let uri = incoming.message.params.as_ref().and_then(|params| params.uri.clone());
        let uri = uri.ok_or(Refusal::Withheld(codes::INVALID_PARAMS, "params.uri is missing"))?;
        let uri = text(&incoming.frame, &uri).into_owned();
        if uri.len() > LONGEST_URI {
            return Err(Refusal::Withheld(codes::INVALID_PARAMS, "params.uri is longer than 2 KiB"));
        }
        let nothing = Spliced::from(rewrite::result(incoming.id(), b"{}"));
        let Some(members) = seat.members() else { return Ok(nothing) };
        let _turn = self.turn(session, &incoming, members, &uri).await?;
        let room = match subscribe {
            true => Some(members.room_for(&uri, session.id()).ok_or(WATCHES_ENOUGH)?),
            false => None,
        };
        let needs_child =
            if subscribe { !members.is_watched(&uri) } else { members.unwatch(&uri, session.id()) };
        let (agreed, answer) = match seat {
            _ if !needs_child => (true, nothing),
            Seat::Stateless(seat) if subscribe => {
                if !seat.members.post.listen(Some(uri.clone())).await {
                    let why = "the server does not tell of changes to this resource";
                    return Err(Refusal::Withheld(codes::INVALID_PARAMS, why));
                }
                (true, nothing)
            }
            Seat::Stateless(seat) => (seat.members.post.listen(None).await, nothing),
            seat => {
                let call = self.pass(session, seat, incoming, accepted, false, None).await?;
                let answer = call.run(|_| ()).await.flatten();
                let answer = answer.map_err(|_| Refusal::Failed(Failure::NoRoom))?;
                let agreed = jsonrpc::scan(&answer).is_ok_and(|message| message.result.is_some());
                (agreed, Spliced::from(answer))
            }
        };
        if let Some(room) = room.filter(|_| agreed) {
            room.watch();
        }
        Ok(answer)
    }

    /// Its turn at a resource. Those who wait for theirs are bounded like those who wait for a place, and can be cancelled.
    async fn turn(
        &self,
        session: &Arc<Session>,
        incoming: &Incoming,
        members: &Members,
        uri: &str,
    ) -> Result<ResourceTurn, Refusal> {
        if let Some(turn) = members.try_turn(uri) {
            return Ok(turn);
        }
        let _waits = self.entrance.wait(session.client())?;
        let underway = Underway::begin(session, ClientId::new(incoming.id()), Arc::default());
        tokio::select! {
            biased;
            turn = members.turn(uri) => Ok(turn),
            failure = underway.interrupted() => Err(Refusal::Failed(failure)),
        }
    }

    /// Tells shared children which resources nobody watches any more, since their sessions have ended.
    pub async fn forget_orphaned_subscriptions(self: &Arc<Self>) {
        let mut ending = JoinSet::new();
        for shared in self.crew.all() {
            match shared.era {
                Era::Legacy => drop(ending.spawn(Arc::clone(self).end_orphaned(shared))),
                Era::Modern if shared.members.take_orphaned(usize::MAX).is_empty() => {}
                Era::Modern => shared.members.post.listen_soon(),
            }
        }
        ending.join_all().await;
    }

    /// Ends subscriptions that nobody has any more at a legacy child, several at a time.
    async fn end_orphaned(self: Arc<Self>, shared: Arc<Shared>) {
        let mut ending = JoinSet::new();
        loop {
            for uri in shared.members.take_orphaned(ENDED_AT_ONCE - ending.len()) {
                ending.spawn(Arc::clone(&self).end_subscription(Arc::clone(&shared), uri));
            }
            if ending.join_next().await.is_none() {
                return;
            }
        }
    }

    async fn end_subscription(self: Arc<Self>, shared: Arc<Shared>, uri: String) {
        let _turn = shared.members.turn(&uri).await;
        if !shared.members.is_watched(&uri) {
            self.tell_subscription(&shared.link, "resources/unsubscribe", &uri).await;
        }
    }

    /// Subscribes to a resource, or unsubscribes from it, on nobody's behalf; whether the child agreed.
    pub(super) async fn tell_subscription(&self, link: &Link, method: &str, uri: &str) -> bool {
        let params = serde_json::json!({"uri": uri}).to_string();
        let write = |wire_id: WireId| {
            let id = wire_id.as_u64().to_string();
            Spliced::from(rewrite::request(id.as_bytes(), method, Some(params.as_bytes())))
        };
        let answer = self.ask(link, method, self.settings.request_timeout, write).await;
        matches!(answer, Ok(Ok(answer)) if answer.result.is_some())
    }
}

/// Requests that a shared child must not see: what they change or show would cross from one client to another.
pub(super) fn answered_here(seat: &Seat, incoming: &Incoming) -> Result<Option<&'static [u8]>, Refusal> {
    let params = incoming.message.params.as_ref();
    match &*incoming.method() {
        // The level is the child's, not the session's, and its messages are withheld, since they name no request. A
        // modern child is told with each request.
        "logging/setLevel" => {
            let level = params.and_then(|params| params.level.as_ref());
            let level = level.and_then(|level| log_level(&text(&incoming.frame, level)));
            let level =
                level.ok_or(Refusal::Withheld(codes::INVALID_PARAMS, "params.level is no log level"))?;
            if let Seat::Stateless(seat) = seat {
                seat.set_level(level);
            }
            Ok(Some(b"{}"))
        }
        // A modern child would take them for a modern client's.
        "server/discover" | "subscriptions/listen" if matches!(seat, Seat::Stateless(_)) => Err(
            Refusal::Withheld(codes::METHOD_NOT_FOUND, "this method is not part of the session's revision"),
        ),
        method if method.starts_with("tasks/") => Err(Refusal::Withheld(
            codes::METHOD_NOT_FOUND,
            "tasks would cross from one client to another at a shared server; start proxyrunner with --isolation session",
        )),
        _ if params.is_some_and(|params| params.task.is_some()) => Err(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "tasks would cross from one client to another at a shared server; start proxyrunner with --isolation session",
        )),
        _ => Ok(None),
    }
}
