//! Key sets of issuers (RFC 7517).

use super::algorithm::Algorithm;
use super::denied::Reason;
use super::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use std::fmt;

/// Maximum number of keys in a set.
const MOST: usize = 100;
/// Maximum number of keys that are tried for a token without `kid`.
const MOST_TRIED: usize = 10;

/// A set of usable keys.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

/// The modulus and the exponent of a key, or its point and nothing.
type Parts = (Vec<u8>, Vec<u8>);

/// A public key for signatures.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    kind: KeyKind,
    /// The only algorithm that the issuer uses it with.
    algorithm: Option<Algorithm>,
    parts: Parts,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.kid)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A key set that was read, and the reasons why keys were left out.
pub(super) struct Read {
    pub set: KeySet,
    pub skipped: Vec<&'static str>,
}

impl KeySet {
    /// Reads a document. Unusable keys are left out.
    ///
    /// # Errors
    /// When the document is no key set, or has too many keys.
    pub(super) fn read(document: &[u8]) -> Result<Read, &'static str> {
        let members = json::object(document).ok_or("it is not a JSON object, or has a member twice")?;
        let Some(Value::Array(keys)) = members.get("keys") else { return Err("it has no list of keys") };
        if keys.len() > MOST {
            return Err("it has more than 100 keys");
        }
        let (mut set, mut skipped) = (KeySet::default(), Vec::new());
        for key in keys {
            match key.as_object().ok_or("a key is not an object").and_then(self::key) {
                Ok(key) => set.0.push(key),
                Err(why) => skipped.push(why),
            }
        }
        Ok(Read { set, skipped })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether both sets consist of the same keys.
    pub(super) fn is_same(&self, other: &KeySet) -> bool {
        self.0 == other.0
    }

    /// Returns the keys that may have signed a token. A key without `kid` is no candidate for a token with one.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, Reason> {
        let fits =
            |key: &&Key| key.kind.fits(algorithm) && key.algorithm.is_none_or(|only| only == algorithm);
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        if !self.0.iter().any(|key| named(&key)) {
            return Err(Reason::UnknownKey);
        }
        let found = self.0.iter().filter(named).filter(fits).take(MOST_TRIED);
        let found: Vec<_> = found.filter_map(Key::material).collect();
        if found.is_empty() { Err(Reason::Algorithm) } else { Ok(found) }
    }
}

impl KeyKind {
    fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => self == KeyKind::Rsa,
            Algorithm::Es256 => self == KeyKind::P256,
            Algorithm::Es384 => self == KeyKind::P384,
            Algorithm::Ed25519 => self == KeyKind::Ed25519,
        }
    }
}

impl Key {
    fn material(&self) -> Option<DecodingKey> {
        let (first, second) = &self.parts;
        match self.kind {
            KeyKind::Rsa => Some(DecodingKey::from_rsa_raw_components(first, second)),
            KeyKind::P256 | KeyKind::P384 => Some(DecodingKey::from_ec_der(first)),
            KeyKind::Ed25519 => Some(DecodingKey::from_ed_der(first)),
        }
    }
}

/// Reads a key, if it is a public key for signatures of a supported kind.
fn key(members: &Map<String, Value>) -> Result<Key, &'static str> {
    let text = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err("a member of a key has the wrong type"),
    };
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("a key is not for signatures (use)");
    }
    match members.get("key_ops") {
        None => {}
        Some(Value::Array(purposes)) if purposes.iter().any(|purpose| purpose == "verify") => {}
        Some(_) => return Err("a key is not for verification (key_ops)"),
    }
    if members.contains_key("d") {
        return Err("a key is private");
    }
    let (kind, parts) = material(&text)?;
    let algorithm = match text("alg")? {
        None => None,
        Some(name) => {
            let algorithm = Algorithm::named(name).filter(|algorithm| kind.fits(*algorithm));
            Some(algorithm.ok_or("a key's alg is not supported or does not fit its kty and crv")?)
        }
    };
    Ok(Key { kid: text("kid")?.map(str::to_owned), kind, algorithm, parts })
}

/// Decodes the numbers of a key.
fn material<'a>(
    text: &impl Fn(&str) -> Result<Option<&'a str>, &'static str>,
) -> Result<(KeyKind, Parts), &'static str> {
    let bytes = |name: &str| {
        let encoded = text(name)?.ok_or("a member of a key is missing")?;
        URL_SAFE_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| "a member of a key is not base64url")
    };
    match (text("kty")?, text("crv")?) {
        (Some("RSA"), _) => {
            let strip = |mut number: Vec<u8>| {
                number.drain(..number.iter().take_while(|byte| **byte == 0).count());
                number
            };
            let (modulus, exponent) = (strip(bytes("n")?), strip(bytes("e")?));
            let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
            if !(2048..=8192).contains(&bits) {
                return Err("an RSA key has fewer than 2048 or more than 8192 bits");
            }
            // What ring accepts: odd, at least 3, at most 33 bits.
            let small = exponent.len() > 5 || exponent == [1] || exponent.is_empty();
            if small || exponent.last().is_none_or(|last| last & 1 == 0) {
                return Err("an RSA key's exponent is not usable");
            }
            Ok((KeyKind::Rsa, (modulus, exponent)))
        }
        (Some("EC"), Some(curve)) => {
            let (kind, length) = match curve {
                "P-256" => (KeyKind::P256, 32),
                "P-384" => (KeyKind::P384, 48),
                _ => return Err("a key's crv is not supported"),
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != length || y.len() != length {
                return Err("a point does not fit its crv");
            }
            // Uncompressed (SEC 1 §2.3.3).
            Ok((kind, ([&[4], &*x, &*y].concat(), Vec::new())))
        }
        (Some("OKP"), Some("Ed25519")) => {
            let x = bytes("x")?;
            if x.len() == 32 {
                Ok((KeyKind::Ed25519, (x, Vec::new())))
            } else {
                Err("a point does not fit its crv")
            }
        }
        _ => Err("a key's kty or crv is not supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rsa(bytes: usize) -> Value {
        json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB"})
    }

    fn ec(kid: &str) -> Value {
        let coordinate = URL_SAFE_NO_PAD.encode([7; 32]);
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": coordinate, "y": coordinate})
    }

    fn ed() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([7; 32])})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn read(keys: &[Value]) -> Read {
        KeySet::read(json!({"keys": keys, "more": 1}).to_string().as_bytes()).expect("a key set")
    }

    #[test]
    fn keys_are_found_by_kid_and_algorithm() {
        let set = read(&[rsa(256), ec("a"), ec("a"), ec("b"), with(ec("c"), "kid", Value::Null), ed()]);
        // A kid that is no string.
        assert_eq!(set.skipped, ["a member of a key has the wrong type"]);
        let count = |kid, algorithm| set.set.find(kid, algorithm).map(|keys| keys.len());
        assert_eq!(count(Some("r"), Algorithm::Rs256), Ok(1));
        assert_eq!(count(Some("r"), Algorithm::Ps512), Ok(1));
        assert_eq!(count(Some("a"), Algorithm::Es256), Ok(2));
        assert_eq!(count(Some("a"), Algorithm::Rs256), Err(Reason::Algorithm));
        assert_eq!(count(Some("a"), Algorithm::Es384), Err(Reason::Algorithm));
        assert_eq!(count(Some("x"), Algorithm::Es256), Err(Reason::UnknownKey));
        assert_eq!(count(Some("../b"), Algorithm::Es256), Err(Reason::UnknownKey));
        assert_eq!(count(None, Algorithm::Es256), Ok(3));
        assert_eq!(count(None, Algorithm::Ed25519), Ok(1));
        assert_eq!(count(None, Algorithm::Es384), Err(Reason::Algorithm));
    }

    #[test]
    fn a_token_without_kid_is_tried_with_few_keys() {
        let keys: Vec<_> = (0..30).map(|at| ec(&at.to_string())).collect();
        assert_eq!(read(&keys).set.find(None, Algorithm::Es256).map(|keys| keys.len()), Ok(MOST_TRIED));
    }

    #[test]
    fn a_keys_own_algorithm_binds() {
        let set = read(&[with(rsa(256), "alg", json!("PS256"))]).set;
        assert!(set.find(Some("r"), Algorithm::Ps256).is_ok());
        assert_eq!(set.find(Some("r"), Algorithm::Rs256).err(), Some(Reason::Algorithm));
        let set = read(&[with(with(ed(), "alg", json!("Ed25519")), "use", json!("sig"))]).set;
        assert!(set.find(None, Algorithm::Ed25519).is_ok());
    }

    #[test]
    fn unusable_keys_are_left_out() {
        for bad in [
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!(7),
            json!({}),
            rsa(255),
            rsa(1025),
            with(rsa(256), "e", json!("AQ")),
            with(rsa(256), "e", json!("AQAC")),
            with(rsa(256), "n", json!("!")),
            with(rsa(256), "use", json!("enc")),
            with(rsa(256), "key_ops", json!(["encrypt"])),
            with(rsa(256), "key_ops", json!("verify")),
            with(rsa(256), "alg", json!("RSA-OAEP")),
            with(rsa(256), "alg", json!("HS256")),
            with(rsa(256), "alg", json!("ES256")),
            with(rsa(256), "d", json!("AQAB")),
            with(ec("a"), "crv", json!("P-521")),
            with(ec("a"), "crv", json!("P-384")),
            with(ec("a"), "x", json!("AQAB")),
            with(ed(), "crv", json!("Ed448")),
            with(ed(), "crv", json!("X25519")),
            with(ed(), "x", json!("AQAB")),
        ] {
            let read = read(&[bad.clone(), ec("good")]);
            assert_eq!((read.set.len(), read.skipped.len()), (1, 1), "{bad}");
        }
        let zeros = [&[0, 0][..], &[0xff; 256]].concat();
        let set = read(&[with(rsa(256), "n", json!(URL_SAFE_NO_PAD.encode(zeros)))]).set;
        assert!(set.is_same(&read(&[rsa(256)]).set));
        assert!(!set.is_same(&read(&[ec("a")]).set));
    }

    #[test]
    fn documents_that_are_no_key_sets_are_refused() {
        let many = json!({"keys": vec![ec("a"); 101]}).to_string();
        let twice = r#"{"keys": [{"kty": "RSA", "kty": "EC"}]}"#;
        for bad in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": [], "keys": []}"#, twice, "<html>", &many]
        {
            assert!(KeySet::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(KeySet::read(br#"{"keys": []}"#).expect("a set").set.is_empty());
    }
}
