//! Other gateways, in pinned versions, installed from their registries below `target/tools/`: in front of the same server as
//! proxyrunner's, with their default settings except for those without which they would not serve it to anybody, or not for long.

use super::paths;
use super::peers::{ALL, Peer, Registry};
use super::subjects::{Running, Subject, free_address};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// The names of all, for `--gateways`.
pub const NAMES: [&str; 2] = ["mcp-proxy-rust", "contextforge"];

/// In Python, with many layers.
static CONTEXT_FORGE: Peer = Peer {
    name: "contextforge",
    package: "mcp-contextforge-gateway",
    version: "1.0.7.post20260921",
    registry: Registry::PyPI,
    path: "/mcp",
    prefix: "",
    is_slow: true,
    most_sessions: usize::MAX,
    arguments: |_, _, _| Vec::new(),
};

/// Starts the gateway of this name in front of a server.
pub fn start(name: &str, behind: SocketAddr) -> Result<Running, String> {
    match name {
        "contextforge" => context_forge(behind),
        _ => mcp_proxy(behind),
    }
}

fn mcp_proxy(behind: SocketAddr) -> Result<Running, String> {
    let peer = &ALL[0];
    peer.install()?;
    let (address, file) = (free_address(), paths::log("mcp-proxy-gateway").with_extension("toml"));
    let text = format!(
        "[proxy]\nname = \"compare\"\nseparator = \"/\"\n\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {}\n\n[[backends]]\nname = \"b\"\ntransport = \"http\"\nurl = \"http://{behind}/mcp\"\n",
        address.port()
    );
    std::fs::write(&file, text).map_err(|error| format!("configuration: {error}"))?;
    let mut command = Command::new(peer.program("mcp-proxy"));
    command.arg("--config").arg(file);
    Subject::Peer(peer).launch(command, address)
}

/// Registers the server, and waits until its tool is listed.
const REGISTER: &str = r#"
import json, sys, time, urllib.request
base, url = sys.argv[1:]
def ask(path, body=None):
    request = urllib.request.Request(base + path, body and json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))
ask("/gateways", {"name": "b", "url": url, "transport": "STREAMABLEHTTP"})
end = time.monotonic() + 30
while True:
    tools = [tool["name"] for tool in ask("/tools") if tool["name"].endswith("echo")]
    if tools:
        sys.exit(print(tools[0]))
    if time.monotonic() > end:
        sys.exit("its tools are not listed")
    time.sleep(0.2)
"#;

/// Returns a text that it accepts as a secret.
fn secret() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(48).collect()
}

fn context_forge(behind: SocketAddr) -> Result<Running, String> {
    let peer = &CONTEXT_FORGE;
    if !peer.program("mcpgateway").exists() {
        peer.install()?;
    }
    let (address, file) = (free_address(), paths::log("contextforge").with_extension("db"));
    let _ = std::fs::remove_file(&file);
    let mut command = Command::new(peer.program("mcpgateway"));
    command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
    for (name, value) in [
        ("JWT_SECRET_KEY", secret().as_str()),
        ("AUTH_ENCRYPTION_SECRET", secret().as_str()),
        ("DATABASE_URL", format!("sqlite:///{}", file.display()).as_str()),
        ("AUTH_REQUIRED", "false"),
        ("ALLOW_UNAUTHENTICATED_ADMIN", "true"),
        ("MCP_REQUIRE_AUTH", "false"),
        ("RATE_LIMITING_ENABLED", "false"),
        ("SSRF_ALLOW_LOCALHOST", "true"),
        ("LOG_LEVEL", "ERROR"),
    ] {
        command.env(name, value);
    }
    let mut running = Subject::Peer(peer).launch(command, address)?;
    let mut register = Command::new(peer.program("python"));
    register.args(["-c", REGISTER, &format!("http://{address}"), &format!("http://{behind}/mcp")]);
    let told = register.stdin(Stdio::null()).output().map_err(|error| format!("registration: {error}"))?;
    let tool = String::from_utf8_lossy(&told.stdout);
    let prefix = tool.trim().strip_suffix("echo").filter(|_| told.status.success());
    let error = || format!("registration: {}", String::from_utf8_lossy(&told.stderr).trim());
    running.target.prefix = prefix.ok_or_else(error)?.to_owned();
    Ok(running)
}
