//! Metrics: how long operations, sessions and waits took, what the processes take, and all that is counted. What they are
//! is defined here, in one table; [`gather`] reads them.

mod exposition;
mod family;
mod histogram;
pub mod labels;
mod operations;
pub mod usage;

pub use exposition::{Format, write};
pub use family::{Definition, Family, Kind, Sample, Value};
pub use histogram::{Bounds, CONVENTION, Distribution, Exemplar, Histogram};

use super::{clock, counters};
use crate::trace_context::Context;
use histogram::FINE;
use labels::{Labels, Method, PROMPTS, Revision, Side, TOOLS};
use operations::Operations;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

static OPERATIONS: LazyLock<Operations> = LazyLock::new(Operations::default);
static SESSIONS: LazyLock<Operations> = LazyLock::new(Operations::default);
static QUEUED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(&FINE));
static ROUTED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(&FINE));
static KEPT: AtomicBool = AtomicBool::new(false);
static EXEMPLARS: AtomicBool = AtomicBool::new(false);
static STARTED: OnceLock<u64> = OnceLock::new();

/// From now on operations are counted, with the traces of some as exemplars if those are wanted.
pub fn keep(exemplars: bool) {
    started();
    EXEMPLARS.store(exemplars, Ordering::Relaxed);
    KEPT.store(true, Ordering::Relaxed);
}

/// Whether operations are counted.
#[inline]
pub fn are_kept() -> bool {
    KEPT.load(Ordering::Relaxed)
}

/// Since when counters have grown, in nanoseconds since 1970.
pub fn started() -> u64 {
    *STARTED.get_or_init(clock::unix_nanos)
}

/// This moment, in nanoseconds since 1970.
pub fn now() -> u64 {
    clock::unix_nanos()
}

/// An operation is over that took so many nanoseconds; `span` is where, if that is recorded.
#[inline(always)]
pub fn operation(labels: Labels, took: u64, span: Option<&Context>) {
    OPERATIONS.record(labels, took, exemplar(span));
}

/// A request is over, of which so many nanoseconds were a wait and so many neither that nor the child's.
#[inline]
pub fn request(waited: u64, routed: u64, span: Option<&Context>) {
    if waited > 0 {
        QUEUED.record(waited, exemplar(span));
    }
    ROUTED.record(routed, exemplar(span));
}

fn exemplar(span: Option<&Context>) -> Option<&Context> {
    span.filter(|_| EXEMPLARS.load(Ordering::Relaxed))
}

/// A session is over: a client's, or that with a child.
pub fn session(side: Side, revision: Revision, took: Duration) {
    if !are_kept() {
        return;
    }
    let labels =
        Labels { side, method: Method::default(), target: Default::default(), error: None, revision };
    SESSIONS.record(labels, clock::nanos(took), None);
}

/// What only others know: how many there are of something now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Connections of clients.
    pub connections: usize,
    /// Sessions of clients.
    pub sessions: usize,
    /// Children.
    pub children: usize,
    /// Requests at a child.
    pub in_flight: usize,
    /// Requests that wait for their turn.
    pub queued: usize,
    /// Requests that wait for a modern client's retry.
    pub parked: usize,
    /// Bytes of messages in transit.
    pub buffered: usize,
    /// Message bytes kept outside of the budget.
    pub unbudgeted: usize,
    /// The limit of `children`.
    pub most_children: usize,
    /// The limit of `in_flight`.
    pub most_in_flight: usize,
    /// The limit of `buffered`.
    pub most_buffered: usize,
    /// Whether the server has completed its handshake.
    pub ready: bool,
}

macro_rules! definitions {
    ($($ident:ident $kind:ident $name:literal $convention:expr, $unit:literal $help:literal)*) => {
        $(const $ident: Definition = Definition {
            name: $name, convention: $convention, unit: $unit, kind: Kind::$kind, help: $help,
        };)*
    };
}

definitions! {
    SERVER_OPERATIONS Histogram "mcp_server_operation_duration_seconds" Some("mcp.server.operation.duration"), "s"
        "How long messages of clients took, from their arrival to their answer."
    CLIENT_OPERATIONS Histogram "mcp_client_operation_duration_seconds" Some("mcp.client.operation.duration"), "s"
        "How long the child took for a message, from its turn to the child's answer; with the time in which its client was asked."
    SERVER_SESSIONS Histogram "mcp_server_session_duration_seconds" Some("mcp.server.session.duration"), "s"
        "How long sessions of clients lasted that are over."
    CLIENT_SESSIONS Histogram "mcp_client_session_duration_seconds" Some("mcp.client.session.duration"), "s"
        "How long children served that have ended."
    TOOL_REQUESTS Counter "mcp_tool_requests_total" None, "{request}"
        "Calls of tools that are over, by tool."
    TOOL_ERRORS Counter "mcp_tool_errors_total" None, "{request}"
        "Calls of tools that failed, by tool and by what went wrong."
    TOOL_DURATION Histogram "mcp_tool_duration_seconds" None, "s"
        "How long calls of tools took, by tool."
    DISCOVERY_REQUESTS Counter "mcp_discovery_requests_total" None, "{request}"
        "Handshakes and requests for lists that are over, by method."
    DISCOVERY_FAILURES Counter "mcp_discovery_failures_total" None, "{request}"
        "Those of them that failed, by method and by what went wrong."
    ACTIVE_SESSIONS Gauge "mcp_active_sessions" None, "{session}"
        "Sessions of clients that are open now."
    SESSION_DURATION Histogram "mcp_session_duration_seconds" None, "s"
        "How long sessions of clients lasted that are over, of all revisions together."
    QUEUE_DURATION Histogram "proxyrunner_queue_duration_seconds" None, "s"
        "How long requests waited that had to: for their turn, or for a child."
    ROUTING_DURATION Histogram "proxyrunner_routing_duration_seconds" None, "s"
        "How long messages took in proxyrunner itself: all but waits for a turn or for a shared child, and the child's time. A server that is started for one call, and a client that is asked, are in it."
    READY Gauge "proxyrunner_ready" None, "1"
        "1 while a server has completed its handshake and serves, else 0."
    CONNECTIONS Gauge "proxyrunner_connections" None, "{connection}"
        "Connections open now."
    OPEN_SESSIONS Gauge "proxyrunner_sessions" None, "{session}"
        "Sessions open now."
    CHILDREN Gauge "proxyrunner_children" None, "{child}"
        "Children that run, start or end now."
    IN_FLIGHT Gauge "proxyrunner_in_flight" None, "{request}"
        "Requests at a child now, cancelled ones included."
    QUEUED_NOW Gauge "proxyrunner_queued" None, "{request}"
        "Requests that wait for a place or for a child now."
    PARKED Gauge "proxyrunner_parked" None, "{request}"
        "Requests that wait for a modern client's answer now."
    BUFFERED Gauge "proxyrunner_buffered_bytes" None, "By"
        "Bytes of messages in transit and of the requests that carry them, among --max-buffered."
    CHILDREN_LIMIT Gauge "proxyrunner_children_limit" None, "{child}"
        "Children that may run: --max-children."
    IN_FLIGHT_LIMIT Gauge "proxyrunner_in_flight_limit" None, "{request}"
        "Requests that may be at a child: --max-in-flight."
    BUFFERED_LIMIT Gauge "proxyrunner_buffered_limit_bytes" None, "By"
        "Bytes at which request bodies wait for room: --max-buffered without the reserve for small messages."
    UNBUDGETED Gauge "proxyrunner_unbudgeted_bytes" None, "By"
        "Message bytes outside of --max-buffered: ids, tokens, and proxyrunner's own messages, each of limited size."
    CHILD_CPU Counter "proxyrunner_child_cpu_seconds_total" None, "s"
        "CPU time of all children, with what they started and with those that have ended."
    CHILD_MEMORY Gauge "proxyrunner_child_resident_memory_bytes" None, "By"
        "Resident memory of all children, with what they started."
    CHILD_FILES Gauge "proxyrunner_child_open_fds" None, "{file}"
        "Files that all children have open, with what they started."
    CHILD_PROCESSES Gauge "proxyrunner_child_processes" None, "{process}"
        "Processes of all children, with what they started."
    CHILD_START Gauge "proxyrunner_child_start_time_seconds" None, "s"
        "When the child that runs longest was started, in seconds since 1970."
    OWN_CPU Counter "process_cpu_seconds_total" None, "s"
        "CPU time of proxyrunner itself."
    OWN_MEMORY Gauge "process_resident_memory_bytes" None, "By"
        "Resident memory of proxyrunner itself."
    OWN_FILES Gauge "process_open_fds" None, "{file}"
        "Files that proxyrunner itself has open."
    OWN_START Gauge "process_start_time_seconds" None, "s"
        "When proxyrunner was started, in seconds since 1970."
    BUILD Gauge "proxyrunner_build_info" None, "1"
        "1, with the version as a label."
}

/// Reserved for the outcomes of authentication, by outcome: nothing counts them yet, and nothing else will have this name.
pub const RESERVED: &str = "mcp_auth_requests_total";

/// Every metric as it is now.
pub fn gather(levels: Levels) -> Vec<Family> {
    let mut families = operation_families(&OPERATIONS.read());
    families.extend(session_families(&SESSIONS.read()));
    let number = |definition: Definition, value: usize| definition.alone(Value::Count(value as u64));
    families.extend([
        number(ACTIVE_SESSIONS, levels.sessions),
        QUEUE_DURATION.alone(Value::Distribution(Box::new(QUEUED.read()))),
        ROUTING_DURATION.alone(Value::Distribution(Box::new(ROUTED.read()))),
        number(READY, levels.ready.into()),
        number(CONNECTIONS, levels.connections),
        number(OPEN_SESSIONS, levels.sessions),
        number(CHILDREN, levels.children),
        number(IN_FLIGHT, levels.in_flight),
        number(QUEUED_NOW, levels.queued),
        number(PARKED, levels.parked),
        number(BUFFERED, levels.buffered),
        number(CHILDREN_LIMIT, levels.most_children),
        number(IN_FLIGHT_LIMIT, levels.most_in_flight),
        number(BUFFERED_LIMIT, levels.most_buffered),
        number(UNBUDGETED, levels.unbudgeted),
    ]);
    families.extend(process_families());
    families.extend(counters::families());
    families
}

fn operation_families(operations: &[(Labels, Distribution)]) -> Vec<Family> {
    let mut all: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    let mut tools: BTreeMap<&str, Distribution> = BTreeMap::new();
    let mut discoveries: BTreeMap<&str, u64> = BTreeMap::new();
    for (labels, values) in operations {
        let definition = if labels.side == Side::Server { SERVER_OPERATIONS } else { CLIENT_OPERATIONS };
        let value = Value::Distribution(Box::new(values.clone()));
        let sample = Sample { labels: operation_labels(labels), value };
        all.entry(definition.name).or_default().push(sample);
        let (error, count) = (labels.error, Value::Count(values.count()));
        if labels.side == Side::Server && labels.method.is_tool_call() {
            let tool = TOOLS.name(labels.target);
            if let Some(error) = error {
                let labels = vec![("tool", tool.into()), ("error_type", error.name().into())];
                all.entry(TOOL_ERRORS.name).or_default().push(Sample { labels, value: count });
            }
            tools.entry(tool).or_insert_with(|| Distribution::empty(&CONVENTION)).add(values);
        } else if labels.side == Side::Server && labels.method.is_discovery() {
            let method = labels.method.name();
            if let Some(error) = error {
                let labels = vec![("method", method.into()), ("error_type", error.name().into())];
                all.entry(DISCOVERY_FAILURES.name).or_default().push(Sample { labels, value: count });
            }
            *discoveries.entry(method).or_default() += values.count();
        }
    }
    let of_tool = |(tool, values): (&str, &Distribution), whole: bool| Sample {
        labels: vec![("tool", tool.to_owned().into())],
        value: match whole {
            true => Value::Distribution(Box::new(values.clone())),
            false => Value::Count(values.count()),
        },
    };
    let requests = tools.iter().map(|(tool, values)| of_tool((tool, values), false)).collect();
    let durations = tools.iter().map(|(tool, values)| of_tool((tool, values), true)).collect();
    let discovered = discoveries.into_iter().map(|(method, count)| Sample {
        labels: vec![("method", method.into())],
        value: Value::Count(count),
    });
    let discovered = discovered.collect();
    let mut taken =
        |definition: Definition| definition.family(merged(all.remove(definition.name).unwrap_or_default()));
    vec![
        taken(SERVER_OPERATIONS),
        taken(CLIENT_OPERATIONS),
        TOOL_REQUESTS.family(requests),
        taken(TOOL_ERRORS),
        TOOL_DURATION.family(durations),
        DISCOVERY_REQUESTS.family(discovered),
        taken(DISCOVERY_FAILURES),
    ]
}

/// Samples of the same labels, which differ in what these do not tell, together.
fn merged(samples: Vec<Sample>) -> Vec<Sample> {
    let mut merged: BTreeMap<Vec<(&'static str, Cow<'static, str>)>, Value> = BTreeMap::new();
    for Sample { labels, value } in samples {
        match (merged.get_mut(&labels), value) {
            (Some(Value::Count(sum)), Value::Count(more)) => *sum += more,
            (Some(Value::Distribution(sum)), Value::Distribution(more)) => sum.add(&more),
            (_, value) => drop(merged.insert(labels, value)),
        }
    }
    merged.into_iter().map(|(labels, value)| Sample { labels, value }).collect()
}

/// As the conventions have them (gen-ai/mcp.md §Metrics).
fn operation_labels(labels: &Labels) -> Vec<(&'static str, Cow<'static, str>)> {
    use super::names;
    let mut all: Vec<(&'static str, Cow<'static, str>)> = vec![(names::METHOD, labels.method.name().into())];
    if labels.method.is_tool_call() {
        all.push((names::TOOL, TOOLS.name(labels.target).into()));
        all.push((names::OPERATION, "execute_tool".into()));
    } else if labels.method.is_prompt() {
        all.push((names::PROMPT, PROMPTS.name(labels.target).into()));
    }
    if let Some(error) = labels.error.map(labels::ErrorType::name) {
        all.push((names::ERROR, error.into()));
        if error.starts_with('-') {
            all.push((names::STATUS, error.into()));
        }
    }
    // Before the end of a handshake there is none.
    if labels.revision != Revision::default() {
        all.push((names::PROTOCOL, labels.revision.name().into()));
    }
    match labels.side {
        Side::Server => all.extend([
            (names::TRANSPORT, "tcp".into()),
            (names::NETWORK, "http".into()),
            (names::NETWORK_VERSION, "1.1".into()),
        ]),
        Side::Client => all.push((names::TRANSPORT, "pipe".into())),
    }
    all
}

fn session_families(sessions: &[(Labels, Distribution)]) -> Vec<Family> {
    let of = |side: Side| {
        let own = sessions.iter().filter(move |(labels, _)| labels.side == side);
        own.map(|(labels, values)| Sample {
            labels: vec![(super::names::PROTOCOL, labels.revision.name().into())],
            value: Value::Distribution(Box::new(values.clone())),
        })
        .collect()
    };
    let mut together = Distribution::empty(&CONVENTION);
    let own = sessions.iter().filter(|(labels, _)| labels.side == Side::Server);
    own.for_each(|(_, values)| together.add(values));
    vec![
        SERVER_SESSIONS.family(of(Side::Server)),
        CLIENT_SESSIONS.family(of(Side::Client)),
        SESSION_DURATION.alone(Value::Distribution(Box::new(together))),
    ]
}

fn process_families() -> Vec<Family> {
    let (children, own) = (usage::of_servers(), usage::of_proxyrunner());
    let seconds = |definition: Definition, value: f64| definition.alone(Value::Number(value));
    let count = |definition: Definition, value: u64| definition.alone(Value::Count(value));
    let start =
        usage::servers_started().map(|started| Sample { labels: Vec::new(), value: Value::Number(started) });
    let version = vec![("version", env!("CARGO_PKG_VERSION").into())];
    vec![
        seconds(CHILD_CPU, children.cpu.as_secs_f64()),
        count(CHILD_MEMORY, children.memory),
        count(CHILD_FILES, children.files),
        count(CHILD_PROCESSES, children.processes),
        CHILD_START.family(start.into_iter().collect()),
        seconds(OWN_CPU, own.cpu.as_secs_f64()),
        count(OWN_MEMORY, own.memory),
        count(OWN_FILES, own.files),
        seconds(OWN_START, started() as f64 / 1e9),
        BUILD.family(vec![Sample { labels: version, value: Value::Count(1) }]),
    ]
}
