//! `requestState`: the handle of a parked exchange, sealed so that only proxyrunner can have made it.
//!
//! It carries the handle, not the execution: a running legacy tool lives in its child (protocol C2a). What it is
//! bound to is authenticated with it: the principal, the method and the parameters; and the key is this process's own. That it is used
//! once is the table of parked exchanges' to see.

use crate::jsonrpc::{Message, members, text};
use crate::session::Principal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use std::fmt;

/// XChaCha20's nonce is long enough to be random.
const NONCE: usize = 24;

/// What a state was made for; another principal's, method's or call's does not open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Who called.
    pub principal: Principal,
    /// The method and the digest of its parameters.
    pub call: [u8; 32],
}

/// Seals and opens states.
pub struct Seal(XChaCha20Poly1305);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// With a key of its own: what it names lives in this process only.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Seal(XChaCha20Poly1305::new(&key.into())))
    }

    /// The state that names the parked exchange `handle`.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn seal(&self, handle: u64, purpose: &Purpose) -> Result<String, getrandom::Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let aad = purpose.bytes();
        let payload = Payload { msg: &handle.to_be_bytes(), aad: &aad };
        // Encryption fails only for texts of many GiB.
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The exchange that a state names, if it was made here, for this.
    pub fn open(&self, state: &str, purpose: &Purpose) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let aad = purpose.bytes();
        let opened = self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok()?;
        Some(u64::from_be_bytes(opened.try_into().ok()?))
    }
}

impl Purpose {
    /// What a call is: its method and parameters, without what differs between a call and its retry.
    pub fn of(principal: &Principal, frame: &[u8], message: &Message) -> Self {
        let mut parts: Vec<(&[u8], &[u8])> = Vec::new();
        if let Some(params) = &message.params {
            let all = members(frame, params.span.clone());
            let same = all.filter(|(key, _)| {
                !matches!(&*text(frame, key), "_meta" | "inputResponses" | "requestState")
            });
            parts.extend(same.map(|(key, value)| (&frame[key], &frame[value])));
        }
        parts.sort_unstable();
        let mut digest = Sha256::new();
        let method = message.method.clone().map_or(&b""[..], |method| &frame[method]);
        for part in std::iter::once(method).chain(parts.iter().flat_map(|(key, value)| [*key, *value])) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Purpose { principal: principal.clone(), call: digest.finalize().into() }
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.call[..], self.principal.name().as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(principal: &str, call: u8) -> Purpose {
        Purpose { principal: Principal::named(principal), call: [call; 32] }
    }

    #[test]
    fn a_state_opens_for_its_purpose_only() {
        let seal = Seal::new().unwrap();
        let state = seal.seal(7, &purpose("ann", 1)).unwrap();
        assert_eq!(seal.open(&state, &purpose("ann", 1)), Some(7));
        assert_eq!(seal.open(&state, &purpose("bob", 1)), None, "another principal");
        assert_eq!(seal.open(&state, &purpose("ann", 2)), None, "another call");
        let other = Seal::new().unwrap();
        assert_eq!(other.open(&state, &purpose("ann", 1)), None, "another instance");
    }

    #[test]
    fn a_state_changed_in_any_bit_does_not_open() {
        let seal = Seal::new().unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(seal.seal(7, &purpose("ann", 1)).unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open(&URL_SAFE_NO_PAD.encode(changed), &purpose("ann", 1)), None);
        }
        for odd in ["", "AAAA", "not base64!", &"A".repeat(1000)] {
            assert_eq!(seal.open(odd, &purpose("ann", 1)), None);
        }
    }
}
