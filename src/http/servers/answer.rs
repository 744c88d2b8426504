//! What a client gets of a server's answer: its head, or why there is none.

use super::super::reject::Rejection;
use crate::gateway::{self, Failure, Gateway, SESSION_ID};
use crate::identity::Principal;
use crate::jsonrpc::codes;
use crate::telemetry::metrics::gateway::Ending;
use crate::telemetry::{Seldom, Verdict};
use hyper::StatusCode;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use std::sync::Arc;

/// The answers of a server to a caller.
pub(super) struct Answers<'a> {
    pub gateway: &'a Gateway,
    pub target: &'a Arc<gateway::Server>,
    pub principal: &'a Principal,
}

impl Answers<'_> {
    /// Returns the headers of an answer for the client.
    ///
    /// # Errors
    /// 502 when the answer is not one for the client.
    pub fn headers(
        &self,
        head: &hyper::http::response::Parts,
        replica: &gateway::Replica,
    ) -> Result<HeaderMap, Rejection> {
        self.check(head)?;
        let mut headers = gateway::of_response(&head.headers);
        // A page of a server would have the gateway's origin, and with it all of its servers.
        let has_data = headers.get(CONTENT_TYPE).is_none_or(|kind| {
            let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            [&b"application/json"[..], b"text/event-stream"]
                .iter()
                .any(|data| kind.eq_ignore_ascii_case(data))
        });
        if !has_data {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(inner) = head.headers.get(&SESSION_ID) {
            let resumes = head.headers.contains_key(gateway::RESUMES);
            let id = self.gateway.session_id(replica, (inner, resumes), self.target, self.principal);
            let id = id.ok_or_else(|| self.bad("gave its session an id that cannot be passed on"))?;
            headers.insert(SESSION_ID, id);
        }
        Ok(headers)
    }

    /// Checks that an answer is one for the client.
    fn check(&self, head: &hyper::http::response::Parts) -> Result<(), Rejection> {
        static REFUSALS: Seldom = Seldom::new();
        let status = head.status;
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(self.bad(&format!("answered {status}; redirects are not followed")));
        }
        if status.is_informational() || status == StatusCode::NOT_MODIFIED || status.as_u16() >= 600 {
            return Err(self.bad(&format!("answered {status}, which answers no message")));
        }
        let encoding = head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(self.bad("answered in an encoding that was not asked for"));
        }
        // A server that denies a call to its caller sends no challenge: that answer is the client's.
        let is_challenge = status == StatusCode::FORBIDDEN && head.headers.contains_key(WWW_AUTHENTICATE);
        if status == StatusCode::UNAUTHORIZED || is_challenge {
            if REFUSALS.is_due() {
                let server = &self.target.about.name;
                tracing::warn!(server, %status, "the server refuses the credentials of the gateway; check its --auth-issuer and --auth-audience, or the headers in --servers");
            }
            return Err(self.bad(&format!("refuses the credentials of the gateway ({status})")));
        }
        Ok(())
    }

    /// Returns the refusal of an answer that is not one for the client.
    pub fn bad(&self, what: &str) -> Rejection {
        let message = format!("the server {} {what}", self.target.about.segment);
        Rejection::new(StatusCode::BAD_GATEWAY, codes::INTERNAL_ERROR, message).of_server()
    }

    /// Returns the refusal of a request that got no answer.
    pub fn refusal(&self, failure: &Failure) -> Rejection {
        let name = &self.target.about.segment;
        let busy = |why: &str| Rejection::busy(format!("{why} {name}; try again")).of_server();
        match failure {
            Failure::Full => Rejection::busy("the gateway has --max-in-flight requests in flight; try again"),
            Failure::NoReplica => busy("no replica serves the server"),
            Failure::Unreachable => busy("no replica can be reached of the server"),
            Failure::OwnerGone => Rejection::unknown_session(),
            Failure::Broken => {
                self.bad("broke the connection before it answered; the request may have been carried out")
            }
            Failure::Late(limit) => {
                let seconds = limit.as_secs();
                let message =
                    format!("the server {name} has not answered within {seconds} s (--request-timeout)");
                Rejection::new(StatusCode::GATEWAY_TIMEOUT, codes::INTERNAL_ERROR, message).of_server()
            }
        }
    }
}

/// Returns how a request ends that is answered with this status.
pub(super) fn outcome_of(status: StatusCode) -> (Ending, Verdict) {
    let refused = || Verdict::Refused {
        status: status.as_u16(),
        code: codes::INTERNAL_ERROR,
        message: "refused by the server".into(),
    };
    match status {
        status if status.is_server_error() => (Ending::ServerError, refused()),
        status if status.is_client_error() => (Ending::ClientError, refused()),
        _ => (Ending::Ok, Verdict::Success),
    }
}
