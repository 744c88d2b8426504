//! One HTTP request of a command, and its whole answer.
//!
//! The types of the body and the connection are those of `outbound`, so that the client's code exists once.

use crate::{outbound, tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;

/// Maximum length of an answer in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

/// Where the request goes.
pub(super) enum Place {
    /// An address on which proxyrunner listens; all interfaces mean this host.
    At(SocketAddr),
    /// A host's name and port.
    Named(String, u16),
}

/// An answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A connection, in clear text or by TLS.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Sends the request, by TLS if there is a file with the certificate to trust, and returns the answer, or in words why
/// there is none.
pub(super) fn ask(
    place: &Place,
    certificate: Option<&Path>,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, String> {
    let request = request.map(Body::new);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let answered = timeout(patience, exchange(place, certificate, request)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {} s (--timeout)", patience.as_secs_f64())))
    })
}

async fn exchange(
    place: &Place,
    certificate: Option<&Path>,
    request: Request<Body>,
) -> Result<Answer, String> {
    let stream = connect(place).await?;
    let stream = match certificate {
        None => Stream::Http(TokioIo::new(stream)),
        Some(path) => secure(stream, path).await?,
    };
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| explain(&error))?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(|error| explain(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => explain(&error),
                Err(_) => format!("the answer is larger than {} MiB", LONGEST >> 20),
            }
        })?;
        let body = body.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::select! {
        answer = answering => answer,
        // The connection ends before the answer only by an error, which `answering` reports, too.
        Err(error) = connection => Err(explain(&error)),
    }
}

/// Says what the peer did wrong.
fn explain(error: &hyper::Error) -> String {
    match () {
        () if error.is_parse_too_large() => "the headers of the answer are too large".to_owned(),
        () if error.is_parse() => {
            "the answer is not HTTP/1.1; another kind of server listens there".to_owned()
        }
        () if error.is_incomplete_message() || error.is_body_write_aborted() => {
            "the connection was closed before an answer".to_owned()
        }
        () => match error.source() {
            Some(cause) => format!("the connection was lost before the end of the answer: {cause}"),
            None => "the connection was lost before the end of the answer".to_owned(),
        },
    }
}

/// Speaks TLS with a server that has the certificate in this file. Its name is not verified: the file says who it is.
async fn secure(stream: TcpStream, path: &Path) -> Result<Stream, String> {
    let config = tls::client_config(path).map_err(|error| error.to_string())?;
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    let stream = TokioIo::new(TokioIo::new(stream));
    let handshake = TlsConnector::from(config).connect(ServerName::from(address.ip()), stream).await;
    handshake.map(|stream| Stream::Https(TokioIo::new(stream))).map_err(|error| {
        match is_other_certificate(&error) {
            true => format!("{address} has another certificate than {} (--tls-cert)", path.display()),
            false => format!("TLS handshake with {address} failed: {error}"),
        }
    })
}

fn is_other_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

async fn connect(place: &Place) -> Result<TcpStream, String> {
    let addresses = match place {
        Place::At(address) => reached_at(*address),
        Place::Named(host, port) => {
            let found = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => outbound::resolve(host)
                    .await
                    .map_err(|error| format!("cannot resolve {host}: {error}"))?,
            };
            found.into_iter().map(|address| SocketAddr::new(address, *port)).collect()
        }
    };
    let mut why = "no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                why = format!("nothing listens on {address}");
            }
            Err(error) => why = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(why)
}

/// Returns the addresses of this host at which a listener is reached.
fn reached_at(address: SocketAddr) -> Vec<SocketAddr> {
    let port = address.port();
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let (v4, v6) = (
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
    );
    // A listener on [::] serves both, unless the host has no IPv6.
    if address.is_ipv6() { vec![v6, v4] } else { vec![v4] }
}
