//! proxyrunner's own HTTP client: exports, key sets, introspection and decision points use it. [`dial`] makes other
//! connections. Names are resolved within
//! the process, certificates are the operator's, redirects are not followed, and answers are bounded.

mod connect;
#[cfg(feature = "gateway")]
mod dial;
mod encode;
mod fetch;
mod network;
mod reach;
mod resolve;
mod tls;

#[cfg(feature = "gateway")]
pub(crate) use connect::{Connector, Keeping, Stream, forwarder};
pub(crate) use connect::{Sender, sender};
#[cfg(feature = "gateway")]
pub(crate) use dial::{Dialer, Duplex};
pub(crate) use encode::percent_encoded;
#[cfg(feature = "gateway")]
pub(crate) use fetch::peer;
pub(crate) use fetch::{Fetcher, Limits};
pub use network::Network;
#[cfg(feature = "gateway")]
pub(crate) use reach::never;
pub(crate) use reach::{Reach, is_private};
pub use resolve::records_in;
pub(crate) use resolve::resolve;
#[cfg(feature = "gateway")]
pub(crate) use resolve::{ServiceHost, services};
pub use tls::{BadTls, Tls};
