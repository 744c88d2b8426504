//! The reasons for which a caller is denied.

use std::fmt;
use std::sync::Arc;

/// A denial. It carries no part of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The token or key is not valid: 401 `invalid_token`. The reason is for logs and audit only.
    Invalid(Reason),
    /// The token is valid but lacks required scopes: 403 `insufficient_scope`.
    Scope {
        /// The required scopes that the token lacks.
        missing: Arc<[String]>,
    },
    /// No keys of the token's issuer are available, or introspection failed: 503. A 401 would make clients discard good
    /// tokens.
    NoKeys,
    /// The token is not of the syntax of RFC 6750: 400 `invalid_request`.
    Malformed,
    /// Too many tokens are being introspected: 503.
    Busy,
}

impl Denied {
    /// Returns the name of the result for metrics, logs and audit.
    pub fn result(&self) -> &'static str {
        match self {
            Denied::Invalid(reason) => reason.name(),
            Denied::Scope { .. } => "insufficient_scope",
            Denied::NoKeys => "no_keys",
            Denied::Malformed => "malformed",
            Denied::Busy => "busy",
        }
    }
}

/// The reason why a token or key is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither a JWT nor an API key, and nobody can be asked about it.
    NotAToken,
    /// Larger than 16 KiB.
    TooLarge,
    /// The header is no JSON object, has a member twice, or demands something (`crit`, `enc`, `zip`, nesting).
    Header,
    /// The `typ` is not that of an access token.
    TokenType,
    /// The algorithm is not allowed for the issuer, or does not fit the key.
    Algorithm,
    /// The claims are no JSON object, have a member twice, or a member of a wrong type.
    Claims,
    /// The `iss` is not a configured issuer.
    Issuer,
    /// The `aud` is not a configured audience.
    Audience,
    /// The `sub` is missing, or no name.
    Subject,
    /// The client's id is no name.
    Client,
    /// The token is bound to a key that proxyrunner asks no proof of, as DPoP does (`cnf`).
    Binding,
    /// The token has expired.
    Expired,
    /// The `nbf` is in the future.
    NotYetValid,
    /// The `iat` is in the future.
    IssuedInFuture,
    /// The key set of the issuer has no such key.
    UnknownKey,
    /// The signature is not by the key.
    Signature,
    /// The authorization server says that the token is not active.
    Inactive,
    /// The API key has expired.
    ExpiredKey,
}

impl Reason {
    /// Returns the name of the reason for metrics, logs and audit.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotAToken => "not_a_token",
            Reason::TooLarge => "too_large",
            Reason::Header => "header",
            Reason::TokenType => "token_type",
            Reason::Algorithm => "algorithm",
            Reason::Claims => "claims",
            Reason::Issuer => "issuer",
            Reason::Audience => "audience",
            Reason::Subject => "subject",
            Reason::Client => "client",
            Reason::Binding => "binding",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::IssuedInFuture => "issued_in_future",
            Reason::UnknownKey => "unknown_key",
            Reason::Signature => "signature",
            Reason::Inactive => "inactive",
            Reason::ExpiredKey => "expired_key",
        }
    }

    /// Returns a sentence for the operator's log. It is constant: it contains nothing of the token.
    fn sentence(self) -> &'static str {
        match self {
            Reason::NotAToken => "the token is neither a JWT nor a known API key",
            Reason::TooLarge => "the token exceeds 16 KiB",
            Reason::Header => "the token's header is not acceptable",
            Reason::TokenType => "the token's typ is not that of an access token (typ=jwt allows JWT)",
            Reason::Algorithm => "the token's algorithm is not allowed or does not fit its key",
            Reason::Claims => "the token's claims are malformed",
            Reason::Issuer => "the token's iss is not a configured issuer",
            Reason::Audience => "the token's aud is not a configured audience",
            Reason::Subject => {
                "the token's sub is missing, empty, reserved, too long, or has invisible characters"
            }
            Reason::Client => "the token's client_id is empty, too long, or has invisible characters",
            Reason::Binding => "the token's cnf binds it to a key of which proxyrunner asks no proof (DPoP)",
            Reason::Expired => "the token has expired",
            Reason::NotYetValid => "the token's nbf is in the future",
            Reason::IssuedInFuture => "the token's iat is in the future",
            Reason::UnknownKey => "the issuer's key set has no such key",
            Reason::Signature => "the token's signature is wrong",
            Reason::Inactive => "the authorization server says that the token is not active",
            Reason::ExpiredKey => "the API key has expired",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Invalid(reason) => f.write_str(reason.sentence()),
            Denied::Scope { missing } => write!(f, "the token lacks the scopes {}", missing.join(" ")),
            Denied::NoKeys => f.write_str("no keys of the issuer are available, or introspection failed"),
            Denied::Malformed => f.write_str("the credentials are malformed"),
            Denied::Busy => f.write_str("too many tokens are being introspected"),
        }
    }
}

impl std::error::Error for Denied {}
