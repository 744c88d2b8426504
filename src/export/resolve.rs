//! Names to addresses, within this process. A static binary must not ask the C library: that loads modules of the image
//! that it happens to run in, and ends with those that were built for another.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tower_service::Service;

/// Asks the name servers of `/etc/resolv.conf`, after `/etc/hosts`. Both are read when the first name is asked for.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<OnceLock<TokioResolver>>);

impl Resolver {
    fn resolver(&self) -> io::Result<&TokioResolver> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            // As resolv.conf(5) has it where there is none: this machine is asked, after /etc/hosts.
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        let built = builder.build().map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| built))
    }

    async fn resolve(self, name: Name) -> io::Result<Vec<IpAddr>> {
        // Always this machine, whatever an image's files say (RFC 6761 §6.3).
        if name.as_str().eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let found = self.resolver()?.lookup_ip(name.as_str()).await;
        found.map(|found| found.iter().collect()).map_err(io::Error::other)
    }
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
