//! The definitions of all metrics but the plain counters, which are in `counters.rs`.

use super::family::{Definition, Kind};

macro_rules! definitions {
    ($($ident:ident $kind:ident $name:literal $convention:expr, $unit:literal $help:literal)*) => {
        $(pub(super) const $ident: Definition = Definition {
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
