//! Many servers with many tools behind one gateway: what a list of all tools costs, and the memory of a gateway at rest.

use super::http::Connection;
use super::job::median;
use super::paths;
use super::process;
use super::subjects::{Running, Subject, free_address};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpListener;

const SERVERS: usize = 100;
/// Tools of each server.
const TOOLS: usize = 50;
/// Lists of a gateway after the first one.
const LISTS: usize = 10;
/// Time for memory to settle.
const SETTLE: Duration = Duration::from_secs(3);

/// Serves all servers at one address, for ever. The last segment of the path is ignored.
pub fn run(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await.expect("a free address");
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = match message["method"].as_str() {
        Some("tools/list") => {
            let tools: Vec<Value> = (0..TOOLS).map(tool).collect();
            let result =
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": tools});
            json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
        }
        _ => {
            json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
        }
    };
    let mut response = Response::new(Full::from(answer.to_string()));
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    Ok(response)
}

fn tool(number: usize) -> Value {
    let text = |about: &str| json!({"type": "string", "description": format!("The {about} of the document to look at.")});
    json!({
        "name": format!("search_documents_{number}"),
        "description": "Searches the documents of this team, and returns those that match best, with a part of each.",
        "inputSchema": {
            "type": "object",
            "properties": {"query": text("words"), "language": text("language"), "limit": {"type": "integer", "minimum": 1}},
            "required": ["query"],
        },
    })
}

fn gateway(behind: SocketAddr) -> Result<Running, String> {
    let file = paths::log("fleet").with_extension("json");
    let servers: serde_json::Map<String, Value> = (0..SERVERS)
        .map(|number| (format!("s{number:03}"), json!({"url": format!("http://{behind}/s{number:03}/mcp")})))
        .collect();
    std::fs::write(&file, json!({"mcpServers": servers}).to_string())
        .map_err(|error| format!("servers: {error}"))?;
    let address = free_address();
    let mut command = Command::new(paths::proxyrunner());
    command.env_remove("PROXYRUNNER_BIN").arg("gateway").arg("--servers").arg(file);
    command.args(["--listen", &address.to_string()]);
    Subject::Proxyrunner.launch(command, address)
}

/// Measures a gateway, and prints each list.
pub fn report() -> Result<Value, String> {
    let behind = free_address();
    let mut servers = Command::new(paths::own());
    servers.args(["fleet", "--listen", &behind.to_string()]);
    let _servers = Subject::Floor.launch(servers, behind)?;
    let gateway = gateway(behind)?;
    std::thread::sleep(SETTLE);
    let family = process::family(gateway.target.process);
    let idle = process::memory(&family[..1], "VmRSS:");
    let all = process::memory(&family, "VmRSS:");
    let shared: f64 = family.iter().filter_map(|pid| process::proportional(*pid)).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut taken = Vec::new();
    let mut size = 0;
    for _ in 0..=LISTS {
        let before = process::cpu(&family);
        size = runtime.block_on(list(gateway.target.address))?;
        // The rest of the work ends a little after the answer.
        std::thread::sleep(Duration::from_millis(200));
        taken.push((process::cpu(&family) - before) * 1e3);
    }
    println!(
        "CPU of each list, ms: {}",
        taken.iter().map(|ms| format!("{ms:.1}")).collect::<Vec<_>>().join(" ")
    );
    let after = process::memory(&family[..1], "VmRSS:");
    Ok(json!({
        "servers": SERVERS, "tools": SERVERS * TOOLS, "list, MiB": size as f64 / 1048576.0,
        "first list, ms of CPU": taken[0], "later lists, ms of CPU": median(taken[1..].to_vec()),
        "resident at rest, MiB": idle / 1024.0, "with its relay, MiB": all / 1024.0, "proportional, MiB": shared / 1024.0,
        "resident after the lists, MiB": after / 1024.0,
    }))
}

/// Lists all tools, and returns the length of the answer.
async fn list(address: SocketAddr) -> Result<usize, String> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "compare", "version": "1"},
    });
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::open(address).await?;
    let (head, body) = connection.exchange(request.as_bytes()).await?;
    let at = memchr::memchr(b'{', body).unwrap_or_default();
    let answer: Value = serde_json::Deserializer::from_slice(&body[at..])
        .into_iter()
        .next()
        .and_then(Result::ok)
        .ok_or_else(|| format!("status {}: no answer", head.status))?;
    let tools = answer["result"]["tools"].as_array().map_or(0, Vec::len);
    if tools != SERVERS * TOOLS || !answer["result"]["nextCursor"].is_null() {
        let answer = answer.to_string();
        return Err(format!("status {}: {tools} tools: {}", head.status, &answer[..answer.len().min(500)]));
    }
    Ok(body.len())
}
