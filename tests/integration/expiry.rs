//! Streams that a caller opens to listen end with its token; calls that it has made run to their end.

use crate::support::{Connection, Event, Events, Response, Server, Session, scratch, tool_call};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds after its expiry for which a token is accepted.
const LEEWAY: i64 = 60;
/// Seconds until the end of a token that ends soon.
const SOON: i64 = 4;

const TOOLS: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// An issuer whose key set is a file.
struct Issuer {
    key: Ed25519KeyPair,
    flags: String,
}

impl Issuer {
    fn new() -> Issuer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key");
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let file = scratch("keys");
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
        fs::write(&file, set.to_string()).expect("a file");
        let flags = "--auth-issuer https://idp.example --auth-audience mcp --require-keys-at-start";
        Issuer { key, flags: format!("{flags} --auth-jwks {}", file.display()) }
    }

    /// Returns credentials that are accepted for some more seconds.
    fn bearer(&self, seconds: i64) -> String {
        let expires = now() + seconds - LEEWAY;
        let claims = json!({"iss": "https://idp.example", "aud": "mcp", "sub": "ann", "exp": expires});
        let header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": "k"});
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref());
        format!("Bearer {signed}.{signature}")
    }

    /// Returns credentials that outlive the test.
    fn lasting(&self) -> String {
        self.bearer(3600)
    }

    /// Opens a stream with a token that ends soon, and returns it with that token and its end.
    fn soon(&self, open: impl Fn(&str) -> Connection) -> (Events, String, i64) {
        loop {
            let ends = now() + SOON;
            let token = self.bearer(SOON);
            match open(&token).try_events() {
                Ok(events) => return (events, token, ends),
                // On a busy machine the token may have ended before it arrived.
                Err(refused) => assert_eq!(refused.status, 401, "{}", refused.text()),
            }
        }
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    now.as_secs().try_into().expect("a small number")
}

fn asked(server: &Server, (method, path): (&str, &str), headers: &[(&str, &str)], body: &str) -> Connection {
    let own = [("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json")];
    let own = if body.is_empty() { &[("Accept", "text/event-stream")][..] } else { &own };
    let mut connection = server.connect();
    connection.request(method, path, &[own, headers].concat(), body.as_bytes());
    connection
}

/// Sends a request of a session with other credentials than the session's own.
fn within(server: &Server, session: &Session<'_>, token: &str, last: Option<&str>, body: &str) -> Connection {
    let mut headers = vec![("Authorization", token), ("Mcp-Session-Id", &session.id)];
    headers.extend(last.map(|last| ("Last-Event-ID", last)));
    asked(server, (if body.is_empty() { "GET" } else { "POST" }, "/mcp"), &headers, body)
}

/// Reads a stream to its end, which is not before this time.
fn until_end(events: &mut Events, ends: i64) -> Vec<Event> {
    let read: Vec<_> = std::iter::from_fn(|| events.next()).collect();
    assert!(now() >= ends, "ended {} s before its token", ends - now());
    read
}

fn emit(session: &Session<'_>, lines: &[&str]) {
    session.result("emit", json!({"lines": lines}));
}

#[test]
fn a_sessions_stream_ends_with_its_token_and_is_resumed_with_another() {
    let issuer = Issuer::new();
    let server = Server::start(&format!("{} --sse-commit-after 0", issuer.flags));
    for version in ["2025-11-25", "2025-03-26"] {
        let session = server.opening().version(version).header("Authorization", &issuer.lasting()).open();
        let body = tool_call(1, "wait", &json!({"name": version}));
        let (mut call, ..) = issuer.soon(|token| within(&server, &session, token, None, &body));
        emit(&session, &[TOOLS]);
        let (mut stream, token, ends) = issuer.soon(|token| within(&server, &session, token, None, ""));
        let heard = stream.next_event();
        assert_eq!(heard.json()["method"], "notifications/tools/list_changed");
        let last = until_end(&mut stream, ends).pop().expect("an event");
        assert!(last.retry.is_some(), "{last:?} tells the client to come back");

        let refused = within(&server, &session, &token, heard.id.as_deref(), "").response();
        assert_eq!(refused.status, 401);
        emit(&session, &[TOOLS]);
        let mut stream = within(&server, &session, &issuer.lasting(), heard.id.as_deref(), "").events();
        assert_eq!(stream.message()["method"], "notifications/tools/list_changed", "nothing is lost");

        session.result("release", json!({"name": version}));
        assert_eq!(call.message()["result"]["name"], version, "the call runs to its end");
    }
}

#[test]
fn a_resumed_stream_of_a_call_ends_with_its_token() {
    let issuer = Issuer::new();
    let server = Server::start(&format!("{} --sse-commit-after 0", issuer.flags));
    let session = server.opening().header("Authorization", &issuer.lasting()).open();
    let mut call = session.begin_call(1, "wait", json!({"name": "a"})).events();
    let first = call.next().expect("the priming event").id.expect("an id");
    call.cut();
    let (mut stream, _, ends) = issuer.soon(|token| within(&server, &session, token, Some(&first), ""));
    until_end(&mut stream, ends);
    session.result("release", json!({"name": "a"}));
    let mut stream = within(&server, &session, &issuer.lasting(), Some(&first), "").events();
    assert_eq!(stream.message()["result"]["name"], "a");
}

#[test]
fn a_subscription_ends_gracefully_with_its_token() {
    let issuer = Issuer::new();
    for server in [Server::start(&issuer.flags), Server::with().flags(&issuer.flags).modern_child("").start()]
    {
        let (mut stream, _, ends) = issuer.soon(|token| {
            let client = server.modern().header("Authorization", token);
            let filter = json!({"notifications": {"toolsListChanged": true}});
            client.begin_body(&client.body("s", "subscriptions/listen", filter))
        });
        assert_eq!(stream.message()["method"], "notifications/subscriptions/acknowledged");
        let last = until_end(&mut stream, ends).pop().expect("an event").json();
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("s"), &json!("complete")));
    }
}

/// Opens a stream of HTTP+SSE with a token that ends soon; returns it, its path for posts, the token and its end.
fn old_sse(server: &Server, issuer: &Issuer) -> (Events, String, String, i64) {
    let (mut events, token, ends) =
        issuer.soon(|token| asked(server, ("GET", "/sse"), &[("Authorization", token)], ""));
    let path = format!("/{}", events.next().expect("an event").data);
    (events, path, token, ends)
}

fn post(server: &Server, path: &str, token: &str, body: &str) -> Response {
    asked(server, ("POST", path), &[("Authorization", token)], body).response()
}

#[test]
fn a_session_of_the_older_transport_ends_with_its_token() {
    let issuer = Issuer::new();
    let server = Server::start(&format!("{} --sse", issuer.flags));
    let (mut events, path, _, ends) = old_sse(&server, &issuer);
    assert_eq!(until_end(&mut events, ends), []);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(post(&server, &path, &issuer.lasting(), ping).status, 404, "the session is over");
}

#[test]
fn a_session_of_the_older_transport_lives_as_long_as_its_callers_newest_token() {
    let issuer = Issuer::new();
    let server = Server::start(&format!("{} --sse", issuer.flags));
    let (mut events, path, _, _) = old_sse(&server, &issuer);
    let opening = server.opening().version("2024-11-05").body();
    assert_eq!(post(&server, &path, &issuer.lasting(), &opening).status, 202);
    assert_eq!(events.message()["id"], 0);
    // The former token of the stream has ended when this one has.
    let (mut other, _, _, ends) = old_sse(&server, &issuer);
    until_end(&mut other, ends);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(post(&server, &path, &issuer.lasting(), ping).status, 202);
    assert_eq!(events.message(), json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
}

#[test]
fn a_call_on_the_older_transport_is_answered_before_its_stream_ends() {
    let issuer = Issuer::new();
    let server = Server::start(&format!("{} --sse", issuer.flags));
    let (mut events, path, ends) = loop {
        let (mut events, path, token, ends) = old_sse(&server, &issuer);
        let opening = server.opening().version("2024-11-05").body();
        if post(&server, &path, &token, &opening).status == 202
            && events.message()["id"] == 0
            && post(&server, &path, &token, &tool_call(1, "wait", &json!({"name": "a"}))).status == 202
        {
            break (events, path, ends);
        }
    };
    let (mut other, _, _, later) = old_sse(&server, &issuer);
    until_end(&mut other, later);
    let client = server.modern().header("Authorization", &issuer.lasting());
    client.result("release", json!({"name": "a"}));
    let read = until_end(&mut events, ends);
    let read: Vec<Value> = read.iter().filter(|event| !event.data.is_empty()).map(Event::json).collect();
    assert_eq!(read.len(), 1, "{read:?}");
    assert_eq!((&read[0]["id"], &read[0]["result"]["name"]), (&json!(1), &json!("a")));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(post(&server, &path, &issuer.lasting(), ping).status, 404);
}

#[test]
fn streams_end_when_their_key_is_taken_out_of_the_file() {
    use sha2::{Digest, Sha256};
    let file = scratch("revoked-keys");
    let entry = |name: &str| {
        let digest: String =
            Sha256::digest(format!("{name}-key")).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("- {{name: {name}, sha256: {digest}}}\n")
    };
    std::fs::write(&file, entry("ann") + &entry("bob")).expect("a file");
    let server = Server::start(&format!("--api-keys {} --reload-interval 1s", file.display()));
    let opened = |name: &str| {
        let token = format!("Bearer {name}-key");
        let session = server.opening().header("Authorization", &token).open();
        let stream = within(&server, &session, &token, None, "").events();
        let listening = server.modern().header("Authorization", &token);
        let params = json!({"notifications": {"toolsListChanged": true}});
        let mut listening = listening.begin_body(&listening.body(1, "subscriptions/listen", params)).events();
        listening.message();
        (session, stream, listening)
    };
    let (_, mut ann, mut ann_listens) = opened("ann");
    let (session, mut bob, mut bob_listens) = opened("bob");
    std::fs::write(&file, entry("bob")).expect("a file");
    while ann.next().is_some() {}
    while ann_listens.next().is_some() {}
    emit(&session, &[TOOLS]);
    assert_eq!(bob.message()["method"], "notifications/tools/list_changed");
    assert_eq!(bob_listens.message()["method"], "notifications/tools/list_changed");
}
