//! The gateway: passes requests to many servers that speak HTTP, each with replicas (docs/gateway.md).
//!
//! [`directory`] says which servers exist, [`replica`] how each replica does. [`forward`] passes a request: [`balance`]
//! chooses the replica, unless the request belongs to a session, whose owner its id names ([`session_id`]). [`headers`]
//! says what passes, [`pool`] bounds requests in flight, [`lines`] keeps connections, and [`health`] probes.
//!
//! [`siblings`] needs no gateway: the replicas of one sidecar pass requests of each other's sessions on. Nor does
//! [`bridge`], which runs a sidecar for `proxyrunner connect`.

mod balance;
mod bearers;
mod bridge;
mod cards;
mod catalog;
mod children;
mod combined;
mod core;
mod directory;
mod dns;
mod forward;
mod headers;
mod health;
mod key;
mod lines;
mod mirror;
mod opened;
mod passed;
mod pool;
mod published;
mod registrations;
mod replica;
mod servers;
mod session_id;
mod siblings;
mod signing;
mod sources;
mod token;

pub(crate) use bridge::{Bridge, Command as BridgeCommand};
pub(crate) use catalog::{Asked, Refusal, decoded};
pub(crate) use combined::{CALL, Decided, Located, One, Subject, called};
pub use combined::{Plugged, stand_in};
pub use core::Settings;
pub(crate) use directory::{Directory, Server};
pub(crate) use forward::{Aim, Answer, Failure, Outgoing};
pub(crate) use headers::{RESUMES, SESSION_ID, of_request, of_response};
pub(crate) use lines::Received;
pub(crate) use passed::Passed;
pub(crate) use pool::Place;
pub use registrations::records_in;
pub(crate) use registrations::{Claim, LEASE, Refused, Registrations};
pub(crate) use replica::{InFlight, Outcome, Replica};
pub use servers::servers_in;
pub(crate) use siblings::{
    LEASE as SESSION_LEASE, LONGEST_HANDSHAKE, Lease, Outgoing as SiblingRequest, Owner as SessionOwner,
    PROOF, Record, Seen, Shelf, TICKET, Ticket, Told, ToldByClient,
};
pub use siblings::{Settings as SiblingSettings, Siblings, subscriptions_in};

/// Bytes that the connection of a request to a replica may hold.
pub(crate) const CONNECTION: usize = lines::BUFFER;

use crate::budget::{Budget, Charged};
use crate::calls::{Seal, SealKeys};
use crate::child::Spawner;
use crate::identity::{Identity, Principal};
use crate::jsonrpc::Message;
use crate::outbound::BadTls;
use crate::policy::Policies;
use crate::redis::Redis;
use crate::tasks;
use crate::telemetry::metrics::gateway as metrics;
use catalog::Catalog;
use children::Children;
use core::Core;
use forward::Owner;
use hyper::header::{HeaderMap, HeaderValue};
use mirror::Mirror;
use opened::Opened;
use passed::PASSED;
use pool::Pool;
use serde_json::Value;
use session_id::SessionId;
use signing::Signing;
use sources::Sources;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The parts of a gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The servers.
    pub(crate) directory: Arc<Directory>,
    core: Arc<Core>,
    opened: Opened,
    waiting: Arc<()>,
    sources: OnceLock<Sources>,
    catalog: Catalog,
    combined: Arc<combined::State>,
}

/// What a gateway starts with.
#[derive(Debug)]
pub struct Start<'a> {
    /// `--servers`; `None` if only those of a registry are served.
    pub servers: Option<&'a Path>,
    /// `--gateway-key`
    pub key: Option<&'a Path>,
    /// The gateway's URL, which is the issuer of its tokens.
    pub url: &'a str,
    /// Starts the servers that are commands.
    pub spawner: Spawner,
    /// `--log-level`, which these servers get, too.
    pub log_level: &'a str,
    /// What this gateway shares with others.
    pub(crate) redis: Option<Arc<Redis>>,
}

/// Returns whether a file of servers can be used.
///
/// # Errors
/// Every problem, one line each.
pub fn check(path: &Path) -> Result<(), Vec<String>> {
    let bytes =
        std::fs::read(path).map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
    servers::read(path, &bytes).map(drop)
}

/// A request whose client waits for its answer. Shutting down waits for it, too.
#[derive(Debug)]
pub(crate) struct Waiting(#[expect(dead_code, reason = "it counts")] Arc<()>);

impl Gateway {
    /// Creates a gateway without servers.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(crate) fn new(
        settings: Settings,
        seal: Seal,
        policies: Option<Arc<Policies>>,
    ) -> Result<Arc<Self>, BadTls> {
        let pool = Arc::new(Pool::new(&settings.tls, settings.most, settings.registry.is_some())?);
        let (opened, waiting, sources, catalog) = Default::default();
        let directory = Arc::<Directory>::default();
        let (directory_of_core, signing) = (Arc::clone(&directory), OnceLock::new());
        let name: Box<str> = format!("{:032x}", fastrand::u128(..)).into();
        let itself = Passed::default().and(&name);
        let core = Core { directory: directory_of_core, settings, name, itself, seal, pool, signing };
        let core = Arc::new(core);
        let combined = combined::State::new(&core, policies);
        Ok(Arc::new(Gateway { directory, core, opened, waiting, sources, catalog, combined }))
    }

    /// Serves all servers as one to the children that stand for it.
    pub fn combine(self: &Arc<Self>, plugged: Plugged, budget: &Budget) {
        combined::serve(&self.combined, plugged, budget.clone());
    }

    /// Notes that there is a request to all servers.
    pub(crate) fn note_use(&self) {
        self.combined.note_use();
    }

    /// Returns whether a request with these headers has come here before, or has passed too many gateways.
    pub(crate) fn is_loop(&self, headers: &HeaderMap) -> bool {
        Passed::of(headers).is_none_or(|passed| passed.contains(&self.core.name))
    }

    /// Adds to the headers of a request that is passed on that it has passed this gateway, after those that it has come by.
    pub(crate) fn add_itself(&self, headers: &mut HeaderMap, came_with: &HeaderMap) {
        let itself = match Passed::of(came_with) {
            Some(passed) if !passed.as_str().is_empty() => passed.and(&self.core.name),
            _ => self.core.itself.clone(),
        };
        headers.insert(PASSED, itself);
    }

    /// Reads the keys and the file of servers, and starts what follows them, the probes and the metrics.
    ///
    /// # Errors
    /// Every problem of the files, one line each.
    pub fn start(&self, with: Start<'_>) -> Result<(), Vec<String>> {
        let signing = Signing::start(with.url, with.key);
        let signing =
            signing.map_err(|reason| vec![format!("the key is unusable (--gateway-key): {reason}")])?;
        let children = Children::new(with.spawner, signing.clone(), with.log_level);
        let sources = Sources::start(with.servers, Arc::clone(&self.directory), Some(children))?;
        if let Some(redis) = with.redis {
            tasks::spawn(registrations::follow(redis, Arc::clone(sources.registrations())));
        }
        let _ = (self.core.signing.set(signing), self.sources.set(sources));
        if let Some(registry) = &self.core.settings.registry {
            let mirror = Mirror::new(registry, &self.core.settings.tls);
            let mirror = mirror.map_err(|error| vec![format!("cannot mirror {registry}: {error}")])?;
            tasks::spawn(mirror.follow(Arc::clone(&self.directory)));
        }
        tasks::spawn(health::keep_probing(Arc::clone(&self.directory), Arc::clone(&self.core.pool)));
        let directory = Arc::clone(&self.directory);
        metrics::install(move || directory.levels());
        Ok(())
    }

    /// Ends what the gateway has started.
    pub async fn stop(&self) {
        if let Some(sources) = self.sources.get() {
            sources.stop().await;
        }
    }

    /// Replaces the keys that seal session ids.
    pub fn reseal(&self, keys: &SealKeys) {
        self.core.seal.replace(keys);
        self.opened.forget();
    }

    /// Returns the maximum time between parts of an answer that is no event stream.
    pub(crate) fn patience(&self) -> Duration {
        self.core.settings.patience
    }

    /// Begins a request whose client waits for its answer.
    pub(crate) fn wait(&self) -> Waiting {
        Waiting(Arc::clone(&self.waiting))
    }

    /// Returns the number of requests whose clients wait for their answers.
    pub fn underway(&self) -> usize {
        Arc::strong_count(&self.waiting) - 1
    }

    /// Returns the number of requests in flight, with streams.
    pub fn in_flight(&self) -> usize {
        self.core.settings.most.saturating_sub(self.core.pool.left())
    }

    /// Passes a request, and returns the head of its answer. Dropping the future ends the request.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn forward(
        &self,
        server: &Server,
        aim: &Aim,
        outgoing: Outgoing,
    ) -> impl Future<Output = Result<Answer, Failure>> {
        self.core.forward(server, aim, outgoing)
    }

    /// Returns the owner of the session with this id; `None` if it is unknown to this caller.
    pub(crate) fn owner(&self, id: &str, server: &Server, principal: &Principal) -> Option<Aim> {
        let segment = &server.about.segment;
        let open = || {
            let SessionId { address, inner, resumes } =
                SessionId::open(id, &self.core.seal, segment, principal)?;
            Some(Owner { address: address.into(), inner: inner.try_into().ok()?, resumes })
        };
        self.opened.owner(id, segment, principal, open).map(Aim::Owner)
    }

    /// Returns whether the owner of a session is shutting down while another replica takes requests. An owner that was
    /// shutting down when it was last asked is asked again: it may have started anew, and another gateway may have
    /// opened the session there since.
    pub(crate) async fn is_leaving(&self, owner: &Aim, server: &Server) -> bool {
        let Aim::Owner(owner) = owner else { return false };
        let replicas = server.replicas();
        let Some(owner) = replicas.iter().find(|replica| *replica.endpoint.address() == *owner.address)
        else {
            return false;
        };
        if !owner.is_draining() || !replicas.iter().any(|replica| replica.takes(Instant::now())) {
            return false;
        }
        health::probe(&server.about.name, owner, &self.core.pool).await;
        owner.is_draining()
    }

    /// Returns the client's id of a session that a replica has opened, and whether its other replicas can take it over; `None` if no header can hold it.
    pub(crate) fn session_id(
        &self,
        replica: &Replica,
        (inner, resumes): (&HeaderValue, bool),
        server: &Server,
        principal: &Principal,
    ) -> Option<HeaderValue> {
        let address = replica.endpoint.address().to_owned();
        let id = SessionId { address, inner: inner.to_str().ok()?.to_owned(), resumes };
        let sealed = id.seal(&self.core.seal, &server.about.segment, principal)?;
        HeaderValue::try_from(sealed).ok()
    }

    /// Returns the `Authorization` header by which a server learns who calls it; `None` if it is a mirrored one, or the
    /// caller's claims are too long.
    pub(crate) fn authorize(&self, caller: &Arc<Identity>, server: &Server) -> Option<HeaderValue> {
        self.core.authorize(caller, server)
    }

    /// Begins to find what a request to all servers is about.
    pub(crate) fn locate(
        &self,
        identity: &Arc<Identity>,
        message: (&Charged, &Message),
        budget: &Budget,
    ) -> Located {
        Located::new(&self.combined, identity, message, budget)
    }

    /// Begins to find out what policies need to know of a message to one server. `legacy` is the replica of a message of
    /// the legacy era, with its headers.
    pub(crate) fn one(
        &self,
        identity: &Arc<Identity>,
        server: &Arc<Server>,
        message: (&Charged, &Message),
        (headers, legacy): (&HeaderMap, Option<Aim>),
        budget: &Budget,
    ) -> One {
        One::new(&self.combined, identity, server, message, (headers, legacy), budget)
    }

    /// Answers a read of the catalogue.
    ///
    /// # Errors
    /// When nothing is at the path, or a parameter is unusable.
    pub(crate) fn catalog(&self, asked: Asked<'_>) -> Result<Value, Refusal> {
        self.catalog.answer(&self.directory.snapshot(), asked)
    }

    /// Returns the servers that register themselves; `None` until the gateway has started.
    pub(crate) fn registrations(&self) -> Option<&Arc<Registrations>> {
        self.sources.get().map(Sources::registrations)
    }

    /// Returns the card of a server; `None` if there is no such server. `base` is the gateway's URL.
    pub(crate) fn card(&self, name: &str, base: &str) -> Option<Value> {
        self.directory.find(name).map(|server| cards::card(&server, base))
    }

    /// Returns the catalogue of cards. `base` is the gateway's URL.
    pub(crate) fn ai_catalog(&self, base: &str) -> Value {
        cards::catalog(&self.directory.snapshot(), base)
    }

    /// Returns the gateway's public keys.
    pub(crate) fn key_set(&self) -> String {
        self.core.signing.get().map(|signing| signing.minter.key_set()).unwrap_or_default()
    }

    /// Returns the metadata by which servers find the keys.
    pub(crate) fn metadata(&self) -> String {
        self.core.signing.get().map(|signing| signing.minter.metadata()).unwrap_or_default()
    }
}
