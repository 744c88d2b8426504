//! API keys (`--api-keys`): a file lists their names and digests, never the keys themselves.

use super::denied::{Denied, Reason};
use super::time;
use crate::identity::{Identity, Means, Revocation};
use crate::yaml::{self, Entry, Node, Unusable, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use ring::digest::{SHA256, digest};
use serde_json::Map;
use std::fmt::Write as _;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Maximum number of keys: each caller's key is compared with all of them.
const MOST: usize = 1_000;
/// Maximum length of a name.
const LONGEST_NAME: usize = 256;
/// The issuer of all API keys.
const ISSUER: &str = "urn:proxyrunner:api-keys";
/// The beginning of a new key, by which scanners for leaked secrets recognize it.
pub(super) const PREFIX: &str = "prk_";

/// One key of the file.
#[derive(Debug)]
struct ApiKey {
    digest: [u8; 32],
    expires: Option<u64>,
    identity: Arc<Identity>,
}

impl ApiKey {
    /// Returns whether both are the same entry of the file.
    fn is_same(&self, other: &ApiKey) -> bool {
        let (own, others) = (&self.identity, &other.identity);
        self.digest == other.digest
            && self.expires == other.expires
            && own.subject == others.subject
            && own.scopes == others.scopes
    }
}

/// The keys in use.
#[derive(Debug)]
pub(super) struct ApiKeys(RwLock<Arc<[ApiKey]>>);

impl ApiKeys {
    /// Creates the keys from the content of a file.
    ///
    /// # Errors
    /// In words, without any digest, when the file is unusable.
    pub(super) fn read(content: &[u8]) -> Result<Self, String> {
        Ok(ApiKeys(RwLock::new(parse(content)?.into())))
    }

    /// Replaces all keys by those of the content.
    ///
    /// # Errors
    /// In words, without any digest, when the file is unusable; the previous keys stay.
    pub(super) fn replace(&self, content: &[u8]) -> Result<(), String> {
        let mut keys = parse(content)?;
        let mut current = self.0.write();
        for key in current.iter() {
            match keys.iter_mut().find(|new| new.is_same(key)) {
                Some(same) => same.identity = Arc::clone(&key.identity),
                None => key.identity.revoked.iter().for_each(Revocation::revoke),
            }
        }
        tracing::info!(keys = keys.len(), "API keys are in use");
        *current = keys.into();
        Ok(())
    }

    /// Returns the owner of the key with this digest. It takes the same time for every digest.
    pub(super) fn find(&self, digest: &[u8; 32], now: u64) -> Option<Result<Arc<Identity>, Denied>> {
        let keys = Arc::clone(&self.0.read());
        let mut found = None;
        for key in &*keys {
            if bool::from(key.digest.ct_eq(digest)) {
                found = Some(key);
            }
        }
        let key = found?;
        let is_expired = key.expires.is_some_and(|expires| expires <= now);
        Some(if is_expired {
            Err(Denied::Invalid(Reason::ExpiredKey))
        } else {
            Ok(Arc::clone(&key.identity))
        })
    }
}

/// Reads a list of keys in YAML or JSON.
fn parse(content: &[u8]) -> Result<Vec<ApiKey>, String> {
    let text = std::str::from_utf8(content).map_err(|_| "the file is not UTF-8".to_owned())?;
    let node = yaml::parse(text).map_err(|unusable| match unusable {
        Unusable::Malformed(line) => format!("line {line} is not valid YAML or JSON"),
        Unusable::DuplicateKey(line) => format!("line {line} contains a key twice"),
    })?;
    let items = match node.map(|node| node.value) {
        // As in the moment in which a program writes the file anew.
        None | Some(Value::Null) => return Err("the file is empty; write [] for no keys".to_owned()),
        Some(Value::List(items)) => items,
        Some(_) => return Err("the file is not a list of keys".to_owned()),
    };
    if items.len() > MOST {
        return Err(format!("the file has more than {MOST} keys"));
    }
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        let key = key(item).map_err(|why| format!("line {}: {why}", item.line))?;
        if keys.iter().any(|other: &ApiKey| other.digest == key.digest) {
            return Err(format!("line {}: another entry has the same sha256", item.line));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(item: &Node) -> Result<ApiKey, &'static str> {
    let Value::Map(entries) = &item.value else { return Err("the entry is not a map") };
    let (mut name, mut digest, mut scopes, mut expires) = (None, None, Vec::new(), None);
    for Entry { key, node, .. } in entries {
        match (key.as_str(), &node.value) {
            ("name", Value::Text(text)) => name = Some(text.as_str()),
            ("sha256", Value::Text(text)) => {
                digest = Some(hex(text).ok_or("sha256 is not 64 hexadecimal digits")?)
            }
            ("scopes", Value::Text(text)) => {
                scopes = text.split_ascii_whitespace().map(str::to_owned).collect()
            }
            ("scopes", Value::List(items)) => {
                let texts = items.iter().map(|item| match &item.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                });
                scopes = texts.collect::<Option<_>>().ok_or("scopes is not a list of names")?;
                if !scopes.iter().all(|scope| is_scope(scope)) {
                    return Err("a scope is empty or has blanks");
                }
            }
            ("expires", Value::Text(text)) => {
                expires = Some(
                    time::parse(text)
                        .ok_or("expires is not a date such as 2027-01-31 or 2027-01-31T12:00:00Z")?,
                );
            }
            ("scopes", Value::Null) => {}
            ("expires", Value::Null) => {
                return Err("expires has no value; leave it out for a key without end");
            }
            ("name" | "sha256" | "scopes" | "expires", _) => return Err("a value has the wrong type"),
            _ => return Err("the entry has a member other than name, sha256, scopes and expires"),
        }
    }
    let name = name.ok_or("name is missing")?;
    if !is_name(name) {
        return Err("name is empty, too long, reserved, or has control characters");
    }
    let digest = digest.ok_or("sha256 is missing")?;
    Ok(ApiKey { digest, expires, identity: Arc::new(identity(name, scopes, expires)) })
}

fn is_name(name: &str) -> bool {
    // The audit log calls a caller without a name so; the others are names of proxyrunner's own.
    let is_taken = name == "anonymous" || name.starts_with("urn:proxyrunner:");
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control) && !is_taken
}

fn is_scope(scope: &str) -> bool {
    !scope.is_empty() && !scope.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn identity(name: &str, scopes: Vec<String>, expires: Option<u64>) -> Identity {
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), ISSUER.into());
    claims.insert("sub".to_owned(), name.into());
    if !scopes.is_empty() {
        claims.insert("scope".to_owned(), scopes.join(" ").into());
    }
    let revoked = Some(Revocation::default());
    Identity { scopes, claims, expires, revoked, ..Identity::issued(&ISSUER.into(), name, Means::ApiKey) }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// A new key, which is shown once, and its entry for the file.
pub struct NewKey {
    /// The key. It is nowhere else.
    pub key: String,
    /// The entry for the file of `--api-keys`.
    pub entry: String,
}

impl NewKey {
    /// Creates a key of 256 random bits.
    ///
    /// # Errors
    /// In words, when the name or the expiry is unusable, or the system has no random bytes.
    pub fn create(name: &str, scopes: &[String], expires: Option<&str>) -> Result<Self, String> {
        if !is_name(name) {
            return Err("the name is empty, too long, reserved, or has control characters".to_owned());
        }
        if !scopes.iter().all(|scope| is_scope(scope)) {
            return Err("a scope is empty or has blanks".to_owned());
        }
        if let Some(expires) = expires {
            let end = time::parse(expires)
                .ok_or("the expiry is not a date such as 2027-01-31 or 2027-01-31T12:00:00Z")?;
            if end <= time::now() {
                return Err(format!("a key that expires on {expires} would be expired already"));
            }
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| format!("no random bytes: {error}"))?;
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let sha256 = digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        // JSON strings are YAML strings.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut entry = format!("- name: {}\n  sha256: {sha256}\n", quoted(name));
        if !scopes.is_empty() {
            let scopes: Vec<_> = scopes.iter().map(|scope| quoted(scope)).collect();
            let _ = writeln!(entry, "  scopes: [{}]", scopes.join(", "));
        }
        if let Some(expires) = expires {
            let _ = writeln!(entry, "  expires: {}", quoted(expires));
        }
        Ok(NewKey { key, entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(key: &str) -> [u8; 32] {
        digest(&SHA256, key.as_bytes()).as_ref().try_into().expect("32 bytes")
    }

    fn entry(more: &str) -> String {
        format!("- name: a\n  sha256: {}\n{more}", "0f".repeat(32))
    }

    #[test]
    fn a_new_key_is_found_by_its_entry() {
        let scopes = ["mcp:read".to_owned(), "mcp:write".to_owned()];
        let new = NewKey::create("ci: \"nightly\"", &scopes, Some("2027-01-31")).expect("a key");
        assert!(new.key.starts_with(PREFIX) && new.key.len() == 47, "{}", new.key);
        assert!(!new.entry.contains(&new.key));
        let other = NewKey::create("other", &[], None).expect("a key");
        let keys = ApiKeys::read((new.entry + &other.entry).as_bytes()).expect("a file");
        let found = keys.find(&digest_of(&new.key), 0).expect("known").expect("accepted");
        assert_eq!((&*found.subject, found.means), ("ci: \"nightly\"", Means::ApiKey));
        assert_eq!(found.issuer.as_deref(), Some(ISSUER));
        assert_eq!(found.scopes, scopes);
        assert_eq!(found.claims["scope"], "mcp:read mcp:write");
        let found = keys.find(&digest_of(&other.key), u64::MAX).expect("known").expect("accepted");
        assert!(found.scopes.is_empty() && found.expires.is_none());
        assert!(keys.find(&digest_of("prk_other"), 0).is_none());
        let names: Vec<_> = ["", "a\nb", "anonymous", "urn:proxyrunner:client:c", &"x".repeat(257)]
            .map(|name| NewKey::create(name, &[], None).err())
            .into();
        assert!(names.iter().all(Option::is_some), "{names:?}");
        assert!(NewKey::create("a", &["b c".to_owned()], None).is_err());
        for expires in ["soon", "2020-01-01"] {
            assert!(NewKey::create("a", &[], Some(expires)).is_err(), "{expires}");
        }
    }

    #[test]
    fn an_expired_key_is_refused_from_its_second_on() {
        let keys = ApiKeys::read(entry("  expires: 1970-01-01T00:01:40Z\n").as_bytes()).expect("a file");
        let at = |now| keys.find(&[0x0f; 32], now).expect("known");
        assert!(at(99).is_ok());
        assert_eq!(at(100).err(), Some(Denied::Invalid(Reason::ExpiredKey)));
    }

    #[test]
    fn files_are_yaml_or_json() {
        assert!(parse(b"[]").expect("a file").is_empty());
        let json = format!(r#"[{{"name": "a", "sha256": "{}", "scopes": "x y"}}]"#, "0F".repeat(32));
        let keys = parse(json.as_bytes()).expect("a file");
        assert_eq!(keys[0].identity.scopes, ["x", "y"]);
        assert_eq!(keys[0].digest, [0x0f; 32]);
    }

    #[test]
    fn bad_files_are_refused_without_their_contents() {
        let many = (0..=MOST).map(|at| format!("- name: a\n  sha256: {at:064x}\n")).collect::<String>();
        for (bad, why) in [
            (entry("") + &entry(""), "line 3: another entry has the same sha256"),
            (entry("  scope: x\n"), "other than"),
            (entry("  scopes: {a: b}\n"), "wrong type"),
            (entry("  scopes: [[a]]\n"), "not a list of names"),
            (entry("  expires: soon\n"), "not a date"),
            (entry("  name: b\n"), "line 3 contains a key twice"),
            ("- name: a\n".to_owned(), "sha256 is missing"),
            ("- name: a\n  sha256: 0f\n".to_owned(), "64 hexadecimal digits"),
            (format!("- name: a\n  sha256: {}\n", "0g".repeat(32)), "64 hexadecimal digits"),
            (format!("- sha256: {}\n", "0f".repeat(32)), "name is missing"),
            (format!("- name: ''\n  sha256: {}\n", "0f".repeat(32)), "name is empty"),
            ("- a\n".to_owned(), "not a map"),
            ("keys: []\n".to_owned(), "not a list of keys"),
            ("- [".to_owned(), "not valid YAML"),
            (String::new(), "the file is empty"),
            ("# none\n".to_owned(), "the file is empty"),
            ("null".to_owned(), "the file is empty"),
            (entry("  expires:\n"), "expires has no value"),
            (entry("  scopes: ['a b']\n"), "a scope is empty or has blanks"),
            (entry("  scopes: ['']\n"), "a scope is empty or has blanks"),
            (many, "more than 1000 keys"),
        ] {
            let refusal = parse(bad.as_bytes()).expect_err(&bad);
            assert!(refusal.contains(why), "{refusal} instead of {why}");
            assert!(!refusal.contains("0f0f"), "{refusal}");
        }
        assert!(parse(b"\xff").is_err());
        let keys = ApiKeys::read(entry("").as_bytes()).expect("a file");
        assert!(keys.replace(b"- bad\n").is_err());
        assert!(keys.find(&[0x0f; 32], 0).is_some());
        let identity = |keys: &ApiKeys| keys.find(&[0x0f; 32], 0).expect("known").expect("accepted");
        let first = identity(&keys);
        let is_revoked = || first.revoked.as_ref().is_some_and(Revocation::is_revoked);
        let other = format!("- name: b\n  sha256: {}\n", "1f".repeat(32));
        keys.replace((entry("") + &other).as_bytes()).expect("replaced");
        assert!(Arc::ptr_eq(&first, &identity(&keys)) && !is_revoked(), "the same entry");
        keys.replace(entry("  expires: 2999-01-01\n").as_bytes()).expect("replaced");
        assert!(is_revoked(), "another end");
        keys.replace(b"[]").expect("replaced");
        assert!(keys.find(&[0x0f; 32], 0).is_none());
    }
}
