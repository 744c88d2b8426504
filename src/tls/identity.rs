//! The identity of a client that presented a certificate.

use super::certificate::{self, Fields};
use crate::identity::is_visible;
use sha2::{Digest, Sha256};

/// Maximum length of a name in bytes (SPIFFE-ID §2.4).
const LONGEST: usize = 2048;
const SPIFFE: &str = "spiffe://";

/// The part of a client's certificate that names it (`--tls-client-name`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameKind {
    /// Its SPIFFE id: the only URI among its names.
    #[default]
    Spiffe,
    /// Its only DNS name.
    Dns,
    /// Its only e-mail address.
    Email,
    /// Its subject, as RFC 4514 writes it.
    Subject,
}

/// The identity of a client whose certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name; `None` if the certificate has none of the chosen kind, or several.
    pub name: Option<String>,
    /// The digest of the certificate, to which tokens may be bound (RFC 8705 §3.1).
    pub certificate_sha256: [u8; 32],
    /// The end of the certificate's period, in seconds since the Unix epoch.
    pub expires: u64,
}

impl Peer {
    /// Returns the identity in a certificate; `None` if the certificate is malformed.
    pub(super) fn of(certificate: &[u8], kind: NameKind) -> Option<Self> {
        let fields = certificate::read(certificate)?;
        let expires = u64::try_from(fields.not_after).unwrap_or(0);
        let name = name(fields, kind).filter(|name| (1..=LONGEST).contains(&name.len()));
        Some(Peer { name, certificate_sha256: Sha256::digest(certificate).into(), expires })
    }
}

fn name(fields: Fields, kind: NameKind) -> Option<String> {
    let only = |mut names: Vec<String>| if names.len() == 1 { names.pop() } else { None };
    let is_plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic());
    match kind {
        NameKind::Spiffe => only(fields.uris).filter(|id| is_spiffe_id(id)),
        NameKind::Dns => only(fields.dns)
            .filter(is_plain)
            .filter(|name| !name.contains('*'))
            .map(|name| name.to_ascii_lowercase()),
        NameKind::Email => only(fields.emails).filter(is_plain),
        NameKind::Subject => Some(fields.subject).filter(|subject| is_visible(subject)),
    }
}

/// Returns whether a URI is a valid id with a path (SPIFFE-ID §2.1, §2.2).
fn is_spiffe_id(id: &str) -> bool {
    let Some((domain, path)) = id.strip_prefix(SPIFFE).and_then(|id| id.split_once('/')) else {
        return false;
    };
    let in_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path);
    (1..=255).contains(&domain.len()) && domain.bytes().all(in_domain) && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_spiffe_id_is_a_name() {
        for good in ["spiffe://a/b", "spiffe://cluster.local/ns/prod/sa/agent-1", "spiffe://a_b/C.d"] {
            assert!(is_spiffe_id(good), "{good}");
        }
        for bad in [
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///b",
            "spiffe://A/b",
            "spiffe://a/b/../c",
            "spiffe://a//b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b%2fc",
            "SPIFFE://a/b",
            "https://a/b",
            "",
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
    }

    #[test]
    fn several_names_of_a_kind_are_no_name() {
        let strings = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let fields = |dns: &[&str], uris: &[&str], emails: &[&str]| Fields {
            dns: strings(dns),
            uris: strings(uris),
            emails: strings(emails),
            subject: "CN=x".to_owned(),
            ..Fields::default()
        };
        let all = || fields(&["A.example"], &["spiffe://a/b"], &["a@b"]);
        assert_eq!(name(all(), NameKind::Spiffe).as_deref(), Some("spiffe://a/b"));
        assert_eq!(name(all(), NameKind::Dns).as_deref(), Some("a.example"));
        assert_eq!(name(all(), NameKind::Email).as_deref(), Some("a@b"));
        assert_eq!(name(all(), NameKind::Subject).as_deref(), Some("CN=x"));
        let two = || fields(&["a", "b"], &["spiffe://a/b", "https://a"], &["a@b", "a@c"]);
        for kind in [NameKind::Spiffe, NameKind::Dns, NameKind::Email] {
            assert_eq!(name(two(), kind), None, "{kind:?}");
            assert_eq!(name(fields(&[], &[], &[]), kind), None, "{kind:?}");
        }
        assert_eq!(name(fields(&["*.example"], &[], &["a b@c"]), NameKind::Dns), None);
        assert_eq!(name(fields(&["*.example"], &[], &["a b@c"]), NameKind::Email), None);
        let hidden = Fields { subject: "CN=a\u{200b}nn".to_owned(), ..Fields::default() };
        assert_eq!(name(hidden, NameKind::Subject), None);
    }
}
