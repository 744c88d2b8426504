//! Key sets that change, and issuers that are slow, wrong, huge or down, against the whole verifier.

use super::super::fixtures::{Idp, Reply, Signer, file, jump, jwks, reason, settings, start, usual};
use super::super::settings::KeySource;
use super::*;
use serde_json::json;

#[tokio::test]
async fn an_unknown_key_causes_one_fetch_that_requests_share() {
    let (signer, idp, verifier) = usual().await;
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({}))).await.is_ok());
    let new = Signer::new("k2", "ES256");
    idp.keys(&[&signer, &new]);
    // A moment after the last fetch, none is made.
    let token = new.token(&idp.issuer, json!({}));
    assert_eq!(reason(&verifier.verify(&token).await), Some(Reason::UnknownKey));
    assert_eq!(idp.received("/jwks").len(), 1);
    jump(10).await;
    let requests = (0..20).map(|at| {
        let (verifier, token) = (verifier.clone(), new.token(&idp.issuer, json!({"jti": at})));
        tokio::spawn(async move { verifier.verify(&token).await.is_ok() })
    });
    for request in requests.collect::<Vec<_>>() {
        assert!(request.await.expect("no panic"));
    }
    assert_eq!(idp.received("/jwks").len(), 2);
    // Keys that nobody has do not cause more.
    let strange = Signer::new("k3", "ES256").token(&idp.issuer, json!({}));
    for _ in 0..5 {
        assert_eq!(reason(&verifier.verify(&strange).await), Some(Reason::UnknownKey));
    }
    assert_eq!(idp.received("/jwks").len(), 2);
    jump(10).await;
    for _ in 0..5 {
        assert_eq!(reason(&verifier.verify(&strange).await), Some(Reason::UnknownKey));
    }
    assert_eq!(idp.received("/jwks").len(), 3);
}

#[tokio::test]
async fn an_outdated_token_with_an_unknown_key_causes_no_fetch() {
    let (signer, idp, verifier) = usual().await;
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({}))).await.is_ok());
    jump(10).await;
    let old = Signer::new("k0", "ES256").token(&idp.issuer, json!({"exp": 1}));
    assert_eq!(reason(&verifier.verify(&old).await), Some(Reason::Expired));
    assert_eq!(idp.received("/jwks").len(), 1);
}

#[tokio::test]
async fn a_key_that_left_the_set_is_worth_nothing_and_cached_results_go_with_it() {
    let (signer, idp, verifier) = usual().await;
    let token = signer.token(&idp.issuer, json!({}));
    assert!(verifier.verify(&token).await.is_ok() && verifier.known(&token).is_some());
    let new = Signer::new("k2", "ES256");
    idp.keys(&[&new]);
    jump(10).await;
    assert!(verifier.verify(&new.token(&idp.issuer, json!({}))).await.is_ok());
    assert!(verifier.known(&token).is_none());
    assert_eq!(reason(&verifier.verify(&token).await), Some(Reason::UnknownKey));
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background() {
    let (signer, idp, verifier) = usual().await;
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({}))).await.is_ok());
    let mut held = verifier.0.issuers[0].watch();
    jump(10 * 60).await;
    held.changed().await.expect("refreshed");
    assert_eq!(idp.received("/jwks").len(), 2);
}

#[tokio::test]
async fn without_any_keys_nobody_is_told_that_a_token_is_invalid() {
    let signer = Signer::new("k1", "ES256");
    let idp = Idp::start(&[&signer]).await;
    idp.reply("/jwks", Reply::Closed);
    let verifier = start(settings(&idp.issuer));
    let token = signer.token(&idp.issuer, json!({}));
    assert_eq!(verifier.verify(&token).await.err(), Some(Denied::NoKeys));
    assert_eq!(verifier.verify(&token).await.err(), Some(Denied::NoKeys));
    assert_eq!(verifier.clone().keys_at_start().await.err().map(|error| error.to_string()), None);
    idp.keys(&[&signer]);
    jump(60).await;
    assert!(verifier.verify(&token).await.is_ok());
    // A set without usable keys is as good as none.
    idp.reply("/jwks", Reply::Body(json!({"keys": [{"kty": "oct"}]}).to_string()));
    let mut held = verifier.0.issuers[0].watch();
    jump(10 * 60).await;
    held.changed().await.expect("refreshed");
    assert_eq!(verifier.verify(&token).await.err(), Some(Denied::NoKeys));
}

#[tokio::test]
async fn an_issuer_that_ends_is_missed_after_a_day() {
    let (signer, idp, verifier) = usual().await;
    let token = signer.token(&idp.issuer, json!({}));
    assert!(verifier.verify(&token).await.is_ok());
    idp.reply("/jwks", Reply::Status(500, "x: y"));
    let mut held = verifier.0.issuers[0].watch();
    jump(60 * 60).await;
    held.changed().await.expect("attempted");
    assert!(verifier.verify(&signer.token(&idp.issuer, json!({"jti": 1}))).await.is_ok());
    let mut held = verifier.0.issuers[0].watch();
    jump(24 * 60 * 60).await;
    held.changed().await.expect("attempted");
    assert_eq!(verifier.verify(&token).await.err(), Some(Denied::NoKeys));
    assert!(verifier.known(&token).is_none());
}

#[tokio::test]
async fn issuers_that_misbehave_have_no_keys() {
    let signer = Signer::new("k1", "ES256");
    let huge = format!("{{\"keys\": [], \"pad\": \"{}\"}}", "x".repeat(1 << 20));
    let many = json!({"keys": vec![signer.jwk(); 101]}).to_string();
    for (path, reply) in [
        ("/jwks", Reply::Status(302, "location: /other")),
        ("/jwks", Reply::Status(500, "x: y")),
        ("/jwks", Reply::Body(huge)),
        ("/jwks", Reply::Body(many)),
        ("/jwks", Reply::Body("<html>".to_owned())),
        ("/jwks", Reply::Body("{\"keys\": [], \"keys\": []}".to_owned())),
        ("/.well-known/openid-configuration", Reply::Status(302, "location: /other")),
        ("/.well-known/openid-configuration", Reply::Body("{}".to_owned())),
        (
            "/.well-known/openid-configuration",
            Reply::Body(
                json!({"issuer": "https://other.example", "jwks_uri": "https://other.example/"}).to_string(),
            ),
        ),
    ] {
        let idp = Idp::start(&[&signer]).await;
        idp.reply("/other", Reply::Body(jwks(&[&signer])));
        idp.reply(path, reply);
        let verifier = start(settings(&idp.issuer));
        let outcome = verifier.verify(&signer.token(&idp.issuer, json!({}))).await;
        assert_eq!(outcome.err(), Some(Denied::NoKeys), "{path}");
        assert!(idp.received("/other").is_empty());
    }
}

#[tokio::test]
async fn requests_do_not_wait_long_for_a_slow_issuer() {
    let signer = Signer::new("k1", "ES256");
    let idp = Idp::start(&[&signer]).await;
    idp.reply("/jwks", Reply::Silence);
    let verifier = start(settings(&idp.issuer));
    let (waiting, token) = (verifier.clone(), signer.token(&idp.issuer, json!({})));
    let request = tokio::spawn(async move { waiting.verify(&token).await });
    while idp.received("/jwks").is_empty() {
        tokio::task::yield_now().await;
    }
    // Less than the time that the fetch itself has.
    jump(2).await;
    assert_eq!(request.await.expect("no panic").err(), Some(Denied::NoKeys));
}

#[tokio::test]
async fn metadata_of_rfc_8414_are_found_too() {
    let (signer, idp, _) = usual().await;
    let issuer = format!("{}/realms/a", idp.issuer);
    let metadata = json!({"issuer": issuer, "jwks_uri": format!("{}/jwks", idp.issuer)});
    idp.reply("/.well-known/oauth-authorization-server/realms/a", Reply::Body(metadata.to_string()));
    let verifier = start(settings(&issuer));
    assert!(verifier.verify(&signer.token(&issuer, json!({}))).await.is_ok());
}

#[tokio::test]
async fn a_file_of_keys_is_read_again() {
    let (old, new) = (Signer::new("k1", "ES256"), Signer::new("k2", "ES256"));
    let path = file("keys", &jwks(&[&old]));
    let mut settings = settings("https://a.example");
    settings.issuers[0].keys = KeySource::File(path.clone());
    settings.require_keys = true;
    let verifier = start(settings);
    verifier.keys_at_start().await.expect("keys");
    let [old, new] = [old, new].map(|signer| (signer.token("https://a.example", json!({})), signer));
    assert!(verifier.verify(&old.0).await.is_ok());
    for (content, accepts_new) in [("broken", false), (&*jwks(&[&new.1]), true)] {
        std::fs::write(&path, content).expect("written");
        let mut held = verifier.0.issuers[0].watch();
        jump(60).await;
        held.changed().await.expect("read");
        assert_eq!(verifier.verify(&new.0).await.is_ok(), accepts_new, "{content}");
        assert_eq!(verifier.verify(&old.0).await.is_ok(), !accepts_new, "{content}");
    }
}

#[tokio::test]
async fn a_start_can_demand_keys() {
    let idp = Idp::start(&[]).await;
    let mut settings = settings(&idp.issuer);
    settings.require_keys = true;
    let verifier = start(settings);
    let waiting = verifier.clone();
    let ready = tokio::spawn(async move { waiting.keys_at_start().await });
    while idp.received("/jwks").is_empty() {
        tokio::task::yield_now().await;
    }
    jump(30).await;
    let error = ready.await.expect("no panic").expect_err("no keys").to_string();
    assert!(error.contains("--require-keys-at-start") && error.contains(&idp.issuer), "{error}");
}

#[tokio::test]
async fn the_token_for_a_key_set_goes_to_the_issuer_only() {
    let (signer, idp, _) = usual().await;
    let elsewhere = Idp::start(&[&signer]).await;
    let metadata = json!({"issuer": idp.issuer, "jwks_uri": format!("{}/jwks", elsewhere.issuer)});
    let authorized = |idp: &Idp, path: &str| {
        idp.received(path)
            .last()
            .is_some_and(|received| received.head.contains("authorization: Bearer t1\r\n"))
    };
    let mut settings = settings(&idp.issuer);
    settings.issuers[0].token_file = Some(file("token", "t1\n"));
    // Never in plain text.
    let verifier = start(settings.clone());
    let token = signer.token(&idp.issuer, json!({}));
    assert!(verifier.verify(&token).await.is_ok());
    assert!(!authorized(&idp, "/jwks") && !authorized(&idp, "/.well-known/openid-configuration"));
    settings.issuers[0].insecure = true;
    let verifier = start(settings.clone());
    assert!(verifier.verify(&token).await.is_ok());
    assert!(authorized(&idp, "/jwks") && authorized(&idp, "/.well-known/openid-configuration"));
    idp.reply("/.well-known/openid-configuration", Reply::Body(metadata.to_string()));
    let verifier = start(settings.clone());
    assert!(verifier.verify(&token).await.is_ok());
    assert!(!authorized(&elsewhere, "/jwks"));
    settings.issuers[0].keys = KeySource::Url(format!("{}/jwks", elsewhere.issuer));
    let verifier = start(settings);
    assert!(verifier.verify(&token).await.is_ok());
    assert!(authorized(&elsewhere, "/jwks"));
}
