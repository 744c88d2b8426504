//! Requests to the remote server: connections, the operator's headers, and why there is no answer.

use super::fault::Fault;
use crate::backoff::{Backoff, chance, jittered};
use crate::budget::Charged;
use crate::outbound::{BadTls, Keeping, Sender, Tls, forwarder};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use std::error::Error;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::body::Body;

/// Idle time of a connection. Common servers close an idle connection after 5 s, and a request that is written at that
/// moment would be lost.
const IDLE: Duration = Duration::from_secs(4);
/// Maximum number of idle connections.
const MOST_IDLE: usize = 16;
/// Bytes that a connection reads before they are taken.
const BUFFER: usize = 64 * 1024;
/// Time after which a server that does not acknowledge is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// Attempts to connect, and the delays between them.
const ATTEMPTS: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Maximum length of a quoted address.
const QUOTED: usize = 200;
const AGENT: &str = concat!("proxyrunner/", env!("CARGO_PKG_VERSION"));

/// Reads the operator's headers again; `None` if that fails.
pub type Reread = Box<dyn Fn() -> Option<HeaderMap> + Send + Sync>;

/// A future whose code exists once, however many wait for it.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Sends requests to one URL.
pub(super) struct Client {
    sender: Sender,
    url: Uri,
    headers: Mutex<HeaderMap>,
    reread: Reread,
    patience: Duration,
}

impl Client {
    /// Creates a client.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub fn new(
        url: Uri,
        tls: &Tls,
        (headers, reread): (HeaderMap, Reread),
        patience: Duration,
    ) -> Result<Self, BadTls> {
        let keeping =
            Keeping { idle: IDLE, most_idle: MOST_IDLE, buffer: BUFFER, unacknowledged: UNACKNOWLEDGED };
        let sender = forwarder(tls, keeping)?;
        let headers = Mutex::new(headers);
        Ok(Client { sender, url, headers, reread, patience })
    }

    /// Returns the time that the server has to show a sign of life.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends a request, and returns the head of its answer, which is no redirect, in no unknown encoding and no refusal of
    /// credentials. Connecting is tried several times, sending once.
    ///
    /// # Errors
    /// When there is no such answer.
    pub fn send<'a>(
        &'a self,
        method: Method,
        headers: &'a HeaderMap,
        body: Option<&'a Charged>,
    ) -> Boxed<'a, Response<Incoming>> {
        Box::pin(self.try_to_send(method, headers, body))
    }

    async fn try_to_send(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: Option<&Charged>,
    ) -> Result<Response<Incoming>, Fault> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let (mut attempt, mut is_reread) = (1, false);
        loop {
            let sent =
                timeout(self.patience, self.sender.request(self.request(&method, headers, body))).await;
            let response = match sent {
                Err(_) => return Err(self.late()),
                Ok(Ok(response)) => response,
                Ok(Err(error)) if error.is_connect() => {
                    if attempt == ATTEMPTS {
                        let why = innermost(&error);
                        return Err(Fault::unreached(format!(
                            "the remote server cannot be reached: {why}; nothing was sent"
                        )));
                    }
                    attempt += 1;
                    sleep(jittered(pauses.advance(), chance())).await;
                    continue;
                }
                Ok(Err(error)) => {
                    let why = innermost(&error);
                    return Err(Fault::broken(format!(
                        "the remote server broke the connection before it answered: {why}; the request may have been carried out"
                    )));
                }
            };
            // The token may have been renewed. A refused request has not been carried out.
            if response.status() == StatusCode::UNAUTHORIZED && !is_reread && self.reread() {
                is_reread = true;
                continue;
            }
            return check(response);
        }
    }

    /// Returns the fault of a server that shows no sign of life.
    pub fn late(&self) -> Fault {
        let limit = self.patience.as_secs_f64();
        Fault::broken(format!(
            "the remote server has sent nothing for {limit} s (--request-timeout); the request may have been carried out"
        ))
    }

    /// Reads the operator's headers again. Returns whether they have changed.
    fn reread(&self) -> bool {
        let Some(read) = (self.reread)() else { return false };
        let mut headers = self.headers.lock();
        let is_changed = *headers != read;
        *headers = read;
        is_changed
    }

    fn request(&self, method: &Method, headers: &HeaderMap, body: Option<&Charged>) -> Request<Body> {
        let body =
            body.map_or_else(Body::empty, |body| Body::new(Full::new(Bytes::from_owner(body.clone()))));
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.url.clone();
        let target = request.headers_mut();
        *target = self.headers.lock().clone();
        target.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        target.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in headers {
            target.insert(name.clone(), value.clone());
        }
        request
    }
}

/// Refuses answers that are no server's own.
fn check(response: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(Fault::refused(format!(
            "the remote server refuses the credentials ({status}); give a token that is valid by --header-file"
        )));
    }
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        // Behind it may be a secret.
        let to = to.map(|to| to.split(['?', '#']).next().unwrap_or_default());
        let to = to.map(|to| format!(" to {}", crate::telemetry::cut(to, QUOTED))).unwrap_or_default();
        return Err(Fault::refused(format!(
            "the remote server redirects{to} ({status}), which is not followed; give the URL of the endpoint itself"
        )));
    }
    let encoding = response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::refused(
            "the remote server answered in an encoding that was not asked for".to_owned(),
        ));
    }
    Ok(response)
}

/// Returns the words of an error's first cause, which says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
