//! What the requests of a pipe share.

use super::Settings;
use super::client::Client;
use super::headers::Learned;
use super::session::Session;
use crate::budget::{Account, Budget, Charged};
use crate::jsonrpc::Message;
use crate::outbound::BadTls;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The method of a modern subscription, which ends only with its client.
pub(super) const LISTEN: &str = "subscriptions/listen";

/// The server, its session, and the way back to the client.
pub(super) struct Shared {
    /// Sends requests.
    pub client: Client,
    /// The legacy session.
    pub session: Session,
    /// What calls repeat in headers.
    pub learned: Learned,
    /// Pays for messages in transit.
    pub account: Account,
    /// Maximum length of a message.
    pub longest: usize,
    /// Cancelled when the client cannot go on with this server.
    pub over: CancellationToken,
    out: mpsc::Sender<Charged>,
}

impl Shared {
    /// Creates the state before the first request.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub fn new(settings: Settings, out: mpsc::Sender<Charged>) -> Result<Self, BadTls> {
        let Settings { url, tls, headers, reread, patience, longest, buffered, over } = settings;
        Ok(Shared {
            client: Client::new(url, &tls, (headers, reread), patience)?,
            session: Session::default(),
            learned: Learned::default(),
            account: Budget::within(buffered).account(crate::client::Client::child(0)),
            longest,
            over,
            out,
        })
    }

    /// Says something to the client.
    pub fn say(&self, message: Charged) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // The receiver is gone only when the client is.
            let _ = self.out.send(message).await;
        })
    }
}

/// Returns whether a message names a modern revision.
pub(super) fn is_modern(message: &Message) -> bool {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    meta.is_some_and(|meta| meta.era_version.is_some())
}

/// Returns the raw id of a request.
pub(super) fn raw_id(frame: &[u8], message: &Message) -> Vec<u8> {
    message.id.clone().map_or_else(Vec::new, |id| frame[id].to_vec())
}
