//! One HTTP request of a command, and its whole answer.

use crate::export;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// Sends the request, and returns the answer, or in words why there is none.
pub(super) fn ask(
    place: &Place,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let answered = timeout(patience, exchange(place, request)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs_f64())))
    })
}

async fn exchange(place: &Place, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let stream = connect(place).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::select! {
        answer = answering => answer,
        // The connection ends before the answer only by an error, which `answering` reports, too.
        Err(error) = connection => Err(error.to_string()),
    }
}

async fn connect(place: &Place) -> Result<TcpStream, String> {
    let addresses = match place {
        Place::At(address) => reached_at(*address),
        Place::Named(host, port) => {
            let found = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => {
                    export::resolve(host).await.map_err(|error| format!("cannot resolve {host}: {error}"))?
                }
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
