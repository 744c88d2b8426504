//! Keys that sign tokens, and an issuer on a local port, for the tests of this room.

use super::cache::Outcome;
use super::denied::{Denied, Reason};
use super::settings::{ClaimNames, IssuerSettings, KeySource, Settings, TokenType};
use super::verifier::Verifier;
use super::{Algorithm, time};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The audience of all tokens.
pub(super) const AUDIENCE: &str = "https://mcp.example/mcp";

/// A key pair for tests only, which everybody knows, as PKCS #8 in base64.
const RSA: &str = include_str!("fixtures/rsa.txt");

enum Pair {
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// A key that signs tokens.
pub(super) struct Signer {
    pub kid: &'static str,
    pub name: &'static str,
    pair: Pair,
}

impl Signer {
    /// Creates a key for an algorithm of this name.
    pub(super) fn new(kid: &'static str, name: &'static str) -> Self {
        let random = SystemRandom::new();
        let pair = match name {
            "ES256" | "ES384" => {
                let algorithm = if name == "ES256" {
                    &ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &ECDSA_P384_SHA384_FIXED_SIGNING
                };
                let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
                Pair::Ec(Box::new(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key")))
            }
            "EdDSA" | "Ed25519" => {
                let key = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
                Pair::Ed(Box::new(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key")))
            }
            _ => {
                let key = STANDARD.decode(RSA.replace('\n', "")).expect("base64");
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&key).expect("a key")))
            }
        };
        Signer { kid, name, pair }
    }

    /// Returns the public key.
    pub(super) fn jwk(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "kid": self.kid, "x": encoded(x), "y": encoded(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": encoded(pair.public_key().as_ref())})
            }
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (&public.n, &public.e);
                json!({"kty": "RSA", "kid": self.kid, "n": encoded(n), "e": encoded(e)})
            }
        }
    }

    /// Signs a token with this header.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = match self.name {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).expect("signed");
                signature
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the usual header of this key's tokens.
    pub(super) fn header(&self) -> Value {
        json!({"typ": "at+jwt", "alg": self.name, "kid": self.kid})
    }

    /// Signs a token of an issuer with the usual claims and `more`; null removes a claim.
    pub(super) fn token(&self, issuer: &str, more: Value) -> String {
        self.sign(&self.header(), &claims(issuer, more))
    }
}

/// Returns the claims of a good token with `more`; null removes a claim.
pub(super) fn claims(issuer: &str, more: Value) -> Value {
    let now = time::now();
    let mut claims =
        json!({"iss": issuer, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "iat": now, "scope": "read"});
    for (name, value) in more.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// Returns a key set.
pub(super) fn jwks(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Returns the settings for one issuer.
pub(super) fn settings(issuer: &str) -> Settings {
    Settings {
        issuers: vec![IssuerSettings {
            issuer: issuer.to_owned(),
            keys: KeySource::Discovery,
            algorithms: Algorithm::ALL.to_vec(),
            token_type: TokenType::AccessToken,
            audience_claim: "aud".to_owned(),
            ca: None,
            token_file: None,
            insecure: false,
        }],
        audiences: vec![AUDIENCE.to_owned()],
        claims: ClaimNames { scope: vec!["scope".to_owned()], ..ClaimNames::default() },
        keys_max_age: Duration::from_secs(24 * 60 * 60),
        ..Settings::default()
    }
}

/// Returns the path of a test's own file with this content.
pub(super) fn file(name: &str, content: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("proxyrunner-auth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path
}

/// Moves the clock of the runtime.
pub(super) async fn jump(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// What an issuer answers at one path.
#[derive(Clone)]
pub(super) enum Reply {
    /// 200 with this body.
    Body(String),
    /// This status and header line.
    Status(u16, &'static str),
    /// Nothing, but the connection stays open.
    Silence,
    /// The connection is closed.
    Closed,
}

/// A request that an issuer received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub path: String,
    /// The head, in lower case.
    pub head: String,
    pub body: String,
}

/// An issuer on a local port.
pub(super) struct Idp {
    pub issuer: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    replies: HashMap<String, Reply>,
    received: Vec<Received>,
}

impl Idp {
    /// Starts an issuer with these keys.
    pub(super) async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let idp = Idp { issuer: format!("http://{address}"), state: Arc::default() };
        let metadata = json!({"issuer": idp.issuer, "jwks_uri": format!("{}/jwks", idp.issuer)});
        idp.reply("/.well-known/openid-configuration", Reply::Body(metadata.to_string()));
        idp.reply("/jwks", Reply::Body(jwks(signers)));
        let state = Arc::clone(&idp.state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
        idp
    }

    /// Sets the answer at a path.
    pub(super) fn reply(&self, path: &str, reply: Reply) {
        self.state.lock().replies.insert(path.to_owned(), reply);
    }

    /// Sets the keys.
    pub(super) fn keys(&self, signers: &[&Signer]) {
        self.reply("/jwks", Reply::Body(jwks(signers)));
    }

    /// Returns the requests at a path.
    pub(super) fn received(&self, path: &str) -> Vec<Received> {
        self.state.lock().received.iter().filter(|received| received.path == path).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            read => request.extend_from_slice(&part[..read]),
        }
    };
    let path = String::from_utf8_lossy(&request[..end]).split(' ').nth(1)?.to_owned();
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let lower = head.to_ascii_lowercase();
    let length =
        lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = request[end..].to_vec();
    while body.len() < length.unwrap_or(0) {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.ok()?;
        body.extend_from_slice(&part[..read]);
    }
    let reply = {
        let mut state = state.lock();
        let body = String::from_utf8_lossy(&body).into_owned();
        state.received.push(Received { path: path.clone(), head, body });
        state.replies.get(&path).cloned().unwrap_or(Reply::Status(404, "x: y"))
    };
    let answer = match reply {
        Reply::Body(body) => {
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
        Reply::Status(status, header) => {
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{header}\r\ncontent-length: 0\r\n\r\n")
        }
        Reply::Silence => std::future::pending().await,
        Reply::Closed => return None,
    };
    stream.write_all(answer.as_bytes()).await.ok()
}

/// Starts a verifier.
pub(super) fn start(settings: Settings) -> Verifier {
    Verifier::start(settings).expect("a verifier")
}

/// Starts an issuer with an ES256 key, and a verifier.
pub(super) async fn usual() -> (Signer, Idp, Verifier) {
    let signer = Signer::new("k1", "ES256");
    let idp = Idp::start(&[&signer]).await;
    let verifier = start(settings(&idp.issuer));
    (signer, idp, verifier)
}

/// Returns the reason why a token is not valid.
pub(super) fn reason(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Err(Denied::Invalid(reason)) => Some(*reason),
        _ => None,
    }
}
