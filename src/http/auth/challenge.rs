//! Refusals of callers, with the challenges that tell clients what to do (RFC 6750 §3, RFC 9728 §5.1;
//! MCP 2026-07-28, authorization).

use super::super::reject::Rejection;
use super::resource::Resource;
use crate::auth::Denied;
use hyper::StatusCode;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};

/// The JSON-RPC codes equal the statuses: the protocol reserves no code for these.
const UNAUTHORIZED: i64 = 401;
const FORBIDDEN: i64 = 403;

/// The facts about this server that challenges contain.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// The metadata of the resource; `None`: no authorization server is known, so clients cannot get a token by
    /// themselves.
    pub resource: Option<&'a Resource>,
    /// The scopes that every caller needs.
    pub scopes: &'a [String],
}

impl Challenge<'_> {
    /// Returns a 401 for a request without credentials. It has no `error` (RFC 6750 §3.1).
    pub fn missing(&self) -> Rejection {
        let message = "this server requires credentials; send an access token as Authorization: Bearer";
        Rejection::new(StatusCode::UNAUTHORIZED, UNAUTHORIZED, message)
            .header(WWW_AUTHENTICATE, self.value("", self.scopes))
    }

    /// Returns a 401 for credentials that are not valid. The text is the same for every reason: which check failed would
    /// help only those who forge tokens.
    pub fn invalid(&self) -> Rejection {
        let message = "the access token is invalid, has expired, or is not for this server";
        let error = format!("error=\"invalid_token\", error_description=\"{message}\"");
        Rejection::new(StatusCode::UNAUTHORIZED, UNAUTHORIZED, message)
            .header(WWW_AUTHENTICATE, self.value(&error, self.scopes))
    }

    /// Returns a 403 for a token without all `needed` scopes, which asks the client to get a token with more of them.
    pub fn insufficient(&self, needed: &[String]) -> Rejection {
        let message = "the access token lacks a scope that this request needs";
        Rejection::new(StatusCode::FORBIDDEN, FORBIDDEN, message)
            .header(WWW_AUTHENTICATE, self.value("error=\"insufficient_scope\"", needed))
    }

    /// Returns a 400 for credentials that cannot be read.
    pub fn malformed(&self, message: &'static str) -> Rejection {
        Rejection::invalid(message).header(WWW_AUTHENTICATE, self.value("error=\"invalid_request\"", &[]))
    }

    /// Returns the refusal of a caller that was denied.
    pub fn denied(&self, denied: &Denied) -> Rejection {
        match denied {
            Denied::Invalid(_) => self.invalid(),
            Denied::Scope { .. } => self.insufficient(self.scopes),
            Denied::Malformed => self.malformed("the access token is malformed"),
            // A 401 would make clients discard good tokens.
            Denied::NoKeys => Rejection::busy("the authorization server cannot be reached; try again later"),
            Denied::Busy => Rejection::busy("too many access tokens are being checked; try again"),
        }
    }

    fn value(&self, error: &str, scopes: &[String]) -> HeaderValue {
        let mut parameters = Vec::new();
        if !error.is_empty() {
            parameters.push(error.to_owned());
        }
        if let Some(resource) = self.resource {
            parameters.push(format!("resource_metadata=\"{}\"", resource.metadata_url()));
        }
        if !scopes.is_empty() {
            parameters.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        if parameters.is_empty() {
            // A challenge without parameters is not valid (RFC 6750 §3).
            parameters.push("realm=\"mcp\"".to_owned());
        }
        let value = format!("Bearer {}", parameters.join(", "));
        // Configured values are checked to be printable.
        HeaderValue::from_str(&value).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Reason;

    fn answer(rejection: Rejection) -> (u16, String) {
        let response = rejection.response();
        let challenge =
            response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().expect("text").to_owned());
        (response.status().as_u16(), challenge.unwrap_or_default())
    }

    #[test]
    fn each_situation_has_its_status_and_challenge() {
        let resource = Resource::parse("https://tools.example/a/mcp").expect("a resource");
        let scopes = ["mcp:use".to_owned(), "mcp:more".to_owned()];
        let challenge = Challenge { resource: Some(&resource), scopes: &scopes };
        let metadata =
            "resource_metadata=\"https://tools.example/.well-known/oauth-protected-resource/a/mcp\"";
        let scope = "scope=\"mcp:use mcp:more\"";
        assert_eq!(answer(challenge.missing()), (401, format!("Bearer {metadata}, {scope}")));
        let (status, invalid) = answer(challenge.denied(&Denied::Invalid(Reason::Audience)));
        assert_eq!(status, 401);
        assert!(invalid.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{invalid}");
        assert!(invalid.ends_with(&format!(", {metadata}, {scope}")), "{invalid}");
        assert_eq!(answer(challenge.denied(&Denied::Invalid(Reason::Expired))), (401, invalid), "no detail");
        let missing = ["mcp:more".to_owned()].into();
        assert_eq!(
            answer(challenge.denied(&Denied::Scope { missing })),
            (403, format!("Bearer error=\"insufficient_scope\", {metadata}, {scope}")),
            "all scopes that the request needs"
        );
        assert_eq!(
            answer(challenge.denied(&Denied::Malformed)),
            (400, format!("Bearer error=\"invalid_request\", {metadata}"))
        );
        assert_eq!(answer(challenge.denied(&Denied::NoKeys)), (503, String::new()));
        let keys_only = Challenge { resource: None, scopes: &[] };
        assert_eq!(answer(keys_only.missing()), (401, "Bearer realm=\"mcp\"".to_owned()));
    }
}
