//! Servers that register themselves: each replica has a lease, which its sidecar renews. Only callers that a rule of the
//! file allows may register, only at addresses that the rule allows, and only names that nobody else has.
//!
//! A sidecar announces itself to each gateway. Those that share Redis also tell each other ([`shared`]). The time is an
//! argument.

mod claim;
mod merge;
mod record;
mod shared;

pub(crate) use claim::{Claim, Refused};
pub(crate) use record::LEASE;
pub use record::records_in;
pub(super) use shared::follow;

use super::directory::{Description, Directory, Origin};
use super::replica::Endpoint;
use super::servers::Rule;
use super::token;
use crate::audit;
use crate::identity::Identity;
use crate::telemetry::counters::{GATEWAY_REGISTRATIONS, Registering};
use claim::{address, allow, is_description, parse};
use hyper::HeaderMap;
use parking_lot::Mutex;
use record::Record;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Time after its start in which a gateway hears of all servers: sidecars renew, and look for gateways, every 10 s.
const SETTLING: Duration = Duration::from_secs(25);
/// Interval between checks for expired leases.
const SWEEP: Duration = Duration::from_millis(500);
/// Maximum numbers for one caller, and of all.
const MOST_NAMES_OF_ONE: usize = 100;
const MOST_REPLICAS_OF_ONE: usize = 500;
const MOST_NAMES: usize = 1_000;
const MOST_REPLICAS: usize = 5_000;
/// Maximum number of messages that wait to be told to the other gateways. Renewals repeat those that are lost.
const MOST_UNTOLD: usize = 1_024;

/// The servers that have registered themselves.
#[derive(Debug)]
pub(crate) struct Registrations {
    directory: Arc<Directory>,
    state: Mutex<State>,
    begun: Instant,
    /// Takes what the other gateways are told, if there is Redis.
    told: OnceLock<mpsc::Sender<Record>>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    /// By segment.
    servers: BTreeMap<Box<str>, Registered>,
}

#[derive(Debug)]
struct Registered {
    name: String,
    /// The caller whose name it is.
    owner: String,
    description: Option<String>,
    leases: Vec<Lease>,
}

#[derive(Debug)]
struct Lease {
    endpoint: Endpoint,
    until: Instant,
    /// The number of the last message, or of the withdrawal that another gateway has received.
    sequence: u64,
    /// When the last message was received, here or by another gateway.
    heard: Instant,
    /// Whether only other gateways have received messages since the lease began.
    is_of_others: bool,
    /// Kept to its end although it is withdrawn, so that a message of before does not renew it.
    is_withdrawn: bool,
}

impl Lease {
    /// Returns the lease that begins with a message of now.
    fn begin(endpoint: Endpoint, sequence: u64, now: Instant) -> Self {
        let until = now + LEASE;
        Lease { endpoint, until, sequence, heard: now, is_of_others: false, is_withdrawn: false }
    }
}

impl Registrations {
    /// Creates registrations that set the servers of this directory. There are no rules yet.
    pub(super) fn new(directory: Arc<Directory>) -> Arc<Self> {
        let (state, told) = Default::default();
        Arc::new(Registrations { directory, state, begun: Instant::now(), told })
    }

    /// Returns what the other gateways are to be told from now on.
    fn share(&self) -> mpsc::Receiver<Record> {
        let (told, untold) = mpsc::channel(MOST_UNTOLD);
        let _ = self.told.set(told);
        untold
    }

    /// Tells the other gateways of a message about a replica.
    fn tell(&self, server: &Registered, endpoint: &Endpoint, sequence: u64, is_withdrawn: bool) {
        if let Some(told) = self.told.get() {
            let _ = told.try_send(Record {
                name: server.name.clone(),
                owner: server.owner.clone(),
                url: endpoint.url().to_string(),
                description: server.description.clone(),
                sequence,
                is_withdrawn,
            });
        }
    }

    /// Removes expired leases for as long as the process runs.
    pub(super) async fn keep_expiring(self: Arc<Self>) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.expire(Instant::now());
        }
    }

    /// Returns whether servers may exist that have not registered since the start of this gateway.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.begun.elapsed() < SETTLING && !self.state.lock().rules.is_empty()
    }

    /// Replaces the rules. What they do not allow any more is removed.
    pub(super) fn set_rules(&self, rules: Vec<Rule>) {
        let mut state = self.state.lock();
        if state.rules == rules {
            return;
        }
        state.rules = rules;
        let State { rules, servers } = &mut *state;
        for server in servers.values_mut() {
            let Registered { name, owner, leases, .. } = server;
            let rules: Vec<_> = rules.iter().filter(|rule| rule.allows_name(owner, name)).collect();
            leases.retain(|lease| {
                let at = address(&lease.endpoint);
                let is_allowed = at.is_some_and(|at| rules.iter().any(|rule| rule.allows_address(at)));
                if !is_allowed && !lease.is_withdrawn {
                    let address = lease.endpoint.address();
                    tracing::warn!(
                        server = *name,
                        address,
                        "a replica is removed, since the rules of register do not allow it any more"
                    );
                    audit::registered("forbidden", name, address, owner);
                }
                is_allowed
            });
        }
        servers.retain(|_, server| !server.leases.is_empty());
        self.publish(&state);
    }

    /// Registers a replica, or renews its lease. Returns the segment of its server.
    ///
    /// # Errors
    /// When the claim is malformed, not allowed, in conflict with another one, or one too many.
    pub(crate) fn register(
        &self,
        caller: &Identity,
        claim: &Claim<'_>,
        now: Instant,
    ) -> Result<String, Refused> {
        let registered = self.try_register(caller, claim, now);
        if registered.is_err() {
            GATEWAY_REGISTRATIONS.increment(Registering::Refused as usize);
        }
        registered
    }

    fn try_register(&self, caller: &Identity, claim: &Claim<'_>, now: Instant) -> Result<String, Refused> {
        let mut state = self.state.lock();
        let owner = owner_of(caller, &state)?;
        let (segment, endpoint) = parse(claim)?;
        allow(&state.rules, &owner, claim.name, &endpoint)?;
        if self.directory.find(segment).is_some_and(|server| server.origin == Origin::File) {
            return Err(Refused::Conflict(format!("the file of servers has a server {segment}")));
        }
        if let Some(server) = state.servers.get(segment) {
            if server.name != claim.name {
                let why = format!("the path of {segment} belongs to {}", server.name);
                return Err(Refused::Conflict(why));
            }
            if server.owner != owner {
                let why = format!("{} is registered by another caller", claim.name);
                return Err(Refused::Conflict(why));
            }
        }
        let known = state.find(segment, &endpoint);
        let sequence = next(claim, known)?;
        let is_new = known.is_none_or(|lease| lease.is_withdrawn);
        if known.is_none() {
            state.bound(&owner, segment)?;
        }
        let description = claim.description.filter(|text| is_description(text)).map(str::to_owned);
        let server = state.servers.entry(segment.into()).or_insert_with(|| Registered {
            name: claim.name.to_owned(),
            owner: owner.clone(),
            description: None,
            leases: Vec::new(),
        });
        let is_changed = description.is_some() && server.description != description;
        if is_changed {
            server.description = description;
        }
        let address = endpoint.address().to_owned();
        let is_moved = known_url(server, &endpoint).is_some_and(|url| url != endpoint.url());
        server.leases.retain(|lease| lease.endpoint.address() != address);
        let at = server.leases.partition_point(|lease| *lease.endpoint.address() < *address);
        let lease = Lease::begin(endpoint.clone(), sequence, now);
        server.leases.insert(at, lease);
        self.tell(server, &endpoint, sequence, false);
        let is_shown = self.directory.find(segment).is_some_and(|server| server.origin == Origin::Registered);
        if is_new || is_changed || is_moved || !is_shown {
            self.publish(&state);
        }
        let how = if is_new { Registering::Registered } else { Registering::Renewed };
        GATEWAY_REGISTRATIONS.increment(how as usize);
        if is_new {
            tracing::info!(server = claim.name, address, subject = owner, "a replica has registered");
            audit::registered("registered", claim.name, &address, &owner);
        }
        Ok(segment.to_owned())
    }

    /// Withdraws a replica.
    ///
    /// # Errors
    /// When it is malformed, unknown, another caller's, or older than the last message about the replica.
    pub(crate) fn withdraw(&self, caller: &Identity, claim: &Claim<'_>, now: Instant) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let owner = owner_of(caller, &state)?;
        let (segment, endpoint) = parse(claim)?;
        let unknown = || Refused::Unknown(format!("no such replica of {} is registered", claim.name));
        let server = state.servers.get(segment).filter(|server| server.name == claim.name);
        if server.ok_or_else(unknown)?.owner != owner {
            return Err(Refused::Forbidden(format!("{} is registered by another caller", claim.name)));
        }
        let known = state.find(segment, &endpoint).filter(|lease| !lease.is_withdrawn);
        let sequence = next(claim, Some(known.ok_or_else(unknown)?))?;
        let server = state.servers.get_mut(segment).ok_or_else(unknown)?;
        for lease in &mut server.leases {
            if lease.endpoint.address() == endpoint.address() {
                (lease.is_withdrawn, lease.sequence, lease.heard) = (true, sequence, now);
            }
        }
        self.tell(server, &endpoint, sequence, true);
        self.publish(&state);
        GATEWAY_REGISTRATIONS.increment(Registering::Withdrawn as usize);
        let address = endpoint.address();
        tracing::info!(server = claim.name, address, subject = owner, "a replica has withdrawn");
        audit::registered("withdrawn", claim.name, address, &owner);
        Ok(())
    }

    /// Removes the leases that have ended.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        let mut is_changed = false;
        for server in state.servers.values_mut() {
            let Registered { name, owner, leases, .. } = server;
            leases.retain(|lease| {
                let holds = lease.until > now;
                if !holds && !lease.is_withdrawn {
                    is_changed = true;
                    let address = lease.endpoint.address();
                    GATEWAY_REGISTRATIONS.increment(Registering::Expired as usize);
                    tracing::warn!(
                        server = *name,
                        address,
                        "the lease of a replica has expired, since its sidecar has not renewed it; it is removed"
                    );
                    audit::registered("expired", name, address, owner);
                }
                holds
            });
        }
        state.servers.retain(|_, server| !server.leases.is_empty());
        if is_changed {
            self.publish(&state);
        }
    }

    /// Shows the servers in the directory. Those that are withdrawn entirely are gone.
    fn publish(&self, state: &State) {
        let servers = state.servers.iter().filter_map(|(segment, server)| {
            let leases = server.leases.iter().filter(|lease| !lease.is_withdrawn);
            let endpoints: Vec<_> = leases.map(|lease| lease.endpoint.clone()).collect();
            let about = Description {
                name: server.name.clone(),
                segment: segment.clone(),
                description: server.description.clone(),
                labels: BTreeMap::new(),
                headers: HeaderMap::new(),
                // The gateway's own URL of the server: no other server takes a token that is meant for this one.
                audiences: Vec::new(),
                tools: Default::default(),
                is_required: false,
            };
            (!endpoints.is_empty()).then_some((about, Some(endpoints)))
        });
        self.directory.replace_registered(servers.collect());
    }
}

impl State {
    fn find(&self, segment: &str, endpoint: &Endpoint) -> Option<&Lease> {
        let leases = &self.servers.get(segment)?.leases;
        leases.iter().find(|lease| lease.endpoint.address() == endpoint.address())
    }

    /// Checks that there is room for one more replica. Those that are withdrawn count until their lease ends.
    fn bound(&self, owner: &str, segment: &str) -> Result<(), Refused> {
        let replicas = |servers: &mut dyn Iterator<Item = &Registered>| -> usize {
            servers.map(|server| server.leases.len()).sum()
        };
        let own = || self.servers.values().filter(|server| server.owner == owner);
        let is_new = !self.servers.contains_key(segment);
        if is_new && own().count() >= MOST_NAMES_OF_ONE {
            return Err(Refused::TooMany(format!("one caller may register {MOST_NAMES_OF_ONE} names")));
        }
        if replicas(&mut own()) >= MOST_REPLICAS_OF_ONE {
            return Err(Refused::TooMany(format!("one caller may register {MOST_REPLICAS_OF_ONE} replicas")));
        }
        let is_full = is_new && self.servers.len() >= MOST_NAMES;
        if is_full || replicas(&mut self.servers.values()) >= MOST_REPLICAS {
            return Err(Refused::Full("this gateway has as many registrations as it takes"));
        }
        Ok(())
    }
}

fn known_url<'a>(server: &'a Registered, endpoint: &Endpoint) -> Option<&'a hyper::Uri> {
    let known = server.leases.iter().find(|lease| lease.endpoint.address() == endpoint.address());
    known.map(|lease| lease.endpoint.url())
}

/// Returns who calls, in the form of rules and of tokens.
fn owner_of(caller: &Identity, state: &State) -> Result<String, Refused> {
    if state.rules.is_empty() && state.servers.is_empty() {
        let why = "registration is off: the file of servers has no rules for it (register)";
        return Err(Refused::Forbidden(why.to_owned()));
    }
    if caller.principal.is_anonymous() {
        return Err(Refused::Forbidden("only identified callers may register".to_owned()));
    }
    Ok(token::subject(caller))
}

/// Returns the number of a message, which must be later than the last one about the replica.
fn next(claim: &Claim<'_>, known: Option<&Lease>) -> Result<u64, Refused> {
    let last = known.map_or(0, |lease| lease.sequence);
    match claim.sequence {
        None => Ok(last),
        Some(sequence) if known.is_none() || sequence > last => Ok(sequence),
        Some(_) => Err(Refused::Conflict("a later message about this replica has been received".to_owned())),
    }
}

#[cfg(test)]
#[path = "registrations/tests.rs"]
mod tests;
