//! Finds and fetches the key set of an issuer: by its metadata, from a URL, or from a file.

use super::client::Client;
use super::json;
use super::keys::{KeySet, Read};
use super::settings::{IssuerSettings, KeySource};
use super::watched::{self, Secret};
use crate::mounted;
use crate::outbound::{Fetcher, Limits, Reach, is_private, resolve};
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Request, Uri};
use std::net::IpAddr;
use std::time::Duration;

/// The limits of a document.
const LIMITS: Limits = Limits { time: Duration::from_secs(10), size: 1 << 20 };
/// The time that a key set is used without a refresh: by default, at least, at most.
const USUAL: Duration = Duration::from_secs(10 * 60);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// A fetched key set.
pub(super) struct Fetched {
    pub read: Read,
    /// The time after which to fetch it again.
    pub fresh: Duration,
}

/// The source of an issuer's keys.
#[derive(Debug)]
pub(super) struct Source {
    issuer: String,
    from: KeySource,
    client: Client,
    token: Option<Secret>,
    insecure: bool,
    allow_private: bool,
}

impl Source {
    /// Creates a source.
    ///
    /// # Errors
    /// In words, when a file is unusable.
    pub(super) fn new(settings: &IssuerSettings, allow_private: bool) -> Result<Self, String> {
        let client = Client::new(settings.ca.as_deref(), LIMITS)
            .map_err(|why| format!("the certificate authorities (ca) are unusable: {why}"))?;
        let token = settings.token_file.as_deref().map(Secret::new);
        if let Some(token) = &token {
            token.get()?;
        }
        Ok(Source {
            issuer: settings.issuer.clone(),
            from: settings.keys.clone(),
            client,
            token,
            insecure: settings.insecure,
            allow_private,
        })
    }

    /// Returns whether the keys are in a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.from, KeySource::File(_))
    }

    /// Fetches the key set.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        let (document, fresh) = match &self.from {
            KeySource::File(path) => {
                let content = watched::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (content.into(), mounted::interval())
            }
            KeySource::Url(url) => {
                let (body, headers) = self.get(url, &self.client.within(Reach::Anywhere), true).await?;
                (body, freshness(&headers))
            }
            KeySource::Discovery => self.discover().await?,
        };
        let read = KeySet::read(&document).map_err(|why| format!("the key set is unusable: {why}"))?;
        Ok(Fetched { read, fresh })
    }

    /// Asks the issuer where its keys are, at the addresses of OpenID Connect and of RFC 8414, and fetches them.
    async fn discover(&self) -> Result<(Bytes, Duration), String> {
        let configured = self.client.within(Reach::Anywhere);
        let mut failures = Vec::new();
        for url in well_known(&self.issuer) {
            let found = self.get(&url, &configured, true).await;
            match found.and_then(|(body, _)| self.named_in(&body).map_err(|why| format!("{url}: {why}"))) {
                Ok(jwks) => {
                    let (reach, is_own) = self.reach_of(&jwks).await;
                    let (body, headers) = self.get(&jwks, &self.client.within(reach), is_own).await?;
                    return Ok((body, freshness(&headers)));
                }
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    }

    /// Returns the address of the key set in the metadata.
    fn named_in(&self, metadata: &[u8]) -> Result<String, &'static str> {
        let members =
            json::object(metadata).ok_or("the metadata are not a JSON object, or have a member twice")?;
        if members.get("issuer").and_then(|issuer| issuer.as_str()) != Some(&self.issuer) {
            return Err("the metadata name another issuer");
        }
        let jwks =
            members.get("jwks_uri").and_then(|uri| uri.as_str()).ok_or("the metadata name no jwks_uri")?;
        let uri: Uri = jwks.parse().map_err(|_| "the jwks_uri is not a URL")?;
        let may_be_plain = self.insecure || (self.issuer.starts_with("http://") && is_loopback(&uri));
        match uri.scheme_str() {
            Some("https") => Ok(jwks.to_owned()),
            Some("http") if may_be_plain => Ok(jwks.to_owned()),
            _ => Err("the jwks_uri is not an https URL"),
        }
    }

    /// Returns what a `jwks_uri` may lead to, and whether its origin is the issuer's own.
    async fn reach_of(&self, jwks: &str) -> (Reach, bool) {
        let (Ok(jwks), Ok(issuer)) = (jwks.parse::<Uri>(), self.issuer.parse::<Uri>()) else {
            return (Reach::Public, false);
        };
        if jwks.scheme() == issuer.scheme() && jwks.authority() == issuer.authority() {
            return (Reach::Anywhere, true);
        }
        let is_inside = self.allow_private || is_private_host(&issuer).await;
        (if is_inside { Reach::Anywhere } else { Reach::Public }, false)
    }

    /// Fetches a document. The token goes to origins that the operator named only, and never over plain http.
    async fn get(
        &self,
        url: &str,
        fetcher: &Fetcher,
        with_token: bool,
    ) -> Result<(Bytes, HeaderMap), String> {
        let failed = |why: &dyn std::fmt::Display| format!("{url}: {why}");
        let mut request = Request::get(url).body(Bytes::new()).map_err(|error| failed(&error))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let is_protected = self.insecure || url.starts_with("https://");
        if let Some(token) = self.token.as_ref().filter(|_| with_token && is_protected) {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.get()?))
                .map_err(|_| "the token for the key set is not a header value".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = fetcher.send(request).await.map_err(|error| failed(&error))?;
        let (parts, body) = answer.into_parts();
        match parts.status.as_u16() {
            200 => Ok((body, parts.headers)),
            300..=399 => Err(failed(&format!("it answered {}; redirects are not followed", parts.status))),
            _ => Err(failed(&format!("it answered {}", parts.status))),
        }
    }
}

/// Returns the addresses of an issuer's metadata: OpenID Connect Discovery §4, RFC 8414 §3.1.
fn well_known(issuer: &str) -> [String; 2] {
    let plain = issuer.strip_suffix('/').unwrap_or(issuer);
    let start = plain.find("://").map_or(0, |at| at + 3);
    let (origin, path) = plain.split_at(plain[start..].find('/').map_or(plain.len(), |at| start + at));
    [
        format!("{plain}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Returns the time until the next refresh: `max-age` within limits.
fn freshness(headers: &HeaderMap) -> Duration {
    let words = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = words.flat_map(|value| value.split(',')).map(str::trim);
    let age = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        if name.eq_ignore_ascii_case("max-age") { value.trim_matches('"').parse().ok() } else { None }
    });
    age.map_or(USUAL, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST))
}

/// Returns whether a URL's host is this host.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns whether a URL's host has private addresses only.
async fn is_private_host(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolve(host).await.unwrap_or_default(),
    };
    !addresses.is_empty() && addresses.into_iter().all(is_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_at_two_addresses() {
        assert_eq!(
            well_known("https://a.example"),
            [
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server"
            ]
        );
        assert_eq!(
            well_known("https://a.example:8443/realms/x/"),
            [
                "https://a.example:8443/realms/x/.well-known/openid-configuration",
                "https://a.example:8443/.well-known/oauth-authorization-server/realms/x"
            ]
        );
    }

    #[test]
    fn freshness_has_limits() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            freshness(&headers).as_secs()
        };
        for (value, seconds) in [
            ("max-age=300", 300),
            ("public, MAX-AGE=\"300\", must-revalidate", 300),
            ("max-age=0", 60),
            ("max-age=1000000", 3600),
            ("max-age=99999999999999999999999", 600),
            ("no-store", 600),
            ("max-age=-1", 600),
        ] {
            assert_eq!(of(value), seconds, "{value}");
        }
        assert_eq!(freshness(&HeaderMap::new()), USUAL);
    }
}
