//! Which texts clients take for the URI of a resource. Some parse each one by the URL standard, and refuse the whole list
//! for one that is none.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Schemes whose host is a name or an address by the URL standard.
const SPECIAL: [&str; 6] = ["http", "https", "ws", "wss", "ftp", "file"];
/// Characters that no host has.
const NEVER: &[char] = &[' ', '#', '/', '<', '>', '?', '@', '[', '\\', ']', '^', '|', ':'];

/// Returns whether a text is an absolute URI to all clients. More is allowed than by RFC 3986, since clients allow it:
/// spaces and Unicode in paths.
pub(super) fn is_absolute(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_scheme =
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_inner);
    if !is_scheme || uri.chars().any(|char| char.is_ascii_control()) {
        return false;
    }
    let scheme = scheme.to_ascii_lowercase();
    let slashes = ['/', '\\'];
    match SPECIAL.contains(&&*scheme) {
        false => {
            let Some(rest) = rest.strip_prefix("//") else { return true };
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            has_host(&rest[..end], is_opaque)
        }
        true if scheme == "file" => {
            let Some(rest) = rest.strip_prefix(slashes).and_then(|rest| rest.strip_prefix(slashes)) else {
                return true;
            };
            let host = &rest[..rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len())];
            host.is_empty() || is_drive(host) || is_domain(host)
        }
        true => {
            let rest = rest.trim_start_matches(slashes);
            let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
            has_host(&rest[..end], is_domain)
        }
    }
}

/// Returns whether a user, a host and a port are well-formed.
fn has_host(authority: &str, is_name: impl Fn(&str) -> bool) -> bool {
    let behind = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (is_host, port) = match behind.strip_prefix('[') {
        Some(rest) => {
            let Some((host, port)) = rest.split_once(']') else { return false };
            (host.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let end = behind.find(':').unwrap_or(behind.len());
            // A user or a port without a host is none.
            let is_whole = end > 0 || authority.is_empty();
            (is_whole && is_name(&behind[..end]), &behind[end..])
        }
    };
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        digits && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_opaque(host: &str) -> bool {
    !host.contains(NEVER)
}

/// Returns whether a host is an address, or a name of ASCII without escapes. What others mean takes tables of Unicode.
fn is_domain(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|first: char| first.is_ascii_digit())
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || last.starts_with("0x")
            || last.starts_with("0X"));
    !host.is_empty()
        && host.is_ascii()
        && is_opaque(host)
        && !host.contains('%')
        && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// Returns whether a text is a drive of Windows, which is no host.
fn is_drive(host: &str) -> bool {
    matches!(host.as_bytes(), [letter, b':' | b'|'] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_uris_are_those_that_all_clients_accept() {
        for uri in [
            "e://x",
            "foo:",
            "a+b-.:x",
            "a:b c",
            "urn:isbn:1",
            "data:,x",
            "e:/a",
            "e:%zz",
            "e://",
            "e:///a",
            "e://x@y@z/",
            "e://{x}/y",
            "e://é/",
            "e://a:1/",
            "e://a:/",
            "e://[::1]:9/",
            "e://a%20b/",
            "http://a",
            "HTTP://a/b c?d#e",
            "http:///x",
            "http:x",
            "http://u:p@h:80/",
            "http://a_b/",
            "http://*/",
            "http://[::1]/",
            "http://127.0.0.1:8080/mcp",
            "http://1a.b2/",
            "https:\\\\a\\b",
            "file:",
            "file:///",
            "file:///C:/My Docs/ä.txt",
            "file://C:/x",
            "file:a",
            "file://host/x",
            "file://localhost/",
        ] {
            assert!(is_absolute(uri), "{uri}");
        }
        for uri in [
            "",
            "foo",
            "/a",
            "1:x",
            "a_b:x",
            "é:x",
            ":x",
            " e:x",
            "e:\nx",
            "e:\u{0}",
            "e://a b/",
            "e://a:99999/",
            "e://a:x/",
            "e://a:1:2/",
            "e://[x]/",
            "e://[::1",
            "e://[::1]x/",
            "e://<>/",
            "e://a|b/",
            "e://a^b",
            "e://x@/",
            "e://:1/",
            "http:",
            "http://",
            "http://?x",
            "http://a b/",
            "http://a:99999/",
            "http://[::1/",
            "http://ex%zz/",
            "http://a%20b/",
            "http://1.2.3.256/",
            "http://1.2.3.4.5/",
            "http://0x100000000/",
            "http://a|b/",
            "http://a^b",
            "http://é/",
            "wss://",
            "file://a b/x",
            "file://a:1/x",
        ] {
            assert!(!is_absolute(uri), "{uri}");
        }
    }
}
