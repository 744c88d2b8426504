//! Verifies what callers present: JWT access tokens, opaque tokens and API keys. It knows nothing of HTTP servers:
//! `http` asks the [`Verifier`], and turns a [`Denied`] into a status and a challenge.
//!
//! | file | what it does |
//! | --- | --- |
//! | `verifier.rs` | the façade: cache, API keys, issuers, introspection |
//! | `token.rs`, `claims.rs`, `keys.rs`, `json.rs` | pure checks of a token, its claims and a key set; no I/O, no clock |
//! | `provider.rs`, `algorithm.rs` | signatures, with ring |
//! | `discovery.rs`, `issuer.rs` | the key sets of issuers: fetched, refreshed, read from files |
//! | `introspection.rs`, `shared.rs` | asks an authorization server about opaque tokens, once for all who bring the same |
//! | `bad_files.rs` | finds unusable files of settings before anything starts |
//! | `api_keys.rs`, `watched.rs` | the file of API keys; files that are read again when they change |

mod algorithm;
mod api_keys;
mod bad_files;
mod cache;
mod claims;
mod client;
mod denied;
mod discovery;
mod examined;
#[cfg(test)]
mod fixtures;
mod introspection;
mod issuer;
mod json;
mod keys;
mod provider;
mod settings;
mod shared;
mod time;
mod token;
mod verifier;
mod watched;

pub use algorithm::Algorithm;
pub use api_keys::NewKey;
pub use bad_files::bad_files;
pub use denied::Denied;
#[cfg(test)]
pub use denied::Reason;
pub use examined::{api_keys_in, introspection_in, key_set_in, token_in};
pub use settings::{
    ClaimNames, ClientAuth, IntrospectionSettings, IssuerSettings, KeySource, Settings, TokenType,
};
pub use token::has_token_bytes_only;
pub use verifier::Verifier;
