//! The cards of servers, and the catalogue that lists them. They tell how a server is reached through the gateway, and
//! nothing of its replicas.

use super::catalog::{self, VERSION};
use super::directory::{Server, Snapshot};
use super::replica::State;
use serde_json::{Value, json};

/// The schema of a card.
const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/v2/server-card.schema.json";

/// Returns the card of a server.
pub(super) fn card(server: &Server, base: &str) -> Value {
    let about = &server.about;
    json!({
        "$schema": SCHEMA,
        "name": catalog::name(about, base),
        "version": VERSION,
        "description": catalog::description(about),
        "remotes": [{"type": "streamable-http", "url": url(server, base)}],
    })
}

/// Returns the catalogue of the servers that have a healthy replica.
pub(super) fn catalog(servers: &Snapshot, base: &str) -> Value {
    let is_served =
        |server: &Server| server.replicas().iter().any(|replica| replica.state() == State::Healthy);
    let entries = servers.values().filter(|server| is_served(server)).map(|server| {
        json!({
            "identifier": identifier(&catalog::name(&server.about, base)),
            "displayName": server.about.segment,
            "type": "application/mcp-server-card+json",
            "url": format!("{}/server-card", url(server, base)),
        })
    });
    json!({"specVersion": "1.0", "entries": entries.collect::<Vec<_>>()})
}

fn url(server: &Server, base: &str) -> String {
    format!("{base}/servers/{}/mcp", server.about.segment)
}

/// Returns the identifier for a name: `urn:air:tools.example.com:mcp:time` for `com.example.tools/time`.
fn identifier(name: &str) -> String {
    let (space, segment) = name.split_once('/').unwrap_or(("localhost", name));
    let labels: Vec<_> = space.split('.').rev().collect();
    format!("urn:air:{}:mcp:{segment}", labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_name_the_publisher_by_its_domain() {
        assert_eq!(identifier("com.example.tools/time"), "urn:air:tools.example.com:mcp:time");
        assert_eq!(identifier("localhost/time"), "urn:air:localhost:mcp:time");
    }
}
