//! The ticket of a request that a sibling passes on: a header, sealed with the shared key, that names the caller. It is
//! valid for this method, session and body, for a short time. The answer proves that its sender could open the ticket.

use super::super::SESSION_ID;
use crate::calls::Seal;
use crate::identity::Identity;
use crate::telemetry::unix_nanos;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// The header of the request.
pub(crate) const TICKET: HeaderName = HeaderName::from_static("x-proxyrunner-sibling");
/// The header of the answer.
pub(crate) const PROOF: HeaderName = HeaderName::from_static("x-proxyrunner-sibling-proof");

/// Distinguishes tickets and proofs from everything else that the same keys seal.
const KIND: &[u8] = b"proxyrunner sibling request\0";
const KIND_OF_PROOF: &[u8] = b"proxyrunner sibling answer\0";
/// Seconds for which a ticket is valid, before and after it was made: clocks differ.
const VALID: u64 = 60;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

type Hash = [u8; 32];

/// What a sibling tells of a request besides its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The caller, as the sibling has identified it.
    pub identity: Arc<Identity>,
    /// The address that the request came from.
    pub address: IpAddr,
}

/// An opened ticket.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// What the sibling tells.
    pub told: Told,
    body: Hash,
    /// The header of the answer.
    proof: HeaderValue,
}

impl Ticket {
    /// Opens the ticket of a request; `None` if it is not a valid one for it.
    pub(super) fn open(seal: &Seal, method: &Method, headers: &HeaderMap) -> Option<Self> {
        let mut tickets = headers.get_all(TICKET).iter();
        let sealed = tickets.next().filter(|_| tickets.next().is_none())?.to_str().ok()?;
        let session = headers.get(SESSION_ID).map_or(Ok(""), HeaderValue::to_str).ok()?;
        let content = seal.open_bytes(sealed, &purpose(method, session))?;
        let (made, rest) = content.split_first_chunk::<8>()?;
        let (body, rest) = rest.split_first_chunk::<32>()?;
        if u64::from_be_bytes(*made).abs_diff(unix_nanos() / SECOND) > VALID {
            return None;
        }
        let about: Value = serde_json::from_slice(rest).ok()?;
        let identity = Arc::new(Identity::of_whole(about["caller"].to_string().as_bytes())?);
        let told = Told { identity, address: about["address"].as_str()?.parse().ok()? };
        let proof = seal.seal_bytes(b"", &purpose_of_proof(sealed)).ok()?;
        Some(Ticket { told, body: *body, proof: HeaderValue::try_from(proof).ok()? })
    }

    /// Returns whether the ticket is for a request with this body.
    pub(crate) fn is_for(&self, body: &[u8]) -> bool {
        self.body == *Sha256::digest(body)
    }

    /// Returns the header of the answer.
    pub(crate) fn proof(&self) -> HeaderValue {
        self.proof.clone()
    }
}

/// Returns a ticket; `None` if the system has no randomness.
pub(super) fn seal(
    seal: &Seal,
    told: &Told,
    method: &Method,
    session: Option<&str>,
    body: &[u8],
) -> Option<String> {
    let about = json!({"caller": told.identity.with_claims(), "address": told.address.to_string()});
    let made = (unix_nanos() / SECOND).to_be_bytes();
    let content = [&made[..], &Sha256::digest(body)[..], about.to_string().as_bytes()].concat();
    seal.seal_bytes(&content, &purpose(method, session.unwrap_or_default())).ok()
}

/// Returns whether an answer is that of a sibling to this ticket.
pub(super) fn is_proved(seal: &Seal, sealed: &str, headers: &HeaderMap) -> bool {
    let proof = headers.get(PROOF).and_then(|proof| proof.to_str().ok());
    proof.is_some_and(|proof| seal.open_bytes(proof, &purpose_of_proof(sealed)).is_some())
}

fn purpose(method: &Method, session: &str) -> Vec<u8> {
    [KIND, method.as_str().as_bytes(), b"\0", session.as_bytes()].concat()
}

fn purpose_of_proof(sealed: &str) -> Vec<u8> {
    [KIND_OF_PROOF, sealed.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::SealKeys;
    use crate::identity::{Means, Principal};

    fn keyed(key: u8) -> Seal {
        Seal::new(Some(&SealKeys::read(&[key; 32]).expect("a key"))).expect("randomness")
    }

    fn told() -> Told {
        let identity = Identity::named(Principal::named("ann").expect("a name"), Means::Certificate);
        Told { identity: Arc::new(identity), address: "203.0.113.9".parse().expect("an address") }
    }

    fn headers(ticket: &str, session: &str) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        [(TICKET, value(ticket)), (SESSION_ID, value(session))].into_iter().collect()
    }

    #[test]
    fn a_ticket_is_for_its_request_only() {
        let (own, sibling) = (keyed(b'a'), keyed(b'a'));
        let sealed = seal(&own, &told(), &Method::POST, Some("s"), b"{}").expect("a ticket");
        let opened = Ticket::open(&sibling, &Method::POST, &headers(&sealed, "s")).expect("valid");
        assert_eq!(opened.told.identity, told().identity);
        assert_eq!(opened.told.address, told().address);
        assert!(opened.is_for(b"{}") && !opened.is_for(b"{ }") && !opened.is_for(b""));
        let open =
            |seal: &Seal, method: &Method, headers: &HeaderMap| Ticket::open(seal, method, headers).is_some();
        assert!(!open(&sibling, &Method::DELETE, &headers(&sealed, "s")), "another method");
        assert!(!open(&sibling, &Method::POST, &headers(&sealed, "t")), "another session");
        assert!(!open(&keyed(b'b'), &Method::POST, &headers(&sealed, "s")), "another key");
        let mut twice = headers(&sealed, "s");
        twice.append(TICKET, HeaderValue::from_static("x"));
        assert!(!open(&sibling, &Method::POST, &twice), "two tickets");
        for at in 0..sealed.len() {
            assert!(!open(&sibling, &Method::POST, &headers(&sealed[..at], "s")), "cut at {at}");
        }
    }

    #[test]
    fn a_ticket_is_valid_for_a_minute() {
        let own = keyed(b'a');
        let about = json!({"caller": told().identity.with_claims(), "address": "203.0.113.9"}).to_string();
        let at = |time: u64| {
            let content = [&time.to_be_bytes()[..], &Sha256::digest(b"")[..], about.as_bytes()].concat();
            let sealed = own.seal_bytes(&content, &purpose(&Method::GET, "s")).expect("randomness");
            Ticket::open(&own, &Method::GET, &headers(&sealed, "s")).is_some()
        };
        let now = unix_nanos() / SECOND;
        assert!(at(now) && at(now - 50) && at(now + 50));
        assert!(!at(now - 120) && !at(now + 120) && !at(0) && !at(u64::MAX));
        for content in [&b""[..], &[0; 39], &[0; 41]] {
            let sealed = own.seal_bytes(content, &purpose(&Method::GET, "s")).expect("randomness");
            assert!(Ticket::open(&own, &Method::GET, &headers(&sealed, "s")).is_none(), "{content:?}");
        }
    }

    #[test]
    fn an_answer_proves_that_its_sender_could_open_the_ticket() {
        let (own, sibling) = (keyed(b'a'), keyed(b'a'));
        let ticket = || seal(&own, &told(), &Method::GET, Some("s"), b"").expect("a ticket");
        let (sealed, other) = (ticket(), ticket());
        let opened = Ticket::open(&sibling, &Method::GET, &headers(&sealed, "s")).expect("valid");
        let answer: HeaderMap = [(PROOF, opened.proof())].into_iter().collect();
        assert!(is_proved(&own, &sealed, &answer));
        assert!(!is_proved(&own, &other, &answer), "the answer to another request");
        assert!(!is_proved(&own, &sealed, &HeaderMap::new()));
        assert!(!is_proved(&own, &sealed, &headers(&sealed, "s")));
    }
}
