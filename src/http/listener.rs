//! Accepts connections: bounded in [number](super::peers), and each in how long it may send nothing or read nothing.

use super::Server;
use super::endpoint::{self, Full};
use super::marked::Marked;
use super::origin::Origin;
use super::peers::{Connection, Line, Mark, Places, Rewound, Socket, Watched};
use super::response::Body;
use super::unread::Explained;
use super::visit::Visit;
use crate::budget::Account;
use crate::client::Client;
use crate::telemetry::Peer;
use crate::telemetry::scope::scoped;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Type};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for a request head to complete after its first byte.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection on a spare place may take to send a whole request.
const SPARE_HEAD: Duration = Duration::from_secs(2);
/// How long such a connection may take until it has read its answer.
const SPARE_LIFE: Duration = Duration::from_secs(10);
/// How long a request of a client that holds little waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// What a request takes at its connection, in bytes: its task, its head and the buffers.
const REQUEST: usize = 32 * 1024;
/// What a request's head may take before it counts by itself, in bytes.
const USUAL_HEAD: usize = 4 * 1024;
/// What a stream to a client takes besides its messages, in bytes.
const STREAM: usize = 8 * 1024;
/// A refused body of more bytes, or of unknown length, is the last that its connection brings.
const LONG: u64 = 16 * 1024;
/// Connections to `--admin-listen`.
const ADMIN_CONNECTIONS: usize = 64;
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
    pub async fn serve(self, server: Arc<Server>, role: Role, closed: impl Future<Output = Duration>) {
        let (limit, connections) = match role {
            Role::Clients => (server.settings.max_connections, Arc::clone(&server.connections)),
            Role::Admin => (ADMIN_CONNECTIONS, Arc::default()),
        };
        let places = Places::new(limit, Arc::clone(&connections));
        let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
        let mut closed = pin!(closed);
        let patience = loop {
            let accept = async {
                places.bounded().await;
                let (stream, peer) = self.0.accept().await?;
                prepare(&stream, &server);
                let socket = Socket::new(stream);
                let connection = places.take(peer.ip(), Some(socket.line())).await;
                Ok((socket, peer, connection))
            };
            let (socket, peer, connection) = tokio::select! {
                patience = &mut closed => break patience,
                accepted = accept => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        pause(&error, &places).await;
                        continue;
                    }
                },
            };
            let line = socket.line();
            let stream = Watched::new(socket, Arc::clone(&connection), &connections);
            let account = server.budget.account(Client::at(Some(peer.ip())));
            account.on_give_way(stream.cutter());
            let requests = account.sibling(account.client());
            let visitor = Visitor {
                server: Arc::clone(&server),
                role,
                places: Arc::clone(&places),
                connection: Arc::clone(&connection),
                account,
                requests,
            };
            let served = visitor.serve(stream, peer, closing.clone());
            tracker.spawn(async move {
                tokio::select! {
                    biased;
                    () = served => {}
                    () = left(&line) => tracing::debug!("the peer hung up"),
                    () = connection.closes() => tracing::debug!("the connection makes room for another"),
                    () = overstays(&connection) => tracing::debug!("the connection kept a spare place for too long"),
                }
            });
        };
        drop(self);
        closing.cancel();
        tracker.close();
        if timeout(patience, tracker.wait()).await.is_err() {
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

/// Resolves when a connection has kept a spare place for too long.
async fn overstays(connection: &Connection) {
    if connection.is_spare() {
        sleep(SPARE_HEAD).await;
        if connection.is_spare() && connection.has_asked() {
            sleep(SPARE_LIFE).await;
        }
    }
    if !connection.is_spare() {
        std::future::pending::<()>().await;
    }
}

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Clients, and probes too (`--listen`).
    Clients,
    /// Probes and scrapers only (`--admin-listen`).
    Admin,
}

/// The peer of one connection.
#[derive(Clone)]
struct Visitor {
    server: Arc<Server>,
    role: Role,
    places: Arc<Places>,
    connection: Arc<Connection>,
    /// Whom the messages are charged to.
    account: Account,
    /// Whom the requests themselves are charged to, so that they leave small messages their share.
    requests: Account,
}

impl Visitor {
    /// Serves one connection. While it is idle it has no buffers: hyper's are dropped, and made again when the peer
    /// sends something.
    async fn serve(self, mut stream: Watched<Socket>, peer: SocketAddr, closing: CancellationToken) {
        let mut first = Bytes::new();
        loop {
            if first.is_empty() {
                tokio::select! {
                    biased;
                    readable = stream.readable() => if readable.is_err() { return },
                    () = closing.cancelled() => return,
                    () = sleep(self.server.settings.keep_alive_timeout) => return,
                }
            }
            match Box::pin(self.serve_until_idle(Rewound { first, stream }, peer, &closing)).await {
                Ok(Some(idle)) => Rewound { first, stream } = idle,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    return;
                }
            }
        }
    }

    /// Serves requests until the connection ends, or is idle and to give its buffers back.
    async fn serve_until_idle(
        &self,
        stream: Rewound<Watched<Socket>>,
        peer: SocketAddr,
        closing: &CancellationToken,
    ) -> hyper::Result<Option<Rewound<Watched<Socket>>>> {
        let marker = stream.stream.busy();
        let (visitor, peer) = (self.clone(), Peer::from(peer));
        // Hyper counts it from the last response on. Clients may be idle for longer, so that their heads are cut by
        // `cut_slow_heads`.
        let head_patience = match self.role {
            Role::Clients => self.server.settings.keep_alive_timeout.max(HEAD_PATIENCE),
            Role::Admin => HEAD_PATIENCE,
        };
        let mut http = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_patience)
            .max_buf_size(BUFFER)
            .serve_connection(
                TokioIo::new(Explained::new(stream)),
                service_fn(move |request: Request<Incoming>| {
                    let mark = marker.mark(request.method() == Method::GET, !request.body().is_end_stream());
                    let (visitor, peer) = (visitor.clone(), peer.clone());
                    // Boxed, so that no idle connection keeps room for it.
                    Box::pin(async move { Ok::<_, Infallible>(visitor.answer(request, peer, mark).await) })
                }),
            );
        let mut closes = pin!(closing.cancelled());
        let mut is_closing = false;
        let is_idle = std::future::poll_fn(|cx| {
            if !is_closing && closes.as_mut().poll(cx).is_ready() {
                is_closing = true;
                Pin::new(&mut http).graceful_shutdown();
            }
            if let Poll::Ready(ended) = http.poll_without_shutdown(cx) {
                return Poll::Ready(ended.map(|()| false));
            }
            if is_closing || !self.connection.gives_buffers_back() {
                return Poll::Pending;
            }
            // Only an idle connection ends at once; one that does not is closed once its response is written.
            is_closing = true;
            Pin::new(&mut http).graceful_shutdown();
            http.poll_without_shutdown(cx).map_ok(|()| true)
        })
        .await?;
        let parts = http.into_parts();
        let Rewound { stream, .. } = parts.io.into_inner().into_inner();
        if is_idle {
            return Ok(Some(Rewound { first: parts.read_buf, stream }));
        }
        let mut stream = stream;
        let _ = stream.shutdown().await;
        Ok(None)
    }

    async fn answer(self, request: Request<Incoming>, peer: Peer, mark: Mark) -> Response<Marked<Body>> {
        let Visitor { server, role, places, connection, account, requests } = self;
        if role == Role::Admin {
            connection.set_may_rest(request.body().is_end_stream());
            let response = endpoint::serve_admin(&server, request);
            return response.map(|body| Marked::new(body, mark, None, None));
        }
        let has_body = !request.body().is_end_stream();
        let is_long = request.body().size_hint().upper().is_none_or(|length| length > LONG);
        let is_probe = endpoint::is_probe(request.uri().path());
        let usual = if request.method() == Method::GET { STREAM } else { REQUEST };
        let takes = usual + head_length(&request).saturating_sub(USUAL_HEAD);
        let charge = if is_probe { None } else { requests.charge_soon(takes, ROOM_PATIENCE).await };
        let (mut visit, origin) = match is_probe {
            true => (None, Origin::unseen(peer, account)),
            false => Visit::begin(&server.settings, &request, peer, account),
        };
        let mut response =
            if connection.is_spare() && !is_probe && !Box::pin(places.settle(&connection)).await {
                endpoint::refuse(request, Full::Connections)
            } else if charge.is_none() && !is_probe {
                endpoint::refuse(request, Full::Memory)
            } else {
                scoped(origin.span, endpoint::serve(server, &origin, request)).await
            };
        // Hyper may still be reading the body of a refused request: such a connection keeps its buffers.
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        connection.set_may_rest(!has_body || !is_error);
        let leaves_body = has_body && is_error && is_long;
        connection.set_leaves_body(leaves_body);
        if let Some(visit) = &mut visit {
            visit.answered(response.status());
        }
        if connection.is_spare() || leaves_body {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Marked::new(body, mark, visit, charge))
    }
}

/// The bytes of a request's head, which it keeps while it is in progress.
fn head_length(request: &Request<Incoming>) -> usize {
    let headers = request.headers().iter();
    headers.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + request.uri().path().len()
}

async fn pause(error: &io::Error, places: &Places) {
    // The peer gave up before it was accepted: nothing to wait for.
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "cannot accept a connection");
    if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) {
        places.free_file();
    }
    sleep(EXHAUSTED_PAUSE).await;
}

/// Raises the limit on open files as far as it goes: every connection and every child's pipe is one. The child gets
/// the limit that was there before. Returns the limit.
pub fn raise_file_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}
