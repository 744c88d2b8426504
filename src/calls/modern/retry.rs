//! Retries of parked calls: a call resumes with the answers in its retry. Calls whose clients do not retry are
//! cancelled.

use super::begin::progress_token;
use super::params::{agrees, unchecked};
use super::{Caller, MOST_ANSWERS, ModernCall};
use crate::budget::{Account, Charged};
use crate::calls::Calls;
use crate::calls::seal::State;
use crate::clock::now;
use crate::era::Era;
use crate::era::input::{ASKING, Retry};
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{ClientId, codes, text};
use crate::telemetry::{counters, names};
use std::sync::Arc;
use std::time::Instant;

/// Returns whether a request retries an earlier call.
pub fn is_retry(incoming: &Incoming) -> bool {
    let params = incoming.message.params.as_ref();
    let state = params.and_then(|params| params.request_state.as_ref());
    state.is_some() && ASKING.contains(&&*incoming.method())
}

impl Calls {
    /// Returns the parked call that a request retries. A modern child has its own states; but a state of proxyrunner
    /// is recognized even if a child of the client's era was started meanwhile.
    pub(super) async fn resumed(
        self: &Arc<Self>,
        call: &mut ModernCall,
        incoming: &Incoming,
    ) -> Result<Option<(Box<ModernCall>, Retry)>, Refusal> {
        let legacy = call.shared.era == Era::Legacy;
        if !legacy && !is_retry(incoming) {
            return Ok(None);
        }
        let retry = match Retry::read(&incoming.frame, &incoming.message, MOST_ANSWERS) {
            Ok(retry) => retry,
            Err(_) if !legacy => return Ok(None),
            Err(_) => {
                let why = "inputResponses or requestState is malformed";
                return Err(Refusal::Withheld(codes::INVALID_PARAMS, why));
            }
        };
        let Some(state) = retry.state.as_deref().filter(|_| call.is_asking()) else { return Ok(None) };
        match self.seal.open(state, &call.purpose_of(incoming)) {
            // Nothing is parked: the call begins again.
            Some(State::Urls(rounds)) => call.urls = rounds,
            None if !legacy => {}
            state => {
                let parked = self.claim(&call.caller, incoming, state).await?;
                return Ok(Some((parked, retry)));
            }
        }
        Ok(None)
    }

    /// Claims the parked call of a state. On any error, the tool is not run again.
    async fn claim(
        self: &Arc<Self>,
        caller: &Caller,
        incoming: &Incoming,
        state: Option<State>,
    ) -> Result<Box<ModernCall>, Refusal> {
        let parked = match state {
            Some(State::Parked(handle)) => {
                // The tools may have changed since the call was parked.
                let source = self.parked.look(handle, |call| call.tool_source());
                if let Some(source) = source.filter(|_| !caller.params.is_empty()) {
                    source.tools().await;
                }
                self.parked.look(handle, |call| call.agrees_again(caller, incoming)).transpose()?;
                self.parked.claim(handle, now())
            }
            Some(State::Elsewhere) => {
                return Err(Refusal::Withheld(
                    codes::INVALID_PARAMS,
                    "requestState was issued by another replica, where the call is waiting; route retries to that replica (see --forward-sessions), or repeat the original call if it is gone",
                ));
            }
            Some(State::Urls(_)) | None => None,
        };
        parked.ok_or(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "requestState is unknown, expired, already used, or was issued for another request; repeat the original call",
        ))
    }

    /// Cancels the parked calls whose clients did not retry in time, and forgets lists that are no longer fresh.
    pub fn expire(&self, now: Instant) {
        for call in self.parked.expire(now) {
            counters::EXPIRED_PARKED.increment();
            call.give_up();
        }
        self.lists.expire(now);
    }

    /// Cancels a parked call whose questions are charged to this account; returns false if there is none.
    pub fn give_way(&self, account: &Account) -> bool {
        let call = self.parked.claim_where(|call| call.is_charged_to(account));
        call.map(ModernCall::give_up).is_some()
    }

    /// Cancels all parked calls: proxyrunner shuts down.
    pub fn end_parked(&self) {
        for call in self.parked.drain() {
            call.give_up();
        }
    }
}

impl ModernCall {
    /// Returns whether an open question is charged to this account.
    fn is_charged_to(&self, account: &Account) -> bool {
        let params = self.open.iter().filter_map(|open| open.question.params.as_ref());
        params.filter_map(Charged::account).any(|charged| charged.is(account))
    }

    /// Resumes the call with its retry. It waits for its permits as at first, but is not refused. If the client
    /// disconnects meanwhile, the call is cancelled.
    pub(super) async fn go_on(
        mut self: Box<Self>,
        caller: Caller,
        incoming: &Incoming,
        retry: &Retry,
    ) -> Result<Box<Self>, Refusal> {
        let mut resuming = incoming.operation.internal(names::RESUME);
        if let (Some(resuming), Some(parked)) = (&mut resuming, self.parked.take()) {
            resuming.link(parked.context());
        }
        let client = caller.client();
        let places = self.calls.entrance.enter_again(client, self.link()).await;
        self.set_places(places);
        self.caller = caller;
        self.client_id = ClientId::new(incoming.id());
        self.token = progress_token(incoming);
        self.operation = Arc::clone(&incoming.operation);
        if let Some(exchange) = &mut self.exchange {
            exchange.set_cause(&self.operation);
        }
        self.deadline.resume(now());
        self.take_answers(retry);
        Ok(self)
    }

    /// Checks the headers of a retry against its body, as for the original call.
    fn agrees_again(&self, caller: &Caller, incoming: &Incoming) -> Result<(), Refusal> {
        let name = incoming.message.params.as_ref().and_then(|params| params.name.clone());
        match (name, self.tool_source().known_tools()) {
            (Some(name), Some(tools)) if self.method == "tools/call" => {
                agrees(caller, &tools, &text(&incoming.frame, &name), incoming)
            }
            (Some(_), None) if self.method == "tools/call" => unchecked(caller),
            _ => Ok(()),
        }
    }
}
