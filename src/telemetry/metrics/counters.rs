//! Process-wide counters of dropped, refused and repaired messages and of other events. Each is one atomic.

use super::family::{Definition, Family, MetricKind, Sample, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// A monotonic counter.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// Creates a counter at zero.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Counter { name, help, value: AtomicU64::new(0) }
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the count since the start.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub static $ident: Counter = Counter::new($name, $help);)*
        static ALL: &[&Counter] = &[$(&$ident),*];
    };
}

counters! {
    MALFORMED_FRAMES "proxyrunner_malformed_frames_total" "Frames from a child that were not JSON-RPC messages."
    OVERSIZED_FRAMES "proxyrunner_oversized_frames_total" "Frames from a child that exceeded --max-frame and were discarded."
    REPAIRED_FRAMES "proxyrunner_repaired_frames_total" "Frames from a child that were accepted despite deviating from the protocol, such as by a byte order mark or a null member."
    LATE_ANSWERS "proxyrunner_late_answers_total" "Answers from a child to requests that had been cancelled, had timed out or had been answered."
    UNKNOWN_ANSWERS "proxyrunner_unknown_answers_total" "Answers from a child to requests it was never sent, and errors without an id that match no request."
    DROPPED_EVENTS "proxyrunner_dropped_events_total" "Progress and log messages dropped because their client read too slowly or had disconnected, and answers dropped because it had disconnected."
    WITHHELD_MESSAGES "proxyrunner_withheld_messages_total" "Messages from a shared child that were withheld because their client could not be determined."
    UNMATCHED_CLIENT_ANSWERS "proxyrunner_unmatched_client_answers_total" "Answers from clients to questions that no child asked."
    AMBIGUOUS_CANCELLATIONS "proxyrunner_ambiguous_cancellations_total" "Cancellations ignored because several requests with their id were in flight."
    SHED_REQUESTS "proxyrunner_shed_requests_total" "Requests refused because a limit was reached or shutdown had begun, with 503 where a status is possible."
    QUEUED_REQUESTS "proxyrunner_queued_requests_total" "Requests that waited because the in-flight limit was reached."
    REJECTED_REQUESTS "proxyrunner_rejected_requests_total" "Requests rejected as invalid or forbidden, with a 4xx status where a status is possible."
    TIMED_OUT_REQUESTS "proxyrunner_timed_out_requests_total" "Requests not answered within --request-timeout or --request-max."
    GAVE_WAY "proxyrunner_gave_way_total" "Times a client's buffered data was dropped because --max-buffered was reached and the client held the most."
    CUT_STREAMS "proxyrunner_cut_streams_total" "Streams closed because --max-buffered was reached and their reader was the slowest."
    RESTARTED_CHILDREN "proxyrunner_restarted_children_total" "Children that exited and were replaced."
    HUNG_CHILDREN "proxyrunner_hung_children_total" "Children terminated because they hung."
    EVICTED_SESSIONS "proxyrunner_evicted_sessions_total" "Sessions evicted because --max-children or --max-sessions was reached."
    EXPIRED_SESSIONS "proxyrunner_expired_sessions_total" "Sessions closed by --session-idle or --session-max-age."
    EXPIRED_PARKED "proxyrunner_expired_parked_total" "Parked requests cancelled because their client did not retry within --park-timeout."
    SHARED_AT_CAP "proxyrunner_shared_at_cap_total" "Clients that wanted an exclusive child but share one, because --max-children was reached or the server runs only once."
    CACHED_LISTS "proxyrunner_cached_lists_total" "Lists answered from the cache."
    UNCACHED_LISTS "proxyrunner_uncached_lists_total" "Cacheable lists that were missing from the cache or stale."
    OUTDATED_LISTS "proxyrunner_outdated_lists_total" "Cached lists discarded because the child announced a change."
    OPENED_SESSIONS "proxyrunner_opened_sessions_total" "Sessions opened."
    EXCHANGES "proxyrunner_exchanges_total" "Requests sent to a child."
    STARTED_CHILDREN "proxyrunner_started_children_total" "Children started."
    LEFT_OUT_LINES "proxyrunner_left_out_log_lines_total" "Lines from children that were not logged because they exceeded --child-log-rate."
    LOST_LINES "proxyrunner_lost_log_lines_total" "Log lines lost because stderr was read too slowly."
    DROPPED_SPANS "proxyrunner_dropped_spans_total" "Spans lost because the export queue was full or the collector did not accept them."
    DROPPED_LOG_RECORDS "proxyrunner_dropped_log_records_total" "Log records lost because the export queue was full or the collector did not accept them."
    FAILED_METRIC_EXPORTS "proxyrunner_failed_metric_exports_total" "Failed exports of metrics; the next export includes their values."
    AUDIT_LINES "proxyrunner_audit_lines_total" "Lines written to the audit log."
    LOST_AUDIT_LINES "proxyrunner_lost_audit_lines_total" "Events missing from the audit log because it could not be written."
    FAILED_AUDIT_WRITES "proxyrunner_failed_audit_writes_total" "Failed attempts to write the audit log."
    FAILED_KEY_FETCHES "proxyrunner_failed_key_fetches_total" "Failed attempts to fetch or read the key set of an issuer (--auth-issuer)."
    FAILED_INTROSPECTIONS "proxyrunner_failed_introspections_total" "Introspections of a token without a usable answer (--auth-introspection)."
    FAILED_API_KEY_RELOADS "proxyrunner_failed_api_key_reloads_total" "Changed files of --api-keys that were unusable, so that the previous keys stay in use."
    TLS_RELOADS "proxyrunner_tls_reloads_total" "Times that new connections began to use changed files of --tls-cert, --tls-key or --tls-client-ca."
    TLS_FAILED_RELOADS "proxyrunner_tls_failed_reloads_total" "Attempts, one each 10 s, to use changed files of --tls-cert, --tls-key or --tls-client-ca that failed. The files of before stay in use."
    RESET_FLOODS "proxyrunner_reset_floods_total" "HTTP/2 connections closed because their client reset most of its streams soon after it opened them, or sent too many frames without progress."
    BLOCKED_STREAMS "proxyrunner_blocked_streams_total" "HTTP/2 streams reset because their client accepted none of their response for --write-timeout."
    GATEWAY_EJECTIONS "proxyrunner_gateway_ejections_total" "Times the gateway stopped sending requests to a replica because requests to it had failed."
    GATEWAY_RETRIES "proxyrunner_gateway_retries_total" "Requests that the gateway sent to another replica because the first one could not be reached."
    ENDED_CHILDREN "proxyrunner_ended_children_total" "Children that exited, for any reason."
}

/// Counters that differ in the value of one label, such as the result of an attempt.
#[derive(Debug)]
pub struct Labelled<const N: usize> {
    name: &'static str,
    help: &'static str,
    /// The label, in OpenTelemetry's notation.
    label: &'static str,
    /// The label's values.
    values: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Labelled<N> {
    /// Creates counters at zero, one for each value of the label.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Self {
        Labelled { name, help, label, values, counts: [const { AtomicU64::new(0) }; N] }
    }

    /// Adds one to the counter of the value with this index.
    pub fn increment(&self, index: usize) {
        self.counts[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count of the value with this index since the start.
    pub fn value(&self, index: usize) -> u64 {
        self.counts[index].load(Ordering::Relaxed)
    }
}

/// A group of counters, whatever their number.
trait Group: Sync {
    fn family(&self) -> Family;
}

impl<const N: usize> Group for Labelled<N> {
    fn family(&self) -> Family {
        let Labelled { name, help, label, .. } = *self;
        let definition = Definition { name, convention: None, unit: "1", kind: MetricKind::Counter, help };
        let sample = |index: usize| Sample {
            labels: vec![(label, self.values[index].into())],
            value: Value::Count(self.value(index)),
        };
        definition.family((0..N).map(sample).collect())
    }
}

/// Requests by the result of identifying their callers; the index is that of the caller's outcome in `http/auth`.
pub static AUTH_REQUESTS: Labelled<6> = Labelled::new(
    "mcp_auth_requests_total",
    "Requests by the result of identifying their caller, if --auth-issuer, --api-keys, --auth-introspection or --tls-client-ca is set.",
    "result",
    ["ok", "missing", "malformed", "invalid", "scope", "unavailable"],
);

/// Requests by the decision of the policies; the index is that of `policy::Outcome`.
pub static POLICY_DECISIONS: Labelled<3> = Labelled::new(
    "mcp_policy_decisions_total",
    "Requests that policies decided on, by result, if --policy or --policy-url is set. The things of filtered lists are not counted.",
    "result",
    ["allow", "deny", "error"],
);

/// TLS handshakes by result; the index is that of `tls::Handshake`.
pub static TLS_HANDSHAKES: Labelled<9> = Labelled::new(
    "proxyrunner_tls_handshakes_total",
    "TLS handshakes by result, if --tls-cert is set.",
    "result",
    [
        "ok",
        "clear_text",
        "no_certificate",
        "bad_certificate",
        "refused",
        "incompatible",
        "malformed",
        "closed",
        "timeout",
    ],
);

/// Changes of watched files that were not applied; the index is that of [`Reloaded`].
pub static FAILED_RELOADS: Labelled<8> = Labelled::new(
    "proxyrunner_failed_reloads_total",
    "Changes of a watched file that were not applied, since the file was missing or malformed.",
    "file",
    ["state_key", "env", "audit_key", "rate_limits", "policy", "auth", "servers", "gateway_key"],
);

/// The watched files that [`FAILED_RELOADS`] tells apart.
#[derive(Clone, Copy, Debug)]
pub enum Reloaded {
    /// `--state-key-file`
    StateKey,
    /// `--env-file`
    Env,
    /// `--audit-key-file`
    AuditKey,
    /// `--rate-limits`
    RateLimits,
    /// `--policy`
    #[cfg_attr(not(feature = "policy"), allow(dead_code, reason = "its label is the same in every build"))]
    Policy,
    /// A secret, token or authority of `--auth-issuer` or `--auth-introspection`
    Auth,
    /// `--servers`
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
    Servers,
    /// `--gateway-key`
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
    GatewayKey,
}

/// Messages of a sidecar to gateways; the index is that of [`Announced`].
pub static ANNOUNCEMENTS: Labelled<3> = Labelled::new(
    "proxyrunner_registrations_total",
    "Registrations and renewals that this sidecar has sent to gateways, by result, if --register is set.",
    "result",
    ["ok", "refused", "failed"],
);

/// The results of [`ANNOUNCEMENTS`].
#[derive(Clone, Copy, Debug)]
pub enum Announced {
    /// The gateway has accepted it.
    Ok,
    /// The gateway refuses it.
    Refused,
    /// The gateway could not be asked, or could not decide.
    Failed,
}

/// What happens to registrations at a gateway; the index is that of [`Registering`].
pub static GATEWAY_REGISTRATIONS: Labelled<5> = Labelled::new(
    "proxyrunner_gateway_registrations_total",
    "Replicas that registered at the gateway, renewed, withdrew, or whose lease expired, and refused registrations.",
    "result",
    ["registered", "renewed", "withdrawn", "expired", "refused"],
);

/// The results of [`GATEWAY_REGISTRATIONS`].
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
#[derive(Clone, Copy, Debug)]
pub enum Registering {
    /// A replica is new.
    Registered,
    /// Its lease is renewed.
    Renewed,
    /// It has withdrawn.
    Withdrawn,
    /// Its lease has ended.
    Expired,
    /// A registration or a renewal was refused.
    Refused,
}

/// Polls of the registry that a gateway mirrors; the index is that of [`Mirrored`].
pub static MIRROR_POLLS: Labelled<2> = Labelled::new(
    "proxyrunner_registry_polls_total",
    "Attempts of a gateway to read the registry that it mirrors, by result, if --register is set.",
    "result",
    ["ok", "failed"],
);

/// The results of [`MIRROR_POLLS`].
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
#[derive(Clone, Copy, Debug)]
pub enum Mirrored {
    /// The registry was read.
    Ok,
    /// Its servers stay as they were.
    Failed,
}

/// Commands to Redis; the index is that of [`RedisResult`].
pub static REDIS_COMMANDS: Labelled<5> = Labelled::new(
    "proxyrunner_redis_commands_total",
    "Commands to Redis by result, if --redis is set: ok, error (refused), timeout, down (no connection) or busy (too many at once).",
    "result",
    ["ok", "error", "timeout", "down", "busy"],
);

/// The results of [`REDIS_COMMANDS`].
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisResult {
    /// It was answered.
    Ok,
    /// Redis refused it.
    Error,
    /// No answer came in time.
    Timeout,
    /// There was no connection.
    Down,
    /// Too many commands were on their way.
    Busy,
}

/// Requests that were passed on to siblings; the index is that of [`Forwarded`].
pub static FORWARDED_REQUESTS: Labelled<8> = Labelled::new(
    "proxyrunner_forwarded_requests_total",
    "HTTP requests that were passed on to the replica that owns their session, by result, if --forward-sessions is set.",
    "result",
    ["ok", "client_error", "server_error", "cancelled", "full", "owner_gone", "broken", "timeout"],
);

/// The results of [`FORWARDED_REQUESTS`].
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
#[derive(Clone, Copy, Debug)]
pub enum Forwarded {
    /// An answer that is no error.
    Ok,
    /// An answer of status 4xx.
    ClientError,
    /// An answer of status 5xx, or a request that cannot be passed on.
    ServerError,
    /// The client has left before the end of the answer.
    Cancelled,
    /// Too many requests were in flight.
    Full,
    /// The owner is not there, or is ending.
    OwnerGone,
    /// The owner broke the connection.
    Broken,
    /// The owner did not answer in time.
    Timeout,
}

#[cfg(feature = "gateway")]
impl From<super::gateway::Ending> for Forwarded {
    fn from(ending: super::gateway::Ending) -> Self {
        use super::gateway::Ending;
        match ending {
            Ending::Ok => Forwarded::Ok,
            Ending::ClientError => Forwarded::ClientError,
            Ending::ServerError => Forwarded::ServerError,
            Ending::Cancelled => Forwarded::Cancelled,
            Ending::Full => Forwarded::Full,
            Ending::NoReplica | Ending::OwnerGone | Ending::Unreachable => Forwarded::OwnerGone,
            Ending::Broken => Forwarded::Broken,
            Ending::Timeout => Forwarded::Timeout,
        }
    }
}

/// Requests that siblings have passed on; the index is 0 for those that were accepted, 1 for those that were refused.
pub static SIBLING_REQUESTS: Labelled<2> = Labelled::new(
    "proxyrunner_sibling_requests_total",
    "HTTP requests that other replicas have passed on to this one, by whether their ticket was accepted, if --forward-sessions is set.",
    "result",
    ["accepted", "refused"],
);

/// Sessions that other replicas can take over; the index is that of [`Takeover`].
pub static SESSION_TAKEOVERS: Labelled<4> = Labelled::new(
    "proxyrunner_session_takeovers_total",
    "Sessions that this replica has taken over or failed to, that another one has taken over, or that Redis did not record when they were opened, if --resume-sessions and --redis are set.",
    "result",
    ["taken", "failed", "lost", "unrecorded"],
);

/// The results of [`SESSION_TAKEOVERS`].
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "its label is the same in every build"))]
#[derive(Clone, Copy, Debug)]
pub enum Takeover {
    /// The session goes on here.
    Taken,
    /// The server differs, or does not start.
    Failed,
    /// Another replica has taken the session over.
    Lost,
    /// The session cannot be taken over, unless it is recorded later.
    Unrecorded,
}

/// All groups of labelled counters.
static GROUPS: &[&dyn Group] = &[
    &AUTH_REQUESTS,
    &TLS_HANDSHAKES,
    &FAILED_RELOADS,
    &POLICY_DECISIONS,
    &ANNOUNCEMENTS,
    &GATEWAY_REGISTRATIONS,
    &MIRROR_POLLS,
    &REDIS_COMMANDS,
    &FORWARDED_REQUESTS,
    &SIBLING_REQUESTS,
    &SESSION_TAKEOVERS,
];

/// A level that one module sets, such as the time at which a certificate expires. It has no sample until it is set.
#[derive(Debug)]
pub struct Level {
    definition: Definition,
    /// One more than the level; zero: it was never set.
    value: AtomicU64,
}

impl Level {
    /// Creates a level that is not set. The unit is in UCUM: `s`, `By`, `1`.
    pub const fn new(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        let definition = Definition { name, convention: None, unit, kind: MetricKind::Gauge, help };
        Level { definition, value: AtomicU64::new(0) }
    }

    /// Sets the level.
    pub fn set(&self, level: u64) {
        self.value.store(level.saturating_add(1), Ordering::Relaxed);
    }
}

/// Whether the policies in force are those in the files.
pub static POLICIES_CURRENT: Level = Level::new(
    "proxyrunner_policies_current",
    "1",
    "1 while the policies in force are those of --policy, 0 while its files cannot be read or are not valid.",
);

/// The refresh of the oldest key set.
pub static AUTH_KEYS_REFRESHED: Level = Level::new(
    "proxyrunner_auth_keys_refreshed_time_seconds",
    "s",
    "Last successful refresh of the issuers' key sets, in seconds since the Unix epoch: of the set that was refreshed longest ago, or the start of proxyrunner if an issuer has none yet.",
);

/// The end of the period of the certificate that new connections get.
pub static TLS_EXPIRY: Level = Level::new(
    "proxyrunner_tls_certificate_expiry_seconds",
    "s",
    "Time at which the certificate of --tls-cert in use expires, in seconds since the Unix epoch.",
);

/// The gateways that know this sidecar.
pub static REGISTERED_AT: Level = Level::new(
    "proxyrunner_registered_gateways",
    "1",
    "Gateways at which this sidecar is registered (--register).",
);

/// The servers of the registry that a gateway mirrors.
pub static MIRRORED: Level = Level::new(
    "proxyrunner_mirrored_servers",
    "1",
    "Servers of the registry that this gateway mirrors (--register), with those that its own ones hide.",
);

/// Whether there is a connection to Redis.
pub static REDIS_CONNECTED: Level = Level::new(
    "proxyrunner_redis_connected",
    "1",
    "1 while there is a connection to Redis (--redis), else 0.",
);

/// All levels.
static LEVELS: &[&Level] =
    &[&AUTH_KEYS_REFRESHED, &TLS_EXPIRY, &POLICIES_CURRENT, &REGISTERED_AT, &MIRRORED, &REDIS_CONNECTED];

/// Returns all counters and levels as metrics.
pub(super) fn families() -> impl Iterator<Item = Family> {
    let counters = ALL.iter().map(|counter| {
        let Counter { name, help, .. } = counter;
        let definition = Definition { name, convention: None, unit: "1", kind: MetricKind::Counter, help };
        definition.alone(Value::Count(counter.value()))
    });
    // A level that is not set has no sample, but its name is exposed, so that rules on it can be checked.
    let levels = LEVELS.iter().map(|level| match level.value.load(Ordering::Relaxed).checked_sub(1) {
        Some(level_now) => level.definition.alone(Value::Count(level_now)),
        None => level.definition.family(Vec::new()),
    });
    counters.chain(GROUPS.iter().map(|group| group.family())).chain(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_unique_name() {
        let mut names: Vec<_> = ALL.iter().map(|counter| counter.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
