//! Parses addresses for HTTP: listeners, paths, origins, hosts and header names.

use super::problem::InvalidValue;
use crate::http::{Handed, Network, PublicUrl, Resource};
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address to listen on, and the socket that listens on it already, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub address: SocketAddr,
    pub handed: Option<Handed>,
}

/// Parses `address:port` or `fd:number`.
pub(super) fn binding(text: &str) -> Result<Binding, InvalidValue> {
    let Some(number) = text.strip_prefix("fd:") else {
        return listen(text).map(|address| Binding { address, handed: None });
    };
    let refused = |reason| {
        InvalidValue::new(reason, "give the number of an inherited TCP socket that listens, e.g. fd:3")
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        number.parse().ok().filter(|_| is_number).ok_or_else(|| refused("is not a file's number"))?;
    let handed = Handed::check(number).map_err(refused)?;
    Ok(Binding { address: handed.address(), handed: Some(handed) })
}

/// Formats a binding.
pub(super) fn show_binding(binding: &Binding) -> String {
    match binding.handed {
        Some(handed) => format!("fd:{}", handed.file()),
        None => binding.address.to_string(),
    }
}

/// Parses `address:port`. Without an address, all IPv4 interfaces.
pub(super) fn listen(text: &str) -> Result<SocketAddr, InvalidValue> {
    let spelled_out = match text.rsplit_once(':') {
        Some(("", port)) => format!("{}:{port}", Ipv4Addr::UNSPECIFIED),
        Some(("localhost", port)) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        _ => text.to_owned(),
    };
    spelled_out
        .parse()
        .map_err(|_| InvalidValue::new("is not an address", "give e.g. 127.0.0.1:8080, :8080, [::1]:8080"))
}

/// Parses the endpoint's path, as in a request line.
pub(super) fn path(text: &str) -> Result<String, InvalidValue> {
    const PATHS: &str = "give e.g. /mcp";
    const TAKEN: [&str; 6] = ["/livez", "/readyz", "/startupz", "/metrics", "/sse", "/messages"];
    if !text.starts_with('/') {
        return Err(InvalidValue::new("does not begin with a slash", PATHS));
    }
    if !is_path(text) {
        return Err(InvalidValue::new("contains characters that must be percent-encoded", PATHS));
    }
    let plain = text.strip_suffix('/').unwrap_or(text);
    if TAKEN.contains(&plain) || text.starts_with("/health") {
        return Err(InvalidValue::new("is reserved by proxyrunner", PATHS));
    }
    Ok(text.to_owned())
}

/// Parses an `http` or `https` URL without user information, query and fragment.
pub(super) fn public_url(text: &str) -> Result<PublicUrl, InvalidValue> {
    let refused =
        || InvalidValue::new("is not an http or https URL", "give e.g. https://tools.example.com/github");
    let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let sound = ["http", "https"].contains(&&*scheme) && is_authority(authority) && is_path(path);
    if sound { Ok(PublicUrl::new(&scheme, &authority.to_ascii_lowercase(), path)) } else { Err(refused()) }
}

/// Returns whether a text is a path as in a request line.
fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b))
}

/// Parses `scheme://host` or `scheme://host:port`, as browsers send it: no path, in lower case. `*.` may precede a
/// domain.
pub(super) fn origin(text: &str) -> Result<String, InvalidValue> {
    let refused = || InvalidValue::new("is not an origin", "give e.g. https://app.example.com");
    let (scheme, authority) = text.split_once("://").ok_or_else(refused)?;
    let lead = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if lead && rest && is_authority(zone(authority)) { Ok(text.to_ascii_lowercase()) } else { Err(refused()) }
}

/// Parses a host as in a `Host` header, with or without a port, in lower case. `*.` may precede a domain.
pub(super) fn host(text: &str) -> Result<String, InvalidValue> {
    if is_authority(zone(text)) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(InvalidValue::new(
        "is not a host",
        "give e.g. mcp.example.com, mcp.example.com:8443 or *.example.com",
    ))
}

/// Returns a host without its leading wildcard. IPv6 addresses have no labels to match.
fn zone(host: &str) -> &str {
    host.strip_prefix("*.").filter(|zone| !zone.starts_with(['[', '.'])).unwrap_or(host)
}

/// Returns whether a text is a host with an optional port (RFC 3986 §3.2, without user information).
fn is_authority(text: &str) -> bool {
    let (host_is_sound, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let sound = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (!name.is_empty() && name.bytes().all(sound), port)
        }
    };
    let port_is_sound =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    host_is_sound && port_is_sound
}

/// Parses a range of addresses.
pub(super) fn network(text: &str) -> Result<Network, InvalidValue> {
    let refused = || InvalidValue::new("is not a range of addresses", "give e.g. 10.0.0.0/8 or 10.1.2.3");
    text.parse().map_err(|()| refused())
}

/// Parses the URL by which clients know the endpoint.
pub(super) fn resource(text: &str) -> Result<Resource, InvalidValue> {
    let refused =
        || InvalidValue::new("is not an http or https URL", "give e.g. https://tools.example.com/mcp");
    Resource::parse(text).ok_or_else(refused)
}

/// Parses a name in the registry's form, whose last part can be a segment of a path.
pub(super) fn server_name(text: &str) -> Result<String, InvalidValue> {
    let is_in_space = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_next = |byte: u8| is_first(byte) || matches!(byte, b'.' | b'_' | b'-');
    let sound = text.split_once('/').is_some_and(|(space, segment)| {
        let has_space = !space.is_empty() && space.bytes().all(is_in_space);
        let is_segment = segment.bytes().next().is_some_and(is_first) && segment.bytes().all(is_next);
        has_space && is_segment && segment.len() <= 63 && !segment.contains("__")
    });
    if sound && text.len() <= 200 {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new("is not a name of the registry's form", "give e.g. com.example/time"))
}

/// Headers that every client may send, and that say something else.
const OTHER_MEANING: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Parses a header's name, in lower case. Headers with credentials are refused: their values would reach the logs.
pub(super) fn header(text: &str) -> Result<String, InvalidValue> {
    const HEADERS: &str = "give e.g. x-forwarded-user";
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| InvalidValue::new("is not a header's name", HEADERS))?;
    if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) {
        return Err(InvalidValue::new("carries a credential, not a name", HEADERS));
    }
    let has_meaning = OTHER_MEANING.contains(&name.as_str()) || name.as_str().starts_with("mcp-");
    if has_meaning {
        return Err(InvalidValue::new("has another meaning than who calls", HEADERS));
    }
    Ok(name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_given_by_its_number() {
        use std::os::fd::AsRawFd;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let text = format!("fd:{}", listener.as_raw_fd());
        let found = binding(&text).expect("a socket that listens");
        assert_eq!(Ok(found.address), listener.local_addr().map_err(drop));
        assert_eq!(show_binding(&found), text);
        for bad in ["fd:", "fd:x", "fd:-1", "fd:+5", "fd:0", "fd:99999999999", "fd:100000", "FD:5"] {
            assert!(binding(bad).is_err(), "{bad}");
        }
        assert_eq!(binding(":80").map(|found| show_binding(&found)), Ok("0.0.0.0:80".to_owned()));
    }

    #[test]
    fn addresses() {
        let read = |text| listen(text).map(|to| to.to_string()).ok();
        assert_eq!(read(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(read("localhost:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(read("[::1]:80").as_deref(), Some("[::1]:80"));
        for bad in
            ["", "8080", "localhost", "127.0.0.1", "::1:80", ":99999", "example.com:80", "[localhost]:80"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        for good in ["/", "/mcp", "/a/b/", "/metrics/mcp", "/sse-mcp", "/a%20b"] {
            assert_eq!(path(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "mcp", "/a b", "/a?b", "/a#b", "/é", "/healthz", "/health", "/readyz", "/sse/", "/messages"]
        {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins_and_hosts() {
        assert_eq!(origin("https://App.example").as_deref(), Ok("https://app.example"));
        for good in
            ["http://localhost:3000", "http://[::1]:80", "chrome-extension://abcdef", "https://*.a.example"]
        {
            assert_eq!(origin(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "*", "null", "app.example", "https://", "https://a/", "https://u@a", "https://a:b", "1://a"]
        {
            assert!(origin(bad).is_err(), "{bad:?}");
        }
        for good in
            ["localhost", "a.example:8443", "10.0.0.1", "[::1]", "[::1]:80", "*.svc", "*.a.example:80"]
        {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in [
            "", "*", "*.", "*.*", "a.*", "a.*.b", "*.[::1]", "*..a", ":80", "a b", "a:", "a:99999", "::1",
            "[x]", "[::1]80", "http://a",
        ] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn public_urls() {
        let read = |text| public_url(text).map(|url| url.as_str().to_owned()).ok();
        for (text, url) in [
            ("https://Tools.example/GitHub/mcp", "https://tools.example/GitHub/mcp"),
            ("HTTP://localhost:8080", "http://localhost:8080"),
            ("https://[::1]:8443/", "https://[::1]:8443/"),
        ] {
            assert_eq!(read(text).as_deref(), Some(url));
        }
        for bad in [
            "",
            "tools.example",
            "/github",
            "ftp://a",
            "https://",
            "https://u@a",
            "https://a?b",
            "https://a/#b",
            "https://*.a",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_principal_header_is_a_name_and_no_credential() {
        assert_eq!(header("X-Forwarded-User").as_deref(), Ok("x-forwarded-user"));
        assert!(header("a b").is_err());
        assert!(header("").is_err());
        let refusal = header("Authorization").expect_err("a refusal");
        assert_eq!(refusal.reason, "carries a credential, not a name");
    }
}
