//! What is checked before a request is read: Host, Origin, Content-Type, Accept; and who is calling.

use super::Settings;
use super::reject::Rejection;
use super::response::{self, Body};
use crate::jsonrpc::codes;
use crate::session::Principal;
use crate::trace_context::Trace;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY};
use hyper::{Response, StatusCode, Uri};
use std::net::IpAddr;

const CORS_METHODS: &str = "GET, POST, DELETE, OPTIONS";
const CORS_REQUEST_HEADERS: &str = "accept, authorization, baggage, content-type, last-event-id, mcp-method, mcp-name, \
     mcp-protocol-version, mcp-session-id, traceparent, tracestate";

/// Refuses requests that another site's page may have sent: DNS rebinding and cross-site requests (2025-11-25,
/// transports §Security Warning). Gives the origin back if there is one, for the CORS headers.
///
/// # Errors
/// 403, naming the option that would allow it.
pub fn same_site(
    settings: &Settings,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Rejection> {
    let host = match single(headers, &HOST)? {
        Some(host) => host.to_ascii_lowercase(),
        None => uri.authority().map(|authority| authority.as_str().to_ascii_lowercase()).unwrap_or_default(),
    };
    if !host_allowed(settings, &host) {
        return Err(Rejection::forbidden(format!(
            "Host {host:?} is not served here; if it should be, start proxyrunner with --allow-host {}",
            without_port(&host)
        )));
    }
    let Some(origin) = single(headers, &ORIGIN)? else { return Ok(None) };
    let origin = origin.to_ascii_lowercase();
    if !origin_allowed(settings, &origin) {
        return Err(Rejection::forbidden(format!(
            "pages of {origin:?} may not call this server; if they should, start proxyrunner with --allow-origin {origin}"
        )));
    }
    Ok(headers.get(ORIGIN).cloned())
}

fn host_allowed(settings: &Settings, host: &str) -> bool {
    let name = without_port(host);
    if settings.allow_host.iter().any(|allowed| allowed == host || allowed == name) {
        return true;
    }
    // A rebound name is a name: an address in Host can't have been rebound.
    is_loopback(name) || (!settings.listen.ip().is_loopback() && address(name).is_some())
}

fn origin_allowed(settings: &Settings, origin: &str) -> bool {
    if settings.allow_origin.iter().any(|allowed| allowed == origin) {
        return true;
    }
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    settings.listen.ip().is_loopback() && host.is_some_and(|host| is_loopback(without_port(host)))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // A bare IPv6 address has no port, and stands in brackets where it has one.
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || address(name).is_some_and(|address| address.is_loopback())
}

/// The answer to a browser's question whether it may call.
pub fn preflight() -> Response<Body> {
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert("access-control-allow-methods", HeaderValue::from_static(CORS_METHODS));
    headers.insert("access-control-allow-headers", HeaderValue::from_static(CORS_REQUEST_HEADERS));
    headers.insert("access-control-max-age", HeaderValue::from_static("600"));
    response
}

/// Lets an allowed page read the response.
pub fn allow_reading(response: &mut Response<Body>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert("access-control-allow-origin", origin);
    headers.insert("access-control-expose-headers", HeaderValue::from_static("mcp-session-id"));
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// # Errors
/// 415 unless the body is declared as JSON.
pub fn sends_json(headers: &HeaderMap) -> Result<(), Rejection> {
    let declared = single(headers, &CONTENT_TYPE)?.unwrap_or_default();
    let media_type = declared.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be declared as Content-Type: application/json";
    Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, codes::INVALID_REQUEST, message))
}

/// # Errors
/// 406 unless the client takes all of `types`.
pub fn accepts(headers: &HeaderMap, types: &[&str]) -> Result<(), Rejection> {
    let takes = |wanted: &str| {
        let kind = wanted.split('/').next().unwrap_or_default();
        headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let refused =
                    parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
                let matches = name.eq_ignore_ascii_case(wanted)
                    || name == "*/*"
                    || name.strip_suffix("/*").is_some_and(|name| name.eq_ignore_ascii_case(kind));
                matches && !refused
            })
    };
    if types.iter().all(|wanted| takes(wanted)) {
        return Ok(());
    }
    let message = format!("the client must take what is sent: Accept: {}", types.join(", "));
    Err(Rejection::new(StatusCode::NOT_ACCEPTABLE, codes::INVALID_REQUEST, message))
}

/// Who is calling, by the header that the operator trusts (D14).
///
/// # Errors
/// 400 when it is there twice or not readable.
pub fn principal(settings: &Settings, headers: &HeaderMap) -> Result<Principal, Rejection> {
    let Some(name) = &settings.principal_header else { return Ok(Principal::anonymous()) };
    let mut values = headers.get_all(name.as_str()).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(Principal::anonymous()),
        (Some(value), None) => match value.to_str() {
            Ok(value) if !value.trim().is_empty() => Ok(Principal::named(value.trim())),
            Ok(_) => Ok(Principal::anonymous()),
            Err(_) => Err(Rejection::invalid(format!("the header {name} is not readable"))),
        },
        (Some(_), Some(_)) => Err(Rejection::invalid(format!("the header {name} is there more than once"))),
    }
}

/// The one value of a header.
///
/// # Errors
/// 400 when it is there more than once or not readable: whoever reads the other value would see another request.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::invalid(format!("the header {name} is there more than once")));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value.trim())),
        Err(_) => Err(Rejection::invalid(format!("the header {name} is not readable"))),
    }
}

/// The trace context of the HTTP request, but for the span where that is not to be taken on. Malformed values are ignored,
/// never an error.
pub fn trace(headers: &HeaderMap, propagates: bool) -> Trace {
    let joined = |name: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let first = values.next()?.to_owned();
        Some(values.fold(first, |list, value| list + "," + value))
    };
    // Most requests have none.
    let parent = joined("traceparent").filter(|_| propagates);
    let baggage = joined("baggage");
    if parent.is_none() && baggage.is_none() {
        return Trace::default();
    }
    Trace::from_headers(parent.as_deref(), joined("tracestate").as_deref(), baggage.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, hosts: &[&str], origins: &[&str]) -> Settings {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Settings {
            listen: listen.parse().unwrap(),
            admin_listen: None,
            path: "/mcp".into(),
            max_body: 1,
            max_connections: 1,
            sse_commit_after: None,
            sse_max_age: std::time::Duration::ZERO,
            keep_alive: std::time::Duration::ZERO,
            write_timeout: std::time::Duration::ZERO,
            principal_header: None,
            allow_origin: owned(origins),
            allow_host: owned(hosts),
            old_sse: false,
            propagates: true,
            allowed_baggage: Default::default(),
        }
    }

    #[test]
    fn a_loopback_bind_serves_loopback_names_only() {
        let loopback = settings("127.0.0.1:8080", &["mcp.example"], &[]);
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "mcp.example:80"]
        {
            assert!(host_allowed(&loopback, host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "mcp.example.org",
        ] {
            assert!(!host_allowed(&loopback, host), "{host}");
        }
    }

    #[test]
    fn another_bind_serves_addresses_and_allowed_names() {
        let open = settings("0.0.0.0:8080", &["mcp.example"], &[]);
        for host in ["10.1.2.3:8080", "[fd00::1]:8080", "fd00::1", "localhost", "mcp.example"] {
            assert!(host_allowed(&open, host), "{host}");
        }
        assert!(!host_allowed(&open, "evil.example"));
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

    #[test]
    fn accept_knows_wildcards_and_refusals() {
        let accept = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(value));
            accepts(&headers, &["application/json", "text/event-stream"]).is_ok()
        };
        assert!(accept("application/json, text/event-stream"));
        assert!(accept("text/event-stream;q=0.5, Application/JSON; charset=utf-8"));
        assert!(accept("*/*"));
        assert!(accept("application/*, text/*"));
        assert!(!accept("application/json"));
        assert!(!accept("text/event-stream, application/json;q=0"));
        assert!(!accept("application/jsonl, text/event-stream"));
        assert!(accepts(&HeaderMap::new(), &["application/json"]).is_err());
    }
}
