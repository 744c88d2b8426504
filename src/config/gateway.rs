//! The settings of `proxyrunner gateway`, and those that it does not take.

use super::args::Mode;
use super::parse::{FILE, SWITCH};
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use super::registration;
use super::table::SETTINGS;
use crate::outbound::Tls;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The settings of a gateway.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "a build without the gateway only refuses them")
)]
pub struct Gateway {
    /// `--servers`: the file that names the servers; `None` if only those of a registry are served.
    pub servers: Option<PathBuf>,
    /// `--servers-ca`: the authorities of servers.
    pub tls: Tls,
    /// `--gateway-key`: the key that signs tokens for servers.
    pub key: Option<PathBuf>,
    /// `--register`: the registry to mirror.
    pub registry: Option<String>,
    /// `--search-tools`: whether `/mcp` shows two tools in place of all.
    pub searches: bool,
}

/// Groups of settings that concern a child.
const UNUSED_GROUPS: [&str; 4] = ["Child process", "Restarts and health checks", "Isolation", "Sessions"];
/// Further settings that concern a child, its sessions or its only endpoint.
const UNUSED: [&str; 16] = [
    "path",
    "server-name",
    "auth-resource",
    "request-max",
    "sse-commit-after",
    "sse-max-age",
    "sse-keep-alive",
    "park-timeout",
    "cache-lists",
    "max-client-in-flight",
    "max-child-in-flight",
    "max-queued",
    "queue-timeout",
    "cancel-grace",
    "max-parked",
    "expose-stderr",
];

/// The name of a sidecar's only server in policies.
const POLICY_SERVER: &str = "policy-server";

/// Reads the settings; no gateway unless proxyrunner runs as one. Also returns the file of authorities.
pub(super) fn read(
    reader: &mut Reader,
    mode: Mode,
    command: &[OsString],
) -> (Option<Gateway>, Option<PathBuf>) {
    let servers = reader.optional("servers", FILE);
    let authorities = reader.optional("servers-ca", FILE);
    let key = reader.optional("gateway-key", FILE);
    let searches = reader.one("search-tools", SWITCH);
    if mode == Mode::Sidecar {
        for flag in ["servers", "servers-ca", "gateway-key", "search-tools"] {
            // Other replicas are servers, too.
            let is_used = flag == "servers-ca" && reader.is_given("forward-sessions");
            let refusal =
                InvalidValue::new("is a gateway's", "start it as: proxyrunner gateway --servers FILE");
            reader.cross_check(is_used || !reader.deviates(flag), &[flag], refusal);
        }
        return (None, authorities);
    }
    refuse_unused(reader, command);
    let read = authorities.as_ref().and_then(|path| {
        let read = std::fs::read(path);
        read.map_err(|error| {
            let refusal = InvalidValue::new(
                format!("cannot be read: {error}"),
                "name a file with certificates in PEM format",
            );
            reader.note(Problem::general("--servers-ca", refusal));
        })
        .ok()
    });
    check(reader, servers.as_deref());
    let tls = Tls { authorities: read, ..Tls::default() };
    (Some(Gateway { servers, tls, key, registry: None, searches }), authorities)
}

/// Adds the registry to mirror. A gateway has at least one source of servers.
pub(super) fn add_registry(reader: &mut Reader, gateway: &mut Gateway, registry: registration::Given) {
    let is_known = gateway.servers.is_some() || registry.is_some();
    // A value that is given but bad is reported already.
    if !is_known && !reader.is_bad("servers") && !reader.is_bad("register") {
        let refusal = InvalidValue::new(
            "is missing",
            "name the file with the servers, e.g. {\"mcpServers\": {\"time\": {\"url\": \"http://time:8080/mcp\"}}}; or a registry to mirror, by --register",
        );
        reader.note(Problem::general("--servers", refusal));
    }
    gateway.registry = registry;
}

fn refuse_unused(reader: &mut Reader, command: &[OsString]) {
    let groups = SETTINGS.iter().filter(|group| UNUSED_GROUPS.contains(&group.title));
    let grouped = groups.flat_map(|group| group.settings.iter().map(|setting| setting.flag));
    for flag in grouped.chain(UNUSED) {
        let refusal =
            InvalidValue::new("is not used by a gateway", "remove it, or give it to the servers' sidecars");
        reader.cross_check(!reader.is_given(flag), &[flag], refusal);
    }
    for flag in registration::OF_SIDECARS {
        let refusal =
            InvalidValue::new("is a sidecar's", "remove it; a gateway mirrors the registry of --register");
        reader.cross_check(!reader.is_given(flag), &[flag], refusal);
    }
    let refusal = InvalidValue::new(
        "is a sidecar's",
        "remove it; a gateway decides by the names of its servers, such as MCP::\"time\"",
    );
    reader.cross_check(!reader.is_given(POLICY_SERVER), &[POLICY_SERVER], refusal);
    if !command.is_empty() {
        let refusal = InvalidValue::new("is given to a gateway", "name the server in the file of --servers");
        reader.note(Problem::general("COMMAND", refusal));
    }
}

#[cfg(feature = "gateway")]
fn check(reader: &mut Reader, servers: Option<&Path>) {
    let Some(servers) = servers else { return };
    for problem in crate::gateway::check(servers).err().unwrap_or_default() {
        let refusal = InvalidValue::new("is unusable", problem);
        reader.note(Problem::general("--servers", refusal));
    }
}

#[cfg(not(feature = "gateway"))]
fn check(reader: &mut Reader, _: Option<&Path>) {
    let refusal =
        InvalidValue::new("is not part of this build (cargo feature gateway)", "use the default build");
    reader.note(Problem::general("gateway", refusal));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::find;

    #[test]
    fn settings_that_a_gateway_does_not_use_exist() {
        for flag in UNUSED.iter().chain(&[POLICY_SERVER]) {
            assert!(find(flag).is_some(), "--{flag}");
        }
        for title in UNUSED_GROUPS {
            assert!(SETTINGS.iter().any(|group| group.title == title), "{title}");
        }
    }
}
