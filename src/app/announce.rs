//! The announcement of the address: a log line, and on a terminal a banner.

use crate::http::Settings;
use std::io::{self, IsTerminal};

/// Announces the address, since clients are served from now on.
pub(super) fn listening(settings: &Settings, is_gateway: bool, identifies: bool) {
    let address = settings.listen;
    let path = if is_gateway { "/servers/NAME/mcp" } else { &settings.path };
    tracing::info!(%address, path, "listening");
    if !address.ip().is_loopback() && settings.allow_host.is_empty() && settings.public_url.is_none() {
        tracing::warn!("requests to public host names are refused; allow them with --allow-host");
    }
    if !address.ip().is_loopback() && !identifies {
        tracing::warn!(
            "callers are not identified: whoever reaches {address} may call the server; see --auth-issuer and --api-keys"
        );
    }
    if io::stderr().is_terminal() {
        let host =
            if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if address.is_ipv6() && host != "localhost" { format!("[{host}]") } else { host };
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{}{}", address.port(), path);
        eprintln!(
            "\n  proxyrunner {}  {url}\n  add it:  claude mcp add --transport http my-server {url}\n",
            env!("CARGO_PKG_VERSION")
        );
    }
}
