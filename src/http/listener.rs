//! Accepts connections, bounded in [number](super::peers), and passes each to a [`Service`].

use super::Server;
use super::peers::{Connection, Line, Places, Socket, Watched};
use super::service::{Role, Service};
use crate::aside::Aside;
use crate::client::Client;
use crate::tasks;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Type};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time in which a connection on a spare place must send a whole request.
const SPARE_HEAD: Duration = Duration::from_secs(2);
/// Further time in which its answer must be written.
const SPARE_LIFE: Duration = Duration::from_secs(10);
/// Maximum number of connections to `--admin-listen`.
const ADMIN_CONNECTIONS: usize = 64;
/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Time in which requests that a peer sent before it hung up are still answered.
const HANGUP_GRACE: Duration = Duration::from_millis(250);
/// Pause when the system has no file descriptors left, until a connection is closed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// When the address is taken, or does not belong to this host.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the previous process.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(Listener)
    }

    /// Returns the bound address, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `closed` resolves. Then no connection is accepted, idle ones are closed, and busy ones are
    /// awaited for at most the duration that `closed` yields.
    pub async fn serve(self, server: Arc<Server>, role: Role, closed: impl Future<Output = Duration>) {
        let (limit, connections) = match role {
            Role::Clients => (server.settings.max_connections, Arc::clone(&server.connections)),
            Role::Admin => (ADMIN_CONNECTIONS, Arc::default()),
        };
        let places = Places::new(limit, connections);
        let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
        let mut closed = pin!(closed);
        let patience = loop {
            tokio::select! {
                patience = &mut closed => break patience,
                accepted = self.accept(&server, &places) => match accepted {
                    Ok(accepted) => accepted.serve(&server, role, &places, &tracker, &closing),
                    Err(error) => pause(&error, &places).await,
                },
            }
        };
        drop(self);
        closing.cancel();
        tracker.close();
        if timeout(patience, tracker.wait()).await.is_err() {
            tracing::warn!("some connections did not close in time (--drain-timeout)");
        }
    }

    async fn accept(&self, server: &Server, places: &Places) -> io::Result<Accepted> {
        places.bounded().await;
        let (stream, peer) = self.0.accept().await?;
        prepare(&stream, server);
        let socket = Socket::new(stream);
        let connection = places.take(peer.ip(), Some(socket.line())).await;
        Ok(Accepted { socket, peer, connection })
    }
}

/// A connection that has a place.
struct Accepted {
    socket: Socket,
    peer: SocketAddr,
    connection: Arc<Connection>,
}

impl Accepted {
    /// Serves the connection in a task of its own.
    fn serve(
        self,
        server: &Arc<Server>,
        role: Role,
        places: &Arc<Places>,
        tracker: &TaskTracker,
        closing: &CancellationToken,
    ) {
        let Accepted { socket, peer, connection } = self;
        let line = socket.line();
        let stream = Watched::new(socket, Arc::clone(&connection), places.connections());
        let account = server.budget.account(Client::at(Some(peer.ip())));
        account.on_give_way(stream.cutter());
        let service = Arc::new(Service {
            server: Arc::clone(server),
            role,
            places: Arc::clone(places),
            connection: Arc::clone(&connection),
            peer: peer.into(),
            usual_host: OnceLock::new(),
            requests: account.sibling(account.client()),
            account,
        });
        let closing = closing.clone();
        tracker.spawn(tasks::boxed(async move {
            let (mut served, mut ends) =
                (pin!(service.serve(stream, closing)), pin!(ends(&line, &connection)));
            let mut ends = Aside::new(|cx| ends.as_mut().poll(cx));
            std::future::poll_fn(|cx| match served.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => ends.poll(cx),
            })
            .await;
        }));
    }
}

fn prepare(stream: &TcpStream, server: &Server) {
    let _ = stream.set_nodelay(true);
    // Detects peers that vanished. `--write-timeout` itself covers peers that are reachable and read nothing.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(server.settings.write_timeout));
}

/// Resolves when a connection must end before it is served to its end.
async fn ends(line: &Line, connection: &Connection) {
    tokio::select! {
        () = hung_up(line) => tracing::debug!("connection closed: the peer hung up"),
        () = connection.closes() => tracing::debug!("connection closed: it is idle or slow, or another one needs its place"),
        () = overstays(connection) => tracing::debug!("connection closed: it kept a spare place for too long"),
    }
}

/// Resolves shortly after the peer hung up. Reading would also detect this, but nothing is read behind a request in
/// progress.
async fn hung_up(line: &Line) {
    line.hung_up().await;
    Box::pin(sleep(HANGUP_GRACE)).await;
}

/// Resolves when a connection has kept a spare place for too long.
async fn overstays(connection: &Connection) {
    if connection.is_spare() {
        Box::pin(sleep(SPARE_HEAD)).await;
        if connection.is_spare() && connection.has_asked() {
            Box::pin(sleep(SPARE_LIFE)).await;
        }
    }
    if !connection.is_spare() {
        std::future::pending::<()>().await;
    }
}

async fn pause(error: &io::Error, places: &Places) {
    // The peer gave up before it was accepted, so no pause is needed.
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "cannot accept a connection");
    if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) {
        places.free_file();
    }
    sleep(EXHAUSTED_PAUSE).await;
}

/// Raises the soft limit on open files to the hard limit, since every connection and every pipe of a child is a file,
/// and returns it. Children get the previous limit.
pub fn raise_file_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}
