//! The façade of this room: verifies what a caller presents.

use super::api_keys::{ApiKeys, PREFIX};
use super::cache::{Cache, Digest, Outcome};
use super::claims::Rules;
use super::denied::{Denied, Reason};
use super::discovery::Source;
use super::introspection::{Answer, Introspection};
use super::issuer::{Ages, Issuer};
use super::settings::{Settings, TokenType};
use super::shared::Shared;
use super::token::{self, Token, Typ};
use super::watched::Watched;
use super::{provider, time};
use crate::identity::{Identity, Means};
use crate::tasks;
use crate::telemetry::metrics::counters::FAILED_API_KEY_RELOADS;
use ring::digest::{SHA256, digest};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Maximum length of a token.
const LONGEST: usize = 16 << 10;
/// Maximum time that `--require-keys-at-start` waits for keys.
const START: Duration = Duration::from_secs(30);

/// A setting or a file that makes verification impossible.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Verifies tokens and API keys. Its copies share one state; its background tasks end with the last copy.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Scopes that every caller needs.
    scopes: Vec<String>,
    require_keys: bool,
    issuers: Vec<Arc<Issuer>>,
    introspection: Option<Introspection>,
    /// Whether JWTs are introspected, too.
    introspects_all: bool,
    api_keys: Option<Arc<ApiKeys>>,
    /// Results for tokens.
    results: Arc<Cache>,
    /// Questions about tokens that are in progress.
    asking: Shared<Outcome>,
    /// Refusals by introspection, apart, so that they cannot displace results.
    refusals: Cache,
    _running: DropGuard,
}

impl Verifier {
    /// Reads the files, and starts the tasks that refresh keys. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a file or a certificate is unusable.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let running = CancellationToken::new();
        let results = Arc::new(Cache::default());
        let ages = Arc::new(Ages::new(settings.issuers.len()));
        let mut issuers = Vec::with_capacity(settings.issuers.len());
        for (at, own) in settings.issuers.iter().enumerate() {
            let unusable =
                |why| StartError(format!("the issuer {} (--auth-issuer) is unusable: {why}", own.issuer));
            let source = Source::new(own, settings.allow_private).map_err(unusable)?;
            let rules = Rules {
                audience_claim: own.audience_claim.clone(),
                ..rules(&settings, Means::Token, &own.issuer)
            };
            let keys = (Arc::clone(&ages), at);
            let algorithms = own.algorithms.clone();
            let issuer = Issuer::new(rules, algorithms, own.token_type, source, settings.keys_max_age, keys);
            let issuer = Arc::new(issuer);
            let (refreshed, results) = (Arc::clone(&issuer), Arc::clone(&results));
            run(&running, async move { refreshed.refresh(&results).await });
            issuers.push(issuer);
        }
        let introspection = introspection(&settings)?;
        let api_keys = api_keys(&settings, &running)?;
        Ok(Verifier(Arc::new(Inner {
            scopes: settings.scopes,
            require_keys: settings.require_keys,
            issuers,
            introspection,
            introspects_all: settings.introspection.is_some_and(|introspection| introspection.all),
            api_keys,
            results,
            asking: Shared::default(),
            refusals: Cache::default(),
            _running: running.drop_guard(),
        })))
    }

    /// Waits until every issuer has keys, if the settings demand it.
    ///
    /// # Errors
    /// When an issuer still has none after a while.
    pub async fn keys_at_start(&self) -> Result<(), StartError> {
        if !self.0.require_keys {
            return Ok(());
        }
        for issuer in &self.0.issuers {
            timeout(START, issuer.have_keys()).await.map_err(|_| {
                let issuer = &issuer.rules.issuer;
                StartError(format!("the issuer {issuer} has no keys (--require-keys-at-start)"))
            })?;
        }
        Ok(())
    }

    /// Returns the result for a cached token or an API key, without waiting; `None` if [`verify`](Self::verify) must
    /// decide.
    pub fn known(&self, token: &str) -> Option<Outcome> {
        match syntax(token) {
            Ok(()) => self.known_by(&digest_of(token), token),
            Err(denied) => Some(Err(denied)),
        }
    }

    /// Verifies an API key, which no authorization server is asked about.
    ///
    /// # Errors
    /// When the caller is denied.
    pub fn key(&self, key: &str) -> Outcome {
        syntax(key)?;
        let keys = self.0.api_keys.as_ref();
        let found = keys.and_then(|keys| keys.find(&digest_of(key), time::now()));
        found
            .unwrap_or(Err(Denied::Invalid(Reason::NotAToken)))
            .and_then(|identity| self.sufficient(identity))
    }

    /// Verifies a token or an API key. May wait for keys or for introspection, for a bounded time.
    ///
    /// # Errors
    /// When the caller is denied.
    pub async fn verify(&self, token: &str) -> Outcome {
        syntax(token)?;
        let digest = digest_of(token);
        if let Some(known) = self.known_by(&digest, token) {
            return known;
        }
        let is_jwt = token::is_jwt(token);
        match &self.0.introspection {
            // A key that is not in the file, which concerns no authorization server.
            _ if token.starts_with(PREFIX) => Err(Denied::Invalid(Reason::NotAToken)),
            Some(introspection) if self.0.introspects_all || !is_jwt || self.0.issuers.is_empty() => {
                self.0.asking.one(digest, self.introspected(introspection, token, digest)).await
            }
            _ if is_jwt && !self.0.issuers.is_empty() => self.signed(token, digest).await,
            _ => Err(Denied::Invalid(Reason::NotAToken)),
        }
    }

    fn known_by(&self, digest: &Digest, token: &str) -> Option<Outcome> {
        let now = time::now();
        if let Some(found) = self.0.results.get(digest, now).or_else(|| self.0.refusals.get(digest, now)) {
            return Some(found);
        }
        // Nobody's API key looks like a JWT; the comparison with all of them is saved.
        let keys = self.0.api_keys.as_ref().filter(|_| !token::is_jwt(token))?;
        Some(keys.find(digest, now)?.and_then(|identity| self.sufficient(identity)))
    }

    /// Verifies a JWT by its issuer's keys.
    async fn signed(&self, token: &str, digest: Digest) -> Outcome {
        let Token { header, signed, signature, claims } = token::parse(token).map_err(Denied::Invalid)?;
        let named = claims.get("iss").and_then(|issuer| issuer.as_str());
        let issuer = self.0.issuers.iter().find(|issuer| Some(&*issuer.rules.issuer) == named);
        let issuer = issuer.ok_or(Denied::Invalid(Reason::Issuer))?;
        if header.typ == Typ::Unspecific && issuer.token_type == TokenType::AccessToken {
            return Err(Denied::Invalid(Reason::TokenType));
        }
        if !issuer.algorithms.contains(&header.algorithm) {
            return Err(Denied::Invalid(Reason::Algorithm));
        }
        // Before the signature, so that outdated tokens cause no fetch of keys. Nothing is told about the reason.
        let identity = issuer.rules.identity(claims, time::now()).map_err(Denied::Invalid)?;
        let (kid, algorithm) = (header.kid.as_deref(), header.algorithm);
        // Read before the keys: the result is not kept if the keys change from here on.
        let mut generation = self.0.results.generation();
        let mut keys = issuer.find(kid, algorithm);
        if let Err(Denied::NoKeys | Denied::Invalid(Reason::UnknownKey)) = keys {
            issuer.fetch_again().await;
            generation = self.0.results.generation();
            keys = issuer.find(kid, algorithm);
        }
        if !keys?.iter().any(|key| provider::is_signed(signed, signature, key, algorithm)) {
            return Err(Denied::Invalid(Reason::Signature));
        }
        let until = identity.expires.unwrap_or_default();
        let outcome = self.sufficient(Arc::new(identity));
        self.0.results.put(generation, digest, until, &outcome);
        outcome
    }

    async fn introspected(&self, introspection: &Introspection, token: &str, digest: Digest) -> Outcome {
        let generation = self.0.results.generation();
        let Answer { verdict, until } = introspection.ask(token).await?;
        match verdict {
            Ok(identity) => {
                let outcome = self.sufficient(Arc::new(identity));
                self.0.results.put(generation, digest, until, &outcome);
                outcome
            }
            Err(reason) => {
                let outcome = Err(Denied::Invalid(reason));
                self.0.refusals.put(0, digest, until, &outcome);
                outcome
            }
        }
    }

    /// Checks the required scopes.
    fn sufficient(&self, identity: Arc<Identity>) -> Outcome {
        let missing = self.0.scopes.iter().filter(|scope| !identity.scopes.contains(scope));
        let missing: Vec<_> = missing.cloned().collect();
        if missing.is_empty() { Ok(identity) } else { Err(Denied::Scope { missing: missing.into() }) }
    }
}

fn rules(settings: &Settings, means: Means, issuer: &str) -> Rules {
    Rules {
        means,
        issuer: issuer.into(),
        audience_claim: "aud".to_owned(),
        audiences: settings.audiences.clone(),
        asked: false,
        audience_optional: false,
        claims: settings.claims.clone(),
        implies: settings.implies.clone(),
    }
}

fn introspection(settings: &Settings) -> Result<Option<Introspection>, StartError> {
    let Some(own) = &settings.introspection else { return Ok(None) };
    let rules = Rules {
        asked: true,
        audience_optional: own.audience_optional,
        ..rules(settings, Means::Introspection, &own.issuer)
    };
    let unusable = |why| {
        StartError(format!(
            "the introspection endpoint {} (--auth-introspection) is unusable: {why}",
            own.url
        ))
    };
    Introspection::new(own, rules).map(Some).map_err(unusable)
}

/// Reads the file of API keys, and watches it.
fn api_keys(settings: &Settings, running: &CancellationToken) -> Result<Option<Arc<ApiKeys>>, StartError> {
    let Some(path) = &settings.api_keys else { return Ok(None) };
    let unusable = |why: &dyn fmt::Display| {
        StartError(format!("the API keys of {} (--api-keys) are unusable: {why}", path.display()))
    };
    let mut watched = Watched::new(path);
    let content = watched.read().map_err(|error| unusable(&error))?.unwrap_or_default();
    let keys = Arc::new(ApiKeys::read(&content).map_err(|why| unusable(&why))?);
    let replaced = Arc::clone(&keys);
    let failed = || FAILED_API_KEY_RELOADS.increment();
    run(running, watched.poll("API keys", failed, move |content| replaced.replace(content)));
    Ok(Some(keys))
}

/// Starts a task that ends with the verifier.
fn run(running: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let ending = running.clone();
    tasks::spawn(async move {
        tokio::select! {
            () = task => {}
            () = ending.cancelled() => {}
        }
    });
}

fn digest_of(token: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// Checks the syntax of RFC 6750 §2.1 and the length.
fn syntax(token: &str) -> Result<(), Denied> {
    let plain = token.trim_end_matches('=');
    if token.len() > LONGEST {
        return Err(Denied::Invalid(Reason::TooLarge));
    }
    let is_sound = !plain.is_empty() && !plain.contains('=') && token::has_token_bytes_only(plain.as_bytes());
    if is_sound { Ok(()) } else { Err(Denied::Malformed) }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod issuer_tests;

#[cfg(test)]
#[path = "introspection_tests.rs"]
mod introspection_tests;
