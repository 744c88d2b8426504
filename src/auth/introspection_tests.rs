//! Opaque tokens, and authorization servers that misbehave, against the whole verifier.

use super::super::fixtures::{Idp, Reply, Signer, claims, file, jump, reason, settings, start, usual};
use super::super::settings::{ClientAuth, IntrospectionSettings};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

fn introspection(idp: &Idp, secret: &str) -> Settings {
    Settings {
        issuers: Vec::new(),
        introspection: Some(IntrospectionSettings {
            url: format!("{}/introspect", idp.issuer),
            client: "mcp:1".to_owned(),
            secret_file: file(secret, "s+1"),
            auth: ClientAuth::Basic,
            all: false,
            issuer: idp.issuer.clone(),
            audience_optional: false,
            ca: None,
        }),
        ..settings(&idp.issuer)
    }
}

fn answer(idp: &Idp, more: Value) -> Reply {
    let mut claims = claims(&idp.issuer, more);
    if claims.get("active").is_none() {
        claims["active"] = true.into();
    }
    Reply::Body(claims.to_string())
}

#[tokio::test]
async fn opaque_tokens_are_introspected_once() {
    let idp = Idp::start(&[]).await;
    idp.reply("/introspect", answer(&idp, json!({"client_id": "c"})));
    let verifier = start(introspection(&idp, "once"));
    let identity = verifier.verify("opaque+/=").await.expect("accepted");
    assert_eq!((identity.means, identity.client_id.as_deref()), (Means::Introspection, Some("c")));
    assert!(verifier.known("opaque+/=").expect("known").is_ok());
    assert!(verifier.verify("opaque+/=").await.is_ok());
    let received = idp.received("/introspect");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, "token=opaque%2B%2F%3D&token_type_hint=access_token");
    let credentials = format!("authorization: Basic {}\r\n", STANDARD.encode("mcp%3A1:s%2B1"));
    assert!(received[0].head.contains(&credentials), "{}", received[0].head);
    // Without an issuer, JWTs are introspected, too.
    let token = Signer::new("k1", "ES256").token(&idp.issuer, json!({}));
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test]
async fn refused_tokens_are_remembered_and_failures_are_not() {
    let idp = Idp::start(&[]).await;
    let verifier = start(introspection(&idp, "refused"));
    let big = json!({"pad": "x".repeat(64 << 10)});
    for (at, (reply, expected)) in [
        (answer(&idp, json!({"active": false})), Denied::Invalid(Reason::Inactive)),
        (answer(&idp, json!({"active": "true"})), Denied::Invalid(Reason::Inactive)),
        (Reply::Body("{}".to_owned()), Denied::Invalid(Reason::Inactive)),
        (answer(&idp, json!({"aud": "other"})), Denied::Invalid(Reason::Audience)),
        (answer(&idp, json!({"aud": null})), Denied::Invalid(Reason::Audience)),
        (answer(&idp, json!({"sub": null})), Denied::Invalid(Reason::Subject)),
        (answer(&idp, json!({"exp": 1})), Denied::Invalid(Reason::Expired)),
        (answer(&idp, json!({"token_type": "refresh_token"})), Denied::Invalid(Reason::TokenType)),
        (answer(&idp, json!({"token_type": "DPoP"})), Denied::Invalid(Reason::TokenType)),
        (answer(&idp, json!({"token_type": 7})), Denied::Invalid(Reason::TokenType)),
        (answer(&idp, json!({"token_use": "refresh_token"})), Denied::Invalid(Reason::TokenType)),
        (answer(&idp, json!({"typ": "Refresh"})), Denied::Invalid(Reason::TokenType)),
        (answer(&idp, json!({"iss": "https://other.example"})), Denied::Invalid(Reason::Issuer)),
        (answer(&idp, big), Denied::NoKeys),
        (Reply::Body("[]".to_owned()), Denied::NoKeys),
        (Reply::Body("{\"active\": false, \"active\": true}".to_owned()), Denied::NoKeys),
        (Reply::Status(401, "x: y"), Denied::NoKeys),
        (Reply::Status(302, "location: /other"), Denied::NoKeys),
        (Reply::Closed, Denied::NoKeys),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("t{at}");
        idp.reply("/introspect", reply);
        assert_eq!(verifier.verify(&token).await.err(), Some(expected.clone()), "{at}");
        let known = verifier.known(&token).and_then(Result::err);
        assert_eq!(known, Some(expected).filter(|denied| *denied != Denied::NoKeys), "{at}");
    }
}

#[tokio::test]
async fn usual_kinds_of_access_tokens_are_accepted() {
    let idp = Idp::start(&[]).await;
    let verifier = start(introspection(&idp, "kinds"));
    for (at, kind) in [
        json!({"token_type": "bearer", "typ": "Bearer"}),
        json!({"token_type": "Bearer", "token_use": "access_token"}),
        json!({"token_type": "access_token", "token_use": "access"}),
        json!({"token_type": null}),
    ]
    .into_iter()
    .enumerate()
    {
        idp.reply("/introspect", answer(&idp, kind));
        assert!(verifier.verify(&format!("k{at}")).await.is_ok(), "{at}");
    }
}

#[tokio::test]
async fn equal_tokens_are_asked_about_once_and_api_keys_never() {
    let idp = Idp::start(&[]).await;
    idp.reply("/introspect", answer(&idp, json!({})));
    let verifier = start(introspection(&idp, "together"));
    let requests: Vec<_> = (0..40)
        .map(|_| {
            let verifier = verifier.clone();
            tokio::spawn(async move { verifier.verify("same").await.is_ok() })
        })
        .collect();
    for request in requests {
        assert!(request.await.expect("no panic"));
    }
    assert_eq!(idp.received("/introspect").len(), 1);
    assert_eq!(verifier.verify("prk_of-another-file").await.err(), Some(Denied::Invalid(Reason::NotAToken)));
    assert_eq!(idp.received("/introspect").len(), 1);
}

#[tokio::test]
async fn the_secret_for_introspection_is_read_again_and_may_be_posted() {
    let idp = Idp::start(&[]).await;
    idp.reply("/introspect", answer(&idp, json!({})));
    let mut settings = introspection(&idp, "rotated");
    settings.introspection.as_mut().expect("set").auth = ClientAuth::Post;
    let verifier = start(settings);
    for (token, secret) in [("a", "s+1"), ("b", "s 2")] {
        file("rotated", secret);
        assert!(verifier.verify(token).await.is_ok());
        let encoded = secret.replace('+', "%2B").replace(' ', "%20");
        let expected =
            format!("token={token}&token_type_hint=access_token&client_id=mcp%3A1&client_secret={encoded}");
        let received = idp.received("/introspect").pop().expect("a request");
        assert_eq!(received.body, expected);
        assert!(!received.head.contains("authorization"));
    }
}

#[tokio::test]
async fn jwts_are_introspected_where_it_is_demanded() {
    let (signer, idp, _) = usual().await;
    idp.reply("/introspect", answer(&idp, json!({"active": false})));
    let own = settings(&idp.issuer).issuers;
    for all in [false, true] {
        let mut settings = introspection(&idp, "demanded");
        settings.introspection.as_mut().expect("set").all = all;
        settings.issuers = own.clone();
        let verifier = start(settings);
        let outcome = verifier.verify(&signer.token(&idp.issuer, json!({}))).await;
        assert_eq!(reason(&outcome), all.then_some(Reason::Inactive));
    }
}

#[tokio::test]
async fn too_many_questions_at_a_time_are_refused() {
    let idp = Idp::start(&[]).await;
    idp.reply("/introspect", Reply::Silence);
    let verifier = start(introspection(&idp, "busy"));
    let requests: Vec<_> = (0..33)
        .map(|at| {
            let verifier = verifier.clone();
            tokio::spawn(async move { verifier.verify(&format!("t{at}")).await.err() })
        })
        .collect();
    while idp.received("/introspect").len() < 32 {
        tokio::task::yield_now().await;
    }
    jump(2).await;
    let (last, others) =
        requests.into_iter().rev().fold((None, Vec::new()), |(last, mut others), request| {
            if last.is_none() {
                (Some(request), others)
            } else {
                others.push(request);
                (last, others)
            }
        });
    assert_eq!(last.expect("a request").await.expect("no panic"), Some(Denied::Busy));
    jump(5).await;
    for request in others {
        assert_eq!(request.await.expect("no panic"), Some(Denied::NoKeys));
    }
}
