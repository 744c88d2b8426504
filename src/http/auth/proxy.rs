//! What a trusted proxy (`--trusted-proxy`) says about a request: its caller (`--principal-header`), and the address
//! that it came from (`X-Forwarded-For`).

use super::super::reject::Rejection;
use super::settings::Settings;
use crate::identity::{Identity, LONGEST_NAME, Means, Principal};
use hyper::header::{HeaderMap, HeaderName};
use std::net::IpAddr;
use std::sync::Arc;

/// Begins names that proxyrunner itself gives.
const RESERVED: &str = "urn:proxyrunner:";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns whether the proxy at this address is believed. Without `--trusted-proxy` a proxy on the same host is.
pub fn is_trusted(settings: &Settings, address: IpAddr) -> bool {
    match &*settings.trusted_proxies {
        [] => address.to_canonical().is_loopback(),
        networks => networks.iter().any(|network| network.contains(address)),
    }
}

/// Returns the caller from the header that the operator trusts (docs/architecture.md#principal). With
/// `--principal-header` no request is anonymous: a request without the header bypassed the proxy that sets it, or the
/// proxy did not authenticate it.
///
/// # Errors
/// 400 when the header is missing, empty, `anonymous`, too long, repeated or unreadable. Not 401: no credential from the client
/// would help, and clients answer 401 with a search for an authorization server.
pub fn identity(name: &str, headers: &HeaderMap) -> Result<Arc<Identity>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let principal = match (values.next(), values.next()) {
        (None, _) => Err(Rejection::invalid(format!(
            "the header {name} is missing; the proxy must set it to the caller's name (--principal-header)"
        ))),
        (Some(value), None) if value.len() > LONGEST_NAME => {
            Err(Rejection::invalid(format!("the header {name} is longer than 1 KiB (--principal-header)")))
        }
        (Some(value), None) => match value.to_str() {
            // Of all control characters, a header may contain only the tab.
            Ok(value) if !value.contains('\t') => principal_of(value).ok_or_else(|| {
                Rejection::invalid(format!(
                    "the header {name} or a part of it is empty, `anonymous`, or a name that begins with {RESERVED} (--principal-header)"
                ))
            }),
            _ => Err(Rejection::invalid(format!(
                "the header {name} contains characters other than printable ASCII"
            ))),
        },
        (Some(_), Some(_)) => Err(Rejection::invalid(format!("the header {name} occurs more than once"))),
    }?;
    Ok(Arc::new(Identity::named(principal, Means::Proxy)))
}

/// Returns the principal that a header's value names. `None` if a proxy joined several values and one is not a
/// principal.
fn principal_of(value: &str) -> Option<Principal> {
    let is_principal = |part: &str| {
        let name = part.trim().trim_matches('"');
        !name.starts_with(RESERVED) && Principal::named(name).is_some()
    };
    value.split(',').all(is_principal).then(|| Principal::named(value.trim())).flatten()
}

/// Returns the address that a request came from, if trusted proxies (`--trusted-proxy`) say so: the last address in
/// `X-Forwarded-For` that is not itself one of them. What stands before it was written by the client.
pub fn origin(settings: &Settings, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    let trusted = |address: IpAddr| settings.trusted_proxies.iter().any(|network| network.contains(address));
    if settings.trusted_proxies.is_empty() || !headers.contains_key(FORWARDED_FOR) || !trusted(peer) {
        return None;
    }
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let mut last = None;
    for value in values.iter().rev() {
        // The client's part can hold any bytes, so it must not spoil what a proxy appended.
        for part in value.as_bytes().rsplit(|&byte| byte == b',') {
            // What is no address was not written by a proxy.
            let Some(address) = str::from_utf8(part).ok().and_then(|part| address(part.trim())) else {
                return last;
            };
            last = Some(address);
            if !trusted(address) {
                return last;
            }
        }
    }
    last
}

/// Parses an address, which some proxies write with its port.
fn address(text: &str) -> Option<IpAddr> {
    let bare =
        text.strip_prefix('[').and_then(|text| text.split_once(']')).map_or(text, |(address, _)| address);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<std::net::SocketAddr>().map(|at| at.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn behind(proxies: &[&str]) -> Settings {
        let trusted_proxies = proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect();
        Settings { trusted_proxies, ..Settings::default() }
    }

    fn origin_of(settings: &Settings, peer: &str, values: &[&'static str]) -> Option<String> {
        let headers = values.iter().map(|value| (FORWARDED_FOR, HeaderValue::from_static(value))).collect();
        origin(settings, peer.parse().expect("an address"), &headers).map(|address| address.to_string())
    }

    #[test]
    fn the_origin_is_the_last_address_that_is_no_proxy() {
        let settings = behind(&["10.0.0.0/8", "fd00::/8"]);
        for (values, origin) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
            (&["1.1.1.1", "203.0.113.9", "10.0.0.7"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]:4711, fd00::1"], "2001:db8::1"),
            (&["10.0.0.9, 10.0.0.7"], "10.0.0.9"),
            (&["unknown, 10.0.0.7"], "10.0.0.7"),
        ] {
            assert_eq!(origin_of(&settings, "10.0.0.1", values).as_deref(), Some(origin), "{values:?}");
        }
        let headers = [(FORWARDED_FOR, HeaderValue::from_bytes(b"\xff, 203.0.113.9").expect("a value"))];
        let origin = origin(&settings, IpAddr::from([10, 0, 0, 1]), &headers.into_iter().collect());
        assert_eq!(origin, Some(IpAddr::from([203, 0, 113, 9])), "the client's part is not text");
        assert_eq!(origin_of(&settings, "203.0.113.1", &["1.1.1.1"]), None, "an untrusted peer");
        assert_eq!(origin_of(&settings, "10.0.0.1", &[]), None);
        assert_eq!(origin_of(&settings, "10.0.0.1", &["nobody"]), None);
        assert_eq!(origin_of(&behind(&[]), "127.0.0.1", &["1.1.1.1"]), None, "no proxy is configured");
    }

    #[test]
    fn a_caller_has_a_printable_name() {
        let named = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            let headers = [(HeaderName::from_static("x-user"), value)].into_iter().collect();
            identity("x-user", &headers).map(|identity| identity.principal.name().to_owned()).ok()
        };
        assert_eq!(named(b" Ann B. ").as_deref(), Some("Ann B."));
        assert_eq!(named(&[b'x'; 1024]).map(|name| name.len()), Some(1024));
        for value in [&b"a\tb"[..], b"\xe9", b"", b" ", b"Anonymous", b"ann,", &[b'x'; 1025]] {
            assert_eq!(named(value), None, "{value:?}");
        }
    }

    #[test]
    fn without_networks_only_this_host_is_believed() {
        let at = |address: &str| is_trusted(&behind(&[]), address.parse().expect("an address"));
        assert!(at("127.0.0.1") && at("::1") && at("::ffff:127.0.0.1"));
        assert!(!at("10.0.0.1"));
        let at = |address: &str| is_trusted(&behind(&["10.0.0.0/8"]), address.parse().expect("an address"));
        assert!(at("10.0.0.1") && !at("127.0.0.1"));
    }
}
