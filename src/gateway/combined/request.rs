//! A request of a client to all servers, who calls, and why it may be refused.

use super::super::passed::Passed;
use super::decided::Decided;
use super::state::State;
use crate::budget::{Account, Budget, Charged};
use crate::client::Client;
use crate::identity::{Disclosure, Identity, META_PREFIX};
use crate::jsonrpc::{self, Message, Span, Spliced, codes, member, members, rewrite, text};
use crate::policy::Policies;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

/// The caller of a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What all requests share.
    pub state: Arc<State>,
    /// Who calls.
    pub identity: Arc<Identity>,
    /// Pays for answers in transit.
    pub account: Account,
    /// The gateways that the request has passed before this one.
    pub passed: Passed,
    /// `_meta` of the request, raw; `None` for a request of the gateway's own.
    pub meta: Option<Charged>,
    /// The policies that decide on the caller's requests; `None` also for the gateway's own.
    pub guard: Option<Arc<Policies>>,
}

impl Caller {
    /// Creates a caller.
    pub fn new(state: &Arc<State>, identity: Arc<Identity>, budget: &Budget) -> Self {
        let account = budget.account(client_of(&identity));
        Caller {
            state: Arc::clone(state),
            identity,
            account,
            passed: Passed::default(),
            meta: None,
            guard: None,
        }
    }

    /// Returns the client that the requests of this caller count for.
    pub fn client(&self) -> Client {
        client_of(&self.identity)
    }
}

fn client_of(identity: &Identity) -> Client {
    identity.principal.client_or(|| Client::child(0))
}

/// A request, without what only proxyrunner reads.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The whole message.
    pub frame: Charged,
    /// Its parts.
    pub message: Message,
    /// Its method.
    pub method: String,
    /// The digest of what the policies have decided on.
    pub decided: Option<String>,
}

/// A request, and what proxyrunner has written into it.
pub(super) struct Separated {
    /// The request without that.
    pub request: Request,
    /// Who calls, as raw JSON. Without it the request is proxyrunner's own.
    pub whole: Option<Charged>,
    /// The caller's claims, as raw JSON, for a list that is filtered by them.
    pub claims: Option<Charged>,
    /// The gateways that it has passed.
    pub passed: Passed,
}

/// The error that answers a request.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// The JSON-RPC code.
    pub code: i64,
    /// The reason.
    pub message: String,
    /// More for programs.
    pub data: Option<Value>,
}

impl Refused {
    /// Returns the refusal of parameters.
    pub fn params(reason: impl Display) -> Self {
        Refused { code: codes::INVALID_PARAMS, message: format!("Invalid params: {reason}"), data: None }
    }

    /// Returns the failure of a server.
    pub fn failed(reason: impl Display) -> Self {
        Refused { code: codes::INTERNAL_ERROR, message: reason.to_string(), data: None }
    }

    /// Returns the refusal of a method.
    pub fn method() -> Self {
        let message = "no server offers this method".to_owned();
        Refused { code: codes::METHOD_NOT_FOUND, message, data: None }
    }

    /// Writes the answer to the request with this raw id.
    pub fn answer(self, id: &[u8]) -> Spliced {
        Spliced::from(rewrite::error(Some(id), self.code, &self.message, self.data))
    }
}

/// Separates a request from what proxyrunner has written into it.
pub(super) fn separate(frame: Charged, message: Message) -> Option<Separated> {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let written = |key: &str| meta.and_then(|meta| member(&frame, &meta.span, key));
    let whole = written(Disclosure::KEY).map(|span| frame.slice(span));
    let claims = written(Decided::CLAIMS).map(|span| frame.slice(span));
    let decided = written(Decided::KEY).map(|decided| text(&frame, &decided).into_owned());
    let passed = written(Passed::KEY);
    let passed = passed.map(|passed| Passed::read(&text(&frame, &passed))).unwrap_or_default();
    let method = message.method.as_ref().map(|method| text(&frame, method).into_owned())?;
    let (frame, message) = match rewrite::with_reserved(&frame, &message, META_PREFIX, b"") {
        None => (frame, message),
        Some(stripped) => {
            let stripped = stripped.flatten().ok()?;
            let message = jsonrpc::scan(&stripped).ok()?;
            (stripped, message)
        }
    };
    Some(Separated { request: Request { frame, message, method, decided }, whole, claims, passed })
}

impl Request {
    /// Checks that the policies have decided on these things: the server of each, and its name there.
    ///
    /// # Errors
    /// When they have decided on others, since servers have come or gone meanwhile.
    pub fn check_decided<'a>(&self, things: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Refused> {
        match self.decided.as_ref().is_some_and(|decided| *decided == Decided::digest(things)) {
            true => Ok(()),
            false => {
                Err(Refused::failed("the servers have changed while the request was decided on; try again"))
            }
        }
    }

    /// Returns the raw id.
    pub fn id(&self) -> &[u8] {
        self.message.id.clone().map_or(&[], |id| &self.frame[id])
    }

    /// Returns the only member of the parameters with this name, and its text.
    ///
    /// # Errors
    /// When there is none, or more than one, or it is no text.
    pub fn param(&self, name: &str) -> Result<(Span, Cow<'_, str>), Refused> {
        let params = self.message.params.as_ref();
        let all = params.into_iter().flat_map(|params| members(&self.frame, params.span.clone()));
        let mut named = all.filter(|(key, _)| text(&self.frame, key) == name).map(|(_, value)| value);
        match (named.next(), named.next()) {
            (Some(value), None) if self.frame[value.start] == b'"' => {
                let text = text(&self.frame, &value);
                Ok((value, text))
            }
            _ => Err(Refused::params(format_args!("{name} must be one text"))),
        }
    }

    /// Returns the raw progress token.
    pub fn progress_token(&self) -> Option<&[u8]> {
        let token = self.message.params.as_ref()?.meta.as_ref()?.progress_token.clone()?;
        Some(&self.frame[token])
    }
}
