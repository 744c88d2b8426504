//! Seals `requestState` and the cursors of lists, so that only proxyrunner can make them, and each is valid for one
//! purpose only.
//!
//! The state of a parked exchange contains its handle, not the execution: a running legacy tool lives in its child,
//! which belongs to this process (basic/patterns/mrtr). The state is authenticated with the principal, the method and
//! the parameters. The table of parked exchanges ensures that a handle is used once, and in time.
//!
//! Replicas that share a key recognize each other's states. A replica can then report that a retry was routed to the
//! wrong replica, and states that need no process are valid at every replica.
//!
//! A sealed cursor contains the server's own, and is authenticated with the principal and the method. It names no session
//! and no process, so it opens at every replica with the key.
//!
//! Two keys can be valid at a time, so that a key can be replaced while states that it has sealed are in use.

use crate::identity::Principal;
use crate::jsonrpc::{Message, members, text};
use crate::sorted::sorted;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;

/// XChaCha20's nonce is long enough to be random.
const NONCE: usize = 24;
/// Length of a process's random id, which makes a collision between two processes practically impossible.
const INSTANCE: usize = 16;

/// Maximum length in bytes of a server's cursor, as raw JSON.
pub const LONGEST_CURSOR: usize = 16 * 1024;
/// Length of the tag that authenticates a text.
const TAG: usize = 16;
/// Maximum length of a sealed cursor: four letters for three bytes.
const LONGEST_SEALED: usize = (NONCE + LONGEST_CURSOR + TAG).div_ceil(3) * 4;

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

/// Minimum length of a secret, in bytes.
const SHORTEST: usize = 32;

/// The keys of a [`Seal`].
#[derive(Clone, PartialEq, Eq)]
pub struct SealKeys {
    /// Seals and opens.
    first: [u8; 32],
    /// Only opens.
    second: Option<[u8; 32]>,
}

impl SealKeys {
    /// Derives the keys from the content of a file: one secret in each line, at most two. A file that is not text is
    /// one secret.
    ///
    /// # Errors
    /// In words what is wrong with the file.
    pub fn read(file: &[u8]) -> Result<Self, &'static str> {
        let file = file.trim_ascii();
        let is_text =
            |text: &str| !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        let lines: Vec<_> = match std::str::from_utf8(file) {
            Ok(text) if is_text(text) => {
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::as_bytes).collect()
            }
            _ => vec![file],
        };
        if lines.len() > 2 {
            return Err("has more than two lines");
        }
        if lines.is_empty() || lines.iter().any(|line| line.len() < SHORTEST) {
            return Err(if lines.len() == 2 {
                "has a line shorter than 32 bytes"
            } else {
                "is shorter than 32 bytes"
            });
        }
        let key = |line: &&[u8]| Sha256::digest(line).into();
        Ok(SealKeys { first: key(&lines[0]), second: lines.get(1).map(key) })
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKeys(…)")
    }
}

/// Seals and opens states.
pub struct Seal {
    ciphers: RwLock<Ciphers>,
    /// Distinguishes this process from others with the same key.
    instance: [u8; INSTANCE],
    /// Where other replicas reach this process; in the states of its parked exchanges.
    address: Option<SocketAddr>,
}

/// The ciphers of [`SealKeys`].
#[derive(Clone)]
struct Ciphers {
    first: XChaCha20Poly1305,
    second: Option<XChaCha20Poly1305>,
}

impl Ciphers {
    fn of(keys: &SealKeys) -> Self {
        let cipher = |key: &[u8; 32]| XChaCha20Poly1305::new(key.into());
        Ciphers { first: cipher(&keys.first), second: keys.second.as_ref().map(cipher) }
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// Creates a seal with the operator's keys, or with a random one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new(keys: Option<&SealKeys>) -> Result<Self, getrandom::Error> {
        let (mut random, mut instance) = ([0; 32], [0; INSTANCE]);
        getrandom::fill(&mut random)?;
        getrandom::fill(&mut instance)?;
        let random = SealKeys { first: random, second: None };
        Ok(Seal { ciphers: RwLock::new(Ciphers::of(keys.unwrap_or(&random))), instance, address: None })
    }

    /// Names this process's address in its states, so that other replicas can pass retries on to it.
    #[must_use]
    pub fn at(self, address: Option<SocketAddr>) -> Self {
        Seal { address, ..self }
    }

    /// Replaces the keys. States that another key has sealed do not open any more.
    pub fn replace(&self, keys: &SealKeys) {
        *self.ciphers.write() = Ciphers::of(keys);
    }

    /// Returns the sealed state.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn seal(&self, state: State, purpose: &Purpose) -> Result<String, getrandom::Error> {
        let said = match state {
            State::Parked(handle) => {
                let address = self.address.map(|address| address.to_string()).unwrap_or_default();
                [&self.instance[..], &handle.to_be_bytes(), address.as_bytes()].concat()
            }
            State::Urls(rounds) => vec![rounds],
            State::Elsewhere => Vec::new(),
        };
        self.seal_bytes(&said, &purpose.bytes())
    }

    /// Returns a server's sealed cursor.
    ///
    /// # Errors
    /// In words why it cannot be sealed.
    pub fn seal_cursor(&self, cursor: &[u8], purpose: &Purpose) -> Result<String, &'static str> {
        if cursor.len() > LONGEST_CURSOR {
            return Err("the server's cursor is longer than 16 KiB");
        }
        self.seal_bytes(cursor, &purpose.bytes()).map_err(|_| "the system has no randomness to seal a cursor")
    }

    /// Returns sealed bytes in base64url, which open only with the same `purpose`.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn seal_bytes(&self, bytes: &[u8], purpose: &[u8]) -> Result<String, getrandom::Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        // Encryption fails only for texts of many GiB.
        let cipher = self.ciphers.read().first.clone();
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: bytes, aad: purpose });
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed.unwrap_or_default()].concat()))
    }

    /// Returns the server's cursor, if it was sealed with one of the keys for this purpose.
    pub fn open_cursor(&self, sealed: &str, purpose: &Purpose) -> Option<Vec<u8>> {
        let sealed = Some(sealed).filter(|sealed| sealed.len() <= LONGEST_SEALED)?;
        self.open_bytes(sealed, &purpose.bytes())
    }

    /// Returns the content of a state, if it was sealed with one of the keys for this purpose.
    pub fn open(&self, state: &str, purpose: &Purpose) -> Option<State> {
        let said = self.open_bytes(state, &purpose.bytes())?;
        if let [rounds] = said[..] {
            return Some(State::Urls(rounds));
        }
        let (instance, handle) = said.split_first_chunk::<INSTANCE>()?;
        let (handle, _address) = handle.split_first_chunk::<8>()?;
        let handle = u64::from_be_bytes(*handle);
        Some(if *instance == self.instance { State::Parked(handle) } else { State::Elsewhere })
    }

    /// Returns the address of the replica in which a state's exchange is parked, if it names one.
    #[cfg(feature = "gateway")]
    pub fn owner(&self, state: &str, purpose: &Purpose) -> Option<SocketAddr> {
        let said = self.open_bytes(state, &purpose.bytes())?;
        std::str::from_utf8(said.get(INSTANCE + 8..)?).ok()?.parse().ok()
    }

    /// Returns bytes that were sealed with one of the keys for this `purpose`.
    pub fn open_bytes(&self, sealed: &str, purpose: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let Ciphers { first, second } = self.ciphers.read().clone();
        let opened = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: purpose }).ok()
        };
        opened(&first).or_else(|| opened(second.as_ref()?))
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
        let parts = sorted(parts);
        let mut digest = Sha256::new();
        let method = message.method.clone().map_or(&b""[..], |method| &frame[method]);
        for part in std::iter::once(method).chain(parts.iter().flat_map(|(key, value)| [*key, *value])) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Purpose { principal: principal.clone(), call: digest.finalize().into() }
    }

    /// Returns a digest of the principal and the call.
    #[cfg(feature = "gateway")]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    /// Returns the purpose of the cursors of a list: its method. No call has it, since the digest of a call begins
    /// with the length of its method.
    pub fn of_list(principal: &Principal, method: &str) -> Self {
        let digest = Sha256::new().chain_update("nextCursor\0").chain_update(method);
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
        let key = SealKeys::read(&[7; 32]).unwrap();
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
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn a_state_names_the_replica_in_which_its_call_waits() {
        let key = SealKeys::read(&[7; 32]).unwrap();
        let address: SocketAddr = "[fd00::1]:8080".parse().unwrap();
        let seal = Seal::new(Some(&key)).unwrap().at(Some(address));
        let (replica, plain) = (Seal::new(Some(&key)).unwrap(), Seal::new(Some(&key)).unwrap());
        let ann = purpose("ann", 1);
        let state = seal.seal(State::Parked(7), &ann).unwrap();
        assert_eq!(seal.open(&state, &ann), Some(State::Parked(7)));
        assert_eq!(replica.open(&state, &ann), Some(State::Elsewhere));
        assert_eq!(replica.owner(&state, &ann), Some(address));
        assert_eq!(replica.owner(&state, &purpose("bob", 1)), None);
        for state in [State::Urls(3), State::Elsewhere] {
            assert_eq!(replica.owner(&seal.seal(state, &ann).unwrap(), &ann), None);
        }
        assert_eq!(replica.owner(&plain.seal(State::Parked(7), &ann).unwrap(), &ann), None, "no address");
    }

    #[test]
    fn a_cursor_opens_for_its_principal_and_its_list_only() {
        let key = SealKeys::read(&[7; 32]).unwrap();
        let (seal, replica) = (Seal::new(Some(&key)).unwrap(), Seal::new(Some(&key)).unwrap());
        let list = |principal, method| Purpose::of_list(&Principal::named(principal).unwrap(), method);
        let tools = list("ann", "tools/list");
        let cursor = seal.seal_cursor(b"\"2\"", &tools).unwrap();
        assert_eq!(replica.open_cursor(&cursor, &tools).as_deref(), Some(&b"\"2\""[..]), "at every replica");
        assert_eq!(seal.open_cursor(&cursor, &list("bob", "tools/list")), None);
        assert_eq!(seal.open_cursor(&cursor, &list("ann", "prompts/list")), None);
        assert_eq!(Seal::new(None).unwrap().open_cursor(&cursor, &tools), None, "another key");
        assert_eq!(seal.open_cursor(&cursor[..cursor.len() - 1], &tools), None);
        let longest = seal.seal_cursor(&[b'x'; LONGEST_CURSOR], &tools).unwrap();
        assert_eq!(seal.open_cursor(&longest, &tools).map(|cursor| cursor.len()), Some(LONGEST_CURSOR));
        assert!(seal.seal_cursor(&[b'x'; LONGEST_CURSOR + 1], &tools).is_err());
    }

    #[test]
    fn a_file_has_one_or_two_keys() {
        let (old, new) = ("o".repeat(32), "n".repeat(40));
        let one = SealKeys::read(old.as_bytes()).unwrap();
        assert_eq!(SealKeys::read(format!("\n {old}\r\n\n").as_bytes()), Ok(one.clone()));
        assert_eq!(one.second, None);
        let both = SealKeys::read(format!("{new}\n{old}\n").as_bytes()).unwrap();
        assert_eq!(both.second, Some(one.first));
        let binary = [&[0xff; 40][..], b"\n", &[0xfe; 40]].concat();
        assert_eq!(SealKeys::read(&binary).unwrap().second, None, "not text: one key");
        for (file, reason) in [
            (String::new(), "is shorter than 32 bytes"),
            ("x".repeat(31), "is shorter than 32 bytes"),
            (format!("{new}\nshort"), "has a line shorter than 32 bytes"),
            (format!("{new}\n{old}\n{new}"), "has more than two lines"),
        ] {
            assert_eq!(SealKeys::read(file.as_bytes()), Err(reason), "{file}");
        }
    }

    #[test]
    fn a_state_opens_after_its_key_was_replaced_as_long_as_the_key_is_kept() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let keys = |text: String| SealKeys::read(text.as_bytes()).unwrap();
        let seal = Seal::new(Some(&keys(old.clone()))).unwrap();
        let purpose = purpose("ann", 1);
        let state = seal.seal(State::Parked(7), &purpose).unwrap();
        seal.replace(&keys(format!("{new}\n{old}")));
        assert_eq!(seal.open(&state, &purpose), Some(State::Parked(7)));
        let later = seal.seal(State::Parked(8), &purpose).unwrap();
        seal.replace(&keys(new));
        assert_eq!(seal.open(&state, &purpose), None, "the old key is gone");
        assert_eq!(seal.open(&later, &purpose), Some(State::Parked(8)), "the first key has sealed it");
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
