//! Rate limits (`--rate-limits`, `--rate-limit-address`) and the limit of calls at the same time
//! (`--max-calls-per-principal`). `docs/limits.md` describes them for operators.
//!
//! Buckets follow GCRA, so each is one number. All buckets of a call are looked at before a token is taken from any:
//! a call that is refused takes none. With `--redis`, the buckets of calls are in Redis ([`shared`]), those of addresses
//! never.

mod caller;
mod calls;
mod go_duration;
mod policy;
mod rate;
#[cfg(feature = "gateway")]
mod shared;
mod store;

pub use caller::Caller;
pub use calls::Call;
pub use policy::Policy;
pub use rate::Rate;

use crate::audit;
use crate::client::Client;
use crate::mounted;
#[cfg(feature = "gateway")]
use crate::redis::Redis;
use crate::telemetry::counters;
use crate::telemetry::metrics::limits::{self as decisions, Limit};
use calls::Calls;
use parking_lot::{Mutex, RwLock};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "gateway")]
use std::sync::OnceLock;
use std::time::Instant;
use store::{Empty, Memory, Wanted};

/// Maximum size of the file in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// The operator's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--rate-limits`: the file and its content at the start.
    pub file: Option<(PathBuf, Policy)>,
    /// `--rate-limit-address`, which overrides `perAddress` of the file.
    pub per_address: Option<Rate>,
    /// `--max-calls-per-principal`, which overrides `maxCallsPerPrincipal` of the file.
    pub max_calls: Option<u32>,
}

/// Reads the file.
///
/// # Errors
/// The reason, in words.
pub fn read(path: &Path) -> Result<Policy, String> {
    text(path).and_then(|text| Policy::parse(&text).map_err(|bad| bad.to_string()))
}

fn text(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > LONGEST_FILE {
        return Err("is longer than 1 MiB".to_owned());
    }
    fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

/// The running limits.
#[derive(Debug)]
pub struct Limits {
    settings: Settings,
    policy: RwLock<Arc<Policy>>,
    /// Digest of the file's content that was read last.
    read: Mutex<Option<String>>,
    begun: Instant,
    callers: Memory,
    /// Apart, so that a flood of addresses forgets no caller.
    addresses: Memory,
    /// The buckets of callers instead, if several processes share them.
    #[cfg(feature = "gateway")]
    shared: OnceLock<shared::Shared>,
    calls: Arc<Calls>,
}

/// A call that asks for its tokens.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The caller.
    pub caller: Caller<'a>,
    /// The tool, if it calls one.
    pub tool: Option<&'a str>,
}

/// Why a call is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// A limit is exceeded.
    Exceeded(Refused),
    /// The limits that it shares with other processes cannot be checked, for this reason.
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "nothing is shared"))]
    Unknown(String),
}

impl From<Refused> for NotAdmitted {
    fn from(refused: Refused) -> Self {
        NotAdmitted::Exceeded(refused)
    }
}

/// The refusal of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Seconds until it may succeed, at least one.
    pub retry_after: u64,
    /// The name of the limit, for `RateLimit`.
    pub name: &'static str,
    /// The limits that hold for the call.
    pub policies: Vec<Quota>,
}

/// One limit, as `RateLimit-Policy` states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The name.
    pub name: &'static str,
    /// The number of tokens.
    pub quota: u64,
    /// The time in which they come back in seconds; `None` if they are calls at the same time.
    pub window: Option<u64>,
}

impl Limits {
    /// Creates the limits; `None` if none is configured.
    pub fn new(settings: Settings) -> Option<Arc<Self>> {
        if settings.file.is_none() && settings.per_address.is_none() && settings.max_calls.is_none() {
            return None;
        }
        let policy = settings.file.as_ref().map(|(_, policy)| policy.clone()).unwrap_or_default();
        Some(Arc::new(Limits {
            policy: RwLock::new(Arc::new(settings.override_in(policy))),
            settings,
            read: Mutex::default(),
            begun: Instant::now(),
            callers: Memory::default(),
            addresses: Memory::default(),
            #[cfg(feature = "gateway")]
            shared: OnceLock::new(),
            calls: Arc::default(),
        }))
    }

    /// Shares the buckets of calls with all processes of the same scope.
    #[cfg(feature = "gateway")]
    pub(crate) fn share(&self, redis: Arc<Redis>) {
        let _ = self.shared.set(shared::Shared::new(redis));
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the number of buckets that are not full.
    pub fn buckets(&self) -> usize {
        self.callers.count() + self.addresses.count()
    }

    /// Takes a token of a client's address, before the client is authenticated.
    ///
    /// # Errors
    /// When there is none.
    pub fn admit_address(&self, address: IpAddr) -> Result<(), Refused> {
        let Some(rate) = self.policy().per_address else { return Ok(()) };
        let wanted = Wanted::from_iter([(Client::at(Some(address)), rate)]);
        decided(self.addresses.take(&wanted, self.now()), &[(Limit::Address, rate)])
    }

    /// Counts a call among those at the same time, until the guard is dropped, and takes its tokens.
    ///
    /// # Errors
    /// When the caller has too many calls, a bucket is empty, or shared buckets cannot be asked.
    pub async fn admit(&self, asked: Asked<'_>) -> Result<Option<Call>, NotAdmitted> {
        let policy = self.policy();
        let call = match policy.max_calls {
            Some(most) => {
                let call = self.calls.begin(asked.caller.client(), most);
                decisions::count(Limit::Calls, call.is_some());
                Some(call.ok_or_else(|| too_many_calls(most))?)
            }
            None => None,
        };
        let Some(tool) = asked.tool else { return Ok(call) };
        let own = policy.tools.get(tool).copied().unwrap_or_default();
        let limits = [
            (Limit::Shared, policy.server.shared),
            (Limit::PerUser, policy.server.per_user),
            (Limit::ToolShared, own.shared),
            (Limit::ToolPerUser, own.per_user),
        ];
        let named: Vec<_> = limits.into_iter().filter_map(|(limit, rate)| Some((limit, rate?))).collect();
        if named.is_empty() {
            return Ok(call);
        }
        #[cfg(feature = "gateway")]
        if let Some(shared) = self.shared.get() {
            let taken = shared.take(asked.caller, tool, &named).await;
            let taken = taken.map_err(|unavailable| NotAdmitted::Unknown(unavailable.to_string()))?;
            decided(taken, &named)?;
            return Ok(call);
        }
        let client = asked.caller.client();
        let wanted: Wanted = named
            .iter()
            .map(|(limit, rate)| {
                let tool = limit.is_of_tool().then_some(tool);
                let caller = limit.is_of_caller().then_some(client);
                (Client::bucket(*limit as u8, tool, caller), *rate)
            })
            .collect();
        decided(self.callers.take(&wanted, self.now()), &named)?;
        Ok(call)
    }

    /// Reads the file again every 10 seconds. A file that is not understood keeps the previous limits. Never resolves
    /// if there is a file.
    pub async fn keep_reading(self: Arc<Self>) {
        if let Some((path, _)) = &self.settings.file {
            loop {
                tokio::time::sleep(mounted::interval()).await;
                let (limits, path) = (Arc::clone(&self), path.clone());
                // A mounted file system may be slow.
                let _ = crate::tasks::block(move || limits.reload(&path)).await;
            }
        }
    }

    fn reload(&self, path: &Path) {
        let read = text(path);
        let digest = read.as_ref().map_or_else(Clone::clone, |text| audit::digest(text.as_bytes()));
        let is_new = self.read.lock().replace(digest.clone()).as_ref() != Some(&digest);
        let parsed = read.and_then(|text| Policy::parse(&text).map_err(|bad| bad.to_string()));
        match parsed {
            Ok(policy) => {
                let policy = self.settings.override_in(policy);
                if **self.policy.read() != policy {
                    *self.policy.write() = Arc::new(policy);
                    tracing::info!(path = %path.display(), "the rate limits changed");
                    audit::reloaded("--rate-limits");
                }
            }
            Err(reason) => {
                if is_new {
                    counters::FAILED_RELOADS.increment(counters::Reloaded::RateLimits as usize);
                    tracing::warn!(path = %path.display(), reason, "the rate limits are invalid; keeping the previous ones");
                    audit::not_reloaded("--rate-limits", &reason);
                }
            }
        }
    }
}

/// Counts the decision of each limit, and explains a refusal.
fn decided(taken: Result<(), Empty>, named: &[(Limit, Rate)]) -> Result<(), Refused> {
    match taken {
        Ok(()) => {
            named.iter().for_each(|(limit, _)| decisions::count(*limit, true));
            Ok(())
        }
        Err(Empty { at, wait }) => {
            let (limit, _) = named[at];
            decisions::count(limit, false);
            let quota = |(limit, rate): &(Limit, Rate)| Quota {
                name: limit.name(),
                quota: rate.max_tokens(),
                window: Some(rate.window()),
            };
            let policies = named.iter().map(quota).collect();
            Err(Refused { retry_after: rate::whole_seconds(wait), name: limit.name(), policies })
        }
    }
}

fn too_many_calls(most: u32) -> Refused {
    let name = Limit::Calls.name();
    let policies = vec![Quota { name, quota: most.into(), window: None }];
    Refused { retry_after: 1, name, policies }
}

impl Settings {
    /// Returns a file's policy with the settings that override it.
    fn override_in(&self, policy: Policy) -> Policy {
        Policy {
            per_address: self.per_address.or(policy.per_address),
            max_calls: self.max_calls.or(policy.max_calls),
            ..policy
        }
    }
}

impl Refused {
    /// Returns the value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11).
    pub fn policy_header(&self) -> String {
        let shown: Vec<_> = self.policies.iter().map(Quota::shown).collect();
        shown.join(", ")
    }

    /// Returns the value of `RateLimit`.
    pub fn header(&self) -> String {
        format!("\"{}\";r=0;t={}", self.name, self.retry_after)
    }
}

impl Quota {
    fn shown(&self) -> String {
        let Quota { name, quota, window } = self;
        match window {
            Some(seconds) => format!("\"{name}\";q={quota};w={seconds}"),
            None => format!("\"{name}\";q={quota};qu=\"concurrent-requests\""),
        }
    }
}

#[cfg(test)]
mod tests;
