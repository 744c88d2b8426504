//! Identifies the caller of a request, between the checks on its head and the endpoint (docs/authentication.md).
//!
//! [`proxy`] believes a trusted proxy, [`bearer`] finds a token or key, which [`crate::auth`] verifies, [`challenge`]
//! refuses, and [`metadata`] tells clients where to get a token.

mod bearer;
mod challenge;
mod metadata;
mod proxy;
mod refusals;
pub mod resource;
pub mod settings;

pub use metadata::serve as metadata;
pub use proxy::origin;

use super::Server;
use super::reject::Rejection;
use crate::auth::Denied;
use crate::identity::{Identity, Means};
use crate::telemetry::counters::AUTH_REQUESTS;
use crate::tls;
use bearer::Credentials;
use challenge::Challenge;
use hyper::StatusCode;
use hyper::header::{HOST, HeaderMap};
use hyper::http::request::Parts;
use resource::Resource;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The issuer of all callers that a client certificate names.
const CERTIFICATES: &str = "urn:proxyrunner:client-certificates";

/// How the identification of a caller ended; the order is that of the labels of [`AUTH_REQUESTS`].
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Identified,
    Missing,
    Malformed,
    Invalid,
    Scope,
    Unavailable,
}

impl Outcome {
    /// Returns the reason for the audit log, unless a more precise one is known.
    fn name(self) -> &'static str {
        match self {
            Outcome::Identified => "identified",
            Outcome::Missing => "missing",
            Outcome::Malformed => "malformed",
            Outcome::Invalid => "invalid",
            Outcome::Scope => "insufficient_scope",
            Outcome::Unavailable => "unavailable",
        }
    }
}

impl From<&Denied> for Outcome {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Invalid(_) => Outcome::Invalid,
            Denied::Scope { .. } => Outcome::Scope,
            Denied::Malformed => Outcome::Malformed,
            Denied::NoKeys | Denied::Busy => Outcome::Unavailable,
        }
    }
}

/// A request as far as its caller can be told from it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Its head.
    pub head: &'a Parts,
    /// The address of its connection.
    pub peer: IpAddr,
    /// The verified certificate of its connection.
    pub certificate: Option<&'a tls::Peer>,
}

/// Returns the caller of a request if that is known without waiting.
///
/// # Errors
/// 401 when the caller presents nothing, or nothing that is valid; 400 when it cannot be read; 403 when a required scope
/// is missing, the certificate names nobody, or a request has bypassed the proxy of `--principal-header`; 503 when it
/// cannot be verified now.
pub fn known(server: &Server, asking: Asking) -> Option<Result<Arc<Identity>, Rejection>> {
    if !server.identifies {
        return Some(Ok(Identity::anonymous()));
    }
    let (settings, headers) = (&server.settings.auth, &asking.head.headers);
    let is_proxy_only = server.verifier.is_none() && asking.certificate.is_none();
    if let Some(name) = &settings.principal_header {
        if proxy::is_trusted(settings, asking.peer) {
            if is_proxy_only || headers.contains_key(name.as_str()) {
                return Some(proxy::identity(name, headers));
            }
        } else if is_proxy_only {
            return Some(Err(bypassed(name)));
        }
    }
    let token = match (bearer::credentials(asking.head), &server.verifier) {
        (Ok(Some(Credentials::Bearer(token))), Some(_)) => token,
        (Ok(Some(Credentials::Key(key))), Some(verifier)) => {
            return Some(conclude(server, asking, verifier.key(key)));
        }
        (Ok(_), _) => {
            let is_proxy = |_: &&String| proxy::is_trusted(settings, asking.peer);
            return Some(match (asking.certificate, settings.principal_header.as_ref().filter(is_proxy)) {
                // The certificate is the proxy's own, and not that of the caller whom the proxy did not name.
                (Some(_), Some(name)) => proxy::identity(name, headers),
                // A certificate has no scopes: where they are needed, its owner needs a token, too.
                (Some(certificate), None) if settings.scopes.is_empty() => by_certificate(certificate),
                _ => refuse(Outcome::Missing, challenged(server, asking.head, |with| with.missing())),
            });
        }
        (Err(malformed), _) => {
            let refused = challenged(server, asking.head, |with| with.malformed(malformed.text()));
            return Some(refuse(Outcome::Malformed, refused));
        }
    };
    let verified = server.verifier.as_ref()?.known(token)?;
    Some(conclude(server, asking, verified))
}

/// Returns the caller of a request, and waits for keys or for introspection if that is necessary.
///
/// # Errors
/// As [`known`].
pub async fn identify(server: &Server, asking: Asking<'_>) -> Result<Arc<Identity>, Rejection> {
    let verified = match (&server.verifier, bearer::credentials(asking.head)) {
        (Some(verifier), Ok(Some(Credentials::Bearer(token)))) => verifier.verify(token).await,
        _ => Err(Denied::Malformed),
    };
    conclude(server, asking, verified)
}

fn conclude(
    server: &Server,
    asking: Asking,
    verified: Result<Arc<Identity>, Denied>,
) -> Result<Arc<Identity>, Rejection> {
    match verified {
        Ok(identity) if !is_bound_elsewhere(&identity, asking.certificate) => {
            AUTH_REQUESTS.increment(Outcome::Identified as usize);
            Ok(identity)
        }
        Ok(_) => {
            refusals::tell("certificate", &"the token is bound to another client certificate");
            refuse(Outcome::Invalid, challenged(server, asking.head, |with| with.invalid()))
        }
        Err(denied) => {
            refusals::tell(denied.result(), &denied);
            let refused = challenged(server, asking.head, |with| with.denied(&denied));
            refuse(Outcome::from(&denied), refused.because(denied.result()))
        }
    }
}

/// Returns whether a token may only be used with a client certificate that this connection has not (RFC 8705 §3).
fn is_bound_elsewhere(identity: &Identity, certificate: Option<&tls::Peer>) -> bool {
    let used = certificate.map(|certificate| certificate.certificate_sha256);
    identity.bound_to.is_some() && identity.bound_to != used
}

/// Returns the caller that a client certificate names.
fn by_certificate(certificate: &tls::Peer) -> Result<Arc<Identity>, Rejection> {
    let Some(name) = &certificate.name else {
        let message = "the client certificate must have exactly one valid name of the kind that --tls-client-name selects";
        return refuse(Outcome::Invalid, Rejection::new(StatusCode::FORBIDDEN, 403, message));
    };
    AUTH_REQUESTS.increment(Outcome::Identified as usize);
    let mut identity = Identity::issued(&CERTIFICATES.into(), name, Means::Certificate);
    identity.claims.insert("iss".to_owned(), CERTIFICATES.into());
    identity.claims.insert("sub".to_owned(), name.as_str().into());
    identity.expires = Some(certificate.expires);
    Ok(Arc::new(identity))
}

fn refuse(outcome: Outcome, rejection: Rejection) -> Result<Arc<Identity>, Rejection> {
    AUTH_REQUESTS.increment(outcome as usize);
    Err(rejection.because(outcome.name()))
}

fn bypassed(name: &str) -> Rejection {
    let message =
        format!("only the proxy that sets {name} may call this server (--principal-header, --trusted-proxy)");
    Rejection::new(StatusCode::FORBIDDEN, 403, message)
}

/// Makes a refusal with the challenge of this server.
fn challenged(server: &Server, head: &Parts, make: impl Fn(&Challenge) -> Rejection) -> Rejection {
    let settings = &server.settings.auth;
    let resource = resource(server, &head.headers, head.uri.path());
    let resource = resource.as_deref().filter(|_| !settings.issuers.is_empty());
    make(&Challenge { resource, scopes: &settings.scopes })
}

/// Returns the URL by which the client knows the endpoint at this path. Each server of a gateway is a resource of its own.
fn resource<'a>(server: &'a Server, headers: &HeaderMap, path: &str) -> Option<Cow<'a, Resource>> {
    let resource = own_resource(server, headers);
    #[cfg(feature = "gateway")]
    if server.gateway.is_some()
        && let Some(path) = super::paths::server_path(path)
    {
        return resource.map(|resource| Cow::Owned(resource.sibling(&server.settings.path, &path)));
    }
    let _ = path;
    resource
}

/// Returns the URL by which the client knows this gateway, without a slash at its end.
#[cfg(feature = "gateway")]
pub fn base(server: &Server, headers: &HeaderMap) -> Option<String> {
    Some(own_resource(server, headers)?.sibling(&server.settings.path, "").url())
}

/// Returns the URL by which the client knows the endpoint.
pub fn endpoint(server: &Server, headers: &HeaderMap) -> Option<String> {
    Some(own_resource(server, headers)?.url())
}

/// Returns the URL by which the client knows `--path`: the configured one. Only on a loopback address it is made from
/// the request's host, which is checked to be a loopback name: elsewhere a forged host would move the audience.
fn own_resource<'a>(server: &'a Server, headers: &HeaderMap) -> Option<Cow<'a, Resource>> {
    let settings = &server.settings;
    if let Some(resource) = &settings.auth.resource {
        return Some(Cow::Borrowed(resource));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_ascii_lowercase);
    let host = host.filter(|host| settings.listen.ip().is_loopback() && super::site::is_loopback_host(host));
    let host = host.unwrap_or_else(|| settings.listen.to_string());
    Resource::parse(&format!("{}://{host}{}", settings.scheme(), settings.path)).map(Cow::Owned)
}
