//! The values of members. Refusals never contain a value, because it may be a secret.

use super::super::replica::Endpoint;
use crate::yaml::{Node, Value};
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Maximum number of URLs of a server.
const MOST_URLS: usize = 100;
/// Maximum number of arguments, variables, headers or labels of a server.
const MOST: usize = 256;
/// Maximum length of a URL or an audience.
const LONGEST_URL: usize = 2_048;
/// Maximum length of a header's value.
const LONGEST_HEADER: usize = 8_192;
/// Maximum length of a description, in characters (the registry's schema).
const LONGEST_DESCRIPTION: usize = 100;
/// Maximum lengths of a label.
const LONGEST_LABEL: (usize, usize) = (128, 256);

const URLS: &str = "give e.g. http://time:8080/mcp";
const TEXTS: &str = "give a text";
const LISTS: &str = "give a list of texts";
const MAPS: &str = "give an object of texts";
const NOT_REPLACED: &str = "write the value itself; variables are not replaced in this file";

/// Headers that belong to the connection, to the message or to the protocol.
const OWN_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
];
/// Prefixes of such headers.
const OWN_PREFIXES: &[&str] = &["mcp-", "proxy-", "x-proxyrunner-"];

/// The reason why a value was refused, the remedy, and the line if it is another one than the member's.
pub(super) struct Refusal {
    pub line: Option<u64>,
    pub reason: Cow<'static, str>,
    pub remedy: &'static str,
}

pub(super) fn refused(reason: impl Into<Cow<'static, str>>, remedy: &'static str) -> Refusal {
    Refusal { line: None, reason: reason.into(), remedy }
}

/// Reads a text. A number or a boolean is its own text.
pub(super) fn text(node: Node) -> Result<String, Refusal> {
    match node.value {
        Value::Text(text) => Ok(text),
        _ => Err(refused("is not a text", TEXTS)),
    }
}

/// Reads a text that a command line or a path can hold.
pub(super) fn word(node: Node) -> Result<String, Refusal> {
    match text(node)? {
        text if text.is_empty() => Err(refused("is empty", TEXTS)),
        text if text.contains('\0') => Err(refused("contains a NUL byte", "remove it")),
        text => Ok(text),
    }
}

/// Reads arguments, which may be empty.
pub(super) fn words(node: Node) -> Result<Vec<String>, Refusal> {
    let words = list(node)?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if words.iter().any(|word| word.contains('\0')) {
        return Err(refused("contains a NUL byte", "remove it"));
    }
    Ok(words)
}

/// Reads `true` or `false`.
pub(super) fn flag(node: Node) -> Result<bool, Refusal> {
    match text(node)?.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(refused("is neither true nor false", "give true or false")),
    }
}

/// An endpoint and its URL as it was written.
type Written = (Endpoint, String);

/// Reads the URL of a replica.
pub(super) fn url(node: Node) -> Result<Written, Refusal> {
    let text = text(node)?;
    if has_variable(&text) {
        return Err(refused("contains a variable", NOT_REPLACED));
    }
    if text.len() > LONGEST_URL {
        return Err(refused("is longer than 2048 bytes", URLS));
    }
    let uri: Uri = text.parse().map_err(|_| refused("is not a URL", URLS))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refused("is not an http or https URL", URLS));
    }
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.contains('@') {
        return Err(refused("contains user information", "use headers for credentials"));
    }
    if text.contains(['?', '#']) {
        return Err(refused("has a query or a fragment", URLS));
    }
    let has_host = uri.host().is_some_and(|host| !host.trim_matches(['[', ']']).is_empty());
    let endpoint = Endpoint::parse(&text).filter(|_| has_host);
    let endpoint = endpoint.ok_or_else(|| refused("has no usable host or port", URLS))?;
    Ok((endpoint, text))
}

/// Reads the URLs of several replicas.
pub(super) fn urls(node: Node) -> Result<(Vec<Endpoint>, Vec<String>), Refusal> {
    let items = list(node)?;
    if items.is_empty() || items.len() > MOST_URLS {
        return Err(refused("has no URL, or more than 100", URLS));
    }
    let mut urls: (Vec<Endpoint>, Vec<String>) = Default::default();
    for item in items {
        let line = Some(item.line);
        let (url, text) = url(item).map_err(|refusal| Refusal { line, ..refusal })?;
        // The address is the replica's name.
        if urls.0.iter().any(|other| other.address() == url.address()) {
            return Err(Refusal { line, ..refused("has a host and port twice", "remove one of them") });
        }
        urls.0.push(url);
        urls.1.push(text);
    }
    Ok(urls)
}

/// Reads the URL of a name whose addresses are replicas.
pub(super) fn dns(node: Node) -> Result<Written, Refusal> {
    let written = url(node)?;
    let host = written.0.url().host().unwrap_or_default();
    if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
        return Err(refused(
            "has an address for its host",
            "give the name of a headless Service, or use url",
        ));
    }
    // Certificates are for the name, and connections are made to addresses.
    if written.0.url().scheme_str() == Some("https") {
        return Err(refused("is an https URL", "give http, or use url"));
    }
    Ok(written)
}

/// Reads an audience of tokens.
pub(super) fn audience(node: Node) -> Result<Vec<String>, Refusal> {
    let text = text(node)?;
    let sound =
        !text.is_empty() && text.len() <= LONGEST_URL && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sound {
        Ok(vec![text])
    } else {
        Err(refused("is not an audience", "give the server's --auth-audience"))
    }
}

/// Reads a line for people.
pub(super) fn description(node: Node) -> Result<String, Refusal> {
    let text = text(node)?;
    let sound = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if sound && text.chars().count() <= LONGEST_DESCRIPTION {
        return Ok(text);
    }
    Err(refused("is empty, too long or more than a line", "give 1 to 100 characters"))
}

/// Reads labels.
pub(super) fn labels(node: Node) -> Result<BTreeMap<String, String>, Refusal> {
    const LABELS: &str = "give names of letters, digits and ./_-, and values of one line";
    let mut labels = BTreeMap::new();
    for (line, key, value) in map(node)? {
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte);
        let has_name = !key.is_empty() && key.len() <= LONGEST_LABEL.0 && key.bytes().all(is_named);
        if !has_name || value.len() > LONGEST_LABEL.1 || value.chars().any(char::is_control) {
            return Err(Refusal { line: Some(line), ..refused("has an unusable label", LABELS) });
        }
        labels.insert(key, value);
    }
    Ok(labels)
}

/// Reads headers of requests to a server.
pub(super) fn headers(node: Node) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (line, key, value) in map(node)? {
        let refused = |reason: &'static str, remedy| Refusal { line: Some(line), ..refused(reason, remedy) };
        let name = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| refused("has an unusable name", "give e.g. x-api-key"))?;
        let is_own = OWN_HEADERS.contains(&name.as_str())
            || OWN_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
        if is_own {
            return Err(refused("has a header that the gateway sets itself", "remove it"));
        }
        if has_variable(&value) {
            return Err(refused("contains a variable", NOT_REPLACED));
        }
        let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let sound = value.trim() == value && value.len() <= LONGEST_HEADER && value.bytes().all(is_visible);
        let mut value = HeaderValue::try_from(value)
            .ok()
            .filter(|_| sound)
            .ok_or_else(|| refused("has an unusable value", "give one line of visible ASCII characters"))?;
        value.set_sensitive(true);
        if headers.insert(name, value).is_some() {
            return Err(refused("has a header twice", "remove one of them"));
        }
    }
    Ok(headers)
}

/// Reads variables of a command.
pub(super) fn variables(node: Node) -> Result<Vec<(String, String)>, Refusal> {
    let variables = map(node)?;
    for (line, key, value) in &variables {
        let refused = |reason: &'static str, remedy| Refusal { line: Some(*line), ..refused(reason, remedy) };
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(refused("has an unusable variable", "give names without =, and no NUL byte"));
        }
        if key.starts_with("PROXYRUNNER_") {
            return Err(refused("has a variable that is proxyrunner's own", "remove it"));
        }
        if has_variable(value) {
            return Err(refused("contains a variable", NOT_REPLACED));
        }
    }
    Ok(variables.into_iter().map(|(_, key, value)| (key, value)).collect())
}

/// Returns whether a text has a placeholder, which other programs replace.
fn has_variable(text: &str) -> bool {
    text.split_once("${").is_some_and(|(_, rest)| rest.contains('}'))
}

pub(super) fn list(node: Node) -> Result<Vec<Node>, Refusal> {
    match node.value {
        Value::List(items) if items.len() > MOST => Err(refused("has more than 256 items", "give fewer")),
        Value::List(items) => Ok(items),
        _ => Err(refused("is not a list", LISTS)),
    }
}

/// Reads an object of texts: lines, keys and values. No value is an empty text.
pub(super) fn map(node: Node) -> Result<Vec<(u64, String, String)>, Refusal> {
    let Value::Map(entries) = node.value else { return Err(refused("is not an object", MAPS)) };
    if entries.len() > MOST {
        return Err(refused("has more than 256 entries", "give fewer"));
    }
    let read = entries.into_iter().map(|entry| match entry.node.value {
        Value::Text(value) => Ok((entry.line, entry.key, value)),
        Value::Null => Ok((entry.line, entry.key, String::new())),
        _ => Err(Refusal { line: Some(entry.line), ..refused("has a value that is not a text", MAPS) }),
    });
    read.collect()
}
