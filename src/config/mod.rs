//! Reads and checks the settings of all modules before anything starts (`docs/architecture.md#settings`).
//!
//! A setting comes from its flag, else from its environment variable, else from the file of `--config`, else it has
//! its default. All bad settings are reported at once.

mod address;
mod args;
mod audit;
mod auth;
mod child_identity;
mod connect;
mod exit;
mod file;
mod forwarding;
mod gateway;
mod identity;
mod kmcp;
mod limits;
mod mounts;
mod needs;
mod otel;
mod otel_variables;
mod parse;
mod policy;
mod problem;
mod reader;
#[cfg(feature = "gateway")]
mod redis;
mod registration;
mod setting;
mod stopping;
pub mod table;
mod unknown;
mod values;

use crate::era::probe::Choice;
use crate::http::Resource;
use crate::lifecycle::Policy;
use crate::trace_context::AllowedBaggage;
use crate::{child, export, http, session, telemetry, tls, upstream};
use args::Mode;
pub use exit::Exit;
pub(crate) use exit::print;
pub use forwarding::Forwarding;
pub use gateway::Gateway;
pub use mounts::{Mounts, note_unusable};
use parse::{
    BINDING, COUNT, COUNT_OR_ZERO, DIRECTORY, DURATION, DURATION_OR_ZERO, FILE, GROUP, HEADER, HOST, KEY,
    KEY_FILE, LISTEN, NETWORK, NICE, ORIGIN, PATH, PUBLIC_URL, RESOURCE, SERVER_NAME, SIZE, SOCKET, SWITCH,
    USER,
};
use problem::{InvalidValue, Problem};
use reader::Reader;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
pub(crate) use values::{collectors, command_line, duration, listen, options, path};

/// The server's command, in messages.
const COMMAND: &str = "COMMAND";

/// The settings of all modules.
pub struct Config {
    /// Logs, metrics and spans.
    pub telemetry: telemetry::Settings,
    /// The export of logs, metrics and spans.
    pub export: export::Settings,
    /// Warnings to be logged: unknown variables, and settings that do not fit the platform.
    pub warnings: Vec<String>,
    /// The program to spawn, and its limits.
    pub child: child::Settings,
    /// The sharing of children, and limits for requests.
    pub upstream: upstream::Settings,
    /// Seal the `requestState` of parked requests (`--state-key-file`); `None`: a random key is created at start.
    pub state_keys: Option<upstream::SealKeys>,
    /// The files that are watched for changes.
    pub mounts: Mounts,
    /// The gateway at which this sidecar registers.
    pub registration: Option<crate::registration::Settings>,
    /// The settings of a gateway; `None`: proxyrunner is the sidecar of one server.
    pub gateway: Option<Gateway>,
    /// How requests of other replicas' sessions are passed on to them; `None`: not at all.
    pub forwarding: Option<Forwarding>,
    /// The settings of legacy sessions.
    pub session: session::Settings,
    /// How tokens and keys are verified.
    pub auth: crate::auth::Settings,
    /// Where decisions on requests come from; `None`: every request is allowed.
    pub(crate) policy: Option<crate::policy::Settings>,
    /// The settings of the HTTP server.
    pub http: http::Settings,
    /// Time after SIGTERM to keep serving while endpoints are being removed.
    pub drain_delay: Duration,
    /// Time after that for requests in flight to finish.
    pub drain_timeout: Duration,
    /// Time for all stages of shutdown together.
    pub stop_within: Duration,
    /// The rate limits.
    pub limits: crate::limits::Settings,
    /// The state that several proxyrunners share.
    #[cfg(feature = "gateway")]
    pub redis: Option<crate::redis::Settings>,
    /// The audit log.
    pub audit: Option<crate::audit::Settings>,
    /// SHA-256 of the effective settings, as `--check` prints them.
    pub digest: String,
    /// Maximum bytes of bodies, undelivered answers and replay buffers together.
    pub max_buffered: usize,
}

/// Reads the command line (beginning with the program's name), the given environment, and the configuration file.
/// `memory` is the system's memory limit in bytes, if any.
///
/// # Errors
/// `--help`, `--version` and `--check` with code 0; every bad setting, one per line, with [`Exit::USAGE`].
pub fn load(
    args: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    memory: Option<u64>,
) -> Result<Config, Exit> {
    let env = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut typed = args::parse(args)?;
    let mode = typed.mode;
    let mut problems = Vec::new();
    let mut file = match (typed.local.take(), location(&typed, env)) {
        (None, None) => file::File::default(),
        (None, Some(path)) => file::read(path.as_ref(), &mut problems),
        (Some(path), None) => kmcp::read(path.as_ref(), &mut problems),
        (Some(_), Some(_)) => {
            let refusal = InvalidValue::new("are given together", "give one of them");
            problems.push(Problem::general("-f, --config", refusal));
            file::File::lost()
        }
    };
    let mut command = std::mem::take(&mut typed.command);
    if command.is_empty() {
        command = std::mem::take(&mut file.command);
    }
    // A file that cannot be read may name the command.
    let is_lost = file.is_lost && command.is_empty();

    let mut reader = Reader::new(typed, file, env, problems);
    let mut config = assemble(&mut reader, mode, command, env, memory);
    config.warnings.extend(unknown::warnings(&variables));
    config.warnings.iter().for_each(|warning| reader.comment(&format!("warning: {warning}")));
    cross_check(&mut reader, &config);
    needs::check(&mut reader);
    let check = reader.one("check", SWITCH);
    match reader.finish() {
        Ok(meant) if check => Err(Exit::done(meant)),
        Ok(meant) => {
            config.digest = crate::audit::digest(meant.as_bytes());
            Ok(config)
        }
        Err(mut problems) => {
            problems.retain(|problem| !is_lost || problem.subject != COMMAND);
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(Exit::usage(lines.join("\n")))
        }
    }
}

/// Returns the path of the configuration file, if one is set.
fn location(typed: &args::Typed, env: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    let from_flag = typed.values.get("config").and_then(|paths| paths.last().cloned());
    from_flag.or_else(|| env(&table::find("config")?.variable()).filter(|path| !path.is_empty()))
}

fn assemble(
    reader: &mut Reader,
    mode: Mode,
    command: Vec<OsString>,
    env: impl Fn(&str) -> Option<OsString> + Copy,
    memory: Option<u64>,
) -> Config {
    let otel = otel::read(env);
    // The order is that of the output of --check.
    let max_buffered = reader.one_or("max-buffered", SIZE, buffered(memory));
    let mut http = http(reader, otel.propagates, max_buffered);
    let auth = auth::read(reader);
    tell_of_authentication(reader, &mut http, &auth);
    let (mut gateway, authorities) = gateway::read(reader, mode, &command);
    let variable = env("TOOL_REGISTRY_URL").filter(|_| mode == Mode::Gateway);
    let mut register = registration::read_url(reader, variable);
    if let Some(gateway) = &mut gateway {
        gateway::add_registry(reader, gateway, register.take());
    }
    let register = register.filter(|_| mode == Mode::Sidecar);
    let (registration, clear) = registration::read(reader, register, &http);
    let forwarding = forwarding::read(reader, &http, authorities);
    let mut child = child(reader, mode, command, env, max_buffered);
    let identity = child_identity::read(reader, &child.env);
    let env_mount = mounts::read_env(reader, &mut child, identity.env.is_some());
    let mut upstream = upstream(reader);
    http.disclosure = identity.meta;
    #[cfg(feature = "gateway")]
    if mode == Mode::Gateway {
        http.disclosure = Some(crate::identity::Disclosure::whole());
        http.searches = gateway.as_ref().is_some_and(|gateway| gateway.searches);
        crate::gateway::stand_in(&mut child, &mut upstream.restarts);
        upstream.child_era = Choice::Modern;
    }
    child.tells_identity = identity.env.is_some();
    upstream.private_lists = http.disclosure.is_some();
    upstream.disclosure = identity.env;
    let key_file = reader.optional("state-key-file", KEY_FILE);
    let (state_keys, state_mount) = key_file.map(|file| (file.keys, file.mounted)).unzip();
    let limits = limits::read(reader);
    #[cfg(feature = "gateway")]
    let redis = redis::read(reader, mode, http.server_name.as_deref());
    #[cfg(not(feature = "gateway"))]
    refuse_redis(reader);
    let session = session(reader, max_buffered, upstream.evict_after);
    // A setting that is given but bad is reported already.
    let identifies = ["auth-issuer", "auth-introspection", "api-keys", "principal-header", "tls-client-ca"];
    let identifies = identifies.iter().any(|flag| reader.is_given(flag));
    let (policy, remarks) = policy::read(reader, identifies);
    let stopping = stopping::read(reader, &child, env("KUBERNETES_SERVICE_HOST").is_some());
    let telemetry = telemetry(reader, &otel);
    let export = exports(reader, otel.export);
    let interval = reader.one("reload-interval", DURATION);
    let mounts = Mounts { interval, state_keys: state_mount.flatten(), env: env_mount };
    let audit = audit::read(reader, &child, &export);
    let warnings = otel.warnings.into_iter().chain(stopping.warning).chain(remarks).chain(clear).collect();
    Config {
        auth,
        policy,
        http,
        registration,
        gateway,
        forwarding,
        child,
        upstream,
        state_keys,
        mounts,
        session,
        max_buffered,
        drain_delay: stopping.delay,
        drain_timeout: stopping.drain,
        stop_within: stopping.within,
        telemetry,
        export,
        limits,
        #[cfg(feature = "gateway")]
        redis,
        audit,
        digest: String::new(),
        warnings,
    }
}

/// Refuses the settings of Redis, which limits would otherwise seem to share.
#[cfg(not(feature = "gateway"))]
fn refuse_redis(reader: &mut Reader) {
    let refusal =
        InvalidValue::new("is not part of this build (cargo feature gateway)", "use the default build");
    reader.cross_check(!reader.is_given("redis"), &["redis"], refusal);
}

/// Returns the default of `--max-buffered`, which leaves more than half of the memory for everything else.
fn buffered(memory: Option<u64>) -> usize {
    let part = memory.map_or(u64::MAX, |limit| limit / 5 * 2);
    usize::try_from(part).unwrap_or(usize::MAX).clamp(1 << 20, 256 << 20)
}

fn http(reader: &mut Reader, propagates: otel::Propagates, max_buffered: usize) -> http::Settings {
    let binding = reader.one("listen", BINDING);
    let mut settings = http::Settings {
        listen: binding.address,
        handed: binding.handed,
        admin_listen: reader.optional("admin-listen", LISTEN),
        path: reader.one("path", PATH),
        public_url: reader.optional("public-url", PUBLIC_URL),
        server_name: reader.optional("server-name", SERVER_NAME),
        allow_origin: reader.list("allow-origin", ORIGIN),
        allow_host: reader.list("allow-host", HOST),
        auth: http::AuthSettings {
            principal_header: reader.optional("principal-header", HEADER),
            trusted_proxies: reader.list("trusted-proxy", NETWORK),
            resource: reader.optional("auth-resource", RESOURCE),
            ..http::AuthSettings::default()
        },
        max_body: reader.one_or("max-body", SIZE, max_buffered.min(64 << 20)),
        tls: tls(reader),
        max_streams: reader.one("max-streams", COUNT_OR_ZERO),
        max_connections: reader.one("max-connections", COUNT),
        write_timeout: reader.one("write-timeout", DURATION),
        keep_alive_timeout: reader.one("keep-alive-timeout", DURATION),
        sse_commit_after: reader.optional("sse-commit-after", DURATION_OR_ZERO),
        sse_max_age: reader.one("sse-max-age", DURATION),
        keep_alive: reader.one("sse-keep-alive", DURATION),
        old_sse: reader.one("sse", SWITCH),
        disclosure: None,
        #[cfg(feature = "gateway")]
        searches: false,
        propagates: propagates.context,
        allowed_baggage: allowed_baggage(reader, propagates),
    };
    if let Some(tls) = &mut settings.tls {
        tls.http2 = settings.max_streams > 0;
    }
    settings
}

/// Completes what clients are told: who issues tokens for this server, and by which URL they know it.
fn tell_of_authentication(reader: &mut Reader, http: &mut http::Settings, auth: &crate::auth::Settings) {
    http.auth.issuers = auth.issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
    // Without an issuer's URL, clients cannot find out where they get an opaque token.
    if let Some(endpoint) = &auth.introspection
        && endpoint.issuer != endpoint.url
        && !http.auth.issuers.contains(&endpoint.issuer)
    {
        http.auth.issuers.push(endpoint.issuer.clone());
    }
    http.auth.scopes.clone_from(&auth.scopes);
    http.auth.certificates = http.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if http.auth.resource.is_none()
        && let Some(url) = &http.public_url
    {
        let base = url.as_str().trim_end_matches('/');
        let base = base.strip_suffix(http.path.trim_end_matches('/')).unwrap_or(base);
        http.auth.resource = Resource::parse(&format!("{base}{}", http.path));
    }
    // A URL from the request's Host could be forged, and with it the audience that clients ask for.
    reader.cross_check(
        http.auth.issuers.is_empty() || http.auth.resource.is_some() || http.listen.ip().is_loopback(),
        &[if auth.issuers.is_empty() { "auth-introspection" } else { "auth-issuer" }, "auth-resource"],
        InvalidValue::new(
            "needs the URL of this server",
            "give --public-url or --auth-resource, e.g. https://tools.example.com/mcp",
        ),
    );
}

/// Returns the settings of TLS, with files that can be used.
fn tls(reader: &mut Reader) -> Option<tls::Settings> {
    use tls::NameKind;
    let names = [
        ("spiffe", NameKind::Spiffe),
        ("dns", NameKind::Dns),
        ("email", NameKind::Email),
        ("subject", NameKind::Subject),
    ];
    let certificate = reader.optional("tls-cert", FILE);
    let key = reader.optional("tls-key", FILE);
    let client_ca = reader.optional("tls-client-ca", FILE);
    let client_name = reader.choice("tls-client-name", &names);
    let is_pair = certificate.is_some() == key.is_some();
    let has_pair = certificate.is_some() || client_ca.is_none();
    let (given, other) = if key.is_none() { ("tls-cert", "tls-key") } else { ("tls-key", "tls-cert") };
    let pair = InvalidValue::new(format!("is given without --{other}"), "give --tls-cert and --tls-key");
    reader.cross_check(is_pair, &[given, other], pair);
    let alone = InvalidValue::new("is given without --tls-cert", "give --tls-cert and --tls-key, too");
    reader.cross_check(has_pair, &["tls-client-ca", "tls-cert"], alone);
    let settings =
        tls::Settings { certificate: certificate?, key: key?, client_ca, client_name, http2: true };
    if let Err(tls::Unusable { option, path, reason, remedy }) = settings.check() {
        let refusal = InvalidValue::new(reason, remedy);
        let value = Some(path.to_string_lossy().into_owned());
        reader.note(Problem { value, ..Problem::general(option, refusal) });
    }
    Some(settings)
}

fn allowed_baggage(reader: &mut Reader, propagates: otel::Propagates) -> AllowedBaggage {
    let keys = reader.list("allow-baggage", KEY);
    AllowedBaggage::new(if propagates.baggage { keys } else { Vec::new() })
}

fn child(
    reader: &mut Reader,
    mode: Mode,
    command: Vec<OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    max_buffered: usize,
) -> child::Settings {
    let command = match reader.optional("connect", SOCKET) {
        None => command,
        Some(socket) => {
            if !command.is_empty() {
                let refusal = InvalidValue::new("is given beside COMMAND", "give one of them");
                reader.note(Problem::general("--connect", refusal));
            }
            connect::relay(socket)
        }
    };
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    reader.show("command", &words.into());
    if command.iter().any(|word| word.as_bytes().contains(&0)) {
        let refusal = InvalidValue::new("contains a NUL byte", "remove it");
        reader.note(Problem::general(COMMAND, refusal));
    }
    let mut command = command.into_iter();
    let program = command.next().unwrap_or_default();
    if program.is_empty() && mode == Mode::Sidecar && !reader.is_bad("connect") {
        let refusal = InvalidValue::new(
            "is missing",
            "give the MCP server to run as the last words, e.g. -- python3 server.py",
        );
        reader.note(Problem::general(COMMAND, refusal));
    }
    child::Settings {
        program,
        args: command.collect(),
        env: reader.variables(env),
        env_files: child::EnvFiles::default(),
        tells_identity: false,
        env_clear: reader.one("env-clear", SWITCH),
        cwd: reader.optional("cwd", DIRECTORY),
        max_frame: reader.one_or("max-frame", SIZE, max_buffered.min(64 << 20)),
        log_rate: reader.one("child-log-rate", COUNT_OR_ZERO),
        expose_stderr: reader.one("expose-stderr", SWITCH),
        start_timeout: reader.one("start-timeout", DURATION),
        close_grace: reader.one("close-grace", DURATION_OR_ZERO),
        limits: limits(reader),
        terminate_grace: reader.one("terminate-grace", DURATION_OR_ZERO),
    }
}

fn limits(reader: &mut Reader) -> child::Limits {
    let files = reader.optional("child-nofile", COUNT).map(|files| (files as u64, files as u64));
    child::Limits {
        memory: reader.optional("child-memory", SIZE).map(|bytes| bytes as u64),
        files,
        nice: reader.optional("child-nice", NICE),
        identity: identity(reader),
        no_new_privileges: reader.one("no-new-privileges", SWITCH),
        handed: 0,
    }
}

/// Returns the user and groups of the server: a user with its own groups, or with the given one.
fn identity(reader: &mut Reader) -> Option<child::Identity> {
    let user = reader.optional("child-user", USER);
    let group = reader.optional("child-group", GROUP);
    if (user.is_some() || group.is_some()) && !nix::unistd::geteuid().is_root() {
        let refusal = InvalidValue::new("requires root", "start proxyrunner as that user instead");
        reader.note(Problem::general("--child-user, --child-group", refusal));
    }
    match (user, group) {
        (None, None) => None,
        (None, Some(group)) => Some(child::Identity { user: None, group: group.id, others: Vec::new() }),
        (Some(user), group) => {
            let group = group.map_or(user.group, |group| group.id);
            Some(child::Identity { user: Some(user.id), group, others: user.others })
        }
    }
}

fn upstream(reader: &mut Reader) -> upstream::Settings {
    use upstream::{AtCap, Isolation};
    let modes = [("auto", Isolation::Auto), ("shared", Isolation::Shared), ("session", Isolation::Session)];
    let eras = [("auto", Choice::Auto), ("legacy", Choice::Legacy), ("modern", Choice::Modern)];
    upstream::Settings {
        child_era: reader.choice("child-era", &eras),
        probe_timeout: reader.one("probe-timeout", DURATION),
        isolation: reader.choice("isolation", &modes),
        children: reader.one("children", COUNT),
        max_children: reader.one("max-children", COUNT),
        warm: reader.one("warm", COUNT_OR_ZERO),
        evict_after: reader.one("evict-after", DURATION),
        at_cap: reader.choice("at-cap", &[("share", AtCap::Share), ("refuse", AtCap::Refuse)]),
        forward_roots: reader.one("forward-roots", SWITCH),
        cache_lists: reader.optional("cache-lists", DURATION),
        private_lists: false,
        disclosure: None,
        max_in_flight: reader.one("max-in-flight", COUNT),
        max_client_in_flight: reader.one("max-client-in-flight", COUNT),
        max_child_in_flight: reader.one("max-child-in-flight", COUNT),
        max_queued: reader.one("max-queued", COUNT_OR_ZERO),
        queue_timeout: reader.one("queue-timeout", DURATION),
        request_timeout: reader.one("request-timeout", DURATION),
        restarts: restarts(reader),
        restart_wait: reader.one("restart-wait", DURATION),
        resume_sessions: reader.one("resume-sessions", SWITCH),
        ping_interval: reader.one("ping-interval", DURATION_OR_ZERO),
        ping_timeout: reader.one("ping-timeout", DURATION),
        request_max: reader.one("request-max", DURATION),
        cancel_grace: reader.one("cancel-grace", DURATION_OR_ZERO),
        max_listens: reader.one("max-listens", COUNT),
        max_parked: reader.one("max-parked", COUNT),
        park_timeout: reader.one("park-timeout", DURATION),
    }
}

fn restarts(reader: &mut Reader) -> Policy {
    let limit: usize = reader.one("restart-limit", COUNT_OR_ZERO);
    Policy {
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        first: reader.one("restart-backoff", DURATION),
        longest: reader.one("restart-backoff-max", DURATION),
        stable: reader.one("restart-reset", DURATION),
    }
}

fn session(reader: &mut Reader, max_buffered: usize, evict_after: Duration) -> session::Settings {
    session::Settings {
        idle: reader.one("session-idle", DURATION),
        max_age: reader.one("session-max-age", DURATION),
        max_sessions: reader.one("max-sessions", COUNT),
        evict_after,
        replay_events: reader.one("replay-events", COUNT),
        replay_bytes: reader.one_or("replay-bytes", SIZE, max_buffered.min(4 << 20)),
    }
}

fn telemetry(reader: &mut Reader, otel: &otel::Meant) -> telemetry::Settings {
    use telemetry::LogFormat;
    let levels = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        // Accepted, because other programs have it. Nothing of proxyrunner's own is logged at it, and releases leave
        // out what libraries log (`release_max_level_debug` in Cargo.toml).
        ("trace", LevelFilter::TRACE),
        ("off", LevelFilter::OFF),
    ];
    telemetry::Settings {
        format: reader.choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        level: reader.choice("log-level", &levels),
        access_log: reader.one("access-log", SWITCH),
        metrics: reader.one("metrics", SWITCH),
        capture: telemetry::capture::Settings {
            arguments: reader.one("trace-arguments", SWITCH),
            results: reader.one("trace-results", SWITCH),
            redact: reader.list("redact", KEY),
        },
        spans: otel.spans,
        records: otel.records,
        longest: otel.longest,
        exemplars: otel.exemplars,
    }
}

/// Shows the standard variables of OpenTelemetry in `--check`.
fn exports(reader: &mut Reader, export: export::Settings) -> export::Settings {
    let metrics = export.metrics.as_ref().map(|metrics| &metrics.endpoint);
    for (what, endpoint) in
        [("spans", export.traces.as_ref()), ("metrics", metrics), ("log records", export.logs.as_ref())]
    {
        if let Some(endpoint) = endpoint {
            reader.comment(&format!("{what} are exported to {} (OTEL_EXPORTER_OTLP_*)", endpoint.shown()));
        }
    }
    export
}

/// Checks settings that are valid on their own, but not together.
fn cross_check(reader: &mut Reader, config: &Config) {
    let Config { upstream, session, http, child, max_buffered, .. } = config;
    reader.cross_check(
        upstream.children <= upstream.max_children,
        &["children", "max-children"],
        InvalidValue::new("is more than --max-children", format!("give at most {}", upstream.max_children)),
    );
    reader.cross_check(
        upstream.request_timeout <= upstream.request_max,
        &["request-timeout", "request-max"],
        InvalidValue::new("is more than --request-max", "raise --request-max"),
    );
    child_identity::cross_check(reader, upstream);
    connect::cross_check(reader);
    let sizes =
        [("max-body", http.max_body), ("max-frame", child.max_frame), ("replay-bytes", session.replay_bytes)];
    for (flag, size) in sizes {
        reader.cross_check(
            size <= *max_buffered,
            &[flag, "max-buffered"],
            InvalidValue::new("is more than --max-buffered", format!("give at most {max_buffered} bytes")),
        );
    }
}

#[cfg(test)]
mod tests;
