//! The opening of a connection: whether its client speaks TLS, and HTTP/1.1 or HTTP/2. Nothing is allocated for a
//! client that has not spoken yet.

use super::peers::{Socket, Watched, Wire};
use crate::jsonrpc::{codes, rewrite};
use crate::telemetry::{Seldom, counters};
use crate::tls::{Gate, Handshake, Peer};
use bytes::Bytes;
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// The first bytes of a connection whose client knows that HTTP/2 is spoken here (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first bytes of a handshake by TLS: a record of this type, of version 3.x.
const HELLO: [u8; 2] = [0x16, 3];

/// An opened connection.
pub struct Opened {
    /// Its stream.
    pub wire: Wire,
    /// Bytes that were read from it.
    pub first: Bytes,
    /// Whether its client speaks HTTP/2.
    pub is_http2: bool,
    /// The identity of its client, by its certificate.
    pub certificate: Option<Peer>,
    /// Cancelled once the client's certificate must be verified again.
    pub authorities: Option<CancellationToken>,
}

static HELLOS: Seldom = Seldom::new();

/// Waits for the client's first bytes, and for its handshake if there is a gate. `None` when the connection has ended,
/// or must end.
pub async fn open(
    mut stream: Watched<Socket>,
    gate: Option<&Gate>,
    speaks_http2: bool,
    client: IpAddr,
) -> Option<Opened> {
    let mut peeked = [0; PREFACE.len()];
    let length = stream.peek(&mut peeked).await.ok()?;
    let peeked = &peeked[..length];
    match gate {
        Some(gate) => Box::pin(greet(stream, gate, peeked, client)).await,
        None => {
            if peeked.starts_with(&HELLO) && HELLOS.is_due() {
                tracing::warn!(%client, "a client speaks TLS, which is not enabled; use http://, or set --tls-cert and --tls-key");
            }
            let mut first = Bytes::new();
            let mut is_http2 = speaks_http2 && peeked == PREFACE;
            if speaks_http2 && !is_http2 && PREFACE.starts_with(peeked) {
                // Boxed, since the preface usually arrives as a whole.
                first = Box::pin(read_preface(&mut stream)).await.ok()?;
                is_http2 = &*first == PREFACE;
            }
            let wire = Wire::Clear(stream);
            Some(Opened { wire, first, is_http2, certificate: None, authorities: None })
        }
    }
}

/// Reads until the bytes are the preface or anything else.
async fn read_preface(stream: &mut Watched<Socket>) -> io::Result<Bytes> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        read.push(stream.read_u8().await?);
    }
    Ok(read.into())
}

async fn greet(mut stream: Watched<Socket>, gate: &Gate, peeked: &[u8], client: IpAddr) -> Option<Opened> {
    if !HELLO.starts_with(&peeked[..peeked.len().min(HELLO.len())]) {
        Handshake::ClearText.count();
        Handshake::ClearText.log(client, "the client speaks clear text; use https://");
        if peeked[0].is_ascii_uppercase() {
            let _ = stream.write_all(&refusal()).await;
            let _ = stream.shutdown().await;
        }
        return None;
    }
    let accepted = gate.accept(stream, client).await.ok()?;
    accepted.stream.get_ref().0.forget_head();
    Some(Opened {
        authorities: accepted.peer.is_some().then_some(accepted.authorities),
        wire: Wire::Tls(Box::new(accepted.stream)),
        first: Bytes::new(),
        is_http2: accepted.is_http2,
        certificate: accepted.peer,
    })
}

/// Returns the answer to a request in clear text.
fn refusal() -> Vec<u8> {
    let reason = "this port speaks TLS only; use https://";
    let body = rewrite::error(None, codes::INVALID_REQUEST, reason, None);
    counters::REJECTED_REQUESTS.increment();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}
