//! Accepting connections: bounded in [number](super::places), and each in how long it may send nothing or take nothing.

use super::connections::Marked;
use super::origin::Origin;
use super::places::{Place, Places};
use super::socket::{Line, Socket};
use super::unread::Explained;
use super::visit::Visit;
use super::{Server, endpoint};
use crate::client::Client;
use crate::telemetry::Peer;
use crate::telemetry::scope::scoped;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Type};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Time for a request head to complete after its first byte.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// What one connection may have read of a head, or buffered to write, in bytes.
const BUFFER: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// What a peer sent before it hung up may still be answered for so long, as far as that is quick.
const HANGUP_GRACE: Duration = Duration::from_millis(250);
/// How long to wait when the system has no file descriptors left: some connection must close first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// When it is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the life before.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(Listener)
    }

    /// Where it listens; tells the port that the system chose.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `closed` resolves; then no new connection is accepted, idle ones are closed, and busy ones are
    /// waited for, for as long as `closed` says at most.
    pub async fn serve(self, server: Arc<Server>, closed: impl Future<Output = Duration>) {
        let places = Places::new(server.settings.max_connections, Arc::clone(&server.connections));
        let graceful = GracefulShutdown::new();
        let mut closed = pin!(closed);
        let patience = loop {
            let (stream, peer) = tokio::select! {
                patience = &mut closed => break patience,
                accepted = self.0.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        pause(&error).await;
                        continue;
                    }
                },
            };
            let place = tokio::select! {
                patience = &mut closed => break patience,
                place = places.take() => Arc::new(place),
            };
            prepare(&stream, &server);
            let socket = Socket::new(stream);
            let line = socket.line();
            let watched = graceful.watch(connection(&server, place, socket, peer));
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    ended = watched => if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    },
                    () = left(&line) => tracing::debug!("the peer hung up"),
                }
            });
        };
        drop(self);
        if timeout(patience, graceful.shutdown()).await.is_err() {
            tracing::warn!("some connections took too long to close");
        }
    }
}

fn prepare(stream: &TcpStream, server: &Server) {
    let _ = stream.set_nodelay(true);
    // Notices peers that vanished; `--write-timeout` itself those that are there and take nothing.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(server.settings.write_timeout));
}

/// Resolves a moment after the peer hung up. Where all that it sent is read, that is noticed without this; but behind
/// a request in work nothing is read on, not even the end.
async fn left(line: &Line) {
    line.hung_up().await;
    sleep(HANGUP_GRACE).await;
}

fn connection(
    server: &Arc<Server>,
    place: Arc<Place>,
    socket: Socket,
    peer: SocketAddr,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + 'static {
    let line = socket.line();
    let stream = server.connections.watch(socket, Some(line));
    let marker = stream.busy();
    let account = server.budget.account(Client::at(Some(peer.ip())));
    account.on_give_way(stream.cutter());
    let (server, peer) = (Arc::clone(server), Peer::from(peer));
    // Hyper's timer covers the idle time before a head as well as the head.
    let idle = if place.is_spare() { HEAD_PATIENCE } else { server.settings.keep_alive_timeout };
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(BUFFER)
        .serve_connection(
            TokioIo::new(Explained::new(stream)),
            service_fn(move |request| {
                let (server, place, mark) = (Arc::clone(&server), Arc::clone(&place), marker.mark());
                let (peer, account) = (peer.clone(), account.clone());
                async move {
                    let path = request.uri().path();
                    let (mut visit, origin) = match endpoint::is_probe(path) {
                        true => (None, Origin::unseen(peer, account)),
                        false => Visit::begin(&server.settings, &request, peer, account),
                    };
                    let mut response =
                        if !place.is_spare() || endpoint::is_probe(path) || Box::pin(place.settle()).await {
                            scoped(origin.span, endpoint::serve(server, &origin, request)).await
                        } else {
                            endpoint::refuse_connection(request)
                        };
                    if let Some(visit) = &mut visit {
                        visit.answered(response.status());
                    }
                    if place.is_spare() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response.map(|body| Marked::new(body, mark, visit)))
                }
            }),
        )
}

async fn pause(error: &io::Error) {
    // The peer gave up before it was accepted: nothing to wait for.
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(EXHAUSTED_PAUSE).await;
    }
}

/// Raises the limit on open files as far as it goes: every connection and every child's pipe is one. The child gets
/// the limit that was there before. Returns the limit.
pub fn raise_file_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}
