//! Sends requests and reads bounded answers within a time limit. Redirects are answers like others: nothing follows them.

use super::connect::{self, Sender, sender};
use super::reach::Reach;
use super::tls::{BadTls, Tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
#[cfg(feature = "gateway")]
use hyper_util::client::legacy::connect::HttpInfo;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;
use tonic::body::Body;

/// The User-Agent header.
const AGENT: &str = concat!("proxyrunner/", env!("CARGO_PKG_VERSION"));

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum time from the request to the end of its answer.
    pub time: Duration,
    /// Maximum size of an answer's body.
    pub size: usize,
}

/// A client for one service, or for the services of one operator.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    sender: Sender,
    reach: Reach,
    limits: Limits,
}

/// A failed request. Its message contains nothing of the request.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The host is an address outside of the client's reach.
    OutOfReach,
    /// No complete answer came in time.
    Late(Duration),
    /// The answer is larger than the limit.
    Large(usize),
    /// The connection failed.
    Connection(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::OutOfReach => f.write_str("its host is a private address"),
            FetchError::Late(limit) => write!(f, "no response within {} s", limit.as_secs_f64()),
            FetchError::Large(limit) => write!(f, "the response exceeds {limit} bytes"),
            FetchError::Connection(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FetchError {}

impl Fetcher {
    /// Creates a client.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(crate) fn new(tls: &Tls, reach: Reach, limits: Limits) -> Result<Self, BadTls> {
        Ok(Fetcher { sender: sender(tls, false, reach)?, reach, limits })
    }

    /// Creates a client that connects to this address, whatever name a URL has.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(crate) fn pinned(tls: &Tls, address: IpAddr, limits: Limits) -> Result<Self, BadTls> {
        Ok(Fetcher { sender: connect::pinned(tls, address)?, reach: Reach::Anywhere, limits })
    }

    /// Sends a request, and returns its answer of any status.
    ///
    /// # Errors
    /// When no complete answer of permitted size comes in time.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        if !self.reaches(request.uri()) {
            return Err(FetchError::OutOfReach);
        }
        let Limits { time, size } = self.limits;
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let request = Request::from_parts(parts, Body::new(Full::new(body)));
        let exchange = async {
            let answer = self.sender.request(request).await.map_err(|error| failed(&error))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, size).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { FetchError::Large(size) } else { failed(&*error) }
            })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(time, exchange).await.unwrap_or(Err(FetchError::Late(time)))
    }

    /// Returns whether the host may be connected to, as far as the address tells; names are checked when they are
    /// resolved.
    fn reaches(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host.parse::<IpAddr>().map_or(true, |address| self.reach.includes(address))
    }
}

/// Returns the address that an answer came from. What the name has been looked up to before may be another one.
#[cfg(feature = "gateway")]
pub(crate) fn peer(answer: &Response<Bytes>) -> Option<IpAddr> {
    answer.extensions().get::<HttpInfo>().map(|info| info.remote_addr().ip())
}

/// Joins the messages of an error and its causes, since the outermost explains least.
fn failed(error: &(dyn std::error::Error + 'static)) -> FetchError {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    FetchError::Connection(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    /// Starts a server that sends these bytes to every client, and keeps the connection open.
    async fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
                open.push(stream);
            }
        });
        format!("http://{address}/")
    }

    async fn fetch(url: &str, reach: Reach, time: Duration) -> Result<Response<Bytes>, FetchError> {
        let fetcher = Fetcher::new(&Tls::default(), reach, Limits { time, size: 8 }).expect("a client");
        fetcher.send(Request::get(url).body(Bytes::new()).expect("a request")).await
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let small = server(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678").await;
        let answer = fetch(&small, Reach::Anywhere, 30 * SECOND).await.expect("an answer");
        assert_eq!(&answer.body()[..], b"12345678");
        for large in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n",
        ] {
            let failure = fetch(&server(large).await, Reach::Anywhere, 30 * SECOND).await;
            assert!(matches!(failure, Err(FetchError::Large(8))), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn slow_answers_and_redirects_end() {
        let slow = server(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n1").await;
        let failure = fetch(&slow, Reach::Anywhere, SECOND / 10).await;
        assert!(matches!(failure, Err(FetchError::Late(_))), "{failure:?}");
        let elsewhere =
            server(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        let answer = fetch(&elsewhere.await, Reach::Anywhere, 30 * SECOND).await.expect("an answer");
        assert_eq!(answer.status(), 302);
    }

    #[tokio::test]
    async fn private_addresses_are_out_of_reach_by_number_and_by_name() {
        let url = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        for url in [url.clone(), url.replace("127.0.0.1", "[::1]"), url.replace("127.0.0.1", "localhost")] {
            let failure =
                fetch(&url, Reach::Public, 30 * SECOND).await.expect_err("out of reach").to_string();
            assert!(failure.contains("private address"), "{failure}");
        }
    }

    #[cfg(feature = "gateway")]
    #[tokio::test]
    async fn this_host_is_reached_by_name_only_if_it_may_be() {
        let url = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let url = url.replace("127.0.0.1", "localhost");
        let failure = fetch(&url, Reach::Network, 30 * SECOND).await.expect_err("out of reach").to_string();
        assert!(failure.contains("has only loopback, link-local or reserved addresses"), "{failure}");
        let answer = fetch(&url, Reach::Host, 30 * SECOND).await.expect("an answer");
        assert_eq!(peer(&answer), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
