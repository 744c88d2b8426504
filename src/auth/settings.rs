//! The settings of this room.

use super::algorithm::Algorithm;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of authentication by tokens and keys.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--auth-issuer`
    pub issuers: Vec<IssuerSettings>,
    /// `--auth-audience`: a token must be for one of them. Not empty if there is an issuer or an introspection endpoint.
    pub audiences: Vec<String>,
    /// `--auth-scopes`: a token needs all of them.
    pub scopes: Vec<String>,
    /// `--auth-scope-implies`: scopes that cover others.
    pub implies: Vec<(String, Vec<String>)>,
    /// Names of claims.
    pub claims: ClaimNames,
    /// `--auth-introspection`
    pub introspection: Option<IntrospectionSettings>,
    /// `--api-keys`
    pub api_keys: Option<PathBuf>,
    /// `--auth-keys-max-age`: maximum age of a key set whose issuer cannot be reached.
    pub keys_max_age: Duration,
    /// `--auth-allow-private`: whether a `jwks_uri` may lead to private addresses of any issuer.
    pub allow_private: bool,
    /// `--require-keys-at-start`: whether proxyrunner exits if an issuer has no keys at start.
    pub require_keys: bool,
}

impl Settings {
    /// Returns whether callers must present a token or a key.
    pub fn is_used(&self) -> bool {
        !self.issuers.is_empty() || self.introspection.is_some() || self.api_keys.is_some()
    }
}

/// Names of claims; exact names precede dotted paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimNames {
    /// `--auth-scope-claim`; the first that is present counts.
    pub scope: Vec<String>,
    /// `--auth-groups-claim`
    pub groups: String,
    /// `--auth-roles-claim`
    pub roles: String,
}

/// An issuer of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// The exact value of `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The type of its tokens.
    pub token_type: TokenType,
    /// The claim that names the audience; `aud` except for issuers that have none.
    pub audience_claim: String,
    /// A file with the authorities of its certificate, in PEM.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token for requests to the configured host.
    pub token_file: Option<PathBuf>,
    /// Whether plain http is allowed.
    pub insecure: bool,
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The issuer's metadata name it (RFC 8414, OpenID Connect Discovery).
    Discovery,
    /// This URL.
    Url(String),
    /// This file, which is read again when it changes.
    File(PathBuf),
}

/// The accepted values of `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// `at+jwt` only (RFC 9068).
    AccessToken,
    /// Also `JWT`, and tokens without `typ`.
    Jwt,
}

/// An introspection endpoint (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// The URL.
    pub url: String,
    /// proxyrunner's client id there.
    pub client: String,
    /// The file with the client's secret.
    pub secret_file: PathBuf,
    /// How the client authenticates.
    pub auth: ClientAuth,
    /// Whether JWTs are introspected, too, instead of verified with keys.
    pub all: bool,
    /// The issuer of tokens whose answer names none.
    pub issuer: String,
    /// Whether an answer without `aud` is accepted, because the server answers only about tokens for proxyrunner.
    pub audience_optional: bool,
    /// A file with the authorities of its certificate, in PEM.
    pub ca: Option<PathBuf>,
}

/// The way in which a client authenticates at an authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret_basic`
    Basic,
    /// `client_secret_post`
    Post,
}
