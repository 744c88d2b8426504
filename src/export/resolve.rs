//! Names to addresses, within this process. A static binary must not ask the C library: that loads modules of the image
//! that it happens to run in, and ends with those that were built for another.

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

/// Asks the name servers of `/etc/resolv.conf`, after `/etc/hosts`. The former is read when the first name is asked for.
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
            // As resolv.conf(5) has it then: this machine is asked.
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let built = builder.build().map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| built))
    }

    async fn resolve(self, name: Name) -> io::Result<Vec<IpAddr>> {
        // Always this machine, whatever an image's files say (RFC 6761 §6.3).
        if name.as_str().eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        // What has one kind of address there is not asked for the other elsewhere.
        let here = in_hosts(name.as_str());
        if !here.is_empty() {
            return Ok(here);
        }
        let found = self.resolver()?.lookup_ip(name.as_str()).await;
        found.map(|found| found.iter().collect()).map_err(io::Error::other)
    }
}

/// The addresses that `/etc/hosts` has for a name. It is read each time, since it may change.
fn in_hosts(name: &str) -> Vec<IpAddr> {
    let (Ok(hosts), Ok(name)) = (Hosts::from_system(), dns::Name::from_utf8(name)) else { return Vec::new() };
    let of_kind = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_kind);
    found.flat_map(|found| LookupIp::from(found).iter().collect::<Vec<_>>()).collect()
}

/// Addresses without a port, which is the connector's to set.
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
