//! The gateway's own keys, which sign the tokens that it mints (`--gateway-key`), and their public halves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::fmt;

/// Maximum number of keys: one signs, the other is known.
const MOST: usize = 2;
/// Maximum size of a file.
const LONGEST: usize = 64 << 10;

/// The keys. The first one signs; a second one is published, too, because sidecars must know a key before it signs, and
/// as long as its tokens are valid.
pub(crate) struct Keys {
    signing: Key,
    other: Option<Key>,
}

struct Key {
    /// The thumbprint of the public key (RFC 7638).
    id: String,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, …)", self.signing.id)
    }
}

impl Keys {
    /// Creates a random key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn generate() -> Result<Self, &'static str> {
        const NO_RANDOM: &str = "the system gives no random numbers";
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| NO_RANDOM)?;
        Ok(Keys { signing: Key::of(key.as_ref()).ok_or(NO_RANDOM)?, other: None })
    }

    /// Reads a file of one or two keys in PEM (PKCS #8), of which the first one signs.
    ///
    /// # Errors
    /// In words, without anything of the content.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, &'static str> {
        if pem.len() > LONGEST {
            return Err("the file is longer than 64 KiB");
        }
        let mut keys = Vec::new();
        for found in PrivatePkcs8KeyDer::pem_slice_iter(pem) {
            let key = found.map_err(|_| "the file is not PEM")?;
            keys.push(Key::of(key.secret_pkcs8_der()).ok_or("a key is not an Ed25519 key")?);
        }
        if keys.len() > MOST {
            return Err("the file has more than two keys");
        }
        let mut keys = keys.into_iter();
        let signing = keys.next().ok_or("the file has no private key in PKCS #8")?;
        let other = keys.next();
        if other.as_ref().is_some_and(|other| other.id == signing.id) {
            return Err("the file has a key twice");
        }
        Ok(Keys { signing, other })
    }

    /// Returns the public keys (RFC 7517, RFC 8037).
    pub(super) fn set(&self) -> String {
        let keys = [Some(&self.signing), self.other.as_ref()];
        json!({"keys": keys.into_iter().flatten().map(Key::jwk).collect::<Vec<_>>()}).to_string()
    }

    /// Signs claims. Returns the token.
    pub(super) fn sign(&self, claims: &str) -> String {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, self.signing.id);
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.signing.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }
}

impl Key {
    /// Reads a key in DER. OpenSSL leaves the public key out.
    fn of(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let public = URL_SAFE_NO_PAD.encode(pair.public_key());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Some(Key { id, pair })
    }

    fn jwk(&self) -> Value {
        let public = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "x": public, "kid": self.id, "alg": "EdDSA", "use": "sig"})
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key as `openssl genpkey -algorithm ed25519` writes it, that of RFC 8032 §7.1, test 1.
    pub(in super::super) const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    /// Another one, that of test 2.
    pub(in super::super) const OTHER: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_key_of_openssl_is_read_and_published() {
        let keys = Keys::read(OPENSSL.as_bytes()).expect("a key");
        let set: Value = serde_json::from_str(&keys.set()).expect("JSON");
        // RFC 8037 §A.2 and §A.3 have the same key.
        assert_eq!(set["keys"][0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(set["keys"][0]["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(!keys.set().contains("\"d\"") && keys.set().matches("kty").count() == 1);
        let both = Keys::read(format!("{OTHER}{OPENSSL}").as_bytes()).expect("keys");
        let set: Value = serde_json::from_str(&both.set()).expect("JSON");
        assert_eq!(set["keys"][1]["kid"], keys.signing.id);
        assert!(format!("{both:?}").len() < 80);
    }

    #[test]
    fn unusable_files_are_refused() {
        let one = OPENSSL;
        let rsa = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END \
                   PRIVATE KEY-----\n";
        for (file, reason) in [
            (String::new(), "the file has no private key in PKCS #8"),
            ("secret".to_owned(), "the file has no private key in PKCS #8"),
            (one.replace("PRIVATE", "PUBLIC"), "the file has no private key in PKCS #8"),
            (one.replace("MC4C", "M!4C"), "the file is not PEM"),
            (one.replace("-----END", "-----ENT"), "the file is not PEM"),
            (rsa.to_owned(), "a key is not an Ed25519 key"),
            (one.repeat(2), "the file has a key twice"),
            (one.repeat(3), "the file has more than two keys"),
            (" ".repeat(LONGEST + 1), "the file is longer than 64 KiB"),
        ] {
            assert_eq!(Keys::read(file.as_bytes()).err(), Some(reason), "{file:.80}");
        }
    }

    #[test]
    fn generated_keys_differ() {
        let [one, other] = [Keys::generate(), Keys::generate()].map(|keys| keys.expect("a key").set());
        assert_ne!(one, other);
    }
}
