//! Policies at `proxyrunner gateway`: what callers may use of which server, at the endpoint of each and at that of all.

use crate::support::modern::{Modern, result};
use crate::support::upstream::{Received, Upstream};
use crate::support::{Response, Server, Session, scratch, until};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

const GUARDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/children/guarded.py");

/// Everyone reads at both servers; ann also writes, but only at `a`, and nobody pays.
const POLICIES: &str = r#"
permit(principal, action == Action::"call_tool", resource == Tool::"read");
permit(principal == Client::"ann", action == Action::"call_tool", resource == Tool::"write")
    when { resource in MCP::"a" };
permit(principal, action == Action::"get_prompt", resource == Prompt::"open");
permit(principal, action == Action::"read_resource", resource) when { resource.uri like "doc://*" && resource in MCP::"a" };
@id("nobody-pays") forbid(principal, action, resource == Tool::"pay");
"#;

/// A gateway with policies, and the servers behind it.
struct Fleet {
    gateway: Server,
    policies: PathBuf,
    _servers: Vec<Server>,
}

/// Writes a new file, whose name ends as given.
fn file(extension: &str, text: &str) -> PathBuf {
    let path = scratch("file").with_extension(extension);
    fs::write(&path, text).expect("a file");
    path
}

fn guarded(child: &str) -> Server {
    let server = Server::with().program(&["python3", GUARDED]).child(child).start();
    until("the sidecar is ready", || server.request("GET", "/readyz", &[], b"").status == 200);
    server
}

fn gateway(servers: &Value, policies: &Path, flags: &str) -> Server {
    let servers = file("json", &json!({"mcpServers": servers}).to_string());
    let flags =
        format!("--principal-header x-user --reload-interval 50ms --policy {} {flags}", policies.display());
    Server::with().gateway(&servers).flags(&flags).start()
}

impl Fleet {
    /// Two guarded servers, `a` and `b`.
    fn two(text: &str, flags: &str) -> Fleet {
        Fleet::of(&[("a", "--modern"), ("b", "")], text, flags)
    }

    fn of(children: &[(&str, &str)], text: &str, flags: &str) -> Fleet {
        let servers: Vec<_> = children.iter().map(|(_, child)| guarded(child)).collect();
        let entry = |((name, _), server): (&(&str, &str), &Server)| {
            ((*name).to_owned(), json!({"url": format!("http://{}/mcp", server.address())}))
        };
        let entries: Value = Value::Object(children.iter().zip(&servers).map(entry).collect());
        let policies = file("cedar", text);
        Fleet { gateway: gateway(&entries, &policies, flags), policies, _servers: servers }
    }

    fn at(mut self, path: &str) -> Fleet {
        self.gateway = self.gateway.at(path);
        self
    }
}

/// Sends the same requests as a legacy client and as a modern one.
fn with_both(server: &Server, who: &str, each: impl Fn(&dyn Fn(&str, Value) -> Response)) {
    let legacy: Session<'_> = server.opening().header("X-User", who).open();
    each(&|method, params| {
        legacy.post(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
    });
    let modern: Modern<'_> = server.modern().of(who);
    each(&|method, params| modern.send(method, params));
}

fn is_denied(response: &Response) {
    assert_eq!(response.status, 403, "{}", response.text());
    let answer = response.json();
    assert_eq!(answer["error"], json!({"code": 403, "message": "Unauthorized"}));
    assert!(!answer["id"].is_null(), "{answer}");
}

/// Returns the names of a list's items.
fn names(response: &Response, items: &str, key: &str) -> Vec<String> {
    let answer = response.answer();
    let items = answer["result"][items].as_array().unwrap_or_else(|| panic!("no {items} in {answer}"));
    items.iter().map(|item| item[key].as_str().expect("a text").to_owned()).collect()
}

fn tool(name: &str) -> Value {
    json!({"name": name, "arguments": {}})
}

#[test]
fn each_server_has_its_own_decisions() {
    for (path, read_only) in [("/servers/a/mcp", false), ("/servers/b/mcp", true)] {
        let fleet = Fleet::two(POLICIES, "").at(path);
        with_both(&fleet.gateway, "ann", |send| {
            assert_eq!(send("tools/call", tool("read")).status, 200);
            let written = send("tools/call", tool("write"));
            if read_only {
                is_denied(&written)
            } else {
                assert_eq!(written.status, 200, "{}", written.text())
            }
            is_denied(&send("tools/call", tool("pay")));
            is_denied(&send("tools/call", tool("unknown")));
            is_denied(&send("prompts/get", json!({"name": "secret"})));
            assert_eq!(send("prompts/get", json!({"name": "open"})).status, 200);
            is_denied(&send("resources/read", json!({"uri": "key://b"})));
            let document = send("resources/read", json!({"uri": "doc://a"}));
            if read_only {
                is_denied(&document)
            } else {
                assert_eq!(document.status, 200)
            }
            let completion = |name| json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "x", "value": ""}});
            assert_eq!(send("completion/complete", completion("open")).status, 200);
            is_denied(&send("completion/complete", completion("secret")));
            is_denied(&send("tasks/get", json!({"taskId": "1"})));
            is_denied(&send("no/such", json!({})));
            let expected: &[&str] = if read_only { &["read"] } else { &["read", "write"] };
            assert_eq!(names(&send("tools/list", json!({})), "tools", "name"), expected);
            assert_eq!(names(&send("prompts/list", json!({})), "prompts", "name"), ["open"]);
            let documents: &[&str] = if read_only { &[] } else { &["doc://a"] };
            assert_eq!(names(&send("resources/list", json!({})), "resources", "uri"), documents);
            let templates: &[&str] = if read_only { &[] } else { &["doc://{x}"] };
            let listed = send("resources/templates/list", json!({}));
            assert_eq!(names(&listed, "resourceTemplates", "uriTemplate"), templates);
        });
        let legacy = fleet.gateway.opening().header("X-User", "ann").open();
        let subscribed = legacy.post(
            json!({"jsonrpc": "2.0", "id": 7, "method": "resources/subscribe", "params": {"uri": "key://b"}})
                .to_string(),
        );
        is_denied(&subscribed);
        let listen = json!({"notifications": {"resourceSubscriptions": ["key://b"]}});
        is_denied(&fleet.gateway.modern().of("ann").send("subscriptions/listen", listen));
        assert_eq!(fleet.gateway.post(&[("X-User", "bob")], "[]").status, 400, "batches stay refused");
    }
}

#[test]
fn all_servers_as_one_have_the_same_decisions_and_names() {
    let audit = scratch("audit");
    let fleet = Fleet::two(POLICIES, &format!("--audit {}", audit.display()));
    with_both(&fleet.gateway, "ann", |send| {
        let listed = names(&send("tools/list", json!({})), "tools", "name");
        assert_eq!(listed, ["a__read", "a__write", "b__read"]);
        assert_eq!(names(&send("prompts/list", json!({})), "prompts", "name"), ["a__open", "b__open"]);
        assert_eq!(names(&send("resources/list", json!({})), "resources", "uri"), ["doc://a"]);
        let templates = send("resources/templates/list", json!({}));
        assert_eq!(names(&templates, "resourceTemplates", "uriTemplate"), ["doc://{x}"]);
        for name in ["a__read", "a__write", "b__read"] {
            let called = send("tools/call", tool(name));
            let text = called.answer()["result"]["content"][0]["text"].clone();
            assert_eq!((called.status, text), (200, name.split("__").last().unwrap().into()));
        }
        is_denied(&send("tools/call", tool("b__write")));
        is_denied(&send("tools/call", tool("a__pay")));
        is_denied(&send("prompts/get", json!({"name": "a__secret"})));
        assert_eq!(send("prompts/get", json!({"name": "b__open"})).status, 200);
        is_denied(&send("resources/read", json!({"uri": "key://b"})));
        assert_eq!(send("resources/read", json!({"uri": "doc://a"})).status, 200);
        assert_eq!(send("resources/read", json!({"uri": "doc://of-the-template"})).status, 200);
        let completion = |name| json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "x", "value": ""}});
        assert_eq!(send("completion/complete", completion("a__open")).status, 200);
        is_denied(&send("completion/complete", completion("a__secret")));
        is_denied(&send("no/such", json!({})));
        let unknown = send("tools/call", tool("nobody"));
        assert_eq!(unknown.code(), -32602, "{}", unknown.text());
    });
    with_both(&fleet.gateway, "bob", |send| {
        assert_eq!(names(&send("tools/list", json!({})), "tools", "name"), ["a__read", "b__read"]);
        is_denied(&send("tools/call", tool("a__write")));
    });
    let listen = json!({"notifications": {"resourceSubscriptions": ["key://b"]}});
    is_denied(&fleet.gateway.modern().of("ann").send("subscriptions/listen", listen));
    let legacy = fleet.gateway.opening().header("X-User", "ann").open();
    for uri in ["key://b", "none://x"] {
        let subscribe =
            json!({"jsonrpc": "2.0", "id": 7, "method": "resources/subscribe", "params": {"uri": uri}});
        is_denied(&legacy.post(subscribe.to_string()));
    }
    let log = fleet.gateway.until_logged("nobody-pays");
    assert!(log.contains("the policies refuse a request"), "{log}");
    until("the audit log names the policy", || {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        text.lines().any(|line| line.contains("nobody-pays") && line.contains("denied"))
    });
}

#[test]
fn one_server_among_all_keeps_its_names_and_is_filtered_too() {
    let fleet = Fleet::of(&[("a", "--modern")], POLICIES, "");
    with_both(&fleet.gateway, "bob", |send| {
        assert_eq!(names(&send("tools/list", json!({})), "tools", "name"), ["read"]);
        assert_eq!(names(&send("resources/list", json!({})), "resources", "uri"), ["doc://a"]);
        assert_eq!(send("tools/call", tool("read")).status, 200);
        is_denied(&send("tools/call", tool("write")));
        is_denied(&send("tasks/get", json!({"taskId": "1"})));
    });
}

#[test]
fn searched_tools_are_those_that_the_caller_may_call() {
    let fleet = Fleet::two(POLICIES, "--search-tools");
    with_both(&fleet.gateway, "ann", |send| {
        assert_eq!(names(&send("tools/list", json!({})), "tools", "name"), ["search_tools", "call_tool"]);
        let search = json!({"name": "search_tools", "arguments": {"query": ""}});
        let found = send("tools/call", search).answer()["result"]["structuredContent"].clone();
        let found: Vec<_> =
            found["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
        assert_eq!(found, ["a__read", "a__write", "b__read"]);
        let call = |name: &str| json!({"name": "call_tool", "arguments": {"name": name, "arguments": {}}});
        let written = send("tools/call", call("a__write"));
        assert_eq!(
            (written.status, &written.answer()["result"]["content"][0]["text"]),
            (200, &json!("write"))
        );
        is_denied(&send("tools/call", call("b__write")));
        is_denied(&send("tools/call", call("a__pay")));
        is_denied(&send("tools/call", tool("a__pay")));
        assert_eq!(send("tools/call", json!({"name": "call_tool", "arguments": {"name": 1}})).code(), -32602);
    });
}

#[test]
fn groups_and_changed_policies_count_at_once() {
    let fleet = Fleet::two("permit(principal, action, resource in MCP::\"b\");", "");
    let ann = fleet.gateway.modern().of("ann");
    let tools = || names(&ann.send("tools/list", json!({})), "tools", "name");
    assert_eq!(tools(), ["b__read", "b__write", "b__delete", "b__pay"]);
    is_denied(&ann.send("tools/call", tool("a__read")));
    fs::write(&fleet.policies, "permit(principal, action, resource in MCP::\"a\");").expect("a file");
    until("the policies have changed", || ann.send("tools/call", tool("a__read")).status == 200);
    assert_eq!(tools(), ["a__read", "a__write", "a__delete", "a__pay"]);
    is_denied(&ann.send("tools/call", tool("b__read")));
    fs::write(&fleet.policies, "permit(").expect("a file");
    fleet.gateway.until_metric("proxyrunner_failed_reloads_total{file=\"policy\"}", 1);
    assert_eq!(ann.send("tools/call", tool("a__read")).status, 200);
}

#[test]
fn annotations_are_asked_of_the_server_before_the_first_call() {
    let text = "permit(principal, action, resource);
        forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };";
    let fleet = Fleet::of(&[("a", "--modern"), ("b", ""), ("c", "--modern")], text, "");
    with_both(&fleet.gateway, "bob", |send| {
        for server in ["a", "b"] {
            is_denied(&send("tools/call", tool(&format!("{server}__delete"))));
            assert_eq!(send("tools/call", tool(&format!("{server}__read"))).status, 200);
        }
    });
    let fleet = fleet.at("/servers/c/mcp");
    with_both(&fleet.gateway, "bob", |send| {
        is_denied(&send("tools/call", tool("delete")));
        assert_eq!(send("tools/call", tool("read")).status, 200);
    });
}

/// Writes an answer.
fn say(stream: &mut TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nmcp-session-id: s\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn message(request: &Received) -> Value {
    serde_json::from_str(&request.body).unwrap_or_default()
}

/// Starts a legacy server without a proxyrunner, and a gateway in front of it that lets everybody read.
fn alone(
    text: &str,
    serve: impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Upstream, Server) {
    let upstream = Upstream::doing(serve);
    let policies = file("cedar", text);
    let gateway = gateway(&json!({"s": {"url": upstream.url()}}), &policies, "").at("/servers/s/mcp");
    (upstream, gateway)
}

const READ: &str = "permit(principal, action, resource == Tool::\"read\");";
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

#[test]
fn lists_in_streams_are_filtered_and_everything_else_in_them_stays() {
    const EVENTS: &str = ": hello\n\nid: 0\ndata:\n\nevent: message\r\nid: 1\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{\"tools\":[1]}}\r\n\r\n\
        id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\ndata: \"result\":{\"tools\":[{\"name\":\"read\"},{\"name\":\"pay\"}],\"x\":1.0}}\n\ndata: [{\"tools\":1}]\n\ndata: [\n";
    let (_upstream, gateway) = alone(READ, |_, stream| say(stream, "text/event-stream", EVENTS));
    let expected = ": hello\n\nid: 0\ndata:\n\nevent: message\nid: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{\"tools\":[1]}}\n\n\
        id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":1, \"result\":{\"tools\":[{\"name\":\"read\"}],\"x\":1.0}}\n\n";
    let listed = gateway.post(&[("X-User", "bob")], LIST);
    assert_eq!((listed.status, listed.text().as_str()), (200, expected));
    // On the stream of a session the answer to any request may come again.
    let session =
        gateway.post(&[("X-User", "bob")], LIST).header("mcp-session-id").expect("an id").to_owned();
    let headers = [("X-User", "bob"), ("Mcp-Session-Id", &*session), ("Accept", "text/event-stream")];
    let resumed = gateway.request("GET", "/servers/s/mcp", &headers, b"");
    assert_eq!((resumed.status, resumed.text().as_str()), (200, expected));
}

#[test]
fn an_answer_that_cannot_be_filtered_is_refused() {
    let (_upstream, gateway) = alone(READ, |request, stream| match request.header("x-request-id") {
        Some("text") => say(stream, "text/plain", r#"\xef\xbb\xbf{"jsonrpc":"2.0"}"#),
        Some("batch") => {
            say(stream, "application/json", r#"[{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}]"#)
        }
        Some("case") => {
            say(stream, "application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"Tools":[{"name":"pay"}]}}"#)
        }
        Some("long") => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90000000\r\n\r\n{{"
            )?;
            while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
            Err(std::io::Error::other("gone"))
        }
        _ => say(
            stream,
            "application/json",
            r#" {"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"pay"}, {"name":"read"}]}}"#,
        ),
    });
    let list = |how| gateway.post(&[("X-User", "bob"), ("X-Request-Id", how)], LIST);
    assert_eq!(list("").text(), r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"read"}]}}"#);
    for how in ["text", "batch", "long"] {
        let refused = list(how);
        assert!(matches!(refused.status, 502 | 503), "{how}: {}", refused.text());
        assert_eq!(refused.code(), -32603, "{how}");
    }
    assert_eq!(list("case").code(), -32603);
}

#[test]
fn what_a_header_says_otherwise_than_its_message_is_refused() {
    let (upstream, gateway) = alone(READ, |request, stream| {
        let id = &message(request)["id"];
        say(
            stream,
            "application/json",
            &json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}).to_string(),
        )
    });
    let bob = gateway.modern().of("bob");
    assert_eq!(bob.send("tools/call", tool("read")).status, 200);
    let before = upstream.received().len();
    for (name, value) in [("Mcp-Name", "pay"), ("Mcp-Method", "tools/list")] {
        let refused = gateway.modern().of("bob").header(name, value).send("tools/call", tool("read"));
        assert_eq!(refused.status, 400, "{name}: {}", refused.text());
    }
    assert_eq!(upstream.received().len(), before);
}

#[test]
fn servers_of_the_legacy_era_are_asked_for_annotations_in_the_session() {
    let text = "permit(principal, action, resource);
        forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };";
    let (upstream, gateway) = alone(text, |request, stream| {
        let message = message(request);
        let result = match message["method"].as_str() {
            Some("initialize") => {
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}})
            }
            Some("tools/list") if request.header("mcp-session-id") == Some("s") => {
                json!({"tools": [{"name": "delete", "annotations": {"destructiveHint": true}}, {"name": "read"}]})
            }
            Some("tools/call") => json!({"content": []}),
            Some("notifications/initialized") => {
                return stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
            }
            _ => return stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        };
        say(
            stream,
            "application/json",
            &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string(),
        )
    });
    let session = gateway.opening().header("X-User", "bob").open();
    let call = |name: &str| {
        session.post(
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": tool(name)}).to_string(),
        )
    };
    is_denied(&call("delete"));
    assert_eq!(call("read").status, 200);
    let methods =
        || -> Vec<Value> { upstream.received().iter().map(|seen| message(seen)["method"].clone()).collect() };
    assert!(methods().contains(&json!("tools/list")), "{:?}", methods());
    assert!(!upstream.received().iter().any(|seen| seen.body.contains("\"delete\"")));
    // Outside of a session it cannot be asked.
    let refused = gateway.post(
        &[("X-User", "eve")],
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": tool("read")}).to_string(),
    );
    assert_eq!(refused.status, 503, "{}", refused.text());
}

#[test]
fn tasks_belong_to_their_caller_and_their_server() {
    let (upstream, gateway) = alone(READ, |request, stream| {
        let message = message(request);
        let task = |id: &str| json!({"taskId": id, "status": "working"});
        let result = match message["method"].as_str() {
            Some("tools/call") => json!({"task": task("mine")}),
            Some("tasks/list") => json!({"tasks": [task("other"), task("mine")]}),
            _ => task("mine"),
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        match message["method"] == "tools/call" {
            true => say(stream, "text/event-stream", &format!("data: {answer}\n\n")),
            false => say(stream, "application/json", &answer),
        }
    });
    let send = |who: &str, method: &str, params: Value| {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        gateway.post(&[("X-User", who)], request.to_string())
    };
    let id = || json!({"taskId": "mine"});
    is_denied(&send("ann", "tasks/get", id()));
    let begun = send("ann", "tools/call", json!({"name": "read", "arguments": {}, "task": {}}));
    assert_eq!(begun.answer()["result"]["task"]["taskId"], "mine");
    assert_eq!(send("ann", "tasks/get", id()).status, 200);
    is_denied(&send("bob", "tasks/get", id()));
    is_denied(&send("ann", "tasks/get", json!({"taskId": "other"})));
    assert_eq!(names(&send("ann", "tasks/list", json!({})), "tasks", "taskId"), ["mine"]);
    assert_eq!(names(&send("bob", "tasks/list", json!({})), "tasks", "taskId"), [""; 0]);
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn a_decision_point_decides_by_the_name_of_the_server() {
    let point = Upstream::doing(|request, stream| {
        let question = message(request);
        let allow = question["resource"] == "mrn:mcp:a:tool:read" && question["principal"]["sub"] == "ann";
        say(stream, "application/json", &json!({"allow": allow}).to_string())
    });
    let servers = [guarded("--modern"), guarded("")];
    let entries = json!({
        "a": {"url": format!("http://{}/mcp", servers[0].address())},
        "b": {"url": format!("http://{}/mcp", servers[1].address())},
    });
    let list = file("json", &json!({"mcpServers": entries}).to_string());
    let url = point.url().trim_end_matches("/mcp").to_owned();
    let flags = format!("--principal-header x-user --policy-url {url}");
    let gateway = Server::with().gateway(&list).flags(&flags).start();
    with_both(&gateway, "ann", |send| {
        assert_eq!(names(&send("tools/list", json!({})), "tools", "name"), ["a__read"]);
        assert_eq!(send("tools/call", tool("a__read")).status, 200);
        is_denied(&send("tools/call", tool("b__read")));
    });
    let gateway = gateway.at("/servers/a/mcp");
    let bob = gateway.modern().of("bob");
    is_denied(&bob.send("tools/call", tool("read")));
    assert_eq!(result(&bob.send("tools/list", json!({})))["tools"], json!([]));
}

#[test]
fn settings_of_a_sidecar_are_refused() {
    let servers = file("json", r#"{"mcpServers": {}}"#);
    let policies = file("cedar", READ);
    let run = |flags: &str| {
        let flags = format!("--policy {} {flags}", policies.display());
        let (status, told) = Server::with().gateway(&servers).flags(&flags).run();
        assert_eq!(status.code(), Some(64), "{told}");
        told
    };
    let told = run("--principal-header x-user --policy-server s");
    assert!(told.contains("--policy-server") && told.contains("is a sidecar's"), "{told}");
    assert!(run("").contains("needs to know the caller"));
}
