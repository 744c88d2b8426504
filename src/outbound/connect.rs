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

/// Timeout for establishing a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// Idle time before a connection is closed: requests are more frequent, or so rare that they need no open connection.
const IDLE: Duration = Duration::from_secs(30);

/// An HTTP client. Its body is tonic's everywhere, so that the client's code exists once.
pub(crate) type Sender = Client<HttpsConnector<HttpConnector<Resolver>>, Body>;

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

/// How the connections of a client are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// Idle time before a connection is closed.
    pub idle: Duration,
    /// Maximum number of idle connections to one host.
    pub most_idle: usize,
    /// Maximum number of bytes that a connection reads before they are taken; `None`: hyper's own.
    pub buffer: Option<usize>,
    /// Time after which a peer that does not acknowledge is given up.
    pub unacknowledged: Option<Duration>,
}

/// Requests are more frequent than the idle time, or so rare that they need no open connection.
const USUAL: Keeping = Keeping { idle: IDLE, most_idle: usize::MAX, buffer: None, unacknowledged: None };

/// Creates a client: for HTTP/1.1, or for HTTP/2 only. `reach` is enforced for names; hosts that are addresses are the
/// caller's to check.
///
/// # Errors
/// When the certificates are unusable.
pub(crate) fn sender(tls: &Tls, http2: bool, reach: Reach) -> Result<Sender, BadTls> {
    client(tls, http2, Resolver { reach, only: None }, USUAL)
}

/// Creates a client for HTTP/1.1 that connects to this address, whatever name a URL has.
///
/// # Errors
/// When the certificates are unusable.
pub(super) fn pinned(tls: &Tls, address: IpAddr) -> Result<Sender, BadTls> {
    client(tls, false, Resolver { reach: Reach::Anywhere, only: Some(address) }, USUAL)
}

/// Creates a client for HTTP/1.1 that passes on the requests of others.
///
/// # Errors
/// When the certificates are unusable.
#[cfg_attr(not(feature = "gateway"), expect(dead_code, reason = "only a gateway passes on requests"))]
pub(crate) fn forwarder(tls: &Tls, keeping: Keeping, reach: Reach) -> Result<Sender, BadTls> {
    client(tls, false, Resolver { reach, only: None }, keeping)
}

fn client(tls: &Tls, http2: bool, resolver: Resolver, keeping: Keeping) -> Result<Sender, BadTls> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECTING));
    tcp.set_keepalive(keeping.unacknowledged);
    tcp.set_keepalive_interval(keeping.unacknowledged.map(|time| time / 4));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(keeping.unacknowledged);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls.client()?).https_or_http();
    if let Some(name) = tls.server_name()? {
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = if http2 {
        https.enable_http2().wrap_connector(tcp)
    } else {
        https.enable_http1().wrap_connector(tcp)
    };
    let mut builder = Client::builder(Tasks);
    if let Some(buffer) = keeping.buffer {
        builder.http1_max_buf_size(buffer);
    }
    Ok(builder
        .http2_only(http2)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(keeping.idle)
        .pool_max_idle_per_host(keeping.most_idle)
        .build(connector))
}
