//! `requestState`: sealed, so that only proxyrunner can have made it, and bound to what it was made for.
//!
//! The state of a parked exchange contains its handle, not the execution: a running legacy tool lives in its child,
//! and that in this process (basic/patterns/mrtr). The state is authenticated with the principal, the method and the
//! parameters. The table of parked exchanges ensures that a handle is used once, and in time.
//!
//! With a key that several replicas share, one knows another's states: it can say that the retry came to the wrong
//! replica, and states that need no process are good everywhere.

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
/// Long enough that no two processes have the same.
const INSTANCE: usize = 16;

/// What a state was made for; another principal's, method's or call's does not open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Who called.
    pub principal: Principal,
    /// The method and the digest of its parameters.
    pub call: [u8; 32],
}

/// What a state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The exchange of this handle is parked here.
    Parked(u64),
    /// An exchange is parked in another process of the same key.
    Elsewhere,
    /// So many times was the client sent to open a URL; nothing waits.
    Urls(u8),
}

/// A key for [`Seal`].
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// Of a secret of any kind; `None` if it has fewer than 32 bytes.
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
    /// Tells this process from others of the same key.
    instance: [u8; INSTANCE],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// With the operator's key, or one of its own.
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

    /// The state that says that.
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

    /// What a state says, if it was made with this key, for this.
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
