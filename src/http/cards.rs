//! The documents by which clients find servers before they connect: the card of each server, and a gateway's catalogue
//! of them (SEP-2127 and AI Catalog, both drafts; `docs/gateway.md#cards`).

use super::reject::method_not_allowed;
use super::response::{self, Body};
use super::{Server, Settings, auth, paths, site};
use crate::budget::Charged;
use crate::era::MODERN_VERSION;
use crate::jsonrpc::Spliced;
use crate::session::LEGACY_VERSIONS;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The schema of a card.
const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/v2/server-card.schema.json";
/// The media types of the documents.
const CARD: &str = "application/mcp-server-card+json";
#[cfg(feature = "gateway")]
const CATALOG: &str = "application/ai-catalog+json";
/// Maximum ages in caches. A catalogue lists only servers that are healthy.
const CARD_AGE: u32 = 3600;
#[cfg(feature = "gateway")]
const CATALOG_AGE: u32 = 60;
/// Maximum lengths of what a server says of itself (the card's schema).
const LONGEST_VERSION: usize = 255;
const LONGEST_TEXT: usize = 100;
const LONGEST_SEGMENT: usize = 63;
const LONGEST_SPACE: usize = 136;

/// Answers a request that anybody may send, also a page of any origin; `None` if it is another one. On a loopback
/// address pages of other origins get nothing: they must not learn what this host runs.
pub fn public(server: &Server, head: &Parts) -> Option<Response<Body>> {
    if server.identifies || server.settings.listen.ip().is_loopback() {
        return None;
    }
    let mut response = serve(server, head)?;
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Some(response)
}

/// Answers a request for a document; `None` if there is none at its path.
pub fn serve(server: &Server, head: &Parts) -> Option<Response<Body>> {
    let (kind, age, document) = document(server, head)?;
    Some(match head.method {
        Method::GET | Method::HEAD => {
            answer(&head.headers, kind, age, server.identifies, &document.to_string())
        }
        Method::OPTIONS => site::preflight(&head.headers),
        _ => method_not_allowed("GET, HEAD, OPTIONS"),
    })
}

fn document(server: &Server, head: &Parts) -> Option<(&'static str, u32, Value)> {
    let path = head.uri.path();
    #[cfg(feature = "gateway")]
    if let Some(gateway) = &server.gateway {
        if let Some(name) = paths::card_of(path) {
            let base = auth::base(server, &head.headers).unwrap_or_default();
            return Some((CARD, CARD_AGE, gateway.card(name, &base)?));
        }
        if path != paths::AI_CATALOG {
            return None;
        }
        let base = auth::base(server, &head.headers).unwrap_or_default();
        return Some((CATALOG, CATALOG_AGE, gateway.ai_catalog(&base)));
    }
    let url = paths::is_own_card(&server.settings, path).then(|| auth::endpoint(server, &head.headers))??;
    Some((CARD, CARD_AGE, card(server, &url)))
}

fn answer(asked: &HeaderMap, kind: &'static str, age: u32, is_private: bool, text: &str) -> Response<Body> {
    let digest = Sha256::digest(text);
    let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|list| list.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
    });
    let mut response = match is_known {
        true => response::empty(StatusCode::NOT_MODIFIED),
        false => {
            response::typed(StatusCode::OK, kind, Body::whole(Spliced::from(Charged::own(text.to_owned()))))
        }
    };
    let headers = response.headers_mut();
    let scope = if is_private { "private" } else { "public" };
    for (name, value) in [(ETAG, tag), (CACHE_CONTROL, format!("{scope}, max-age={age}"))] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    if is_private {
        headers.append(VARY, HeaderValue::from_static("authorization"));
    }
    response
}

/// Returns the card of a sidecar's server, whose endpoint has this URL. What the server says of itself is known once it
/// has started.
pub fn card(server: &Server, url: &str) -> Value {
    let info: Value = serde_json::from_slice(&server.upstream.server_info()).unwrap_or_default();
    let text = |member: &str, longest: usize| {
        let text = info[member].as_str().map(str::trim).filter(|text| !text.is_empty())?;
        let text: String = text.chars().filter(|c| !c.is_control()).take(longest).collect();
        (text.len() <= 4 * longest && !text.is_empty()).then_some(text)
    };
    let Settings { server_name, public_url, .. } = &server.settings;
    let authority = public_url.as_ref().map(|url| url.authority());
    let name = name(server_name.as_deref(), authority, text("name", LONGEST_TEXT).as_deref());
    let description = text("description", LONGEST_TEXT).or_else(|| text("title", LONGEST_TEXT));
    let segment = name.rsplit('/').next().unwrap_or_default();
    let description = description.unwrap_or_else(|| format!("The server {segment}"));
    let versions = std::iter::once(MODERN_VERSION).chain(LEGACY_VERSIONS);
    let mut card = json!({
        "$schema": SCHEMA,
        "name": name,
        "version": text("version", LONGEST_VERSION).unwrap_or_else(|| "unknown".to_owned()),
        "description": description,
        "remotes": [{
            "type": "streamable-http",
            "url": url,
            "supportedProtocolVersions": versions.collect::<Vec<_>>(),
        }],
    });
    if let Some(title) = text("title", LONGEST_TEXT) {
        card["title"] = title.into();
    }
    card
}

/// Returns the server's name in the registry's form: `--server-name`, else its own name, in the namespace of
/// `--public-url` unless it has one.
fn name(given: Option<&str>, authority: Option<&str>, own: Option<&str>) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let own = own.unwrap_or("server");
    let (space, own) = own.rsplit_once('/').map_or((None, own), |(space, own)| (Some(space), own));
    let is_in_space = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let space = space.filter(|space| !space.is_empty() && space.bytes().all(is_in_space));
    let space = space.map(str::to_owned).or_else(|| {
        let host = authority?.split(':').next().filter(|host| host.parse::<std::net::IpAddr>().is_err())?;
        let mut labels: Vec<_> = host.split('.').filter(|label| !label.is_empty()).collect();
        labels.reverse();
        Some(labels.join(".")).filter(|space| !space.is_empty() && space.bytes().all(is_in_space))
    });
    let mut segment = String::new();
    for c in own.chars() {
        let c = c.to_ascii_lowercase();
        let c = if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        if segment.len() < LONGEST_SEGMENT && (!segment.is_empty() || c.is_ascii_alphanumeric()) {
            segment.push(c);
        }
    }
    while segment.contains("__") {
        segment = segment.replace("__", "_");
    }
    if segment.is_empty() {
        segment.push_str("server");
    }
    let space = space.filter(|space| space.len() <= LONGEST_SPACE);
    format!("{}/{segment}", space.as_deref().unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_name_of_the_registrys_form() {
        let long = "x".repeat(200);
        for (authority, own, expected) in [
            (None, None, "localhost/server"),
            (None, Some("ExampleServer"), "localhost/exampleserver"),
            (None, Some("com.example/Time"), "com.example/time"),
            (None, Some("@scope/server-time"), "localhost/server-time"),
            (None, Some("My Server (beta)"), "localhost/my-server--beta-"),
            (None, Some("__a____b"), "localhost/a_b"),
            (None, Some("é日本"), "localhost/server"),
            (Some("tools.example.com:8443"), Some("time"), "com.example.tools/time"),
            (Some("10.0.0.1:8080"), Some("time"), "localhost/time"),
            (Some("[fd00::1]:8080"), Some("time"), "localhost/time"),
            (Some(&long), Some("time"), "localhost/time"),
        ] {
            assert_eq!(name(None, authority, own), expected);
        }
        assert_eq!(name(None, None, Some(&long)).len(), "localhost/".len() + LONGEST_SEGMENT);
        assert_eq!(name(Some("a/b"), Some("c"), Some("d")), "a/b");
    }
}
