//! Requests to replicas. Each request in flight takes a connection of its own, so their number is bounded by that of the
//! requests.

use super::lines::{Failed, Line, Lines, Received};
use crate::client::{BuildClientHasher, Client};
use crate::outbound::{BadTls, Connector, Reach, Tls};
use hyper::{Request, Response, Uri};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

/// Time after which a replica that does not acknowledge what was sent is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// The number of places of each client that has one.
type Taken = Arc<Mutex<HashMap<Client, usize, BuildClientHasher>>>;

/// The connections to all replicas.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    /// Connect to addresses within a reach only; none if nobody else names servers.
    bounded: Vec<(Reach, Connector)>,
    places: Arc<Semaphore>,
    /// Maximum number of places of one client.
    share: usize,
    taken: Taken,
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(crate) struct Place {
    client: Client,
    taken: Taken,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Entry::Occupied(mut count) = taken.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The replica refuses connections, or its host is not there. Nothing was sent.
    Gone(String),
    /// No connection came about for another reason. Nothing was sent.
    Unreachable(String),
    /// The connection broke after at least a part of the request was sent.
    Broken(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Lost::Gone(why) | Lost::Unreachable(why) | Lost::Broken(why)) = self;
        f.write_str(why)
    }
}

impl Pool {
    /// Creates a pool without connections. `mirrors`: some replicas are those of another registry.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(super) fn new(tls: &Tls, most: usize, mirrors: bool) -> Result<Self, BadTls> {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let share = most.div_ceil(2);
        let reaches: &[Reach] = if mirrors { &[Reach::Public, Reach::Network, Reach::Host] } else { &[] };
        let bounded = reaches.iter().map(|reach| Ok((*reach, Connector::new(tls, *reach, UNACKNOWLEDGED)?)));
        let bounded = bounded.collect::<Result<_, BadTls>>()?;
        let connector = Connector::new(tls, Reach::Anywhere, UNACKNOWLEDGED)?;
        Ok(Pool { connector, bounded, places, share, taken: Arc::default() })
    }

    /// Returns a place, unless all are taken, or half of them by this client.
    pub(super) fn place(&self, client: Client) -> Option<Place> {
        let mut taken = self.taken.lock();
        let count = taken.entry(client);
        if matches!(&count, Entry::Occupied(count) if *count.get() >= self.share) || self.share == 0 {
            return None;
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        count.and_modify(|count| *count += 1).or_insert(1);
        Some(Place { client, taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// Returns the number of free places.
    pub(super) fn left(&self) -> usize {
        self.places.available_permits()
    }

    /// Sends a request to the host of `url`, at an address within this reach. Dropping the future, or the body of the
    /// answer, closes its connection.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        (url, reach): (&Uri, Reach),
        lines: &Arc<Lines>,
    ) -> Result<Response<Received>, Lost> {
        // The replica may have closed a connection that was idle.
        while let Some(line) = lines.take() {
            match line.exchange(request, lines).await {
                Ok(response) => return Ok(response),
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failed { error, unsent: None }) => return Err(Lost::Broken(words(&error))),
            }
        }
        // Boxed: most requests find a connection.
        let line = Box::pin(self.line(url, reach)).await?;
        line.exchange(request, lines).await.map_err(|Failed { error, unsent }| match unsent {
            Some(_) => Lost::Unreachable(words(&error)),
            None => Lost::Broken(words(&error)),
        })
    }

    /// Opens a connection.
    async fn line(&self, url: &Uri, reach: Reach) -> Result<Line, Lost> {
        let bounded = self.bounded.iter().find(|(of, _)| *of == reach);
        let connector = bounded.map_or(&self.connector, |(_, connector)| connector);
        let stream = connector.connect(url).await.map_err(|error| {
            let text = words(&*error);
            if is_gone(&*error) { Lost::Gone(text) } else { Lost::Unreachable(text) }
        })?;
        Line::new(stream).await.map_err(|error| Lost::Unreachable(words(&error)))
    }
}

/// Returns whether nothing listens at the address.
fn is_gone(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Joins the messages of an error and its causes, since the outermost explains least.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}
