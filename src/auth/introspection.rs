//! Asks an authorization server about a token (RFC 7662).

use super::claims::Rules;
use super::client::Client;
use super::denied::{Denied, Reason};
use super::json;
use super::settings::{ClientAuth, IntrospectionSettings};
use super::time;
use super::watched::Secret;
use crate::identity::Identity;
use crate::outbound::{Limits, Reach};
use crate::telemetry::metrics::counters::FAILED_INTROSPECTIONS;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The limits of an answer.
const LIMITS: Limits = Limits { time: Duration::from_secs(5), size: 64 << 10 };
/// Maximum number of questions at a time.
const MOST_ASKED: usize = 32;
/// Maximum number of requests that wait for their turn.
const MOST_WAITING: usize = 256;
/// Maximum time that a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds for which an answer is believed.
const BELIEVED: u64 = 60;
/// Seconds for which a refusal is believed.
const REFUSED: u64 = 10;

/// An introspection endpoint.
#[derive(Debug)]
pub(super) struct Introspection {
    settings: IntrospectionSettings,
    rules: Rules,
    client: Client,
    secret: Secret,
    asked: Semaphore,
    waiting: Semaphore,
    /// Whether the last question failed, so that failures are logged once.
    is_failing: AtomicBool,
}

/// An answer about a token.
pub(super) struct Answer {
    pub verdict: Result<Identity, Reason>,
    /// The time until which it may be kept, in seconds since the epoch.
    pub until: u64,
}

impl Introspection {
    /// Creates the client of an endpoint.
    ///
    /// # Errors
    /// In words, when a file is unusable.
    pub(super) fn new(settings: &IntrospectionSettings, rules: Rules) -> Result<Self, String> {
        let client = Client::new(settings.ca.as_deref(), LIMITS)
            .map_err(|why| format!("the certificate authorities (ca) are unusable: {why}"))?;
        let secret = Secret::new(&settings.secret_file);
        secret.get()?;
        Ok(Introspection {
            settings: settings.clone(),
            rules,
            client,
            secret,
            asked: Semaphore::new(MOST_ASKED),
            waiting: Semaphore::new(MOST_WAITING),
            is_failing: AtomicBool::new(false),
        })
    }

    /// Asks about a token.
    pub(super) async fn ask(&self, token: &str) -> Result<Answer, Denied> {
        let _place = {
            let Ok(_waiting) = self.waiting.try_acquire() else { return Err(Denied::Busy) };
            let turn = timeout(PATIENCE, self.asked.acquire()).await;
            turn.ok().and_then(Result::ok).ok_or(Denied::Busy)?
        };
        match self.answer(token).await {
            Ok(answer) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(url = self.settings.url, "introspection works again");
                }
                Ok(self.judged(&answer))
            }
            Err(why) => {
                FAILED_INTROSPECTIONS.increment();
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(url = self.settings.url, "introspection failed: {why}");
                }
                Err(Denied::NoKeys)
            }
        }
    }

    /// Returns the body of the answer.
    async fn answer(&self, token: &str) -> Result<serde_json::Map<String, Value>, String> {
        let answer = self.client.within(Reach::Anywhere).send(self.request(token)?).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(format!("the server answered {}", answer.status()));
        }
        let members = json::object(answer.body());
        members.ok_or_else(|| "the answer is not a JSON object, or has a member twice".to_owned())
    }

    fn request(&self, token: &str) -> Result<Request<Bytes>, String> {
        let (client, secret) = (form(&self.settings.client), form(&self.secret.get()?));
        let mut body = format!("token={}&token_type_hint=access_token", form(token));
        if self.settings.auth == ClientAuth::Post {
            let _ = write!(body, "&client_id={client}&client_secret={secret}");
        }
        let mut request =
            Request::post(&self.settings.url).body(Bytes::from(body)).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.settings.auth == ClientAuth::Basic {
            let credentials = STANDARD.encode(format!("{client}:{secret}"));
            let mut value =
                HeaderValue::try_from(format!("Basic {credentials}")).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn judged(&self, answer: &serde_json::Map<String, Value>) -> Answer {
        let now = time::now();
        let verdict = verdict(answer, &self.rules, now);
        let until = match &verdict {
            Ok(identity) => identity.expires.unwrap_or(u64::MAX).min(now + BELIEVED),
            Err(_) => now + REFUSED,
        };
        Answer { verdict, until }
    }
}

/// Returns what an answer says of its token.
pub(super) fn verdict(
    answer: &serde_json::Map<String, Value>,
    rules: &Rules,
    now: u64,
) -> Result<Identity, Reason> {
    if answer.get("active") != Some(&Value::Bool(true)) {
        return Err(Reason::Inactive);
    }
    if !is_access_token(answer) {
        return Err(Reason::TokenType);
    }
    rules.identity(answer.clone(), now)
}

/// Returns whether an answer is about an access token that its holder alone may present. Servers name other kinds, such as
/// refresh tokens, in `token_type` (RFC 7662 §2.2; `DPoP`: RFC 9449 §6.2), `token_use`, or `typ` (Keycloak).
fn is_access_token(answer: &serde_json::Map<String, Value>) -> bool {
    let one_of = |member: &str, accepted: &[&str]| match answer.get(member) {
        None | Some(Value::Null) => true,
        Some(Value::String(kind)) => accepted.iter().any(|accepted| kind.eq_ignore_ascii_case(accepted)),
        Some(_) => false,
    };
    one_of("token_type", &["Bearer", "access_token"])
        && one_of("token_use", &["access_token", "access"])
        && !matches!(answer.get("typ").and_then(Value::as_str), Some("Refresh" | "Offline" | "ID" | "Logout"))
}

/// Encodes a text for a form.
fn form(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut form, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            let _ = write!(form, "%{byte:02X}");
        }
        form
    })
}
