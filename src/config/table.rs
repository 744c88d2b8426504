//! The table of settings: every flag with its default and one line of help.
//!
//! The command line, the environment, the configuration file, `--help` and `docs/settings.md` are all made from it,
//! so a setting exists everywhere or nowhere.

pub use super::setting::{Arity, Fallback, Setting};
use super::setting::{absent, computed, many, many_lines, on, one, switch};
use std::fmt::Write as _;

/// Settings that `--help` and `docs/settings.md` show under one heading.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The settings, in the order in which they are shown.
    pub settings: &'static [Setting],
}

/// Flags that a configuration file cannot set.
pub(super) const NOT_IN_FILE: [&str; 2] = ["config", "check"];

/// Every setting.
pub const SETTINGS: &[Group] = &[
    Group {
        title: "HTTP",
        settings: &[
            one(
                "listen",
                "ADDRESS",
                "127.0.0.1:8080",
                "Address to listen on (:8080: every IPv4 interface; fd:3: inherited)",
            ),
            absent(
                "admin-listen",
                "ADDRESS",
                "Extra address for probes and /metrics, exempt from all limits",
            ),
            one("path", "PATH", "/mcp", "URL path of the MCP endpoint"),
            absent("public-url", "URL", "External URL, if an ingress rewrites the host or the path"),
            absent(
                "server-name",
                "NAMESPACE/NAME",
                "Name of the server in its card, e.g. com.example/time (unset: its own)",
            ),
            many("allow-origin", "ORIGIN", "Additional Origin to accept; *. matches any subdomain"),
            many("allow-host", "HOST", "Additional Host to accept; *. matches any subdomain"),
            absent(
                "principal-header",
                "NAME",
                "Header in which a trusted proxy names the caller; if set, required",
            ),
            many("trusted-proxy", "CIDR", "Proxy whose --principal-header and X-Forwarded-For are believed"),
            absent("auth-resource", "URL", "URL of the endpoint as clients know it (unset: --public-url)"),
            computed(
                "max-body",
                "SIZE",
                "64MiB, at most --max-buffered",
                "Maximum size of a request body; larger ones get 413",
            ),
            absent("tls-cert", "FILE", "Certificate chain in PEM format; with it, clients must speak TLS"),
            absent("tls-key", "FILE", "Private key of --tls-cert in PEM format"),
            absent("tls-client-ca", "FILE", "Authorities in PEM format; clients need a certificate of one"),
            one(
                "tls-client-name",
                "KIND",
                "spiffe",
                "Name in a client's certificate: spiffe, dns, email or subject",
            ),
            one(
                "max-streams",
                "COUNT",
                "100",
                "Maximum concurrent requests per HTTP/2 connection (0: no HTTP/2)",
            ),
            one("max-connections", "COUNT", "16384", "Maximum number of client connections"),
            one(
                "write-timeout",
                "DURATION",
                "60s",
                "Close a connection whose peer has read nothing for this long",
            ),
            one(
                "keep-alive-timeout",
                "DURATION",
                "620s",
                "Close a connection idle this long; set above the load balancer's limit",
            ),
        ],
    },
    Group {
        title: "Authorization",
        settings: &[
            absent("policy", "PATH", "File or directory with policies that decide on requests (Cedar)"),
            absent("policy-url", "URL", "Decision point to ask instead (ToolHive's httpv1)"),
            one("policy-timeout", "DURATION", "2s", "Maximum time for a decision of --policy-url; then deny"),
            absent("policy-server", "NAME", "Name of the server in policies, as parent of its tools"),
        ],
    },
    Group {
        title: "Authentication",
        settings: &[
            many_lines(
                "auth-issuer",
                "URL",
                "Issuer of access tokens; jwks=, typ= and others may follow its URL",
            ),
            many(
                "auth-audience",
                "VALUE",
                "Audience a token must have, e.g. the URL; required with an issuer",
            ),
            absent("auth-jwks", "URL|FILE", "Key set of the only issuer (unset: found by its metadata)"),
            many(
                "auth-algorithms",
                "NAME",
                "Signature algorithm to accept (unset: all of RS, PS, ES, EdDSA)",
            ),
            absent(
                "auth-ca",
                "FILE",
                "Certificate authorities of issuers, in PEM (unset: the built-in ones)",
            ),
            absent("auth-token-file", "FILE", "Bearer token for requests to issuers, e.g. that of the pod"),
            many("auth-scopes", "SCOPE", "Scope that every request needs"),
            many_lines(
                "auth-scope-implies",
                "SCOPE=SCOPES",
                "Scopes that a broader one covers: admin=read write",
            ),
            many("auth-scope-claim", "CLAIM", "Claim with the scopes (unset: scope, else scp)"),
            one("auth-groups-claim", "CLAIM", "groups", "Claim with the groups; a.b leads into objects"),
            one("auth-roles-claim", "CLAIM", "roles", "Claim with the roles; a.b leads into objects"),
            absent(
                "auth-introspection",
                "URL",
                "Introspection endpoint for opaque tokens; client= and secret= follow",
            ),
            absent("api-keys", "FILE", "YAML or JSON list of API keys: name, sha256, scopes, expires"),
            one(
                "auth-keys-max-age",
                "DURATION",
                "1d",
                "Maximum age of a key set whose issuer is unreachable",
            ),
            switch("auth-allow-private", "Let issuers' metadata name key sets at private addresses"),
            switch("auth-insecure-http", "Allow issuers with plain http that are not on this host"),
            switch("require-keys-at-start", "Exit if an issuer has no keys 30s after the start"),
        ],
    },
    Group {
        title: "Event streams",
        settings: &[
            computed(
                "sse-commit-after",
                "DURATION",
                "5s; 250ms for 2025-11-25",
                "Time to wait for a response before starting a stream (0s: no wait)",
            ),
            one(
                "sse-max-age",
                "DURATION",
                "15m",
                "Maximum age of an event stream that the client can resume",
            ),
            one(
                "sse-keep-alive",
                "DURATION",
                "15s",
                "Interval between keep-alive comments on a silent event stream",
            ),
            switch("sse", "Also serve the HTTP+SSE transport of 2024-11-05 (/sse, /messages)"),
        ],
    },
    Group {
        title: "Child process",
        settings: &[
            absent("connect", "unix:PATH", "Use the server at the socket of a proxyrunner shim, not COMMAND"),
            many_lines(
                "env",
                "NAME=VALUE",
                "Set a variable for the child; NAME alone copies proxyrunner's value",
            ),
            switch("env-clear", "Pass no variables to the child except those of --env and --env-file"),
            many_lines(
                "env-file",
                "PATH",
                "Set variables from a file of NAME=VALUE lines or a mounted folder",
            ),
            one(
                "on-env-change",
                "ACTION",
                "restart",
                "When a file of --env-file changes: restart the children or ignore it",
            ),
            one(
                "child-identity",
                "CHANNEL",
                "none",
                "Tell the child who calls: none, meta (params._meta) or env (variables)",
            ),
            many("child-identity-claims", "NAME", "Claim that the child learns besides iss (unset: sub)"),
            absent("cwd", "DIRECTORY", "Working directory of the child (unset: proxyrunner's own)"),
            computed(
                "max-frame",
                "SIZE",
                "64MiB, at most --max-buffered",
                "Maximum size of a child's message; a larger one fails its request",
            ),
            one("start-timeout", "DURATION", "5m", "Time a child has to start and complete its handshake"),
            one("child-era", "ERA", "auto", "Protocol era of the child: auto, legacy or modern (2026-07-28)"),
            one(
                "probe-timeout",
                "DURATION",
                "5s",
                "Time to wait for server/discover before trying initialize",
            ),
            one(
                "close-grace",
                "DURATION",
                "2s",
                "Time from closing a child's stdin to SIGTERM (0s: at once)",
            ),
            one("terminate-grace", "DURATION", "2s", "Time from SIGTERM to SIGKILL (0s: at once)"),
            absent("child-memory", "SIZE", "Maximum address space of the child (unset: inherited)"),
            absent("child-nofile", "COUNT", "Maximum number of open files of the child (unset: inherited)"),
            absent("child-nice", "NUMBER", "Niceness of the child, -20 (favored) to 19 (unset: inherited)"),
            absent("child-user", "USER", "User, name or number, to run the child as; requires root"),
            absent("child-group", "GROUP", "Group, name or number, to run the child as; requires root"),
            on("no-new-privileges", "Deny the child new privileges, e.g. by setuid (=false: allow them)"),
        ],
    },
    Group {
        title: "Restarts and health checks",
        settings: &[
            one(
                "restart-limit",
                "COUNT",
                "5",
                "Consecutive restarts before exiting with the child's code (0: never)",
            ),
            one(
                "restart-backoff",
                "DURATION",
                "500ms",
                "Delay before the first restart; doubles with each consecutive one",
            ),
            one("restart-backoff-max", "DURATION", "30s", "Maximum delay before a restart"),
            one(
                "restart-reset",
                "DURATION",
                "1m",
                "Uptime after which the count of consecutive restarts is reset",
            ),
            one(
                "restart-wait",
                "DURATION",
                "15s",
                "Time a request waits for a restarting child before it gets 503",
            ),
            switch("resume-sessions", "Keep a session when its own child restarts; stateless servers only"),
            one("ping-interval", "DURATION", "30s", "Interval between pings to an idle child (0s: disabled)"),
            one(
                "ping-timeout",
                "DURATION",
                "10s",
                "Time an idle child has to answer a ping before it is replaced",
            ),
        ],
    },
    Group {
        title: "Isolation",
        settings: &[
            one("isolation", "MODE", "auto", "Which clients share a child: auto, shared or session"),
            one("children", "COUNT", "1", "Number of shared children"),
            one("max-children", "COUNT", "32", "Maximum number of children, shared and exclusive together"),
            one("warm", "COUNT", "0", "Idle children kept ready for calls of 2026-07-28 clients (0: none)"),
            one(
                "evict-after",
                "DURATION",
                "1m",
                "Idle time before an exclusive child or a session may be evicted",
            ),
            one(
                "at-cap",
                "ACTION",
                "share",
                "At --max-children with no child to evict: share one, or refuse (503)",
            ),
            switch("forward-roots", "Send clients' roots to the child, which may then read more files"),
        ],
    },
    Group {
        title: "Requests",
        settings: &[
            one(
                "request-timeout",
                "DURATION",
                "5m",
                "Time without response or progress after which a request fails",
            ),
            one("request-max", "DURATION", "1h", "Maximum duration of a request, regardless of progress"),
            one(
                "cancel-grace",
                "DURATION",
                "10s",
                "Time a cancelled request without a response counts as in flight",
            ),
            absent(
                "cache-lists",
                "DURATION",
                "Lifetime of a legacy child's cached lists (unset: until list_changed)",
            ),
            one(
                "max-listens",
                "COUNT",
                "1024",
                "Maximum open subscriptions of modern clients; further ones get 503",
            ),
            one(
                "max-parked",
                "COUNT",
                "256",
                "Maximum requests that wait for a modern client's answer to a question",
            ),
            one("park-timeout", "DURATION", "10m", "Time a client has to answer a question from the child"),
            absent(
                "state-key-file",
                "FILE",
                "Key file for requestState, cursors, sessions (unset: random at start)",
            ),
        ],
    },
    Group {
        title: "Queues and memory",
        settings: &[
            one("max-in-flight", "COUNT", "4096", "Maximum requests in flight in total; further ones wait"),
            one(
                "max-client-in-flight",
                "COUNT",
                "256",
                "Maximum requests in flight per client; further ones wait",
            ),
            one(
                "max-child-in-flight",
                "COUNT",
                "1024",
                "Maximum requests in flight per child; further ones wait",
            ),
            one(
                "max-queued",
                "COUNT",
                "4096",
                "Maximum waiting requests, per child and in total (0: refuse at once)",
            ),
            one(
                "queue-timeout",
                "DURATION",
                "10s",
                "Maximum time a request waits for its turn before it gets 503",
            ),
            computed(
                "max-buffered",
                "SIZE",
                "256MiB, at most 40 % of the container's memory",
                "Maximum size of all messages in memory, replay buffers included",
            ),
        ],
    },
    Group {
        title: "Sessions",
        settings: &[
            one("session-idle", "DURATION", "30m", "Idle time after which a session ends"),
            one("session-max-age", "DURATION", "24h", "Maximum age of a session"),
            one(
                "max-sessions",
                "COUNT",
                "16384",
                "Maximum number of sessions; beyond it, an idle one may be evicted",
            ),
            absent(
                "forward-sessions",
                "IP",
                "Forward other replicas' sessions to them; the IP of this replica",
            ),
            one("replay-events", "COUNT", "256", "Events kept per session for clients that resume a stream"),
            computed(
                "replay-bytes",
                "SIZE",
                "4MiB, at most --max-buffered",
                "Size of the events kept per session for clients that resume a stream",
            ),
        ],
    },
    Group {
        title: "Shutdown",
        settings: &[
            computed(
                "drain-delay",
                "DURATION",
                "0s; 5s in Kubernetes",
                "Time to keep serving after SIGTERM while endpoints are removed",
            ),
            computed(
                "drain-timeout",
                "DURATION",
                "3s; 17s in Kubernetes",
                "Time after --drain-delay for requests in flight to finish",
            ),
        ],
    },
    Group {
        title: "Logs, metrics and traces",
        settings: &[
            one("log-format", "FORMAT", "text", "Format of log lines: text or json"),
            one("log-level", "LEVEL", "info", "Minimum severity: error, warn, info, debug or off"),
            switch("access-log", "Log one line for each client message, when it is finished"),
            one(
                "child-log-rate",
                "COUNT",
                "100",
                "Lines logged per second from stderr and from invalid stdout (0: all)",
            ),
            switch("expose-stderr", "Show a child's last stderr lines to clients and probes (development)"),
            on("metrics", "Record count and duration of operations for /metrics (=false: off)"),
            many("allow-baggage", "KEY", "Baggage key to pass from clients to the child (*: all)"),
            switch("trace-arguments", "Record tool arguments in spans, redacted"),
            switch("trace-results", "Record tool results in spans, redacted"),
            many("redact", "KEY", "Additional key whose values are redacted in spans"),
        ],
    },
    Group {
        title: "Rate limits",
        settings: &[
            absent(
                "rate-limits",
                "FILE",
                "Rate limits in ToolHive's form, YAML or JSON; read again when changed",
            ),
            absent(
                "rate-limit-address",
                "COUNT/DURATION",
                "Requests per client address before authentication",
            ),
            absent("max-calls-per-principal", "COUNT", "Maximum calls of one caller at the same time"),
        ],
    },
    Group {
        title: "Audit",
        settings: &[
            absent("audit", "FILE", "Audit log: a file, - for stdout, or otlp for the log collector"),
            computed(
                "audit-component",
                "NAME",
                "OTEL_SERVICE_NAME, else the name of COMMAND",
                "Name of the server in audit events",
            ),
            switch("audit-content", "Include redacted arguments and results, at most 1 KiB of each"),
            absent("audit-key-file", "FILE", "File with the key that signs checkpoints of the audit log"),
            absent("audit-max-size", "SIZE", "Size at which the audit file is rotated (unset: never)"),
            one("audit-keep", "COUNT", "5", "Number of rotated audit files to keep"),
            one(
                "audit-on-failure",
                "ACTION",
                "deny",
                "While the audit log cannot be written: block, deny or drop",
            ),
            one(
                "audit-fsync",
                "WHEN",
                "interval",
                "Force audit lines to disk: always, interval (1s) or never",
            ),
        ],
    },
    Group {
        title: "Gateway",
        settings: &[
            absent("servers", "FILE", "JSON or YAML file with mcpServers, for the command gateway"),
            absent(
                "servers-ca",
                "FILE",
                "Authorities of servers and of other replicas, in PEM (unset: built-in)",
            ),
            absent("gateway-key", "FILE", "Ed25519 key that signs tokens for servers (unset: a random one)"),
            switch("search-tools", "At /mcp, list search_tools and call_tool in place of all tools"),
        ],
    },
    Group {
        title: "Registration",
        settings: &[
            absent("register", "URL", "Gateway at which to register; for a gateway, the registry to mirror"),
            absent(
                "register-url",
                "URL",
                "URL of this server for the gateway (unset: --public-url, --listen)",
            ),
            absent("register-token-file", "FILE", "Bearer token for the gateway, e.g. that of the pod"),
            absent("register-ca", "FILE", "Certificate authorities of the gateway, in PEM (unset: built-in)"),
        ],
    },
    Group {
        title: "Shared state",
        settings: &[
            absent("redis", "URL", "Redis or Valkey whose state replicas share, e.g. redis://redis:6379"),
            absent("redis-password-file", "FILE", "Password for Redis; read again for each connection"),
            absent("redis-ca", "FILE", "Certificate authorities of Redis, in PEM (unset: the built-in ones)"),
            one("redis-prefix", "TEXT", "proxyrunner:", "Begin of all keys in Redis"),
        ],
    },
    Group {
        title: "Configuration",
        settings: &[
            one(
                "reload-interval",
                "DURATION",
                "10s",
                "Interval between checks whether a mounted file, such as a key, changed",
            ),
            absent("config", "FILE", "Read settings from a YAML or JSON file with the same names"),
            switch("check", "Validate the settings, print the effective values and exit"),
        ],
    },
];

/// Returns every setting, in the order of the groups.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().flat_map(|group| group.settings)
}

/// Returns the setting with this flag.
pub fn find(flag: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.flag == flag)
}

/// Returns the tables of `docs/settings.md`, one for each group.
pub fn markdown_table() -> String {
    let mut out = String::new();
    for group in SETTINGS {
        let _ =
            write!(out, "\n## {}\n\n| flag | default | description |\n| --- | --- | --- |\n", group.title);
        for setting in group.settings {
            let value = if setting.arity == Arity::Switch { "" } else { setting.value };
            let flag = format!("--{} {value}", setting.flag);
            let default = setting.default_words().unwrap_or_default();
            let again = if matches!(setting.arity, Arity::Many { .. }) { "; may repeat" } else { "" };
            let _ = writeln!(out, "| `{}` | {default} | {}{again} |", flag.trim_end(), setting.help);
        }
    }
    out
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
