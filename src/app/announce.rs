//! The announcement of the address: a log line, and on a terminal a banner.

use crate::http::Settings;
use std::io::{self, IsTerminal};

/// Announces the address, since clients are served from now on.
pub(super) fn listening(settings: &Settings) {
    let address = settings.listen;
    tracing::info!(%address, path = settings.path, "listening");
    if !address.ip().is_loopback() && settings.allow_host.is_empty() {
        tracing::warn!("requests to public host names are refused; allow them with --allow-host");
    }
    if io::stderr().is_terminal() {
        let host =
            if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if address.is_ipv6() && host != "localhost" { format!("[{host}]") } else { host };
        let url = format!("http://{host}:{}{}", address.port(), settings.path);
        eprintln!(
            "\n  proxyrunner {}  {url}\n  add it:  claude mcp add --transport http my-server {url}\n",
            env!("CARGO_PKG_VERSION")
        );
    }
}
