//! The messages of a registration.

use super::settings::Settings;
use crate::outbound::{Fetcher, percent_encoded};
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Maximum length of a token.
const LONGEST_TOKEN: u64 = 64 * 1024;
/// Maximum length of a gateway's reason, in characters.
const LONGEST_REASON: usize = 300;

/// Why a message had no effect. Contains no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The gateway refuses it.
    Refused(String),
    /// The gateway could not be asked, or could not decide.
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Refused(why) | Failure::Failed(why)) = self;
        f.write_str(why)
    }
}

/// The messages about one server.
#[derive(Debug)]
pub(super) struct Message {
    /// The target without the number.
    target: String,
    host: String,
    token_file: Option<PathBuf>,
    card: Bytes,
    /// The number of the last message.
    sequence: AtomicU64,
}

impl Message {
    /// Creates the messages for this card, whose replica has this URL.
    pub(super) fn new(settings: &Settings, card: &Value, url: &str) -> Self {
        let name = card["name"].as_str().unwrap_or_default();
        let host = settings.gateway.parse::<Uri>().ok();
        Message {
            target: format!("{}/registrations/{name}?url={}", settings.gateway, percent_encoded(url)),
            host: host.and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default(),
            token_file: settings.token_file.clone(),
            card: card.to_string().into(),
            sequence: AtomicU64::new(0),
        }
    }

    /// Returns the gateway's host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Registers the server, or renews its lease.
    pub(super) async fn register(&self, fetcher: &Fetcher) -> Result<(), Failure> {
        let answer = self.send(fetcher, Method::PUT, self.card.clone()).await?;
        // Some proxies answer every path with a page.
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let holds = answer["lease"].as_u64().is_some_and(|lease| lease > 0);
        let strange = || Failure::Failed("it answers 200, but not as a gateway does".to_owned());
        holds.then_some(()).ok_or_else(strange)
    }

    /// Withdraws the server.
    pub(super) async fn withdraw(&self, fetcher: &Fetcher) -> Result<(), Failure> {
        self.send(fetcher, Method::DELETE, Bytes::new()).await.map(drop)
    }

    async fn send(&self, fetcher: &Fetcher, method: Method, body: Bytes) -> Result<Bytes, Failure> {
        let target = format!("{}&sequence={}", self.target, self.number());
        let mut request = Request::builder().method(method).uri(target);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/mcp-server-card+json");
        }
        if let Some(path) = &self.token_file {
            request = request.header(AUTHORIZATION, bearer(path).map_err(Failure::Failed)?);
        }
        let request = request.body(body).map_err(|error| Failure::Failed(error.to_string()))?;
        let answer = fetcher.send(request).await.map_err(|error| Failure::Failed(error.to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let why = format!("it answers {status}{}", reason(answer.body()));
        let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(if is_passing { Failure::Failed(why) } else { Failure::Refused(why) })
    }

    /// Returns a number that is greater than all before, also than those of a former process.
    fn number(&self) -> u64 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or_default();
        let next = |last: u64| Some(now.max(last + 1));
        self.sequence
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_or(now, |last| now.max(last + 1))
    }
}

/// Returns the gateway's reason, as the end of a sentence.
fn reason(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = answer["error"].as_str().or_else(|| answer["error"]["message"].as_str());
    let text: String =
        text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Returns the header with the token in a file, which is read each time: Kubernetes replaces it.
fn bearer(path: &Path) -> Result<HeaderValue, String> {
    let shown = path.display();
    let failed = |why: &dyn fmt::Display| format!("the token {shown} cannot be used: {why}");
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(LONGEST_TOKEN).read_to_string(&mut text).map_err(|error| failed(&error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(&"it is no token"));
    }
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| failed(&"it is no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message() -> Message {
        let settings = Settings {
            gateway: "https://Gateway.svc:8443/base".to_owned(),
            url: None,
            token_file: None,
            tls: Default::default(),
        };
        Message::new(&settings, &json!({"name": "com.example/time"}), "http://[fd00::1]:8080/mcp")
    }

    #[test]
    fn a_target_names_the_server_and_the_replica() {
        let message = message();
        assert_eq!(
            message.target,
            "https://Gateway.svc:8443/base/registrations/com.example/time?url=http%3A%2F%2F%5Bfd00%3A%3A1%5D%3A8080%2Fmcp"
        );
        assert_eq!(message.host(), "Gateway.svc");
    }

    #[test]
    fn each_message_has_a_greater_number_whatever_the_clock_says() {
        let message = message();
        let numbers: Vec<_> = (0..1000).map(|_| message.number()).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other));
        message.sequence.store(u64::MAX - 10, Ordering::Relaxed);
        assert_eq!(message.number(), u64::MAX - 9, "the clock was set back");
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(reason(br#"{"error": "no\nrule"}"#), ": norule");
        assert_eq!(reason(br#"{"error": {"code": 1, "message": "unknown token"}}"#), ": unknown token");
        assert_eq!(reason(b"<html>"), "");
        let long = format!(r#"{{"error": "{}"}}"#, "x".repeat(9_999));
        assert_eq!(reason(long.as_bytes()).len(), LONGEST_REASON + 2);
    }

    #[test]
    fn a_token_is_read_each_time_and_never_told() {
        let path = std::env::temp_dir().join(format!("proxyrunner-token-{}", std::process::id()));
        std::fs::write(&path, "one\n").expect("written");
        assert_eq!(bearer(&path).expect("a header"), "Bearer one");
        std::fs::write(&path, "two").expect("written");
        let header = bearer(&path).expect("a header");
        assert!(header == "Bearer two" && header.is_sensitive());
        std::fs::write(&path, "s3cret s3cret").expect("written");
        let why = bearer(&path).expect_err("no token");
        assert!(why.ends_with("cannot be used: it is no token") && !why.contains("s3cret"), "{why}");
        std::fs::remove_file(&path).expect("removed");
        assert!(bearer(&path).expect_err("no file").contains("No such file"));
    }

    #[tokio::test]
    async fn only_a_gateway_can_have_registered() {
        use crate::outbound::{Limits, Reach};
        use std::time::Duration;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        const GOOD: &str = r#"{"name":"com.example/time","path":"/servers/time/mcp","lease":30}"#;
        let limits = Limits { time: Duration::from_secs(30), size: 1 << 16 };
        let fetcher = Fetcher::new(&Default::default(), Reach::Anywhere, limits).expect("a client");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let gateway = format!("http://{}", listener.local_addr().expect("an address"));
        let settings = Settings { gateway, url: None, token_file: None, tls: Default::default() };
        let message =
            Message::new(&settings, &json!({"name": "com.example/time"}), "http://[fd00::1]:8080/mcp");
        for body in [GOOD, "", "[]", "<html>", r#"{"lease":0}"#, r#"{"lease":"30"}"#] {
            let answering = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let _ = stream.read(&mut [0; 4096]).await;
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
            };
            let (sent, ()) = tokio::join!(message.register(&fetcher), answering);
            assert_eq!(sent.is_ok(), body == GOOD, "{body}: {sent:?}");
        }
    }
}
