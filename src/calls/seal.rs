//! Seals `requestState`, so that only proxyrunner can make a state, and a state is valid for one purpose only.
//!
//! The state of a parked exchange contains its handle, not the execution: a running legacy tool lives in its child,
//! which belongs to this process (basic/patterns/mrtr). The state is authenticated with the principal, the method and
//! the parameters. The table of parked exchanges ensures that a handle is used once, and in time.
//!
//! Replicas that share a key recognize each other's states. A replica can then report that a retry was routed to the
//! wrong replica, and states that need no process are valid at every replica.

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
/// Length of a process's random id, which makes a collision between two processes practically impossible.
const INSTANCE: usize = 16;

/// The purpose of a state. A state cannot be opened for another principal, method or call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The principal of the caller.
    pub principal: Principal,
    /// The method and the digest of its parameters.
    pub call: [u8; 32],
}

/// The content of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The exchange with this handle is parked in this process.
    Parked(u64),
    /// An exchange is parked in another process with the same key.
    Elsewhere,
    /// The number of times that the client was asked to open a URL. No exchange is parked.
    Urls(u8),
}

/// A key for [`Seal`].
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// Derives a key from a secret of any form; `None` if the secret has fewer than 32 bytes.
    pub fn of(secret: &[u8]) -> Option<Self> {
        (secret.len() >= 32).then(|| SealKey(Sha256::digest(secret).into()))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

/// Seals and opens states.
pub struct Seal {
    cipher: XChaCha20Poly1305,
    /// Distinguishes this process from others with the same key.
    instance: [u8; INSTANCE],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// Creates a seal with the operator's key, or with a random one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new(key: Option<&SealKey>) -> Result<Self, getrandom::Error> {
        let (mut random, mut instance) = ([0; 32], [0; INSTANCE]);
        getrandom::fill(&mut random)?;
        getrandom::fill(&mut instance)?;
        let key = key.map_or(random, |key| key.0);
        Ok(Seal { cipher: XChaCha20Poly1305::new(&key.into()), instance })
    }

    /// Returns the sealed state.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn seal(&self, state: State, purpose: &Purpose) -> Result<String, getrandom::Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let said = match state {
            State::Parked(handle) => [&self.instance[..], &handle.to_be_bytes()].concat(),
            State::Urls(rounds) => vec![rounds],
            State::Elsewhere => Vec::new(),
        };
        let aad = purpose.bytes();
        // Encryption fails only for texts of many GiB.
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: &said, aad: &aad });
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed.unwrap_or_default()].concat()))
    }

    /// Returns the content of a state, if it was sealed with this key for this purpose.
    pub fn open(&self, state: &str, purpose: &Purpose) -> Option<State> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let aad = purpose.bytes();
        let said = self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok()?;
        if let [rounds] = said[..] {
            return Some(State::Urls(rounds));
        }
        let (instance, handle) = said.split_first_chunk::<INSTANCE>()?;
        let handle = u64::from_be_bytes(handle.try_into().ok()?);
        Some(if *instance == self.instance { State::Parked(handle) } else { State::Elsewhere })
    }
}

impl Purpose {
    /// Returns the purpose of a call: its method and parameters, without the members that differ between a call and
    /// its retry.
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
        Purpose { principal: Principal::named(principal).expect("a name"), call: [call; 32] }
    }

    #[test]
    fn a_state_opens_for_its_purpose_only() {
        let key = SealKey::of(&[7; 32]).unwrap();
        let seal = Seal::new(Some(&key)).unwrap();
        let state = seal.seal(State::Parked(7), &purpose("ann", 1)).unwrap();
        assert_eq!(seal.open(&state, &purpose("ann", 1)), Some(State::Parked(7)));
        assert_eq!(seal.open(&state, &purpose("bob", 1)), None, "another principal");
        assert_eq!(seal.open(&state, &purpose("ann", 2)), None, "another call");
        let replica = Seal::new(Some(&key)).unwrap();
        assert_eq!(replica.open(&state, &purpose("ann", 1)), Some(State::Elsewhere));
        let urls = seal.seal(State::Urls(3), &purpose("ann", 1)).unwrap();
        assert_eq!(replica.open(&urls, &purpose("ann", 1)), Some(State::Urls(3)));
        let other = Seal::new(None).unwrap();
        assert_eq!(other.open(&state, &purpose("ann", 1)), None, "another key");
        assert_eq!(SealKey::of(&[7; 31]), None, "too short");
    }

    #[test]
    fn a_state_changed_in_any_bit_does_not_open() {
        let seal = Seal::new(None).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(seal.seal(State::Parked(7), &purpose("ann", 1)).unwrap()).unwrap();
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
