//! Resolves names within this process. A static binary must not call the C library's resolver: that loads modules of
//! the image it runs in, and crashes if they were built for another C library.

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{self as dns, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tower_service::Service;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A resolver that reads `/etc/hosts`, then asks the name servers of `/etc/resolv.conf`, which is read at the first
/// query.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<OnceLock<TokioResolver>>);

impl Resolver {
    fn resolver(&self) -> io::Result<&TokioResolver> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let builder = if Path::new(RESOLV_CONF).exists() {
            let unusable = |error| io::Error::other(format!("{RESOLV_CONF}: {error}"));
            TokioResolver::builder_tokio().map_err(unusable)?
        } else {
            // The default of resolv.conf(5) is a name server on this host.
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let built = builder.build().map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| built))
    }

    async fn resolve(self, name: Name) -> io::Result<Vec<IpAddr>> {
        // `localhost` is always this host, even if the image's files differ (RFC 6761 §6.3).
        if name.as_str().eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        // A name in the hosts file is not looked up elsewhere for its other address family.
        let here = in_hosts(name.as_str());
        if !here.is_empty() {
            return Ok(here);
        }
        let found = self.resolver()?.lookup_ip(name.as_str()).await;
        found.map(|found| found.iter().collect()).map_err(io::Error::other)
    }
}

/// Returns the addresses of a name in `/etc/hosts`, which is read each time because it may change.
fn in_hosts(name: &str) -> Vec<IpAddr> {
    let (Ok(hosts), Ok(name)) = (Hosts::from_system(), dns::Name::from_utf8(name)) else { return Vec::new() };
    let of_kind = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_kind);
    found.flat_map(|found| LookupIp::from(found).iter().collect::<Vec<_>>()).collect()
}

/// Resolved addresses; the connector sets the port.
pub type Addresses = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.clone().resolve(name);
        Box::pin(async move {
            let found = found.await?.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}
