//! The table of settings: every flag's name, default and one line of help.
//!
//! The command line, the environment, the configuration file, `--help` and the README are all made from it,
//! so a setting exists everywhere or nowhere.

use std::fmt::Write as _;

/// How many values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one value; the last one typed wins.
    One,
    /// Nothing, which means yes, or `=true`, `=false`.
    Switch,
    /// A list: the flag repeats, a file gives a list, the environment gives one item a line.
    Many {
        /// Whether the environment may separate items by commas too.
        commas: bool,
    },
}

/// What holds when a setting is given nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A value, read as if it had been typed.
    Value(&'static str),
    /// Depends on something else, as these words tell.
    Computed(&'static str),
    /// Nothing.
    Absent,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, and the key in a file.
    pub flag: &'static str,
    /// What stands for the value in help.
    pub value: &'static str,
    /// What holds when it is not given.
    pub fallback: Fallback,
    /// How many values it takes.
    pub arity: Arity,
    /// One line of help.
    pub help: &'static str,
}

/// Settings that `--help` and the README show together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The settings, in the order they are shown.
    pub settings: &'static [Setting],
}

/// Flags that only make sense outside a file.
pub(super) const NOT_IN_FILE: [&str; 2] = ["config", "check"];

/// Every setting.
pub const SETTINGS: &[Group] = &[
    Group {
        title: "Serving",
        settings: &[
            one("listen", "ADDRESS", "127.0.0.1:8080", "Where to listen; :8080 is every IPv4 interface"),
            absent(
                "admin-listen",
                "ADDRESS",
                "Additional listener for probes and /metrics only, outside of all limits",
            ),
            one("path", "PATH", "/mcp", "Where the MCP endpoint is"),
            absent("public-url", "URL", "External URL behind an ingress that rewrites the host or the path"),
            many("allow-origin", "ORIGIN", "Additional origin allowed to call; *. matches any subdomain"),
            many("allow-host", "HOST", "Additional Host header to accept; *. matches any subdomain"),
            absent(
                "principal-header",
                "NAME",
                "Header in which a trusted proxy names the principal; then required",
            ),
            computed(
                "max-body",
                "SIZE",
                "64MiB, at most --max-buffered",
                "The largest request body; larger ones get 413",
            ),
            one("max-connections", "COUNT", "16384", "Connections served at once"),
            one("write-timeout", "DURATION", "60s", "Cut a peer that has taken nothing for so long"),
            one(
                "keep-alive-timeout",
                "DURATION",
                "620s",
                "Idle time before a connection is closed; exceed the load balancer's",
            ),
        ],
    },
    Group {
        title: "Streams",
        settings: &[
            computed(
                "sse-commit-after",
                "DURATION",
                "5s; 250ms for 2025-11-25",
                "Start an event stream for a child that is quiet for so long",
            ),
            one(
                "sse-max-age",
                "DURATION",
                "15m",
                "Close a stream after so long, where the client can resume it",
            ),
            one("sse-keep-alive", "DURATION", "15s", "Send a comment on a stream silent for so long"),
            switch("sse", "Serve the HTTP+SSE transport of 2024-11-05 too, at /sse and /messages"),
        ],
    },
    Group {
        title: "Child",
        settings: &[
            many_lines(
                "env",
                "NAME=VALUE",
                "Set a variable for the child; NAME alone passes proxyrunner's own on",
            ),
            switch("env-clear", "Start the child with no variables but those of --env"),
            absent("cwd", "DIRECTORY", "The child's working directory"),
            computed(
                "max-frame",
                "SIZE",
                "64MiB, at most --max-buffered",
                "The largest message from a child; larger ones fail their request",
            ),
            one("start-timeout", "DURATION", "5m", "How long a child may take until it can serve"),
            one(
                "child-era",
                "ERA",
                "auto",
                "The protocol era of the child: legacy, modern (2026-07-28), or auto to find out",
            ),
            one("probe-timeout", "DURATION", "5s", "Silence after which a child may be of the legacy era"),
            one("close-grace", "DURATION", "2s", "Time from closing a child's stdin to SIGTERM"),
            one("terminate-grace", "DURATION", "2s", "Time from SIGTERM to SIGKILL"),
            absent("child-memory", "SIZE", "The most address space that the child may take"),
            absent("child-nofile", "COUNT", "Files that the child may have open"),
            absent("child-nice", "NUMBER", "How the child is scheduled: -20, favoured, to 19"),
            absent("child-user", "USER", "Run the child as this user, a name or a number; needs root"),
            absent("child-group", "GROUP", "Run the child in this group, a name or a number; needs root"),
            on("no-new-privileges", "Keep the child from gaining privileges, as by setuid programs"),
        ],
    },
    Group {
        title: "Supervision",
        settings: &[
            one(
                "restart-limit",
                "COUNT",
                "5",
                "Restart a child so often in a row, then exit with its code; 0 exits at once",
            ),
            one(
                "restart-backoff",
                "DURATION",
                "500ms",
                "The first pause before a restart; it doubles each time",
            ),
            one("restart-backoff-max", "DURATION", "30s", "The longest pause before a restart"),
            one("restart-reset", "DURATION", "1m", "A child that served for so long starts a new row"),
            one("restart-wait", "DURATION", "15s", "How long a request waits for a child that is restarting"),
            switch(
                "resume-sessions",
                "Replace a session's own child too: only for servers that keep nothing of a session",
            ),
            one(
                "ping-interval",
                "DURATION",
                "30s",
                "Ask a child that is idle so often whether it is alive; 0s never",
            ),
            one(
                "ping-timeout",
                "DURATION",
                "10s",
                "A child that is silent for so long after that is replaced",
            ),
        ],
    },
    Group {
        title: "Isolation",
        settings: &[
            one("isolation", "MODE", "auto", "Who shares a child: auto, shared or session"),
            one("children", "COUNT", "1", "Shared children"),
            one("max-children", "COUNT", "32", "Children at once, shared and exclusive together"),
            one(
                "warm",
                "COUNT",
                "0",
                "Exclusive children kept ready for modern clients that can be asked something",
            ),
            one("evict-after", "DURATION", "1m", "At the cap, close an exclusive child idle for so long"),
            one("at-cap", "ACTION", "share", "When none can be closed: share, or refuse with 503"),
            switch("forward-roots", "Let clients' roots reach the child, which may widen what it can read"),
        ],
    },
    Group {
        title: "Requests",
        settings: &[
            absent(
                "cache-lists",
                "DURATION",
                "Answer lists of a legacy child from memory for so long; else until it says that they changed, if it does",
            ),
            one("max-in-flight", "COUNT", "4096", "Requests in flight at once, all together; more wait"),
            one("max-client-in-flight", "COUNT", "256", "Requests that one client may have in flight"),
            one(
                "max-child-in-flight",
                "COUNT",
                "1024",
                "Requests in flight at one child; for a server that handles one at a time, give a few",
            ),
            one(
                "max-queued",
                "COUNT",
                "4096",
                "Requests that may wait for their turn, at each child and in all; more get 503",
            ),
            one(
                "queue-timeout",
                "DURATION",
                "10s",
                "How long a request may wait for its turn; then it gets 503",
            ),
            one(
                "request-timeout",
                "DURATION",
                "5m",
                "Fail and cancel a request without an answer or progress for so long",
            ),
            one(
                "request-max",
                "DURATION",
                "1h",
                "Fail and cancel a request after so long, whatever its progress",
            ),
            one(
                "cancel-grace",
                "DURATION",
                "10s",
                "How long a cancelled request counts when the child is silent",
            ),
            one(
                "max-listens",
                "COUNT",
                "1024",
                "Subscriptions of modern clients open at once, a quarter of them of one client; more get 503",
            ),
            one(
                "max-parked",
                "COUNT",
                "256",
                "Requests that wait for a modern client's answer to a question, a quarter of them of one client",
            ),
            one("park-timeout", "DURATION", "10m", "How long a client may take to answer a question"),
            absent(
                "state-key-file",
                "FILE",
                "Seals requestState; the same for all replicas. Else a key made at start",
            ),
            computed(
                "max-buffered",
                "SIZE",
                "256MiB, at most 40 % of the container's memory",
                "All messages in memory together: bodies, answers, replay buffers",
            ),
        ],
    },
    Group {
        title: "Sessions",
        settings: &[
            one("session-idle", "DURATION", "30m", "End a session that nobody has used for so long"),
            one("session-max-age", "DURATION", "24h", "End a session so long after it began"),
            one(
                "max-sessions",
                "COUNT",
                "16384",
                "Sessions at once; then the client with most loses its idlest",
            ),
            one("replay-events", "COUNT", "256", "Events a session keeps for clients that resume a stream"),
            computed(
                "replay-bytes",
                "SIZE",
                "4MiB, at most --max-buffered",
                "Bytes of events a session keeps for them",
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
                "After SIGTERM, serve on for so long while endpoints are being removed",
            ),
            computed(
                "drain-timeout",
                "DURATION",
                "3s; 17s in Kubernetes",
                "Time left to requests in flight; by default what other stages leave",
            ),
        ],
    },
    Group {
        title: "Logs, metrics and traces",
        settings: &[
            one("log-format", "FORMAT", "text", "text or json"),
            one("log-level", "LEVEL", "info", "error, warn, info, debug, trace or off"),
            switch("access-log", "Log a line for each message of a client, once it is over"),
            one(
                "child-log-rate",
                "COUNT",
                "100",
                "Child lines logged per second: stderr, invalid stdout (0: all)",
            ),
            switch(
                "expose-stderr",
                "Show a child's last stderr lines to clients and probes (development only)",
            ),
            on("metrics", "Keep count of operations and how long they take, at /metrics"),
            many("allow-baggage", "KEY", "Baggage of clients that reaches the child; * is all"),
            switch("trace-arguments", "Put tools' arguments into spans, redacted"),
            switch("trace-results", "Put tools' results into spans, redacted"),
            many(
                "redact",
                "KEY",
                "A key whose values are kept out of spans, besides those that look like secrets",
            ),
        ],
    },
    Group {
        title: "Settings",
        settings: &[
            absent("config", "FILE", "Read settings from a YAML or JSON file, by the same names"),
            switch("check", "Check the settings, print what is meant, and exit"),
        ],
    },
];

const fn one(flag: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Value(default), arity: Arity::One, help }
}

const fn computed(
    flag: &'static str,
    value: &'static str,
    words: &'static str,
    help: &'static str,
) -> Setting {
    Setting { flag, value, fallback: Fallback::Computed(words), arity: Arity::One, help }
}

const fn absent(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::One, help }
}

const fn switch(flag: &'static str, help: &'static str) -> Setting {
    Setting { flag, value: "BOOL", fallback: Fallback::Value("false"), arity: Arity::Switch, help }
}

const fn on(flag: &'static str, help: &'static str) -> Setting {
    Setting { flag, value: "BOOL", fallback: Fallback::Value("true"), arity: Arity::Switch, help }
}

const fn many(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::Many { commas: true }, help }
}

const fn many_lines(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::Many { commas: false }, help }
}

impl Setting {
    /// The environment variable: `PROXYRUNNER_SESSION_IDLE` for `session-idle`.
    pub fn variable(&self) -> String {
        format!("PROXYRUNNER_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// The default in words, if there is one worth showing.
    pub fn default_words(&self) -> Option<&'static str> {
        match self.fallback {
            Fallback::Value("false") if self.arity == Arity::Switch => None,
            Fallback::Value(words) | Fallback::Computed(words) => Some(words),
            Fallback::Absent => None,
        }
    }
}

/// Every setting, without its group.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().flat_map(|group| group.settings)
}

/// The setting of this name.
pub fn find(flag: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.flag == flag)
}

/// The README's tables of flags: one for each group.
pub fn markdown_table() -> String {
    let mut out = String::new();
    for group in SETTINGS {
        let _ =
            write!(out, "**{}**\n\n| flag | default | what it does |\n| --- | --- | --- |\n", group.title);
        for setting in group.settings {
            let value = if setting.arity == Arity::Switch { "" } else { setting.value };
            let flag = format!("--{} {value}", setting.flag);
            let default = setting.default_words().unwrap_or_default();
            let again = if matches!(setting.arity, Arity::Many { .. }) { "; may repeat" } else { "" };
            let _ = writeln!(out, "| `{}` | {default} | {}{again} |", flag.trim_end(), setting.help);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
