//! What a registration says, and whether a rule allows it. Pure.

use super::super::replica::Endpoint;
use super::super::servers::{Rule, segment};
use crate::outbound::never;
use std::net::IpAddr;

/// Maximum lengths.
const LONGEST_URL: usize = 2_048;
const LONGEST_DESCRIPTION: usize = 100;

/// What a caller says of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Claim<'a> {
    /// The name: `com.example/time`.
    pub name: &'a str,
    /// The URL of the replica's endpoint.
    pub url: &'a str,
    /// A number that grows with each message about the replica, so that an older one cannot undo a newer one.
    pub sequence: Option<u64>,
    /// One sentence for the catalogue.
    pub description: Option<&'a str>,
}

/// Why a registration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is malformed.
    Malformed(&'static str),
    /// The caller may not do this.
    Forbidden(String),
    /// Something else has the name, the address or a later number.
    Conflict(String),
    /// Nothing is registered there.
    Unknown(String),
    /// The caller has too many.
    TooMany(String),
    /// The gateway has too many.
    Full(&'static str),
}

/// Returns the segment and the endpoint of a claim.
pub(super) fn parse<'a>(claim: &Claim<'a>) -> Result<(&'a str, Endpoint), Refused> {
    const NAMES: &str = "the name is not NAMESPACE/NAME, e.g. com.example/time; its last part has 1 to 63 of a-z, 0-9, '.', '_' and '-', without __";
    const URLS: &str =
        "url is not an http or https URL without user, query and fragment, e.g. http://10.1.2.3:8080/mcp";
    let segment = segment(claim.name).filter(|_| claim.name.contains('/'));
    let segment = segment.ok_or(Refused::Malformed(NAMES))?;
    let is_plain = claim.url.len() <= LONGEST_URL && claim.url.bytes().all(|byte| byte.is_ascii_graphic());
    let endpoint = Endpoint::parse(claim.url).filter(|_| is_plain && !claim.url.contains("${"));
    let endpoint = endpoint.ok_or(Refused::Malformed(URLS))?;
    if address(&endpoint).is_none() {
        return Err(Refused::Malformed(
            "the host of url is not an IP address; register each replica by its own",
        ));
    }
    Ok((segment, endpoint))
}

/// Returns the address of an endpoint whose host is one.
pub(super) fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.url().host()?.trim_matches(['[', ']']).parse().ok()
}

/// Checks that a rule allows a registration. What no rule can allow is refused whatever the rules are.
pub(super) fn allow(rules: &[Rule], owner: &str, name: &str, endpoint: &Endpoint) -> Result<(), Refused> {
    let forbidden = |why: String| Err(Refused::Forbidden(why));
    let Some(at) = address(endpoint) else { return forbidden("the host is not an address".to_owned()) };
    let mut rules = rules.iter().filter(|rule| rule.allows_name(owner, name)).peekable();
    if rules.peek().is_none() {
        return forbidden(format!("no rule allows {owner} to register {name}"));
    }
    if let Some(kind) = never(at) {
        return forbidden(format!("{at} is {kind}; no replica can be there"));
    }
    if rules.any(|rule| rule.allows_address(at)) {
        return Ok(());
    }
    if at.to_canonical().is_loopback() {
        return forbidden(format!("{at} is a loopback address, which is another host for each gateway"));
    }
    forbidden(format!("no rule allows {owner} to register {name} at {at}"))
}

/// Returns whether a text is one sentence for the catalogue.
pub(super) fn is_description(text: &str) -> bool {
    let count = text.chars().count();
    !text.trim().is_empty() && count <= LONGEST_DESCRIPTION && !text.chars().any(char::is_control)
}
