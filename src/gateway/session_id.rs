//! Sealed session ids. The id that a client gets contains the replica that owns the session and the id that the replica
//! gave it, so that every gateway with the same `--state-key-file` finds the owner without shared memory.
//!
//! An id is sealed for its server and its principal: for any other one it does not open, as if it did not exist. The scope of
//! a gateway's ids is the segment of the server's path; that of a sidecar's ids ([`siblings`](super::siblings)) is its
//! endpoint's path, which begins with a slash.

use crate::calls::Seal;
use crate::identity::Principal;
use crate::telemetry::unix_nanos;

/// Distinguishes these ids from everything else that the same keys seal.
const KIND: &[u8] = b"proxyrunner gateway session";
/// The version of the content.
const VERSION: u8 = 1;
/// The version of the content of a session that other replicas can take over.
const RESUMES: u8 = 2;
/// Maximum length of a sealed id.
const LONGEST: usize = 1023;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The content of a session id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionId {
    /// The address of the replica that owns the session.
    pub address: String,
    /// The replica's own id of the session.
    pub inner: String,
    /// Whether other replicas can take the session over.
    pub resumes: bool,
}

impl SessionId {
    /// Returns the id for the client; `None` if it would be too long, or is not of visible ASCII.
    pub(crate) fn seal(&self, seal: &Seal, scope: &str, principal: &Principal) -> Option<String> {
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&self.address) || !is_plain(&self.inner) {
            return None;
        }
        let mut content = vec![if self.resumes { RESUMES } else { VERSION }];
        content.extend((unix_nanos() / SECOND).to_be_bytes());
        content.push(u8::try_from(self.address.len()).ok()?);
        content.extend(self.address.as_bytes());
        content.extend(self.inner.as_bytes());
        let sealed = seal.seal_bytes(&content, &purpose(scope, principal)).ok()?;
        (sealed.len() <= LONGEST).then_some(sealed)
    }

    /// Returns the content of an id that was sealed for this server and principal.
    pub(crate) fn open(id: &str, seal: &Seal, scope: &str, principal: &Principal) -> Option<Self> {
        if id.len() > LONGEST {
            return None;
        }
        let content = seal.open_bytes(id, &purpose(scope, principal))?;
        let (&version, rest) = content.split_first()?;
        let (_time, rest) = rest.split_first_chunk::<8>()?;
        let (&length, rest) = rest.split_first()?;
        let (address, inner) = rest.split_at_checked(length.into())?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let resumes = version == RESUMES;
        (resumes || version == VERSION).then_some(SessionId {
            address: text(address)?,
            inner: text(inner)?,
            resumes,
        })
    }
}

fn purpose(scope: &str, principal: &Principal) -> Vec<u8> {
    [KIND, b"\0", scope.as_bytes(), b"\0", principal.name().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::SealKeys;

    fn seal(keys: &str) -> Seal {
        Seal::new(Some(&SealKeys::read(keys.as_bytes()).expect("keys"))).expect("randomness")
    }

    fn principal(name: &str) -> Principal {
        Principal::named(name).expect("a name")
    }

    fn id() -> SessionId {
        SessionId { address: "10.0.0.1:8080".to_owned(), inner: "0a1b-2c3d".to_owned(), resumes: false }
    }

    #[test]
    fn an_id_opens_for_its_server_and_its_principal_only() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let own = seal(&old);
        let ann = principal("ann");
        let sealed = id().seal(&own, "weather", &ann).expect("an id");
        assert!(sealed.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) && sealed.len() < 1024);
        assert_eq!(SessionId::open(&sealed, &own, "weather", &ann), Some(id()));
        let resumes = SessionId { resumes: true, ..id() };
        let other = resumes.seal(&own, "weather", &ann).expect("an id");
        assert_eq!(SessionId::open(&other, &own, "weather", &ann), Some(resumes));
        assert_eq!(SessionId::open(&sealed, &own, "weather", &principal("bob")), None);
        assert_eq!(SessionId::open(&sealed, &own, "other", &ann), None);
        assert_eq!(SessionId::open(&sealed, &own, "weather", &Principal::anonymous()), None);
        let rotated = seal(&format!("{new}\n{old}"));
        assert_eq!(SessionId::open(&sealed, &rotated, "weather", &ann), Some(id()), "the key is still kept");
        assert_eq!(SessionId::open(&sealed, &seal(&new), "weather", &ann), None, "the key is retired");
    }

    #[test]
    fn a_changed_or_cut_id_does_not_open() {
        let (own, ann) = (seal(&"o".repeat(32)), principal("ann"));
        let sealed = id().seal(&own, "weather", &ann).expect("an id");
        for at in 0..sealed.len() {
            assert_eq!(SessionId::open(&sealed[..at], &own, "weather", &ann), None, "cut at {at}");
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(SessionId::open(&changed, &own, "weather", &ann), None, "changed at {at}");
        }
        for odd in ["", "x", &"A".repeat(64), &"A".repeat(5000), "not base64!"] {
            assert_eq!(SessionId::open(odd, &own, "weather", &ann), None, "{odd:?}");
        }
    }

    #[test]
    fn ids_that_no_header_could_hold_are_not_sealed() {
        let (own, ann) = (seal(&"o".repeat(32)), principal("ann"));
        let with = |address: &str, inner: &str| {
            let (address, inner) = (address.to_owned(), inner.to_owned());
            SessionId { address, inner, resumes: false }.seal(&own, "weather", &ann)
        };
        assert!(with("h:1", &"x".repeat(600)).is_some());
        assert_eq!(with("h:1", &"x".repeat(800)), None);
        assert_eq!(with("h:1", ""), None);
        assert_eq!(with("h:1", "a b"), None);
        assert_eq!(with(&"h".repeat(256), "x"), None);
    }
}
