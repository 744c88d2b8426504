//! The servers, and what requests to them need: connections, tokens and a seal.

use super::directory::{Directory, Origin, Server};
use super::forward::{self, Aim, Answer, Failure, Outgoing};
use super::pool::Pool;
use super::signing::Signing;
use crate::calls::Seal;
use crate::identity::Identity;
use crate::outbound::Tls;
use crate::telemetry::Seldom;
use hyper::header::HeaderValue;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// The operator's settings of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The certificates that servers, and the registry, are verified by.
    pub tls: Tls,
    /// `--register`: the registry to mirror.
    pub registry: Option<String>,
    /// `--search-tools`: whether clients of all servers see two tools in place of all.
    pub searches: bool,
    /// Maximum number of requests in flight at all servers together.
    pub most: usize,
    /// Maximum time to the head of an answer, and between parts of one that is no event stream.
    pub patience: Duration,
}

/// The servers, and what requests to them need.
#[derive(Debug)]
pub(crate) struct Core {
    /// The servers.
    pub directory: Arc<Directory>,
    /// The operator's settings.
    pub(super) settings: Settings,
    /// Names this gateway to others, at random.
    pub(super) name: Box<str>,
    /// The header that names it.
    pub(super) itself: HeaderValue,
    /// Seals what clients bring back.
    pub(super) seal: Seal,
    /// The connections.
    pub(super) pool: Arc<Pool>,
    /// The gateway's tokens; empty until its keys are read.
    pub(super) signing: OnceLock<Signing>,
}

impl Core {
    /// Passes a request, and returns the head of its answer. Dropping the future ends the request.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn forward(
        &self,
        server: &Server,
        aim: &Aim,
        outgoing: Outgoing,
    ) -> impl Future<Output = Result<Answer, Failure>> {
        forward::forward(&self.pool, server, aim, outgoing, self.settings.patience)
    }

    /// Returns the `Authorization` header by which a server learns who calls it; `None` if it is a mirrored one, or the
    /// caller's claims are too long.
    pub fn authorize(&self, caller: &Arc<Identity>, server: &Server) -> Option<HeaderValue> {
        // Whoever runs a server of another registry must not learn who calls.
        if server.origin == Origin::Mirrored {
            return None;
        }
        let minter = &self.signing.get()?.minter;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        if let Some(known) = server.bearers.of(caller, minter, now) {
            return Some(known);
        }
        let own;
        let audiences = if server.about.audiences.is_empty() {
            own = [minter.audience(&server.about.segment)];
            &own[..]
        } else {
            &server.about.audiences
        };
        let minted = minter.token(caller, audiences, now).inspect_err(|error| {
            static TOO_LONG: Seldom = Seldom::new();
            if TOO_LONG.is_due() {
                let server = &server.about.name;
                tracing::warn!(
                    server,
                    "no token for a server was minted: {error}; logged at most once a minute"
                );
            }
        });
        let minted = minted.ok()?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", minted.token)).ok()?;
        value.set_sensitive(true);
        server.bearers.keep(caller, &value, minted);
        Some(value)
    }
}
