//! The settings by which callers are identified.

use super::resource::Resource;
use crate::outbound::Network;

/// The settings by which callers are identified.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--principal-header`: the header in which a trusted proxy names the principal, in lower case.
    pub principal_header: Option<String>,
    /// `--trusted-proxy`: the proxies whose headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// `--auth-resource`, else `--public-url`: the URL by which clients know the endpoint. `None` on a loopback address:
    /// then it is the URL that the client has used.
    pub resource: Option<Resource>,
    /// `--auth-issuer`: the authorization servers that clients are told of.
    pub issuers: Vec<String>,
    /// `--auth-scopes`: the scopes that every caller needs.
    pub scopes: Vec<String>,
    /// Whether callers may identify themselves by a client certificate (`--tls-client-ca`).
    pub certificates: bool,
}
