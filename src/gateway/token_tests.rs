//! Minted tokens, read by the verifier that a sidecar has.

use super::super::key::tests::{OPENSSL, OTHER};
use super::*;
use crate::auth::{self, Algorithm, ClaimNames, IssuerSettings, KeySource, TokenType, Verifier};
use crate::identity::{Means, Principal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const AUDIENCE: &str = "http://time:8080/mcp";
const NOW: u64 = 1_000_000;

fn keys(pem: &str) -> Keys {
    Keys::read(pem.as_bytes()).expect("keys")
}

fn minter() -> Minter {
    Minter::new("https://gateway.example/", keys(OPENSSL))
}

fn ann() -> Identity {
    let ann = Identity::issued(&"https://idp.example".into(), "ann", Means::Token);
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Identity {
        client_id: Some("app".to_owned()),
        scopes: texts(&["read", "write"]),
        groups: texts(&["team a", "b"]),
        roles: texts(&["admin"]),
        ..ann
    }
}

fn mint(minter: &Minter, caller: &Identity, now: u64) -> Arc<str> {
    minter.token(caller, &[AUDIENCE.to_owned()], now).expect("a token").token
}

fn claims_of(token: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    serde_json::from_slice(&claims).expect("JSON")
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// Serves the documents of the gateway, as they are when they are asked for.
async fn gateway(pem: &str) -> Arc<Minter> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let issuer = format!("http://{}", listener.local_addr().expect("an address"));
    let minter = Arc::new(Minter::new(&issuer, keys(pem)));
    let served = Arc::clone(&minter);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = match request.split(' ').nth(1) {
                Some("/.well-known/openid-configuration") => served.metadata(),
                Some("/.well-known/jwks.json") => served.key_set(),
                // A connection that was opened in vain.
                None => continue,
                Some(other) => panic!("nobody needs {other}"),
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    minter
}

/// Starts the verifier of a sidecar with `--auth-issuer GATEWAY --auth-audience AUDIENCE`.
fn sidecar(minter: &Minter, audience: &str) -> Verifier {
    let issuer = IssuerSettings {
        issuer: minter.issuer().to_owned(),
        keys: KeySource::Discovery,
        algorithms: Algorithm::ALL.to_vec(),
        token_type: TokenType::AccessToken,
        audience_claim: "aud".to_owned(),
        ca: None,
        token_file: None,
        insecure: false,
    };
    let claims = ClaimNames {
        scope: vec!["scope".to_owned()],
        groups: "groups".to_owned(),
        roles: "roles".to_owned(),
    };
    let settings = auth::Settings {
        issuers: vec![issuer],
        audiences: vec![audience.to_owned()],
        claims,
        keys_max_age: Duration::from_secs(60),
        ..auth::Settings::default()
    };
    Verifier::start(settings).expect("a verifier")
}

#[tokio::test]
async fn a_sidecar_verifies_tokens_by_discovery_and_sees_the_caller() {
    let minter = gateway(OPENSSL).await;
    let verifier = sidecar(&minter, AUDIENCE);
    let token = mint(&minter, &ann(), now());
    let seen = verifier.verify(&token).await.expect("an identity");
    assert_eq!((&*seen.subject, seen.issuer.as_deref()), ("https://idp.example#ann", Some(minter.issuer())));
    assert_eq!((seen.client_id.as_deref(), &seen.scopes), (Some("app"), &ann().scopes));
    assert_eq!((&seen.groups, &seen.roles), (&ann().groups, &ann().roles));
    let refused = sidecar(&minter, "http://other:8080/mcp").verify(&token).await;
    assert!(refused.is_err(), "a token is for one server");
    let several = [AUDIENCE.to_owned(), "http://time2:8080/mcp".to_owned()];
    let token = minter.token(&ann(), &several, now()).expect("a token").token;
    assert!(sidecar(&minter, &several[1]).verify(&token).await.is_ok(), "any replica of a server");
}

#[tokio::test]
async fn keys_are_rotated_without_a_refused_token() {
    let minter = gateway(OPENSSL).await;
    let verifier = sidecar(&minter, AUDIENCE);
    let former = mint(&minter, &ann(), now());
    assert!(verifier.verify(&former).await.is_ok());
    // The new key signs; the former one is still published.
    minter.replace(keys(&format!("{OTHER}{OPENSSL}")));
    let token = mint(&minter, &ann(), now());
    assert_ne!(token, former);
    // Sidecars do not fetch a key set again at once.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert!(verifier.verify(&token).await.is_ok() && verifier.verify(&former).await.is_ok());
    let forger = Minter::new(minter.issuer(), Keys::generate().expect("a key"));
    assert!(verifier.verify(&mint(&forger, &ann(), now())).await.is_err());
}

#[test]
fn claims_are_those_of_the_caller() {
    let minter = minter();
    let claims = claims_of(&mint(&minter, &ann(), NOW));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://gateway.example"), &json!(AUDIENCE)));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 300)));
    assert_eq!(claims["jti"].as_str().map(str::len), Some(32));
    let bare = Identity::issued(&"https://idp.example".into(), "a#b\"c", Means::Token);
    let claims = claims_of(&mint(&minter, &bare, NOW));
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&json!("https://idp.example#a#b\"c"), &claims["iss"])
    );
    assert!(["scope", "groups", "roles"].iter().all(|name| claims.get(name).is_none()));
}

#[test]
fn no_two_callers_have_the_same_subject() {
    let issued = |issuer: &str, name| Identity::issued(&issuer.into(), name, Means::Token);
    let named = |means| Identity::named(Principal::named("ann").expect("a name"), means);
    let callers = [
        issued("https://a.example", "ann"),
        issued("https://b.example", "ann"),
        issued("https://a.example", "#ann"),
        issued("https://a.example", "anonymous"),
        named(Means::Proxy),
        named(Means::ApiKey),
        Identity::clone(&Identity::anonymous()),
    ];
    let subjects: std::collections::HashSet<_> = callers.iter().map(subject).collect();
    assert_eq!(subjects.len(), callers.len(), "{subjects:?}");
    assert!(subjects.contains("proxy#ann") && subjects.contains("anonymous"));
}

#[test]
fn a_token_is_given_out_again_until_a_minute_before_its_end() {
    let minter = minter();
    let first = mint(&minter, &ann(), NOW);
    assert_eq!(mint(&minter, &ann(), NOW + 239), first);
    let second = mint(&minter, &ann(), NOW + 240);
    assert_ne!(second, first);
    assert_eq!(mint(&minter, &ann(), NOW + 240), second);
    assert_ne!(minter.token(&ann(), &["other".to_owned()], NOW).expect("a token").token, first);
    let narrower = Identity { scopes: vec!["read".to_owned()], ..ann() };
    assert_ne!(mint(&minter, &narrower, NOW + 240), second);
}

#[test]
fn a_token_ends_with_the_caller_s_own() {
    let minter = minter();
    for (own, expected) in [(30, 60), (100, 100), (301, 300), (0, 60)] {
        let caller = Identity { expires: Some(NOW + own), ..ann() };
        minter.replace(keys(OPENSSL));
        assert_eq!(claims_of(&mint(&minter, &caller, NOW))["exp"], NOW + expected, "{own}");
    }
}

#[test]
fn kept_tokens_are_bounded_in_number_and_size() {
    let minter = minter();
    let caller = |at: usize| Identity::issued(&"https://idp.example".into(), &at.to_string(), Means::Token);
    let first = mint(&minter, &caller(0), NOW);
    for at in 1..=MOST {
        mint(&minter, &caller(at), NOW);
    }
    assert_eq!(minter.kept.lock().order.len(), MOST);
    assert_ne!(mint(&minter, &caller(0), NOW), first, "the oldest was dropped");
    let large = |at: usize| Identity { groups: vec!["g".repeat(LONGEST - 500)], ..caller(at) };
    for at in 0..1_000 {
        mint(&minter, &large(at), NOW);
    }
    let kept = minter.kept.lock();
    let bytes: usize = kept.by_claims.iter().map(|(claims, (token, _))| claims.len() + token.len()).sum();
    assert!(kept.bytes <= MOST_BYTES && bytes == kept.bytes && kept.by_claims.len() == kept.order.len());
}

#[test]
fn claims_that_are_too_long_are_refused() {
    let caller = Identity { groups: vec!["g".repeat(LONGEST)], ..ann() };
    assert_eq!(minter().token(&caller, &[AUDIENCE.to_owned()], NOW).map(drop), Err(TooLong));
}
