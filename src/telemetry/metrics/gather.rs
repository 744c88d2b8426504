//! Takes a snapshot of every metric.

use super::definitions::*;
use super::family::{Definition, Family, Sample, Value};
use super::histogram::{CONVENTION, Distribution};
use super::labels::{ErrorType, Labels, PROMPTS, Revision, Side, TOOLS};
use super::recording::{OPERATIONS, QUEUED, REDIS, ROUTED, SESSIONS, started};
use super::{counters, limits, usage};
use crate::telemetry::names;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Current levels, which other modules provide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Open client connections.
    pub connections: usize,
    /// Open client sessions.
    pub sessions: usize,
    /// Running children.
    pub children: usize,
    /// Requests in flight at children.
    pub in_flight: usize,
    /// Requests waiting for a permit or a child.
    pub queued: usize,
    /// Requests waiting for a client's answer to a question.
    pub parked: usize,
    /// Bytes of messages in transit.
    pub buffered: usize,
    /// Message bytes outside the budget.
    pub unbudgeted: usize,
    /// The limit of `children`.
    pub most_children: usize,
    /// The limit of `in_flight`.
    pub most_in_flight: usize,
    /// The limit of `buffered`.
    pub most_buffered: usize,
    /// Buckets of rate limits in memory.
    pub rate_limit_buckets: usize,
    /// The number of the last line in the audit log.
    pub audit_seq: u64,
    /// Whether a child has completed its handshake.
    pub ready: bool,
}

/// Returns a snapshot of every metric.
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
        limits::family(),
        number(RATE_LIMIT_BUCKETS, levels.rate_limit_buckets),
        REDIS_DURATION.alone(Value::Distribution(Box::new(REDIS.read()))),
        AUDIT_SEQ.alone(Value::Count(levels.audit_seq)),
    ]);
    families.extend(gateway_families());
    families.extend(process_families());
    families.extend(counters::families());
    families
}

#[cfg(feature = "gateway")]
fn gateway_families() -> [Family; 3] {
    super::gateway::families()
}

/// Every build has the same metrics.
#[cfg(not(feature = "gateway"))]
fn gateway_families() -> [Family; 3] {
    [GATEWAY_REQUESTS, GATEWAY_LATENCY, GATEWAY_REPLICAS].map(|definition| definition.family(Vec::new()))
}

fn operation_families(operations: &[(Labels, Distribution)]) -> Vec<Family> {
    let mut all: Vec<(&str, Sample)> = Vec::new();
    let mut put =
        |definition: Definition, labels, value| all.push((definition.name, Sample { labels, value }));
    for (labels, values) in operations {
        let definition = if labels.side == Side::Server { SERVER_OPERATIONS } else { CLIENT_OPERATIONS };
        let whole = || Value::Distribution(Box::new(values.clone()));
        let count = || Value::Count(values.count());
        put(definition, operation_labels(labels), whole());
        let error = labels.error.map(|error| ("error_type", error.name().into()));
        if labels.side == Side::Server && labels.method.is_tool_call() {
            let tool = || ("tool", TOOLS.name(labels.target).into());
            if let Some(error) = error {
                put(TOOL_ERRORS, vec![tool(), error], count());
            }
            put(TOOL_REQUESTS, vec![tool()], count());
            put(TOOL_DURATION, vec![tool()], whole());
        } else if labels.side == Side::Server && labels.method.is_discovery() {
            let method = || ("method", labels.method.name().into());
            if let Some(error) = error {
                put(DISCOVERY_FAILURES, vec![method(), error], count());
            }
            put(DISCOVERY_REQUESTS, vec![method()], count());
        }
    }
    let families = [
        SERVER_OPERATIONS,
        CLIENT_OPERATIONS,
        TOOL_REQUESTS,
        TOOL_ERRORS,
        TOOL_DURATION,
        DISCOVERY_REQUESTS,
        DISCOVERY_FAILURES,
    ];
    let mut taken = |definition: Definition| {
        let own = |(name, _): &(&str, Sample)| *name == definition.name;
        let (own, others): (Vec<_>, _) = std::mem::take(&mut all).into_iter().partition(own);
        all = others;
        definition.family(merged(own.into_iter().map(|(_, sample)| sample).collect()))
    };
    families.into_iter().map(&mut taken).collect()
}

/// Merges samples with the same labels.
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

/// Returns the labels of the conventions (gen-ai/mcp.md §Metrics).
fn operation_labels(labels: &Labels) -> Vec<(&'static str, Cow<'static, str>)> {
    let mut all: Vec<(&'static str, Cow<'static, str>)> = vec![(names::METHOD, labels.method.name().into())];
    if labels.method.is_tool_call() {
        all.push((names::TOOL, TOOLS.name(labels.target).into()));
        all.push((names::OPERATION, "execute_tool".into()));
    } else if labels.method.is_prompt() {
        all.push((names::PROMPT, PROMPTS.name(labels.target).into()));
    }
    if let Some(error) = labels.error.map(ErrorType::name) {
        all.push((names::ERROR, error.into()));
        if error.starts_with('-') {
            all.push((names::STATUS, error.into()));
        }
    }
    // The revision is unknown before the handshake is complete.
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
            labels: vec![(names::PROTOCOL, labels.revision.name().into())],
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
    let (children, own) = (usage::of_children(), usage::of_proxyrunner());
    let seconds = |definition: Definition, value: f64| definition.alone(Value::Number(value));
    let count = |definition: Definition, value: u64| definition.alone(Value::Count(value));
    let start = usage::oldest_child_start()
        .map(|started| Sample { labels: Vec::new(), value: Value::Number(started) });
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
