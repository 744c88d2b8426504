//! The definitions of all metrics except the counters in `counters.rs`.

use super::family::{Definition, MetricKind};

macro_rules! definitions {
    ($($ident:ident $kind:ident $name:literal $convention:expr, $unit:literal $help:literal)*) => {
        $(pub(super) const $ident: Definition = Definition {
            name: $name, convention: $convention, unit: $unit, kind: MetricKind::$kind, help: $help,
        };)*
    };
}

definitions! {
    SERVER_OPERATIONS Histogram "mcp_server_operation_duration_seconds" Some("mcp.server.operation.duration"), "s"
        "Duration of client messages, from arrival to answer."
    CLIENT_OPERATIONS Histogram "mcp_client_operation_duration_seconds" Some("mcp.client.operation.duration"), "s"
        "Duration of requests to a child, from their permit to the child's answer, including questions to the client."
    SERVER_SESSIONS Histogram "mcp_server_session_duration_seconds" Some("mcp.server.session.duration"), "s"
        "Duration of closed client sessions."
    CLIENT_SESSIONS Histogram "mcp_client_session_duration_seconds" Some("mcp.client.session.duration"), "s"
        "Duration of service of children that exited."
    TOOL_REQUESTS Counter "mcp_tool_requests_total" None, "{request}"
        "Completed tool calls, by tool."
    TOOL_ERRORS Counter "mcp_tool_errors_total" None, "{request}"
        "Failed tool calls, by tool and error type."
    TOOL_DURATION Histogram "mcp_tool_duration_seconds" None, "s"
        "Duration of tool calls, by tool."
    DISCOVERY_REQUESTS Counter "mcp_discovery_requests_total" None, "{request}"
        "Completed handshakes and list requests, by method."
    DISCOVERY_FAILURES Counter "mcp_discovery_failures_total" None, "{request}"
        "Failed handshakes and list requests, by method and error type."
    ACTIVE_SESSIONS Gauge "mcp_active_sessions" None, "{session}"
        "Open client sessions."
    SESSION_DURATION Histogram "mcp_session_duration_seconds" None, "s"
        "Duration of closed client sessions of all revisions."
    QUEUE_DURATION Histogram "proxyrunner_queue_duration_seconds" None, "s"
        "Time that queued requests waited for a permit or a child."
    ROUTING_DURATION Histogram "proxyrunner_routing_duration_seconds" None, "s"
        "Time messages spent in proxyrunner itself, without waiting for a permit or a shared child, and without the child's time. Starting a child for one call and questions to the client are included."
    READY Gauge "proxyrunner_ready" None, "1"
        "1 while a child that has completed its handshake is serving, else 0."
    CONNECTIONS Gauge "proxyrunner_connections" None, "{connection}"
        "Open client connections."
    OPEN_SESSIONS Gauge "proxyrunner_sessions" None, "{session}"
        "Open client sessions."
    CHILDREN Gauge "proxyrunner_children" None, "{child}"
        "Children that are starting, running or exiting."
    IN_FLIGHT Gauge "proxyrunner_in_flight" None, "{request}"
        "Requests in flight at children, including cancelled ones."
    QUEUED_NOW Gauge "proxyrunner_queued" None, "{request}"
        "Requests waiting for a permit or a child."
    PARKED Gauge "proxyrunner_parked" None, "{request}"
        "Requests waiting for a client's answer to a question."
    BUFFERED Gauge "proxyrunner_buffered_bytes" None, "By"
        "Bytes of buffered messages and of the requests that carry them, counted against --max-buffered."
    CHILDREN_LIMIT Gauge "proxyrunner_children_limit" None, "{child}"
        "Maximum number of children (--max-children)."
    IN_FLIGHT_LIMIT Gauge "proxyrunner_in_flight_limit" None, "{request}"
        "Maximum number of requests in flight (--max-in-flight)."
    BUFFERED_LIMIT Gauge "proxyrunner_buffered_limit_bytes" None, "By"
        "Buffered bytes at which request bodies wait: --max-buffered without the reserve for small messages."
    UNBUDGETED Gauge "proxyrunner_unbudgeted_bytes" None, "By"
        "Message bytes not counted against --max-buffered: ids, tokens and proxyrunner's own messages, each of limited size."
    CHILD_CPU Counter "proxyrunner_child_cpu_seconds_total" None, "s"
        "CPU time of all children and their descendants, including exited ones."
    CHILD_MEMORY Gauge "proxyrunner_child_resident_memory_bytes" None, "By"
        "Resident memory of all children and their descendants."
    CHILD_FILES Gauge "proxyrunner_child_open_fds" None, "{file}"
        "Open file descriptors of all children and their descendants."
    CHILD_PROCESSES Gauge "proxyrunner_child_processes" None, "{process}"
        "Processes of all children, including their descendants."
    CHILD_START Gauge "proxyrunner_child_start_time_seconds" None, "s"
        "Start time of the longest-running child in seconds since the Unix epoch."
    OWN_CPU Counter "process_cpu_seconds_total" None, "s"
        "CPU time of proxyrunner itself."
    OWN_MEMORY Gauge "process_resident_memory_bytes" None, "By"
        "Resident memory of proxyrunner itself."
    OWN_FILES Gauge "process_open_fds" None, "{file}"
        "Open file descriptors of proxyrunner itself."
    OWN_START Gauge "process_start_time_seconds" None, "s"
        "Start time of proxyrunner in seconds since the Unix epoch."
    BUILD Gauge "proxyrunner_build_info" None, "1"
        "Always 1, with the version as a label."
}

/// A name reserved for outcomes of authentication. No metric has it yet.
#[cfg(test)]
pub(in crate::telemetry) const RESERVED: &str = "mcp_auth_requests_total";
