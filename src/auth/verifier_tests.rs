//! Tokens and keys of every kind, good and bad, against the whole verifier.

use super::super::fixtures::{
    AUDIENCE, Idp, Signer, claims, file, jump, jwks, reason, settings, start, usual,
};
use super::super::settings::{KeySource, TokenType};
use super::super::{NewKey, algorithm::Algorithm};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

#[tokio::test]
async fn tokens_of_every_algorithm_are_verified_and_then_known() {
    let names = ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let signers = names.map(|name| Signer::new(name, name));
    let idp = Idp::start(&signers.iter().collect::<Vec<_>>()).await;
    let verifier = start(settings(&idp.issuer));
    for signer in &signers {
        let token = signer.token(&idp.issuer, json!({}));
        assert!(verifier.known(&token).is_none());
        let identity = verifier.verify(&token).await.expect(signer.name);
        assert_eq!((identity.subject.as_str(), identity.means), ("ann", Means::Token));
        let known = verifier.known(&token).expect("known").expect("accepted");
        assert!(Arc::ptr_eq(&known, &identity));
        // Without kid, every fitting key is tried.
        let mut header = signer.header();
        header.as_object_mut().expect("an object").remove("kid");
        let token = signer.sign(&header, &claims(&idp.issuer, json!({})));
        assert!(verifier.verify(&token).await.is_ok(), "{}", signer.name);
    }
    assert_eq!(idp.received("/jwks").len(), 1);
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (ec, rsa) = (Signer::new("ec", "ES256"), Signer::new("rsa", "RS256"));
    let idp = Idp::start(&[&ec, &rsa]).await;
    let verifier = start(settings(&idp.issuer));
    let good = claims(&idp.issuer, json!({}));
    let other = Signer::new("ec", "ES256");
    // Signed by another key with the same kid, with the key in the header.
    let own_key = json!({"alg": "ES256", "typ": "at+jwt", "kid": "ec", "jwk": other.jwk(), "jku": format!("{}/evil", idp.issuer)});
    assert_eq!(reason(&verifier.verify(&other.sign(&own_key, &good)).await), Some(Reason::Signature));
    assert!(idp.received("/evil").is_empty());
    // Of a kind that the key does not have.
    let confused = json!({"alg": "RS256", "typ": "at+jwt", "kid": "ec"});
    assert_eq!(reason(&verifier.verify(&rsa.sign(&confused, &good)).await), Some(Reason::Algorithm));
    // Another encoding of RSA.
    let pss = json!({"alg": "PS256", "typ": "at+jwt", "kid": "rsa"});
    assert_eq!(reason(&verifier.verify(&rsa.sign(&pss, &good)).await), Some(Reason::Signature));
    // HMAC with the public key, and no signature at all.
    for (name, signature) in [("HS256", hmac(&rsa, &good)), ("none", String::new())] {
        let header = json!({"alg": name, "typ": "at+jwt", "kid": "rsa"}).to_string();
        let token = format!(
            "{}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(good.to_string())
        );
        assert_eq!(reason(&verifier.verify(&token).await), Some(Reason::Algorithm), "{name}");
    }
    // Altered, cut, extended, or encoded otherwise.
    let token = ec.token(&idp.issuer, json!({}));
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    let (head, _) = signed.split_once('.').expect("a token");
    let altered = claims(&idp.issuer, json!({"sub": "bob"})).to_string();
    for bad in [
        format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(altered)),
        format!("{signed}.{}", &signature[1..]),
        format!("{signed}.A{signature}"),
        format!("{signed}."),
        format!("{token}="),
    ] {
        assert_eq!(reason(&verifier.verify(&bad).await), Some(Reason::Signature), "{bad}");
        assert!(verifier.known(&bad).is_none());
    }
    assert!(verifier.verify(&token).await.is_ok());
}

/// Returns an HMAC of a token by the bytes of a public key.
fn hmac(signer: &Signer, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let secret = signer.jwk()["n"].as_str().expect("a modulus").to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()))
}

#[tokio::test]
async fn bad_claims_and_headers_have_their_reasons() {
    let (signer, idp, verifier) = usual().await;
    let now = time::now();
    for (more, expected) in [
        (json!({"exp": now - 30}), None),
        (json!({"exp": now - 61}), Some(Reason::Expired)),
        (json!({"nbf": now + 120}), Some(Reason::NotYetValid)),
        (json!({"iat": now + 120}), Some(Reason::IssuedInFuture)),
        (json!({"aud": 7}), Some(Reason::Audience)),
        (json!({"aud": ["other", AUDIENCE]}), None),
        (json!({"iss": "https://other.example"}), Some(Reason::Issuer)),
        (json!({"sub": ""}), Some(Reason::Subject)),
        (json!({"exp": null}), Some(Reason::Claims)),
    ] {
        let outcome = verifier.verify(&signer.token(&idp.issuer, more.clone())).await;
        assert_eq!(reason(&outcome), expected, "{more}");
        assert_eq!(outcome.is_ok(), expected.is_none(), "{more}");
    }
    let good = claims(&idp.issuer, json!({}));
    for (header, expected) in [
        (json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), Reason::TokenType),
        (json!({"alg": "ES256", "kid": "k1"}), Reason::TokenType),
        (json!({"alg": "ES256", "kid": "k1", "typ": "oauth-id-jag+jwt"}), Reason::TokenType),
        (json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}), Reason::TokenType),
        (json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt", "crit": ["x"]}), Reason::Header),
    ] {
        assert_eq!(reason(&verifier.verify(&signer.sign(&header, &good)).await), Some(expected), "{header}");
    }
    // A token that expired within the leeway is accepted, but not remembered.
    let late = signer.token(&idp.issuer, json!({"exp": now - 30}));
    assert!(verifier.verify(&late).await.is_ok() && verifier.known(&late).is_none());
}

#[tokio::test]
async fn credentials_of_bad_syntax_are_refused_at_once() {
    let (signer, idp, verifier) = usual().await;
    for bad in ["", "=", "a b", "a\"b", "é", "a,b", "a\n"] {
        assert_eq!(verifier.known(bad).expect("refused").err(), Some(Denied::Malformed), "{bad:?}");
    }
    let long = signer.token(&idp.issuer, json!({"pad": "x".repeat(17 << 10)}));
    assert_eq!(reason(&verifier.known(&long).expect("refused")), Some(Reason::TooLarge));
    for opaque in ["abc", "a.b.c", "prk_abc"] {
        assert_eq!(reason(&verifier.verify(opaque).await), Some(Reason::NotAToken), "{opaque}");
    }
}

#[tokio::test]
async fn issuers_have_their_own_keys_algorithms_types_and_audience_claims() {
    let (a, b) = (Signer::new("k", "ES256"), Signer::new("k", "EdDSA"));
    let (idp_a, idp_b) = (Idp::start(&[&a]).await, Idp::start(&[]).await);
    let mut settings = settings(&idp_a.issuer);
    let mut second = settings.issuers[0].clone();
    second.issuer = idp_b.issuer.clone();
    second.keys = KeySource::File(file("several", &jwks(&[&b])));
    second.token_type = TokenType::Jwt;
    second.audience_claim = "client_id".to_owned();
    settings.issuers[0].algorithms = vec![Algorithm::Es256];
    settings.issuers.push(second);
    let verifier = start(settings);
    let cognito = json!({"aud": null, "client_id": AUDIENCE});
    let untyped = json!({"alg": "EdDSA", "kid": "k"});
    let token = b.sign(&untyped, &claims(&idp_b.issuer, cognito.clone()));
    assert_eq!(verifier.verify(&token).await.expect("accepted").issuer.as_deref(), Some(&*idp_b.issuer));
    assert!(verifier.verify(&a.token(&idp_a.issuer, json!({}))).await.is_ok());
    // The keys of one issuer are worth nothing at the other.
    assert_eq!(reason(&verifier.verify(&a.token(&idp_b.issuer, cognito)).await), Some(Reason::Algorithm));
    assert_eq!(reason(&verifier.verify(&b.token(&idp_a.issuer, json!({}))).await), Some(Reason::Algorithm));
    assert_eq!(reason(&verifier.verify(&b.token(&idp_b.issuer, json!({}))).await), Some(Reason::Audience));
    assert!(idp_b.received("/jwks").is_empty());
}

#[tokio::test]
async fn required_scopes_are_checked_after_everything_else() {
    let (signer, idp, _) = usual().await;
    let mut settings = settings(&idp.issuer);
    settings.scopes = vec!["read".to_owned(), "call".to_owned()];
    settings.implies = vec![("all".to_owned(), vec!["read".to_owned(), "call".to_owned()])];
    let verifier = start(settings);
    let token = signer.token(&idp.issuer, json!({}));
    let missing = Denied::Scope { missing: ["call".to_owned()].into() };
    assert_eq!(verifier.verify(&token).await.err(), Some(missing.clone()));
    assert_eq!(verifier.known(&token).expect("known").err(), Some(missing));
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({"scope": "all"}))).await.is_ok());
    let forged = Signer::new("k1", "ES256").token(&idp.issuer, json!({}));
    assert_eq!(reason(&verifier.verify(&forged).await), Some(Reason::Signature));
}

#[tokio::test]
async fn api_keys_are_known_at_once_and_reloaded() {
    let (old, new) = (
        NewKey::create("old", &[], None).expect("a key"),
        NewKey::create("new", &["call".to_owned()], None).expect("a key"),
    );
    let path = file("api-keys", &old.entry);
    let settings =
        Settings { api_keys: Some(path.clone()), scopes: vec!["call".to_owned()], ..Settings::default() };
    let verifier = start(Settings { scopes: Vec::new(), ..settings.clone() });
    assert_eq!(verifier.known(&old.key).expect("known").expect("accepted").subject, "old");
    assert!(verifier.known(&new.key).is_none());
    assert_eq!(reason(&verifier.verify(&new.key).await), Some(Reason::NotAToken));
    std::fs::write(&path, "broken: [").expect("written");
    let before = FAILED_API_KEY_RELOADS.value();
    while FAILED_API_KEY_RELOADS.value() == before {
        jump(10).await;
    }
    assert!(verifier.known(&old.key).is_some() && verifier.known(&new.key).is_none());
    std::fs::write(&path, &new.entry).expect("written");
    while verifier.known(&new.key).is_none() {
        jump(10).await;
    }
    assert!(verifier.known(&old.key).is_none());
    let strict = start(settings.clone());
    assert!(strict.known(&new.key).expect("known").is_ok());
    std::fs::write(&path, &old.entry).expect("written");
    let missing = Denied::Scope { missing: ["call".to_owned()].into() };
    assert_eq!(start(settings.clone()).known(&old.key).expect("known").err(), Some(missing));
    std::fs::write(&path, "broken: [").expect("written");
    let error = Verifier::start(settings).expect_err("a broken file").to_string();
    assert!(error.contains("--api-keys") && error.contains("not valid YAML"), "{error}");
}

#[tokio::test]
async fn unusable_files_are_reported_at_start() {
    let missing = std::path::PathBuf::from("/does/not/exist");
    let mut bad = settings("https://a.example");
    bad.issuers[0].ca = Some(missing.clone());
    let error = Verifier::start(bad).expect_err("no authorities").to_string();
    assert!(error.contains("https://a.example") && error.contains("(ca)"), "{error}");
    let mut bad = settings("https://a.example");
    bad.issuers[0].token_file = Some(missing);
    assert!(Verifier::start(bad).expect_err("no token").to_string().contains("/does/not/exist"));
    let mut bad = settings("https://a.example");
    bad.issuers[0].ca = Some(file("ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    assert!(Verifier::start(bad).is_err());
}

#[tokio::test]
async fn tasks_end_with_the_last_copy() {
    let (signer, idp, verifier) = usual().await;
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({}))).await.is_ok());
    let issuer = Arc::downgrade(&verifier.0.issuers[0]);
    drop(verifier.clone());
    assert!(issuer.upgrade().is_some());
    drop(verifier);
    while issuer.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_verdict_shows_nothing_of_the_token() {
    let scope = Denied::Scope { missing: ["call".to_owned()].into() };
    for denied in [Denied::Malformed, Denied::NoKeys, Denied::Busy, scope, Denied::Invalid(Reason::Signature)]
    {
        assert!(!denied.to_string().is_empty() && !denied.result().contains(' '));
    }
}

/// For docs/authentication.md; with the optimizer of a release:
/// `cargo test --release --lib the_cost_of_a_token -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn the_cost_of_a_token() {
    const TOKENS: u32 = 500;
    let cpu = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("usage");
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
    };
    for name in ["RS256", "ES256", "EdDSA"] {
        let signer = Signer::new("k1", name);
        let idp = Idp::start(&[&signer]).await;
        let verifier = start(settings(&idp.issuer));
        let more = |id: u32| json!({"jti": id, "groups": ["eng", "ops"], "note": "x".repeat(200)});
        assert!(verifier.verify(&signer.token(&idp.issuer, more(0))).await.is_ok());
        let tokens: Vec<_> = (1..=TOKENS).map(|id| signer.token(&idp.issuer, more(id))).collect();
        let begun = cpu();
        for token in &tokens {
            verifier.verify(token).await.expect("an identity");
        }
        let new = cpu() - begun;
        let begun = cpu();
        for _ in 0..10 {
            for token in &tokens {
                std::hint::black_box(verifier.known(token)).expect("known").expect("an identity");
            }
        }
        let known = (cpu() - begun) / 10;
        let nanoseconds = |all: i64| all * 1_000 / i64::from(TOKENS);
        let (length, new, known) = (tokens[0].len(), nanoseconds(new), nanoseconds(known));
        eprintln!("{name}, {length} bytes: {new} ns of CPU for a new token, {known} ns for a known one");
    }
}
