//! The paths that are served, besides the endpoint's own (`--path`).

use super::Settings;

/// The path of the metrics.
pub const METRICS: &str = "/metrics";
/// The path of the HTTP+SSE stream (`--sse`).
pub const SSE_STREAM: &str = "/sse";
/// The path to which clients of HTTP+SSE post.
pub const SSE_POST: &str = "/messages";

/// The path of a gateway's catalogue.
#[cfg(feature = "gateway")]
pub const AI_CATALOG: &str = "/.well-known/ai-catalog.json";
/// The end of a card's path, behind that of its endpoint.
const CARD: &str = "/server-card";

/// A health probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process works.
    Live,
    /// Whether it serves clients.
    Ready,
    /// Whether its server has started.
    Startup,
}

impl Probe {
    /// Returns the probe that a path requests.
    pub fn at(path: &str) -> Option<Self> {
        match plain(path) {
            "/health" | "/livez" => Some(Probe::Live),
            "/health/ready" | "/readyz" => Some(Probe::Ready),
            "/health/startup" | "/startupz" => Some(Probe::Startup),
            _ => None,
        }
    }
}

/// Returns the name in the path of a gateway's server: `NAME` in `/servers/NAME/mcp`.
#[cfg(feature = "gateway")]
pub fn server_of(path: &str) -> Option<&str> {
    let name = plain(path).strip_prefix("/servers/")?.strip_suffix("/mcp")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Returns the name in the path of a card: `NAME` in `/servers/NAME/mcp/server-card` or `/servers/NAME/server-card`.
#[cfg(feature = "gateway")]
pub fn card_of(path: &str) -> Option<&str> {
    let endpoint = plain(path).strip_suffix(CARD)?;
    server_of(endpoint).or_else(|| {
        let name = endpoint.strip_prefix("/servers/")?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    })
}

/// Returns whether a path is that of a sidecar's own card.
pub fn is_own_card(settings: &Settings, path: &str) -> bool {
    path != settings.path && plain(path).strip_suffix(CARD).is_some_and(|end| end == plain(&settings.path))
}

/// The path of all servers of a gateway, as one.
#[cfg(feature = "gateway")]
pub const COMBINED: &str = "/mcp";
#[cfg(feature = "gateway")]
const DISCOVER: &str = "/discover";

/// Returns whether a path is that of all servers of a gateway.
#[cfg(feature = "gateway")]
pub fn is_combined(path: &str) -> bool {
    matches!(plain(path), COMBINED | DISCOVER)
}

/// Returns the path of a gateway's server at the end of a longer path: an ingress may have added or removed a prefix.
#[cfg(feature = "gateway")]
pub fn server_path(path: &str) -> Option<String> {
    // All servers have two paths, of which the other one is the gateway's own.
    if plain(path).ends_with(DISCOVER) {
        return Some(DISCOVER.to_owned());
    }
    let from = path.rfind("/servers/")?;
    server_of(&path[from..]).map(|name| format!("/servers/{name}/mcp"))
}

/// Strips trailing slashes and repeated leading ones, which clients and ingresses add.
pub fn plain(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let slashes = path.len() - path.trim_start_matches('/').len();
    &path[slashes.saturating_sub(1)..]
}

/// Returns whether a path is served to monitoring: a probe or the metrics. Such requests are exempt from client
/// limits.
pub fn is_monitoring(settings: &Settings, path: &str) -> bool {
    // Most requests are to the endpoint; its path is neither.
    path != settings.path && (plain(path) == METRICS || Probe::at(path).is_some())
}

/// Returns the configured path that a request's path matches.
pub fn route_of<'a>(settings: &'a Settings, path: &str) -> Option<&'a str> {
    let old = [SSE_STREAM, SSE_POST].into_iter().filter(|_| settings.old_sse);
    [&*settings.path, METRICS].into_iter().chain(old).find(|served| plain(served) == plain(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additional_slashes_around_a_path_are_ignored() {
        for (path, same) in [
            ("/mcp", "/mcp"),
            ("/mcp/", "/mcp"),
            ("//mcp//", "/mcp"),
            ("/a/mcp/", "/a/mcp"),
            ("/", ""),
            ("//", ""),
            ("", ""),
            ("*", "*"),
        ] {
            assert_eq!(plain(path), same, "{path:?}");
        }
    }
}
