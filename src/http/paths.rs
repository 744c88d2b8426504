//! The paths that are served, besides the endpoint's own (`--path`).

use super::Settings;

/// The path of the metrics.
pub const METRICS: &str = "/metrics";
/// The path of the HTTP+SSE stream (`--sse`).
pub const SSE_STREAM: &str = "/sse";
/// The path to which clients of HTTP+SSE post.
pub const SSE_POST: &str = "/messages";

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
