//! `resources/subscribe` and `resources/unsubscribe` of legacy sessions at a shared child.

use super::Calls;
use super::legacy::LegacyStep;
use crate::admission::Accepted;
use crate::audience::{Members, ResourceTurn, Seat};
use crate::children::WATCHES_ENOUGH;
use crate::exchange::Failure;
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{self, ClientId, Spliced, codes, rewrite, text};
use crate::session::{Session, Underway};
use std::sync::Arc;

/// Maximum length of a subscription's URI, in bytes.
const LONGEST_URI: usize = 2 * 1024;

impl Calls {
    /// Handles `resources/subscribe` and `unsubscribe` at a shared child. The child is told only of the first and the
    /// last watcher. The caller bounds the wait.
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
        let mut room = match subscribe {
            true => Some(members.room_for(&uri, session.id()).ok_or(WATCHES_ENOUGH)?),
            false => None,
        };
        let needs_child =
            if subscribe { !members.is_watched(&uri) } else { members.unwatch(&uri, session.id()) };
        let (agreed, answer) = match seat {
            _ if !needs_child => (true, nothing),
            Seat::Stateless(seat) if subscribe => {
                if !seat.members.post.listen(Some(uri.clone())).await {
                    let why = "the server does not report changes of this resource";
                    return Err(Refusal::Withheld(codes::INVALID_PARAMS, why));
                }
                (true, nothing)
            }
            Seat::Stateless(seat) => (seat.members.post.listen(None).await, nothing),
            seat => {
                let mut call = self.pass(session, seat, incoming, accepted, false, None).await?;
                if let Some(room) = &mut room {
                    room.ask();
                }
                let answer = loop {
                    if let LegacyStep::Answered(answer) = call.next().await {
                        break answer.flatten();
                    }
                };
                // An error of proxyrunner's own says nothing about the child's subscriptions.
                if let Some(room) = room.as_mut().filter(|_| call.is_answered()) {
                    room.note_answer();
                }
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

    /// Waits for the request's turn at a resource. Waiting requests are bounded like those that wait for a place, and
    /// can be cancelled.
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
}
