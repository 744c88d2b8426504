//! The connections to all siblings.

use super::super::lines::{Lines, Received};
use super::super::pool::{Lost, Place, Pool};
use crate::client::Client;
use crate::outbound::{BadTls, Reach, Tls};
use hyper::{Request, Response, Uri};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tonic::body::Body;

/// The connections to all siblings, with one certificate.
#[derive(Debug)]
pub(super) struct Links {
    pool: Pool,
    scheme: &'static str,
    /// The idle connections. Addresses come out of sealed ids only.
    lines: Mutex<HashMap<SocketAddr, Arc<Lines>>>,
}

impl Links {
    /// Creates links without connections, for this many requests in flight.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(super) fn new(tls: Option<&Tls>, most: usize) -> Result<Arc<Self>, BadTls> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let pool = Pool::new(tls.unwrap_or(&Tls::default()), most, false)?;
        Ok(Arc::new(Links { pool, scheme, lines: Mutex::default() }))
    }

    /// Returns a place, unless all are taken, or half of them by this client.
    pub(super) fn place(&self, client: Client) -> Option<Place> {
        self.pool.place(client)
    }

    /// Returns the number of free places.
    pub(super) fn left(&self) -> usize {
        self.pool.left()
    }

    /// Sends a request to a sibling. Dropping the future, or the body of the answer, closes its connection.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        sibling: SocketAddr,
    ) -> Result<Response<Received>, Lost> {
        let url = Uri::try_from(format!("{}://{sibling}/", self.scheme));
        let url = url.map_err(|error| Lost::Unreachable(error.to_string()))?;
        let lines = Arc::clone(self.lines.lock().entry(sibling).or_default());
        self.pool.send(request, (&url, Reach::Anywhere), &lines).await
    }

    /// Closes the connections that were idle for too long, and forgets siblings without a connection.
    pub(super) fn close_idle(&self, now: Instant) {
        self.lines.lock().retain(|_, lines| {
            let is_used = Arc::strong_count(lines) > 1;
            !lines.close_idle(now) || is_used
        });
    }
}
