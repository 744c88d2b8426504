//! Tests issuers, endpoints and other settings of authentication on their own.

use super::*;

fn reason<T>(result: Result<T, InvalidValue>) -> String {
    result.map(|_| ()).expect_err("a refusal").reason.into_owned()
}

#[test]
fn issuers_have_options_behind_their_url() {
    let plain = issuer("https://idp.example/realms/a").expect("an issuer");
    assert_eq!(
        (plain.url.as_str(), plain.options),
        ("https://idp.example/realms/a", IssuerOptions::default())
    );
    let text = "https://a.example jwks=/k.json  algorithms=ES256,EdDSA typ=jwt audience-claim=client_id ca=/ca token-file=/t";
    let issuer = issuer(text).expect("an issuer").options;
    assert_eq!(
        issuer,
        IssuerOptions {
            keys: Some(KeySource::File("/k.json".into())),
            algorithms: Some(vec![Algorithm::Es256, Algorithm::Ed25519]),
            jwt: true,
            audience_claim: Some("client_id".to_owned()),
            ca: Some("/ca".into()),
            token_file: Some("/t".into()),
        }
    );
}

#[test]
fn bad_issuers_are_refused() {
    for (text, why) in [
        ("", "does not begin with"),
        ("idp.example", "does not begin with"),
        ("ftp://idp.example", "does not begin with"),
        ("https://user:secret@idp.example", "has a name or a password"),
        ("https://idp.example#a", "has a fragment"),
        ("https://idp.example?a=b", "has a query"),
        ("https://idp.example jwks", "has an option without a value"),
        ("https://idp.example jwks=", "has an option without a value"),
        ("https://idp.example ca=/a ca=/b", "has the option ca twice"),
        ("https://idp.example typ=any", "has the option typ, which"),
        ("https://idp.example secret=/a", "has the option secret, which"),
        ("https://idp.example jwks=ftp://a", "is neither a URL nor a file"),
        ("https://idp.example algorithms=HS256", "is not an algorithm"),
        ("https://idp.example algorithms=none", "is not an algorithm"),
    ] {
        assert!(reason(issuer(text)).contains(why), "{text}");
    }
}

#[test]
fn endpoints_need_credentials() {
    let text = "https://a.example/i client=c secret=/s auth=post for=all issuer=https://a.example audience=optional ca=/ca";
    let endpoint = introspection(text).expect("an endpoint");
    assert_eq!(endpoint.url, "https://a.example/i");
    assert!(endpoint.options.post && endpoint.options.all && endpoint.options.audience_optional);
    assert_eq!(endpoint.options.issuer.as_deref(), Some("https://a.example"));
    assert!(reason(introspection("https://a.example/i client=c")).contains("no option secret"));
    assert!(reason(introspection("https://a.example/i secret=/s")).contains("no option client"));
    assert!(reason(introspection("https://a.example/i client=c secret=/s auth=jwt")).contains("unknown"));
}

#[test]
fn scopes_imply_others() {
    assert_eq!(implication("a=b c").expect("one"), ("a".to_owned(), vec!["b".to_owned(), "c".to_owned()]));
    for bad in ["", "a", "a=", "=b", "= "] {
        assert!(implication(bad).is_err(), "{bad}");
    }
}

#[test]
fn plain_http_is_for_loopback_addresses() {
    for (url, exposed) in [
        ("https://a.example", false),
        ("http://localhost:8080", false),
        ("http://127.0.0.1", false),
        ("http://[::1]:1/a", false),
        ("http://a.example", true),
        ("http://10.0.0.1", true),
        ("http://localhost.example", true),
    ] {
        assert_eq!(is_exposed(url), exposed, "{url}");
    }
}
