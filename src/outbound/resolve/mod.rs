//! Resolves names within this process. A static binary must not call the C library's resolver: that loads modules of
//! the image it runs in, and crashes if they were built for another C library.
//!
//! This is a stub resolver: it reads `/etc/hosts`, then asks the recursive name servers of `/etc/resolv.conf`. Both
//! files are read for each name, because they may change. Nothing is cached, since connections are kept.

mod files;
mod message;
mod query;
mod reader;
#[cfg(feature = "gateway")]
mod service;

use super::reach::Reach;
use files::Settings;
use hyper_util::client::legacy::connect::dns::Name;
#[cfg(feature = "gateway")]
pub(crate) use service::ServiceHost;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_service::Service;

/// A resolver by this host's configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resolver {
    /// The addresses to return.
    pub reach: Reach,
    /// The only address of each name, which is not looked up then.
    pub only: Option<IpAddr>,
}

/// Returns the addresses of a name.
///
/// # Errors
/// When it has none, or no name server answers.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    // `localhost` is always this host, even if the image's files differ (RFC 6761 §6.3).
    if name.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    // A name in the hosts file is not looked up elsewhere for its other address family.
    let here = files::in_hosts(name, &files::read(files::HOSTS).unwrap_or_default());
    if !here.is_empty() {
        return Ok(here);
    }
    query::look_up(name, &settings()?).await
}

/// Returns the hosts of a service, such as `_mcp._tcp.tools.example`.
///
/// # Errors
/// `NotFound` when it has none; others when no name server answers.
#[cfg(feature = "gateway")]
pub(crate) async fn services(name: &str) -> io::Result<Vec<ServiceHost>> {
    query::services(name, &settings()?).await
}

fn settings() -> io::Result<Settings> {
    Ok(Settings::parse(&files::read(files::RESOLV_CONF)?, files::own_domain().as_deref()))
}

/// Returns how many addresses, or hosts of services if those are more, are in the answer of a name server to a question
/// for `a.bc`, for the fuzz target. `flags` are the header's bytes after the id, and `records` what follows the question.
pub fn records_in(flags: [u8; 10], records: &[u8]) -> usize {
    let kinds = [
        message::Kind::Aaaa,
        #[cfg(feature = "gateway")]
        message::Kind::Srv,
    ];
    let found = kinds.into_iter().filter_map(|kind| {
        let asked = message::question(0, "a.bc", kind)?;
        let mut answer = asked.clone();
        answer[2..12].copy_from_slice(&flags);
        answer.extend_from_slice(records);
        match message::answer(&answer, &asked)? {
            message::Answer::Records(found) => Some(found.len()),
            _ => None,
        }
    });
    found.max().unwrap_or_default()
}

/// Resolved addresses; the connector sets the port.
pub(crate) type Addresses = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Resolver { reach, only } = *self;
        Box::pin(async move {
            let mut found = match only {
                Some(only) => vec![only],
                None => resolve(name.as_str()).await?,
            };
            found.retain(|address| reach.includes(*address));
            if found.is_empty() {
                let what =
                    if reach == Reach::Public { "private" } else { "loopback, link-local or reserved" };
                return Err(io::Error::other(format!("{name} has only {what} addresses")));
            }
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}
