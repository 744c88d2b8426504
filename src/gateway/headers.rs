//! The headers that pass. Only those pass whose meaning MCP or HTTP defines between a client and its server: all others
//! could be credentials, cookies, or what only proxies may say.

use hyper::header::{
    ACCEPT, ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap,
    HeaderName, RETRY_AFTER, USER_AGENT,
};

/// The header that names the session, in both directions.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header that names the revision.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The header by which a sidecar says that its other replicas can take a session over.
pub(crate) const RESUMES: &str = "proxyrunner-resumes";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const REQUEST: [HeaderName; 6] =
    [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT, LAST_EVENT_ID, REQUEST_ID];
const RESPONSE: [HeaderName; 9] = [
    ALLOW,
    CACHE_CONTROL,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    RETRY_AFTER,
    REQUEST_ID,
    BUFFERING,
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
];
/// Prefix of the protocol's own headers.
const PROTOCOL: &str = "mcp-";

/// Returns the headers of a client's request that its server gets. The session and the trace are the caller's to add.
pub(crate) fn of_request(headers: &HeaderMap) -> HeaderMap {
    passing(headers, &REQUEST, 8)
}

/// Returns the headers of a server's response that the client gets. The session is the caller's to add.
pub(crate) fn of_response(headers: &HeaderMap) -> HeaderMap {
    passing(headers, &RESPONSE, 2)
}

/// Returns the headers that pass, with room for so many that are added.
fn passing(headers: &HeaderMap, listed: &[HeaderName], added: usize) -> HeaderMap {
    let passes = |name: &HeaderName| {
        listed.contains(name) || (name.as_str().starts_with(PROTOCOL) && *name != SESSION_ID)
    };
    // A header that `Connection` names is for the next hop only (RFC 9110 §7.6.1).
    let has_hops = headers.contains_key(CONNECTION);
    let is_hop = |name: &HeaderName| {
        let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let mut named = named.flat_map(|list| list.split(','));
        named.any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
    };
    let pass = || headers.iter().filter(|(name, _)| passes(name) && !(has_hops && is_hop(name)));
    // Small maps cost the allocator less.
    let mut passing = HeaderMap::with_capacity(pass().count() + added);
    for (name, value) in pass() {
        passing.append(name, value.clone());
    }
    passing
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_headers_that_a_server_needs_pass() {
        let passing = [
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("user-agent", "test/1"),
            ("last-event-id", "7"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-param-city", "Oslo"),
            ("mcp-param-city", "Bergen"),
        ];
        let stopped = [
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("dpop", "x"),
            ("x-api-key", "x"),
            ("x-proxyrunner-caller", "ann"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("host", "gateway"),
            ("origin", "http://a.example"),
            ("connection", "keep-alive, Mcp-Secret"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("mcp-session-id", "sealed"),
            ("mcp-secret", "for this hop only"),
        ];
        let all = headers(&[&passing[..], &stopped[..]].concat());
        assert_eq!(of_request(&all), headers(&passing));
    }

    #[test]
    fn only_headers_that_a_client_needs_pass_back() {
        let passing = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("retry-after", "1"),
            ("mcp-protocol-version", "2026-07-28"),
        ];
        let stopped = [
            ("set-cookie", "a=b"),
            ("www-authenticate", "Bearer"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("server", "x"),
            ("location", "http://elsewhere"),
            ("content-encoding", "gzip"),
            ("transfer-encoding", "chunked"),
            ("mcp-session-id", "inner"),
        ];
        assert_eq!(of_response(&headers(&[&passing[..], &stopped[..]].concat())), headers(&passing));
    }
}
