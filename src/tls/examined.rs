//! The entry for a fuzz target: what this room makes of a certificate.

use super::identity::{NameKind, Peer};

/// Returns the names of each kind in a certificate, as if its signature were right; `None` if it is malformed.
pub fn names_in(certificate: &[u8]) -> Option<[Option<String>; 4]> {
    let kinds = [NameKind::Spiffe, NameKind::Dns, NameKind::Email, NameKind::Subject];
    let mut names = kinds.map(|kind| Peer::of(certificate, kind).map(|peer| peer.name));
    let is_sound = names.iter().all(Option::is_some);
    assert!(is_sound || names.iter().all(Option::is_none), "the kind decides only about the name");
    is_sound.then(|| std::array::from_fn(|at| names[at].take().flatten()))
}
