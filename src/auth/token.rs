//! Reads a compact JWS: the header and the claims, strictly, before any signature is verified.

use super::algorithm::Algorithm;
use super::denied::Reason;
use super::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The bytes of a token (RFC 6750 §2.1, b64token). A table, since each byte of each request's token is looked at.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let letter = byte as u8;
        table[byte] = letter.is_ascii_alphanumeric()
            || matches!(letter, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        byte += 1;
    }
    table
};

/// Returns whether all bytes may occur in a token.
pub fn has_token_bytes_only(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| TOKEN_BYTES[usize::from(*byte)])
}

/// Maximum length of a `kid`.
const LONGEST_KID: usize = 256;
/// Members of a header that change how the rest is to be read. None is supported.
const DEMANDING: [&str; 5] = ["crit", "enc", "zip", "b64", "cty"];

/// A token whose signature is not verified yet.
#[derive(Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub header: Header,
    /// The header and the claims as they were signed.
    pub signed: &'a str,
    /// The signature in base64url.
    pub signature: &'a str,
    pub claims: Map<String, Value>,
}

/// The header of a token. `jku`, `jwk`, `x5u` and `x5c` are not read: keys come from the issuer's configuration only.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub typ: Typ,
}

/// The type of a token (RFC 9068 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typ {
    /// `at+jwt` or `application/at+jwt`
    AccessToken,
    /// `JWT`, or none.
    Unspecific,
}

/// Returns whether a token has the form of a JWT. All others are opaque.
pub(super) fn is_jwt(token: &str) -> bool {
    let Some((header, rest)) = token.split_once('.') else { return false };
    let begins_object = || {
        let first = header.get(..4).and_then(|first| URL_SAFE_NO_PAD.decode(first).ok())?;
        Some(first.trim_ascii_start().first().is_none_or(|byte| *byte == b'{'))
    };
    rest.contains('.') && begins_object() == Some(true)
}

/// Reads a token.
pub(super) fn parse(token: &str) -> Result<Token<'_>, Reason> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Reason::NotAToken)?;
    let (header, claims) = signed.split_once('.').ok_or(Reason::NotAToken)?;
    if claims.contains('.') {
        // Five parts are an encrypted token.
        return Err(Reason::Header);
    }
    let header = self::header(&decoded(header).ok_or(Reason::Header)?)?;
    let claims = decoded(claims).ok_or(Reason::Claims)?;
    Ok(Token { header, signed, signature, claims })
}

/// Decodes a part of a token that is a JSON object.
fn decoded(part: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

fn header(members: &Map<String, Value>) -> Result<Header, Reason> {
    if DEMANDING.iter().any(|name| members.contains_key(*name)) {
        return Err(Reason::Header);
    }
    let kid = match members.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= LONGEST_KID => Some(kid.clone()),
        Some(_) => return Err(Reason::Header),
    };
    let typ = match members.get("typ") {
        None => Typ::Unspecific,
        Some(Value::String(typ)) => match typ.to_ascii_lowercase().as_str() {
            "at+jwt" | "application/at+jwt" => Typ::AccessToken,
            "jwt" => Typ::Unspecific,
            _ => return Err(Reason::TokenType),
        },
        Some(_) => return Err(Reason::Header),
    };
    let algorithm = match members.get("alg") {
        Some(Value::String(name)) => Algorithm::named(name).ok_or(Reason::Algorithm)?,
        _ => return Err(Reason::Header),
    };
    Ok(Header { algorithm, kid, typ })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{claims}.c2ln")
    }

    fn refusal(header: &str) -> Option<Reason> {
        parse(&token(header, "{}")).err()
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(r#"{"alg": "ES256", "kid": "k", "typ": "AT+jwt"}"#, r#"{"sub": "a"}"#);
        let token = parse(&text).expect("a token");
        assert_eq!(
            token.header,
            Header { algorithm: Algorithm::Es256, kid: Some("k".to_owned()), typ: Typ::AccessToken }
        );
        assert_eq!((token.signature, token.claims["sub"].as_str()), ("c2ln", Some("a")));
        assert_eq!(format!("{}.c2ln", token.signed), text);
    }

    #[test]
    fn hmac_none_and_unknown_algorithms_are_refused() {
        for name in
            ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "RS1", "rs256", "Ed448"]
        {
            assert_eq!(refusal(&format!(r#"{{"alg": "{name}"}}"#)), Some(Reason::Algorithm), "{name}");
        }
        for name in
            ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"]
        {
            assert_eq!(refusal(&format!(r#"{{"alg": "{name}"}}"#)), None, "{name}");
        }
        assert_eq!(refusal(r#"{"alg": null}"#), Some(Reason::Header));
        assert_eq!(refusal("{}"), Some(Reason::Header));
    }

    #[test]
    fn headers_that_demand_anything_or_are_ambiguous_are_refused() {
        for more in [
            r#""crit": ["exp"]"#,
            r#""crit": []"#,
            r#""crit": ["b64"], "b64": true"#,
            r#""enc": "A128GCM""#,
            r#""zip": "DEF""#,
            r#""cty": "JWT""#,
            r#""alg": "ES256""#,
            r#""kid": 7"#,
            r#""typ": ["at+jwt"]"#,
        ] {
            assert_eq!(refusal(&format!(r#"{{"alg": "ES256", {more}}}"#)), Some(Reason::Header), "{more}");
        }
        let long = format!(r#"{{"alg": "ES256", "kid": "{}"}}"#, "k".repeat(257));
        assert_eq!(refusal(&long), Some(Reason::Header));
        assert_eq!(refusal("[]"), Some(Reason::Header));
    }

    #[test]
    fn keys_in_a_header_are_ignored() {
        let header =
            r#"{"alg": "ES256", "jku": "https://evil.example", "x5u": 1, "jwk": {"kty": "oct"}, "x5c": []}"#;
        assert_eq!(refusal(header), None);
        assert_eq!(refusal(r#"{"alg": "ES256", "kid": "../../etc/passwd"}"#), None);
    }

    #[test]
    fn only_types_of_access_tokens_are_accepted() {
        for (typ, expected) in [
            ("at+jwt", Ok(Typ::AccessToken)),
            ("application/at+jwt", Ok(Typ::AccessToken)),
            ("JWT", Ok(Typ::Unspecific)),
            ("oauth-id-jag+jwt", Err(Reason::TokenType)),
            ("logout+jwt", Err(Reason::TokenType)),
            ("dpop+jwt", Err(Reason::TokenType)),
            ("", Err(Reason::TokenType)),
        ] {
            let text = token(&format!(r#"{{"alg": "ES256", "typ": "{typ}"}}"#), "{}");
            assert_eq!(parse(&text).map(|token| token.header.typ), expected, "{typ}");
        }
    }

    #[test]
    fn anything_but_three_parts_is_refused() {
        let three = token(r#"{"alg": "ES256"}"#, "{}");
        assert_eq!(parse("a").err(), Some(Reason::NotAToken));
        assert_eq!(parse("a.b").err(), Some(Reason::NotAToken));
        assert_eq!(parse(&format!("{three}.a.b")).err(), Some(Reason::Header));
        assert_eq!(parse(&token("{}x", "{}")).err(), Some(Reason::Header));
        assert_eq!(parse(&three.replace('.', "=.")).err(), Some(Reason::Header));
        for claims in ["[]", "", r#"{"sub": "a", "sub": "b"}"#, r#"{"act": {"sub": 1, "sub": 2}}"#] {
            assert_eq!(parse(&token(r#"{"alg": "ES256"}"#, claims)).err(), Some(Reason::Claims), "{claims}");
        }
    }

    #[test]
    fn jwts_are_told_from_opaque_tokens() {
        assert!(is_jwt(&token(r#"{"alg": "ES256"}"#, "{}")));
        assert!(is_jwt(&token("  \n{}", "{}")));
        for opaque in ["", "a", "a.b.c", "gho_abc", "v1.local.abc", "a.b", ".b.c"] {
            assert!(!is_jwt(opaque), "{opaque}");
        }
    }
}
