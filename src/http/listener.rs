//! Accepts connections, bounded in [number](super::peers), and passes each to a [`Service`].

use super::Server;
use super::ending::Ending;
use super::opening::{self, Opened};
use super::peers::{Connection, Line, Places, Rewound, Socket, Watched};
use super::service::{Role, Service};
use crate::aside::Aside;
use crate::client::Client;
use crate::tasks;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
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

/// A listening socket that the process was started with (`--listen fd:N`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    file: RawFd,
    address: SocketAddr,
}

impl Handed {
    /// Checks a file. Must be called before the process opens files of its own.
    ///
    /// # Errors
    /// The reason why it is not a listening TCP socket.
    pub fn check(file: RawFd) -> Result<Self, &'static str> {
        if file <= libc::STDERR_FILENO {
            return Err("is stdin, stdout or stderr");
        }
        // SAFETY: the call reads a flag, if there is such a file.
        if unsafe { libc::fcntl(file, libc::F_GETFD) } < 0 {
            return Err("is not an open file");
        }
        // SAFETY: the file is open, and nothing closes it while it is borrowed here.
        let borrowed = unsafe { BorrowedFd::borrow_raw(file) };
        let socket = SockRef::from(&borrowed);
        if socket.r#type().map_err(|_| "is not a socket")? != Type::STREAM {
            return Err("is not a TCP socket");
        }
        #[cfg(target_os = "linux")]
        if !matches!(socket.protocol(), Ok(Some(Protocol::TCP | Protocol::MPTCP))) {
            return Err("is not a TCP socket");
        }
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let address = address.ok_or("is not a TCP socket")?;
        if !socket.is_listener().is_ok_and(|listens| listens) {
            return Err("is not listening");
        }
        Ok(Handed { file, address })
    }

    /// Returns the socket's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the descriptor.
    pub fn file(&self) -> RawFd {
        self.file
    }
}

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

    /// Takes a socket over. Must be called once.
    ///
    /// # Errors
    /// When the runtime cannot register it.
    pub fn take(handed: Handed) -> io::Result<Self> {
        // SAFETY: `check` found an open socket before the process had files of its own, so that nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(handed.file) };
        let socket = socket2::Socket::from(socket);
        // The child must not inherit it.
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
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
        let (server, places, closing) = (Arc::clone(server), Arc::clone(places), closing.clone());
        tasks::spawn(tracker.track_future(async move {
            let begun = Begun { server, role, places, connection: Arc::clone(&connection), peer };
            let (mut served, mut ends) = (pin!(begun.serve(stream, closing)), pin!(ends(&line, &connection)));
            let mut ends = Aside::new(|cx| ends.as_mut().poll(cx));
            std::future::poll_fn(|cx| match served.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => ends.poll(cx),
            })
            .await;
        }));
    }
}

/// A connection whose client has not spoken yet.
struct Begun {
    server: Arc<Server>,
    role: Role,
    places: Arc<Places>,
    connection: Arc<Connection>,
    peer: SocketAddr,
}

impl Begun {
    /// Opens the connection and serves it to its end.
    async fn serve(self, stream: Watched<Socket>, closing: CancellationToken) {
        let Some((service, opened)) = self.open(stream, &closing).await else { return };
        let Opened { wire, first, is_http2, authorities, .. } = opened;
        let ending = Ending::new(closing, authorities, service.certificate.as_deref());
        let overdue = ending.overdue();
        let serving = pin!(async {
            if is_http2 {
                Box::pin(service.serve_http2(Rewound { first, stream: wire }, ending)).await;
            } else {
                service.serve(wire, first, ending).await;
            }
        });
        match overdue {
            None => serving.await,
            Some(overdue) => {
                let overdue = Box::pin(overdue);
                tokio::select! {
                    () = serving => {}
                    () = overdue => {}
                }
            }
        }
    }

    async fn open(
        self,
        stream: Watched<Socket>,
        closing: &CancellationToken,
    ) -> Option<(Arc<Service>, Opened)> {
        let Begun { server, role, places, connection, peer } = self;
        let account = server.budget.account(Client::at(Some(peer.ip())));
        account.on_give_way(stream.cutter());
        let (gate, speaks_http2) = match role {
            Role::Clients => (server.gate.as_deref(), server.settings.max_streams > 0),
            Role::Admin => (None, false),
        };
        let mut opened = tokio::select! {
            biased;
            // Boxed: a busy connection does not need it.
            opened = Box::pin(opening::open(stream, gate, speaks_http2, peer.ip())) => opened?,
            () = closing.cancelled() => return None,
        };
        let service = Arc::new(Service {
            server,
            role,
            places,
            connection,
            peer: peer.into(),
            usual_host: OnceLock::new(),
            certificate: opened.certificate.take().map(Box::new),
            requests: account.sibling(account.client()),
            account,
        });
        Some((service, opened))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_listening_tcp_socket_is_taken() {
        let reason = |file: &dyn AsRawFd| Handed::check(file.as_raw_fd()).expect_err("refused");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        assert_eq!(Handed::check(listener.as_raw_fd()).map(|handed| handed.address()), Ok(address));
        assert_eq!(reason(&File::open("/dev/null").expect("a file")), "is not a socket");
        assert_eq!(reason(&UdpSocket::bind("127.0.0.1:0").expect("a socket")), "is not a TCP socket");
        assert_eq!(reason(&TcpStream::connect(address).expect("a connection")), "is not listening");
        let path = std::env::temp_dir().join(format!("proxyrunner-handed-{}", std::process::id()));
        assert_eq!(reason(&UnixListener::bind(&path).expect("a socket")), "is not a TCP socket");
        let _ = std::fs::remove_file(path);
        assert_eq!(Handed::check(1), Err("is stdin, stdout or stderr"));
        assert_eq!(Handed::check(-1), Err("is stdin, stdout or stderr"));
        assert_eq!(Handed::check(100_000), Err("is not an open file"));
    }

    #[tokio::test]
    async fn a_socket_that_is_taken_accepts_and_is_not_inherited() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let handed = Handed::check(socket.into_raw_fd()).expect("a listening socket");
        let listener = Listener::take(handed).expect("taken");
        assert_eq!(listener.address().expect("an address"), handed.address());
        let flags = nix::fcntl::fcntl(&listener.0, nix::fcntl::FcntlArg::F_GETFD).expect("flags");
        assert_eq!(flags, libc::FD_CLOEXEC);
        let client = TcpStream::connect(handed.address()).expect("a connection");
        let (_, peer) = listener.0.accept().await.expect("a connection");
        assert_eq!(Ok(peer), client.local_addr().map_err(drop));
    }
}
