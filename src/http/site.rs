//! Host and Origin checks against DNS rebinding and cross-site requests (2025-11-25, transports §Security Warning),
//! and the CORS headers for allowed pages.

use super::Settings;
use super::guard::{agreed, single};
use super::reject::Rejection;
use super::response::{self, Body};
use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode, Version};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::OnceLock;

const METHODS: &str = "GET, POST, DELETE, OPTIONS";
const REQUEST_HEADERS: &str = "accept, authorization, baggage, cache-control, content-type, last-event-id, mcp-method, \
     mcp-name, mcp-protocol-version, mcp-session-id, traceparent, tracestate, x-api-key";
/// Prefix of the headers that repeat tool parameters. The rest of the name comes from a tool's schema.
const PARAM: &str = "mcp-param-";
/// Response headers that a page may read besides the CORS-safelisted ones.
const EXPOSED: &str = "mcp-session-id, ratelimit, ratelimit-policy, retry-after, www-authenticate";
const ASKS_FOR_PRIVATE_NETWORK: &str = "access-control-request-private-network";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Zones that do not exist in public DNS, so that no page can be rebound to their names.
const PRIVATE_ZONES: [&str; 4] = [".svc", ".cluster.local", ".internal", ".localhost"];
/// Names that containers on a desktop use for the host's loopback address.
const DESKTOP_HOSTS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// Checks that the request's host is served here. `usual` keeps the first one that is, since most requests of a
/// connection name the same.
///
/// # Errors
/// 403, naming the flag that would allow the host; 400 when the request names no host or several.
pub fn check_host(settings: &Settings, usual: &OnceLock<Box<[u8]>>, head: &Parts) -> Result<(), Rejection> {
    let mut given = head.headers.get_all(HOST).iter();
    let only = given.next().filter(|_| given.next().is_none() && head.uri.authority().is_none());
    if only.is_some_and(|host| usual.get().is_some_and(|usual| **usual == *host.as_bytes())) {
        return Ok(());
    }
    let Some(host) = target_host(head)? else { return Ok(()) };
    if host_allowed(settings, &host) {
        // A copy: a part of the head would keep hyper's buffer as long as the connection.
        let _ = only.map(|host| usual.set(host.as_bytes().into()));
        return Ok(());
    }
    let name = name_of(&host);
    let wildcard = name.split_once('.').map_or(String::new(), |(_, zone)| format!(" (or '*.{zone}')"));
    Err(Rejection::forbidden(format!(
        "Host {host:?} is not served here; if it should be, start proxyrunner with --allow-host {name}{wildcard}"
    )))
}

/// Refuses cross-site requests without an Origin, which browsers send for images and links.
///
/// # Errors
/// 403.
pub fn check_fetch_site(headers: &HeaderMap) -> Result<(), Rejection> {
    let crosses = |value: &HeaderValue| !matches!(value.as_bytes(), b"same-origin" | b"none");
    let is_said = headers.contains_key(FETCH_SITE);
    if !is_said || headers.contains_key(ORIGIN) || !headers.get_all(FETCH_SITE).iter().any(crosses) {
        return Ok(());
    }
    Err(Rejection::forbidden("cross-site request without an Origin (Sec-Fetch-Site)"))
}

/// Checks the calling page's origin and returns it for the CORS headers.
///
/// # Errors
/// 403, naming the flag that would allow the origin.
pub fn check_origin(settings: &Settings, headers: &HeaderMap) -> Result<Option<HeaderValue>, Rejection> {
    let Some(origin) = agreed(headers, &ORIGIN)? else { return Ok(None) };
    let origin = origin.to_ascii_lowercase();
    if !origin_allowed(settings, &origin) {
        return Err(Rejection::forbidden(format!(
            "pages from {origin:?} may not call this server; to allow them, start proxyrunner with --allow-origin {origin}"
        )));
    }
    Ok(headers.get(ORIGIN).cloned())
}

/// Returns the request's host in lower case. The authority of an absolute-form target replaces the Host header
/// (RFC 9112 §3.2.2). HTTP/1.0, which no browser speaks, may omit both.
fn target_host(head: &Parts) -> Result<Option<Cow<'_, str>>, Rejection> {
    let header = single(&head.headers, &HOST)?;
    let authority = head.uri.authority().map(|authority| authority.as_str());
    if head.version == Version::HTTP_2 && header.is_some() && authority.is_some() && header != authority {
        // RFC 9113 §8.3.1.
        return Err(Rejection::invalid("the Host header differs from :authority"));
    }
    match authority.or(header) {
        Some(host) if host.contains('@') => Err(Rejection::invalid("the host contains user information")),
        Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Ok(Some(host.to_ascii_lowercase().into()))
        }
        Some(host) => Ok(Some(host.into())),
        None if head.version >= Version::HTTP_11 => Err(Rejection::invalid("the Host header is missing")),
        None => Ok(None),
    }
}

fn host_allowed(settings: &Settings, host: &str) -> bool {
    let name = name_of(host);
    let is_public = settings.public_url.as_ref().is_some_and(|url| name_of(url.authority()) == name);
    let is_named = |allowed: &String| matches(allowed, host) || matches(allowed, name);
    if settings.allow_host.iter().any(is_named) || is_public || is_loopback(name) {
        return true;
    }
    if settings.listen.ip().is_loopback() {
        return DESKTOP_HOSTS.contains(&name);
    }
    // A rebound name is a public name. `service.namespace` may be one: `mcp.dev` is a domain that anyone can own.
    address(name).is_some() || is_private_name(name)
}

fn origin_allowed(settings: &Settings, origin: &str) -> bool {
    if settings.allow_origin.iter().any(|allowed| matches(allowed, origin)) {
        return true;
    }
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    settings.listen.ip().is_loopback() && host.is_some_and(|host| is_loopback(name_of(host)))
}

/// Returns whether a host or origin matches an allowed one, in which `*.` matches one or more labels.
fn matches(allowed: &str, given: &str) -> bool {
    let Some((before, zone)) = allowed.split_once("*.") else { return allowed == given };
    let labels = given.strip_prefix(before).and_then(|rest| rest.strip_suffix(zone)?.strip_suffix('.'));
    labels.is_some_and(is_name)
}

/// Returns whether a host is a name or address of this machine, with or without a port.
pub fn is_loopback_host(host: &str) -> bool {
    is_loopback(name_of(host))
}

fn is_private_name(name: &str) -> bool {
    is_name(name) && (!name.contains('.') || PRIVATE_ZONES.iter().any(|zone| name.ends_with(zone)))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Returns a host without its port and without the trailing dot of a fully qualified name.
fn name_of(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // A bare IPv6 address has no port, and is in brackets if it has one.
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(name: &str) -> bool {
    let is_local = name == "localhost" || (name.ends_with(".localhost") && is_name(name));
    is_local || address(name).is_some_and(|address| address.is_loopback())
}

/// Returns the response to a CORS preflight.
pub fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert("access-control-allow-methods", HeaderValue::from_static(METHODS));
    headers.insert("access-control-allow-headers", request_headers(asked));
    headers.insert("access-control-max-age", HeaderValue::from_static("600"));
    headers.append(VARY, HeaderValue::from_static("access-control-request-headers"));
    // Browsers ask for this before a public page may call a private address.
    if asked.get(ASKS_FOR_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    response
}

/// Returns the headers that a page may send: the known ones and the requested `Mcp-Param-*` ones.
fn request_headers(asked: &HeaderMap) -> HeaderValue {
    let asked = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().map(HeaderValue::as_bytes);
    let names = asked.flat_map(|list| list.split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let params = names.filter(|name| name.as_str().starts_with(PARAM));
    let all = params.fold(REQUEST_HEADERS.to_owned(), |list, name| list + ", " + name.as_str());
    HeaderValue::from_str(&all).unwrap_or_else(|_| HeaderValue::from_static(REQUEST_HEADERS))
}

/// Adds the CORS headers that let an allowed page read the response.
pub fn allow_reading(response: &mut Response<Body>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert("access-control-allow-origin", origin);
    headers.insert("access-control-expose-headers", HeaderValue::from_static(EXPOSED));
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, hosts: &[&str], origins: &[&str]) -> Settings {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Settings {
            listen: listen.parse().unwrap(),
            handed: None,
            admin_listen: None,
            path: "/mcp".into(),
            public_url: None,
            server_name: None,
            max_body: 1,
            max_connections: 1,
            max_streams: 1,
            tls: None,
            sse_commit_after: None,
            sse_max_age: std::time::Duration::ZERO,
            keep_alive: std::time::Duration::ZERO,
            write_timeout: std::time::Duration::ZERO,
            keep_alive_timeout: std::time::Duration::ZERO,
            auth: Default::default(),
            allow_origin: owned(origins),
            allow_host: owned(hosts),
            disclosure: None,
            #[cfg(feature = "gateway")]
            searches: false,
            old_sse: false,
            propagates: true,
            allowed_baggage: Default::default(),
        }
    }

    #[test]
    fn a_loopback_bind_serves_loopback_names_only() {
        let loopback = settings("127.0.0.1:8080", &["mcp.example"], &[]);
        for host in [
            "localhost",
            "localhost:8080",
            "localhost.",
            "app.localhost:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "mcp.example:80",
            "host.docker.internal:8080",
        ] {
            assert!(host_allowed(&loopback, host), "{host}");
        }
        for host in [
            "",
            ".",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "mcp.example.org",
            "mcp",
            "evil.host.docker.internal.example",
        ] {
            assert!(!host_allowed(&loopback, host), "{host}");
        }
    }

    #[test]
    fn another_bind_serves_addresses_private_and_allowed_names() {
        let open = settings("0.0.0.0:8080", &["mcp.example"], &[]);
        for host in [
            "10.1.2.3:8080",
            "[fd00::1]:8080",
            "fd00::1",
            "localhost",
            "mcp.example",
            "mcp:8080",
            "mcp.tools.svc:8080",
            "mcp.tools.svc.cluster.local.:8080",
            "vm.c.project.internal",
        ] {
            assert!(host_allowed(&open, host), "{host}");
        }
        for host in ["", "evil.example", "evil.dev:8080", "evil.local", "evil.svc.example", "e@mcp", "a b"] {
            assert!(!host_allowed(&open, host), "{host}");
        }
    }

    #[test]
    fn a_wildcard_matches_only_labels() {
        let open = settings("0.0.0.0:8080", &["*.tools", "*.example:8443"], &["https://*.app.example"]);
        for host in ["mcp.tools", "a.b.tools:8080", "MCP.tools".to_lowercase().as_str(), "mcp.example:8443"] {
            assert!(host_allowed(&open, host), "{host}");
        }
        for host in [".tools", "evil.tools.example", "mcp.example", "mcp.example:80", "a/b.tools"] {
            assert!(!host_allowed(&open, host), "{host}");
        }
        assert!(origin_allowed(&open, "https://pr-7.app.example"));
        for origin in ["https://app.example", "http://pr-7.app.example", "https://evil.example/.app.example"]
        {
            assert!(!origin_allowed(&open, origin), "{origin}");
        }
    }

    #[test]
    fn origins_are_compared_whole() {
        let loopback = settings("127.0.0.1:8080", &[], &["https://app.example"]);
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:1", "https://app.example"]
        {
            assert!(origin_allowed(&loopback, origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://app.example.org",
            "http://app.example",
            "https://app.example:444",
            "ftp://localhost",
            "http://localhost.evil.example",
        ] {
            assert!(!origin_allowed(&loopback, origin), "{origin}");
        }
        assert!(!origin_allowed(&settings("0.0.0.0:1", &[], &[]), "http://localhost:3000"));
    }
}
