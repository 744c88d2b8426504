//! Connections: name resolution, TCP and TLS.

use super::reach::Reach;
use super::resolve::Resolver;
use super::tls::{BadTls, Tls};
use crate::tasks;
use hyper::rt::Executor;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use std::net::IpAddr;
use std::time::Duration;
use tonic::body::Body;
#[cfg(feature = "gateway")]
use {
    hyper::Uri, hyper_rustls::MaybeHttpsStream, hyper_util::rt::TokioIo, std::error::Error,
    std::future::poll_fn, tokio::net::TcpStream, tower_service::Service,
};

/// Timeout for establishing a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// Idle time before a connection is closed: requests are more frequent, or so rare that they need no open connection.
const IDLE: Duration = Duration::from_secs(30);

type Https = HttpsConnector<HttpConnector<Resolver>>;

/// An HTTP client. Its body is tonic's everywhere, so that the client's code exists once.
pub(crate) type Sender = Client<Https, Body>;

/// A connection, in clear text or by TLS.
#[cfg(feature = "gateway")]
pub(crate) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections for HTTP/1.1 that the caller keeps.
#[cfg(feature = "gateway")]
#[derive(Clone, Debug)]
pub(crate) struct Connector(Https);

#[cfg(feature = "gateway")]
impl Connector {
    /// Creates a connector. `reach` is enforced for names; hosts that are addresses are the caller's to check. A peer that
    /// acknowledges nothing for this long is given up.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(crate) fn new(tls: &Tls, reach: Reach, unacknowledged: Duration) -> Result<Self, BadTls> {
        connector(tls, false, Resolver { reach, only: None }, Some(unacknowledged)).map(Connector)
    }

    /// Opens a connection to the host of a URL.
    ///
    /// # Errors
    /// When none comes about.
    pub(crate) async fn connect(&self, url: &Uri) -> Result<Stream, Box<dyn Error + Send + Sync>> {
        let mut connector = self.0.clone();
        poll_fn(|cx| connector.poll_ready(cx)).await?;
        connector.call(url.clone()).await
    }
}

/// Starts hyper's tasks.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        tasks::spawn(async {
            task.await;
        });
    }
}

/// Creates a client: for HTTP/1.1, or for HTTP/2 only. `reach` is enforced for names; hosts that are addresses are the
/// caller's to check.
///
/// # Errors
/// When the certificates are unusable.
pub(crate) fn sender(tls: &Tls, http2: bool, reach: Reach) -> Result<Sender, BadTls> {
    client(tls, http2, Resolver { reach, only: None })
}

/// How the connections of a client are kept that passes on the requests of others.
#[cfg(feature = "gateway")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// Idle time before a connection is closed.
    pub idle: Duration,
    /// Maximum number of idle connections to one host.
    pub most_idle: usize,
    /// Maximum number of bytes that a connection reads before they are taken.
    pub buffer: usize,
    /// Time after which a peer that does not acknowledge is given up.
    pub unacknowledged: Duration,
}

/// Creates a client for HTTP/1.1 whose connections are kept like this.
///
/// # Errors
/// When the certificates are unusable.
#[cfg(feature = "gateway")]
pub(crate) fn forwarder(tls: &Tls, keeping: Keeping) -> Result<Sender, BadTls> {
    let resolver = Resolver { reach: Reach::Anywhere, only: None };
    let connector = connector(tls, false, resolver, Some(keeping.unacknowledged))?;
    Ok(Client::builder(Tasks)
        .http1_max_buf_size(keeping.buffer)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(keeping.idle)
        .pool_max_idle_per_host(keeping.most_idle)
        .build(connector))
}

/// Creates a client for HTTP/1.1 that connects to this address, whatever name a URL has.
///
/// # Errors
/// When the certificates are unusable.
pub(super) fn pinned(tls: &Tls, address: IpAddr) -> Result<Sender, BadTls> {
    client(tls, false, Resolver { reach: Reach::Anywhere, only: Some(address) })
}

fn client(tls: &Tls, http2: bool, resolver: Resolver) -> Result<Sender, BadTls> {
    let connector = connector(tls, http2, resolver, None)?;
    Ok(Client::builder(Tasks)
        .http2_only(http2)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

fn connector(
    tls: &Tls,
    http2: bool,
    resolver: Resolver,
    unacknowledged: Option<Duration>,
) -> Result<Https, BadTls> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECTING));
    tcp.set_keepalive(unacknowledged);
    tcp.set_keepalive_interval(unacknowledged.map(|time| time / 4));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(unacknowledged);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls.client()?).https_or_http();
    if let Some(name) = tls.server_name()? {
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(if http2 {
        https.enable_http2().wrap_connector(tcp)
    } else {
        https.enable_http1().wrap_connector(tcp)
    })
}
