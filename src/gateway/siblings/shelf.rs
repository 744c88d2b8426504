//! The sessions that other replicas can take over (`--resume-sessions` with `--redis`): their records in Redis, and the
//! lease of each replica.
//!
//! A replica renews one lease, under its address. A session's record says which process owns the session, in which term of
//! the lease, and how often it has changed hands. Another replica takes it over only after that lease has ended, and by one
//! script that compares all of it. A process whose lease had ended, because it was stopped or cut off, begins a new term,
//! and serves a session only after it has written the new term into the record: either that fails or the taking over does.
//! Without Redis there is no taking over, and it goes on.
//!
//! What is sealed in a record opens only with the replicas' key, for this session and its principal.

use super::record::{self, Record, Told};
use crate::audience::SessionId;
use crate::budget::Charged;
use crate::calls::Seal;
use crate::exchange::Failure;
use crate::identity::Principal;
use crate::redis::{Redis, Reply, Script, Unavailable};
use crate::session::{Directory, Session};
use crate::shutdown::Shutdown;
use crate::telemetry::Seldom;
use crate::telemetry::counters::{SESSION_TAKEOVERS, Takeover};
use parking_lot::{Mutex, MutexGuard};
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};
use tokio::time::{MissedTickBehavior, interval};

/// Renews a lease, and says whether it has been the same one without a gap. Arguments: the process, milliseconds.
static RENEW: Script = Script::new(
    "local old = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if old == ARGV[1] then return 1 end
return 0",
);

/// Returns the process that has the lease of an address.
static LEASE_OF: Script = Script::new("return redis.call('GET', KEYS[1])");

/// Writes a session's record, unless another process owns the session. Arguments: the begin of all names of the owner, how
/// often the session has changed hands, milliseconds, the sealed record; without one, the session has ended; and the
/// owner's name.
static KEEP: Script = Script::new(
    "local owner, epoch = redis.call('HGET', KEYS[1], 'owner'), redis.call('HGET', KEYS[1], 'epoch')
if owner and (string.sub(owner, 1, #ARGV[1]) ~= ARGV[1] or epoch ~= ARGV[2]) then return 0 end
if ARGV[4] == '' then
  redis.call('HSET', KEYS[1], 'owner', '', 'epoch', ARGV[2])
  redis.call('HDEL', KEYS[1], 'text')
else
  redis.call('HSET', KEYS[1], 'owner', ARGV[5], 'epoch', ARGV[2], 'text', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1",
);

/// Returns the owner of a session, and how often it has changed hands.
static LOOK: Script =
    Script::new("return {redis.call('HGET', KEYS[1], 'owner'), redis.call('HGET', KEYS[1], 'epoch')}");

/// Takes a session over, and returns its sealed record. Arguments: the owner so far, how often the session has changed
/// hands, the new owner, how often it will have, milliseconds.
static TAKE: Script = Script::new(
    "local owner, epoch = redis.call('HGET', KEYS[1], 'owner'), redis.call('HGET', KEYS[1], 'epoch')
local was = owner == ARGV[1] and epoch == ARGV[2]
local is = owner == ARGV[3] and epoch == ARGV[4]
if not was and not is then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[3], 'epoch', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return redis.call('HGET', KEYS[1], 'text')",
);

/// Time for which a lease is valid without being renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Interval between renewals.
const RENEWAL: Duration = Duration::from_secs(1);
/// Interval between looks at what is to be done.
const LOOKS: Duration = Duration::from_millis(250);
/// Time for which Redis is not asked again about a session of this replica after it has not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of sessions that have ended while Redis was down, and of which it is told later.
const MOST_ENDED: usize = 10_000;
/// Maximum number of sessions that are taken over at once.
const MOST_TAKEN: usize = 8;
/// What has the lease of a replica that is shutting down.
const NOBODY: &str = "-";
/// Distinguishes records from everything else that the same keys seal.
const KIND: &[u8] = b"proxyrunner session record\0";
/// Maximum length of an owner's name.
const LONGEST_OWNER: usize = 128;

/// In [`Kept::standing`]: it is not known whether this process still owns the session.
const UNSURE: u64 = 0;
/// In [`Kept::standing`]: another process owns it.
const LOST: u64 = u64::MAX;

/// A session of this replica that others can take over.
#[derive(Debug)]
pub(crate) struct Kept {
    id: SessionId,
    principal: Principal,
    session: Weak<Session>,
    epoch: u64,
    initialize: Charged,
    result: Charged,
    told: Mutex<Told>,
    /// The term in which Redis has confirmed that this process owns it.
    standing: AtomicU64,
    /// When the record was written last.
    written: Mutex<Option<Instant>>,
}

/// The owner of a session, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The replica's address.
    pub address: String,
    /// Names the process among those that have had this address, and its term.
    process: String,
    /// How often the session has changed hands.
    pub epoch: u64,
}

/// What Redis knows of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    Unknown,
    /// It has ended.
    Ended,
    /// Who owns it.
    Owned(Owner),
}

/// Who has the lease of an owner's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// The owner.
    Held,
    /// Nobody.
    Expired,
    /// A later process.
    Over,
    /// The owner has given it up, because it is shutting down.
    Released,
}

#[derive(Debug, Default)]
struct Term {
    /// Begins anew whenever the lease had ended.
    number: u64,
    /// The end of the lease, unless it is renewed.
    until: Option<Instant>,
    /// Redis is not asked before.
    paused: Option<Instant>,
    is_over: bool,
}

/// The records of a replica's sessions.
#[derive(Debug)]
pub(crate) struct Shelf {
    redis: Arc<Redis>,
    seal: Arc<Seal>,
    address: String,
    process: String,
    path: String,
    /// Time for which a record is kept without being written.
    idle: Duration,
    term: Mutex<Term>,
    /// One renewal at a time.
    renewing: AsyncMutex<()>,
    kept: Mutex<HashMap<SessionId, Arc<Kept>>>,
    /// Sessions that are being taken over.
    turns: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
    /// Bounds how many are taken over at once.
    taking: Semaphore,
}

impl Shelf {
    /// Returns an empty shelf; `None` if the system has no randomness.
    pub(super) fn new(
        redis: Arc<Redis>,
        seal: Arc<Seal>,
        address: String,
        path: String,
        idle: Duration,
    ) -> Option<Self> {
        let process = SessionId::mint().ok()?.secret().to_owned();
        let (term, renewing, kept, turns) = Default::default();
        let taking = Semaphore::new(MOST_TAKEN);
        Some(Shelf { redis, seal, address, process, path, idle, term, renewing, kept, turns, taking })
    }

    /// Renews the lease, and tells Redis of the sessions, for as long as the process runs.
    pub async fn follow(self: Arc<Self>, directory: Arc<Directory>, shutdown: Shutdown) {
        let looks = || {
            let mut looks = interval(LOOKS);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        };
        let renewing = async {
            let (mut looks, mut renewed) = (looks(), None::<Instant>);
            loop {
                looks.tick().await;
                if shutdown.has_begun() {
                    return self.release().await;
                }
                if renewed.is_none_or(|at| at.elapsed() >= RENEWAL) {
                    renewed = Some(Instant::now());
                    let _ = self.renew().await;
                }
            }
        };
        let sweeping = async {
            let mut looks = looks();
            loop {
                looks.tick().await;
                self.sweep(&directory, &shutdown).await;
            }
        };
        tokio::join!(renewing, sweeping);
    }

    /// Renews the lease.
    async fn renew(&self) -> Result<(), Unavailable> {
        let _turn = self.renewing.lock().await;
        let sent = Instant::now();
        let is_same = self.lease(&self.process).await?;
        let mut term = self.term.lock();
        // A renewal that took long may have come too late, and be the second of two.
        if !is_same || term.until.is_none_or(|until| Instant::now() >= until) {
            term.number += 1;
        }
        if !term.is_over {
            term.until = Some(sent + LEASE);
        }
        Ok(())
    }

    /// Gives the lease up: others take sessions over from now on.
    async fn release(&self) {
        {
            let mut term = self.term.lock();
            if term.is_over {
                return;
            }
            (term.is_over, term.until) = (true, None);
        }
        let _turn = self.renewing.lock().await;
        // Else it expires.
        let _ = self.lease(NOBODY).await;
    }

    async fn lease(&self, process: &str) -> Result<bool, Unavailable> {
        let key = self.key_of_lease(&self.address);
        let milliseconds = LEASE.as_millis().to_string();
        let arguments = [process.as_bytes(), milliseconds.as_bytes()];
        match self.redis.run(&RENEW, &[key.as_bytes()], &arguments).await? {
            Reply::Number(number) => Ok(number == 1),
            _ => Err(Unavailable::Refused),
        }
    }

    /// Tells Redis of sessions that have ended, of those that it has not confirmed, and from time to time of all.
    async fn sweep(&self, directory: &Directory, shutdown: &Shutdown) {
        let all: Vec<_> = self.kept().values().cloned().collect();
        let due = (self.idle / 4).max(LOOKS);
        let mut ended = 0;
        for kept in all {
            let session = kept.session.upgrade().filter(|session| !session.is_ended());
            let standing = kept.standing.load(Ordering::Relaxed);
            let Some(session) = session else {
                ended += 1;
                // The sessions of a replica that shuts down are for others.
                if standing == LOST || shutdown.is_over() || ended > MOST_ENDED || self.end(&kept).await {
                    self.forget(&kept);
                }
                continue;
            };
            let is_due = kept.written.lock().is_none_or(|at| at.elapsed() >= due);
            if standing == LOST || (!is_due && self.is_confirmed(&kept)) || self.is_paused() {
                continue;
            }
            if self.write(&kept).await == Ok(false) {
                self.lose(&kept, &session, directory, shutdown);
            }
        }
    }

    fn forget(&self, kept: &Arc<Kept>) {
        let mut all = self.kept();
        // It may have been taken over again meanwhile.
        if all.get(&kept.id).is_some_and(|other| Arc::ptr_eq(other, kept)) {
            all.remove(&kept.id);
        }
    }

    /// Ends a session that another replica has taken over. While this one shuts down, its calls in flight are finished.
    fn lose(&self, kept: &Kept, session: &Session, directory: &Directory, shutdown: &Shutdown) {
        if kept.standing.swap(LOST, Ordering::Relaxed) == LOST {
            return;
        }
        tracing::info!(session = %kept.id, "another replica has taken the session over (--resume-sessions)");
        SESSION_TAKEOVERS.increment(Takeover::Lost as usize);
        if !shutdown.has_begun() {
            directory.end(session, &Failure::SessionEnded);
        }
    }

    /// Returns whether this process owns a session of its own. Redis is asked if the lease had ended meanwhile.
    pub async fn owns(&self, session: &Session, directory: &Directory, shutdown: &Shutdown) -> bool {
        let Some(kept) = self.find(session.id().secret()) else { return true };
        if kept.standing.load(Ordering::Relaxed) == LOST {
            return false;
        }
        if self.is_confirmed(&kept) || self.is_paused() {
            return true;
        }
        let is_over = self.term.lock().is_over;
        // The lease first: nobody takes the session over between both.
        if !is_over && self.renew().await.is_err() {
            self.pause();
            return true;
        }
        match self.write(&kept).await {
            Ok(owns) => {
                if !owns {
                    self.lose(&kept, session, directory, shutdown);
                }
                owns
            }
            // Then nobody can take it over, either.
            Err(_) => true,
        }
    }

    fn is_confirmed(&self, kept: &Kept) -> bool {
        let term = self.term.lock();
        let holds = term.until.is_some_and(|until| Instant::now() < until);
        holds && kept.standing.load(Ordering::Relaxed) == term.number
    }

    fn is_paused(&self) -> bool {
        self.term.lock().paused.is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self) {
        self.term.lock().paused = Some(Instant::now() + PAUSE);
    }

    /// Records a session that this replica has opened or taken over. Returns whether Redis has got it.
    pub async fn keep(
        &self,
        session: &Arc<Session>,
        (initialize, result): (Charged, Charged),
        told: Told,
        owner: Option<&Owner>,
    ) -> bool {
        let kept = Arc::new(Kept {
            id: session.id().clone(),
            principal: session.principal().clone(),
            session: Arc::downgrade(session),
            epoch: owner.map_or(1, |owner| owner.epoch),
            initialize,
            result,
            told: Mutex::new(told),
            standing: AtomicU64::new(UNSURE),
            written: Mutex::default(),
        });
        self.kept().insert(kept.id.clone(), Arc::clone(&kept));
        self.write(&kept).await.is_ok()
    }

    /// Notes what a client tells its server, and records it.
    pub async fn note(&self, session: &Session, change: impl FnOnce(&mut Told)) {
        let Some(kept) = self.find(session.id().secret()) else { return };
        change(&mut kept.told.lock());
        *kept.written.lock() = None;
        if !self.is_paused() {
            // Else it is written later.
            let _ = self.write(&kept).await;
        }
    }

    /// Returns a session of this replica; also one that has ended, until Redis knows.
    pub fn find(&self, id: &str) -> Option<Arc<Kept>> {
        self.kept().get(id).cloned()
    }

    /// Returns whether a session of this replica has ended, which Redis may not know yet.
    pub fn has_ended(&self, id: &str) -> bool {
        let ended = |kept: Arc<Kept>| kept.session.upgrade().is_none_or(|session| session.is_ended());
        self.find(id).is_some_and(ended)
    }

    /// Returns whether another replica has taken a session of this one over.
    pub fn has_lost(&self, id: &str) -> bool {
        self.find(id).is_some_and(|kept| kept.standing.load(Ordering::Relaxed) == LOST)
    }

    /// Writes a session's record. Returns whether this process owns the session.
    async fn write(&self, kept: &Kept) -> Result<bool, Unavailable> {
        let number = self.term.lock().number;
        let text = record::write(&kept.initialize, &kept.result, &kept.told.lock());
        let sealed = self.seal.seal_bytes(&text, &self.purpose(kept.id.secret(), &kept.principal));
        let written = Instant::now();
        let sealed = sealed.map_err(|_| Unavailable::Busy)?;
        let owns = self.put(kept.id.secret(), kept.epoch, &sealed, number).await;
        match owns {
            Ok(true) => {
                kept.standing.store(number, Ordering::Relaxed);
                *kept.written.lock() = Some(written);
            }
            Ok(false) => {}
            Err(unavailable) => {
                self.pause();
                tell(unavailable);
            }
        }
        owns
    }

    /// Records that a session has ended. Returns whether Redis knows.
    pub async fn end(&self, kept: &Kept) -> bool {
        if self.is_paused() {
            return false;
        }
        let told = self.put(kept.id.secret(), kept.epoch, "", UNSURE).await;
        if told.is_err() {
            self.pause();
        }
        told.is_ok()
    }

    /// Records that a session has ended that this process has taken over, but does not serve.
    pub async fn give_up(&self, id: &str, owner: &Owner) {
        // Else it is given up when it is asked for again.
        let _ = self.put(id, owner.epoch, "", UNSURE).await;
    }

    async fn put(&self, id: &str, epoch: u64, sealed: &str, term: u64) -> Result<bool, Unavailable> {
        let (key, begin) = (self.key(id), format!("{} {}.", self.address, self.process));
        let (name, epoch, time) = (format!("{begin}{term}"), epoch.to_string(), self.time());
        let arguments = [&begin, &epoch, &time, sealed, &name].map(|argument: &str| argument.as_bytes());
        match self.redis.run(&KEEP, &[key.as_bytes()], &arguments).await? {
            Reply::Number(number) => Ok(number == 1),
            _ => Err(Unavailable::Refused),
        }
    }

    /// Returns what Redis knows of a session.
    ///
    /// # Errors
    /// When it does not answer, or with something else.
    pub async fn look(&self, id: &str) -> Result<Seen, Unavailable> {
        let reply = self.redis.run(&LOOK, &[self.key(id).as_bytes()], &[]).await?;
        seen(&reply).ok_or(Unavailable::Refused)
    }

    /// Returns who has the lease of an owner.
    ///
    /// # Errors
    /// When Redis does not answer, or with something else.
    pub async fn lease_of(&self, owner: &Owner) -> Result<Lease, Unavailable> {
        let key = self.key_of_lease(&owner.address);
        match self.redis.run(&LEASE_OF, &[key.as_bytes()], &[]).await? {
            Reply::Nothing => Ok(Lease::Expired),
            Reply::Bytes(process) if process == owner.base().as_bytes() => Ok(Lease::Held),
            Reply::Bytes(process) if process == NOBODY.as_bytes() => Ok(Lease::Released),
            Reply::Bytes(_) => Ok(Lease::Over),
            _ => Err(Unavailable::Refused),
        }
    }

    /// Makes this process the owner of a session. Returns the owner, and what was recorded of the session; `None` if
    /// another one owns it meanwhile.
    ///
    /// # Errors
    /// When Redis does not answer, or with something else.
    pub async fn take(
        &self,
        id: &str,
        principal: &Principal,
        from: &Owner,
    ) -> Result<Option<(Owner, Option<Record>)>, Unavailable> {
        let next = Owner {
            address: self.address.clone(),
            process: format!("{}.{}", self.process, self.term.lock().number),
            epoch: from.epoch.saturating_add(1),
        };
        let (was, is) = (from.name(), next.name());
        let (before, after, time) = (from.epoch.to_string(), next.epoch.to_string(), self.time());
        let arguments = [&was, &before, &is, &after, &time].map(|argument| argument.as_bytes());
        match self.redis.run(&TAKE, &[self.key(id).as_bytes()], &arguments).await? {
            Reply::Number(_) => Ok(None),
            Reply::Bytes(sealed) => {
                let sealed = String::from_utf8(sealed).ok();
                let text =
                    sealed.and_then(|sealed| self.seal.open_bytes(&sealed, &self.purpose(id, principal)));
                Ok(Some((next, text.and_then(|text| record::read(&text)))))
            }
            Reply::Nothing => Ok(Some((next, None))),
            _ => Err(Unavailable::Refused),
        }
    }

    /// Returns the turn at a session, so that it is taken over once.
    pub fn turn(&self, id: &str) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(id.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }

    /// Waits until a session can be taken over, since each may start a process.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.taking.acquire().await.ok()
    }

    /// Returns whether an owner is this process.
    pub fn is_own(&self, owner: &Owner) -> bool {
        owner.address == self.address && owner.base() == self.process
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Kept>>> {
        self.kept.lock()
    }

    /// Returns the milliseconds for which a record is kept.
    fn time(&self) -> String {
        (self.idle * 5 / 4 + Duration::from_secs(60)).as_millis().to_string()
    }

    /// Returns a session's key, which does not tell its id. The braces keep it in one slot of a cluster.
    fn key(&self, id: &str) -> String {
        let (prefix, scope) = self.redis.names();
        let whole = [scope, "\0", &self.path, "\0", id].concat();
        let digest = digest(&SHA256, whole.as_bytes());
        let mut key = format!("{prefix}{{session:");
        for byte in &digest.as_ref()[..16] {
            let _ = write!(key, "{byte:02x}");
        }
        key.push('}');
        key
    }

    fn key_of_lease(&self, address: &str) -> String {
        let (prefix, scope) = self.redis.names();
        format!("{prefix}{{replica:{scope}:{address}}}")
    }

    fn purpose(&self, id: &str, principal: &Principal) -> Vec<u8> {
        [KIND, self.path.as_bytes(), b"\0", id.as_bytes(), b"\0", principal.name().as_bytes()].concat()
    }
}

impl Owner {
    /// Returns the name of the process in all of its terms, which has the lease.
    fn base(&self) -> &str {
        self.process.split_once('.').map_or(&self.process, |(base, _)| base)
    }

    fn name(&self) -> String {
        format!("{} {}", self.address, self.process)
    }
}

fn tell(unavailable: Unavailable) {
    static SELDOM: Seldom = Seldom::new();
    if SELDOM.is_due() {
        tracing::warn!(
            "sessions that change now cannot be taken over by other replicas: {unavailable} (--resume-sessions, --redis); logged at most once a minute"
        );
    }
}

/// Returns what Redis' answer says of a session.
fn seen(reply: &Reply) -> Option<Seen> {
    let Reply::List(parts) = reply else { return None };
    // A list ends with its first part that has no value.
    let (owner, epoch) = match parts.as_slice() {
        [] | [Reply::Nothing, ..] => return Some(Seen::Unknown),
        [owner, epoch] => (owner.text()?, epoch.text()?.parse().ok()?),
        _ => return None,
    };
    if owner.is_empty() {
        return Some(Seen::Ended);
    }
    let (address, process) = owner.split_once(' ').filter(|_| owner.len() <= LONGEST_OWNER)?;
    Some(Seen::Owned(Owner { address: address.to_owned(), process: process.to_owned(), epoch }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.into())
    }

    #[test]
    fn an_answer_is_understood_or_refused() {
        let list = |parts: &[Reply]| seen(&Reply::List(parts.to_vec()));
        assert_eq!(list(&[]), Some(Seen::Unknown));
        assert_eq!(list(&[Reply::Nothing, Reply::Nothing]), Some(Seen::Unknown));
        assert_eq!(list(&[bytes(""), bytes("2")]), Some(Seen::Ended));
        let owner = Owner { address: "10.0.0.1:80".to_owned(), process: "p".to_owned(), epoch: 3 };
        assert_eq!(list(&[bytes("10.0.0.1:80 p"), bytes("3")]), Some(Seen::Owned(owner)));
        let long = format!("{} p", "x".repeat(LONGEST_OWNER));
        for bad in [
            vec![bytes("10.0.0.1:80"), bytes("3")],
            vec![bytes("10.0.0.1:80 p"), bytes("x")],
            vec![bytes("10.0.0.1:80 p"), bytes("-1")],
            vec![bytes("10.0.0.1:80 p")],
            vec![bytes(&long), bytes("1")],
            vec![Reply::Number(1), bytes("1")],
        ] {
            assert_eq!(list(&bad), None, "{bad:?}");
        }
        assert_eq!(seen(&Reply::Number(1)), None);
    }
}
