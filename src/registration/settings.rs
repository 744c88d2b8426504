//! The settings of a registration.

use crate::outbound::Tls;
use std::path::PathBuf;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--register`: the URL of the gateway, without a slash at its end.
    pub gateway: String,
    /// `--register-url`: the URL by which the gateway reaches this sidecar; `None`: made from its address.
    pub url: Option<String>,
    /// `--register-token-file`: the bearer token for the gateway.
    pub token_file: Option<PathBuf>,
    /// `--register-ca`: the authorities of the gateway.
    pub tls: Tls,
}
