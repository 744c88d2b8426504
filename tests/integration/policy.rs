//! Authorization: denials, filtered lists, reloading, decision points and the offline commands, for clients and
//! servers of both eras.

use crate::support::modern::Modern;
use crate::support::{Response, Server, Session, scratch, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

const GUARDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/children/guarded.py");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy");

/// Everyone uses what is not named otherwise; ann also writes, and nobody pays.
const POLICIES: &str = r#"
permit(principal, action == Action::"call_tool", resource == Tool::"read");
permit(principal == Client::"ann", action == Action::"call_tool", resource == Tool::"write");
permit(principal, action == Action::"get_prompt", resource == Prompt::"open");
permit(principal, action == Action::"read_resource", resource) when { resource.uri like "doc://*" };
@id("nobody-pays") forbid(principal, action, resource == Tool::"pay");
"#;

/// Writes policies to a new file.
fn policies(text: &str) -> PathBuf {
    let path = scratch("policies").with_extension("cedar");
    fs::write(&path, text).expect("a file");
    path
}

/// Starts proxyrunner with policies in front of the guarded server.
fn guarded(text: &str, child: &str, flags: &str) -> Server {
    let path = policies(text);
    let flags = format!("--principal-header x-user --policy {} {flags}", path.display());
    Server::with().flags(&flags).program(&["python3", GUARDED]).child(child).start()
}

fn session<'a>(server: &'a Server, who: &str) -> Session<'a> {
    server.opening().header("X-User", who).open()
}

/// Sends a request of a legacy session.
fn send(session: &Session<'_>, method: &str, params: &Value) -> Response {
    session.post(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
}

/// Checks that a request is refused without a reason.
fn is_denied(response: &Response) {
    assert_eq!(response.status, 403, "{}", response.text());
    assert!(response.header("www-authenticate").is_none(), "a client would ask for more scopes");
    let mut answer = response.json();
    answer.as_object_mut().expect("an object").remove("id").expect("the id of the request");
    assert_eq!(answer, json!({"jsonrpc": "2.0", "error": {"code": 403, "message": "Unauthorized"}}));
}

/// Sends the same requests as a legacy client and as a modern one.
fn with_both(server: &Server, who: &str, each: impl Fn(&dyn Fn(&str, Value) -> Response)) {
    let legacy = session(server, who);
    each(&|method, params| send(&legacy, method, &params));
    let modern: Modern<'_> = server.modern().of(who);
    each(&|method, params| modern.send(method, params));
}

#[test]
fn a_request_that_no_policy_permits_is_refused_without_a_reason() {
    for child in ["", "--modern"] {
        let server = guarded(POLICIES, child, "");
        with_both(&server, "bob", |send| {
            assert_eq!(send("tools/call", json!({"name": "read"})).status, 200);
            assert_eq!(send("prompts/get", json!({"name": "open"})).status, 200);
            assert_eq!(send("resources/read", json!({"uri": "doc://a"})).status, 200);
            is_denied(&send("tools/call", json!({"name": "write"})));
            is_denied(&send("tools/call", json!({"name": "\u{70}ay"})));
            is_denied(&send("tools/call", json!({"name": "unknown"})));
            is_denied(&send("prompts/get", json!({"name": "secret"})));
            is_denied(&send("resources/read", json!({"uri": "key://b"})));
            is_denied(&send("tasks/get", json!({"taskId": "1"})));
            is_denied(&send("no/such", json!({})));
            let completion = |name| json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "a", "value": ""}});
            assert_eq!(send("completion/complete", completion("open")).status, 200);
            is_denied(&send("completion/complete", completion("secret")));
        });
        with_both(&server, "ann", |send| {
            assert_eq!(send("tools/call", json!({"name": "write"})).status, 200)
        });
        let log = server.until_logged("nobody-pays");
        assert!(log.contains("the policies refuse a request") && !log.contains("Unauthorized"), "{log}");
    }
}

#[test]
fn methods_without_a_decision_stay_allowed() {
    let server = guarded("forbid(principal, action, resource);", "", "");
    let legacy = session(&server, "bob");
    for method in ["ping", "logging/setLevel"] {
        assert_eq!(send(&legacy, method, &json!({"level": "info"})).status, 200, "{method}");
    }
    legacy.tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    is_denied(&send(&legacy, "resources/subscribe", &json!({"uri": "doc://a"})));
    let modern = server.modern().of("bob");
    assert_eq!(modern.send("server/discover", json!({})).status, 200);
    let listen = json!({"notifications": {"resourceSubscriptions": ["doc://a"]}});
    is_denied(&modern.send("subscriptions/listen", listen));
}

#[test]
fn each_message_of_a_batch_is_decided_on_alone() {
    let server = guarded(POLICIES, "", "");
    let session = server.opening().version("2025-03-26").header("X-User", "bob").open();
    let call = |id, tool: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}});
    let answer = session.post(json!([call(1, "read"), call(2, "write"), call(3, "read")]).to_string());
    assert_eq!(answer.status, 200);
    let answers = answer.json();
    let of = |id: u64| {
        answers.as_array().expect("a list").iter().find(|answer| answer["id"] == id).expect("an answer")
    };
    assert!(of(1)["result"].is_object() && of(3)["result"].is_object(), "{answers}");
    assert_eq!(of(2)["error"], json!({"code": 403, "message": "Unauthorized"}));
}

#[test]
fn a_client_of_http_sse_gets_the_refusal_on_its_stream() {
    let server = guarded(POLICIES, "", "--sse");
    let mut connection = server.connect();
    connection.request("GET", "/sse", &[("Accept", "text/event-stream"), ("X-User", "bob")], b"");
    let mut events = connection.events();
    let path = format!("/{}", events.next().expect("an event").data);
    let post = |body: String| {
        let headers = [("Content-Type", "application/json"), ("X-User", "bob")];
        assert_eq!(server.request("POST", &path, &headers, body.as_bytes()).status, 202);
    };
    post(server.opening().version("2024-11-05").body());
    assert!(events.message()["result"].is_object());
    post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    post(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "write"}}).to_string());
    assert_eq!(events.message()["error"], json!({"code": 403, "message": "Unauthorized"}));
    post(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"}).to_string());
    assert_eq!(names(&events.message(), "tools", "name"), ["read"]);
}

/// Returns the names of the things in a list.
fn names(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let things = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
    things.iter().map(|thing| thing[key].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_request_without_an_id_does_not_pass_as_a_notification() {
    let journal = scratch("journal");
    let seen = || fs::read_to_string(&journal).unwrap_or_default();
    let server = guarded(POLICIES, &format!("--journal {}", journal.display()), "");
    let session = session(&server, "ann");
    for (body, status) in [
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete"}}"#, 400),
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"read"}}"#, 400),
        (r#"{"jsonrpc":"2.0","method":"tools\/call","params":{"name":"delete"}}"#, 400),
        (r#"{"jsonrpc":"2.0","ID":1,"method":"tools/call","params":{"name":"delete"}}"#, 400),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/x","Method":"tools/call","params":{"name":"delete"}}"#,
            400,
        ),
        (r#"{"jsonrpc":"2.0","ID":1,"method":"notifications/x","params":{}}"#, 400),
        (r#"{"jsonrpc":"2.0","method":"Tools/call","params":{"name":"delete"}}"#, 403),
        (r#"{"jsonrpc":"2.0","method":"no/such","params":{}}"#, 403),
    ] {
        assert_eq!(session.post(body).status, status, "{body}");
    }
    let batches = server.opening().version("2025-03-26").header("X-User", "ann").open();
    let call = r#"[{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete"}}]"#;
    assert_eq!(batches.post(call).status, 400);
    let mixed = r#"[{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete"}},
        {"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"no/such"}]"#;
    assert_eq!(batches.post(mixed).json(), json!([{"jsonrpc": "2.0", "id": 1, "result": {}}]));
    let modern = server.modern().of("ann");
    let mut body = modern.body(1, "tools/call", json!({"name": "read"}));
    body.as_object_mut().expect("an object").remove("id");
    let refused = modern.send_body(&body);
    assert_eq!((refused.status, refused.code()), (400, -32600));
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/x"}));
    until("the notification", || seen().contains("notifications/x"));
    let seen = seen();
    assert!(!seen.contains("call") && !seen.contains("no/such"), "the server sees none of them: {seen}");
    assert_eq!(seen.matches("notifications/x").count(), 1, "{seen}");
}

#[test]
fn lists_show_what_their_reader_may_use() {
    for child in ["", "--modern"] {
        let server = guarded(POLICIES, child, "");
        for (who, tools) in [("bob", &["read"][..]), ("ann", &["read", "write"])] {
            // The second time, lists come from the cache.
            for _ in 0..2 {
                with_both(&server, who, |send| {
                    let list = |method, list, key| names(&send(method, json!({})).answer(), list, key);
                    assert_eq!(list("tools/list", "tools", "name"), tools);
                    assert_eq!(list("prompts/list", "prompts", "name"), ["open"]);
                    assert_eq!(list("resources/list", "resources", "uri"), ["doc://a"]);
                    assert_eq!(
                        list("resources/templates/list", "resourceTemplates", "uriTemplate"),
                        ["doc://{x}"]
                    );
                });
            }
        }
        assert!(server.metric("proxyrunner_cached_lists_total") > 0, "one list for all principals");
    }
}

#[test]
fn every_other_byte_of_a_list_stays() {
    let everything = "permit(principal, action, resource);";
    // The caller gets a cursor of its own.
    let with_cursor = |text: &str| {
        let (before, rest) = text.split_once(r#""nextCursor":""#).expect("a cursor");
        let (_, after) = rest.split_once('"').expect("its end");
        format!(r#"{before}"nextCursor":"more"{after}"#)
    };
    let list = |text: &str| {
        let server = guarded(text, "", "");
        with_cursor(&send(&session(&server, "ann"), "tools/list", &json!({})).text())
    };
    let plain = Server::with().program(&["python3", GUARDED]).start();
    let whole = send(&plain.session(), "tools/list", &json!({})).text();
    assert_eq!(list(everything), whole, "nothing removed, nothing changed");
    let without_delete =
        list(&format!("{everything} forbid(principal, action, resource == Tool::\"delete\");"));
    let (before, rest) = whole.split_once(r#",{"inputSchema""#).expect("the tool");
    let after = &rest[rest.find(r#" , {"name":"\u0070ay""#).expect("the next tool")..];
    assert_eq!(without_delete, format!("{before}{after}"));
    let only_pay = list("permit(principal, action, resource == Tool::\"pay\");");
    assert!(
        only_pay.contains(
            r#"[ {"name":"\u0070ay","inputSchema":{"type":"object"}} ] , "nextCursor":"more", "_meta":{}"#
        ),
        "{only_pay}"
    );
}

#[test]
fn an_explanation_ends_quietly_when_its_reader_does() {
    let claims = r#"{"sub": "ann"}"#;
    let policy = format!("{EXAMPLES}/rbac");
    let words = ["policy", "explain", "--policy", &policy, "--claims", claims, "tools/call", "x"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command.args(words).stdout(writer).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_filtered_list_must_not_be_cached_for_others() {
    for (child, text) in [("--modern", POLICIES), ("", POLICIES)] {
        let server = guarded(text, child, "");
        let modern = server.modern().of("bob");
        for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
            let answer = modern.send(method, json!({})).answer();
            assert_eq!(answer["result"]["cacheScope"], "private", "{answer}");
        }
        let read = modern.send("resources/read", json!({"uri": "doc://a"})).answer();
        assert_eq!(read["result"]["cacheScope"], "private", "{read}");
    }
}

#[test]
fn annotations_are_known_before_the_first_call() {
    let text = r#"
        permit(principal, action, resource);
        forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };
    "#;
    for (child, flags) in
        [("", ""), ("--modern", ""), ("", "--isolation session"), ("--modern", "--isolation session")]
    {
        let server = guarded(text, child, &format!("--metrics=false {flags}"));
        with_both(&server, "bob", |send| {
            is_denied(&send("tools/call", json!({"name": "delete"})));
            assert_eq!(send("tools/call", json!({"name": "read"})).status, 200, "{child} {flags}");
        });
    }
}

#[test]
fn annotations_beyond_the_pages_that_are_read_are_unknown() {
    let text = "permit(principal, action, resource);
        forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };";
    let flags = format!("--principal-header x-user --policy {}", policies(text).display());
    let server = Server::with().flags(&flags).start();
    let session = session(&server, "bob");
    let page = |name: String, destroys: bool| json!([{"name": name, "inputSchema": {"type": "object"}, "annotations": {"destructiveHint": destroys}}]);
    let mut pages: Vec<_> = (0..100).map(|at| page(format!("tool{at}"), false)).collect();
    pages.push(page("echo".to_owned(), true));
    session.result("relist", json!({"method": "tools/list", "pages": pages}));
    let status = |name: &str| send(&session, "tools/call", &json!({"name": name, "arguments": {}})).status;
    assert_ne!(status("tool0"), 503);
    assert_eq!(status("echo"), 503, "it may be on a page that was not read");
}

#[test]
fn a_message_that_can_be_read_in_two_ways_is_refused() {
    let server = guarded(POLICIES, "", "");
    let session = session(&server, "bob");
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","Name":"delete"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"name":"delete"},"Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"read"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{},"arguments":{}}}"#,
    ] {
        let refused = session.post(body);
        assert_eq!((refused.status, refused.code()), (400, -32600), "{body}");
        assert!(!refused.text().contains("two members"), "there may be only one: {}", refused.text());
    }
}

#[test]
fn changed_policies_are_taken_over_and_invalid_ones_are_not() {
    let path = policies(POLICIES);
    let flags = format!("--principal-header x-user --reload-interval 50ms --policy {}", path.display());
    let server = Server::with().flags(&flags).program(&["python3", GUARDED]).start();
    let modern = server.modern().of("bob");
    let status = |tool: &str| modern.send("tools/call", json!({"name": tool})).status;
    assert_eq!((status("read"), status("write")), (200, 403));
    assert_eq!(server.metric("proxyrunner_policies_current"), 1);
    fs::write(&path, "permit(principal, action").expect("a file");
    server.until_metric("proxyrunner_failed_reloads_total{file=\"policy\"}", 1);
    assert_eq!(server.metric("proxyrunner_policies_current"), 0);
    assert_eq!((status("read"), status("write")), (200, 403), "the previous policies stay in force");
    let log = server.until_logged("stay in force");
    assert!(log.contains(".cedar:1:"), "{log}");
    fs::write(&path, r#"permit(principal, action, resource == Tool::"write");"#).expect("a file");
    until("the new policies are in force", || (status("read"), status("write")) == (403, 200));
    assert_eq!(server.metric("proxyrunner_policies_current"), 1);
}

/// A decision point that answers by the name of the thing, and the questions that it was asked.
fn decision_point(answer: fn(&str) -> String) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}/base", listener.local_addr().expect("an address"));
    let questions = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&questions);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, asked) = (stream.expect("a connection"), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut chunk = [0; 4096];
                let body = loop {
                    let count = stream.read(&mut chunk).unwrap_or(0);
                    if count == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&chunk[..count]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        assert!(head.starts_with("POST /base/decision HTTP/1.1"), "{head}");
                        break body.to_owned();
                    }
                };
                let question: Value = serde_json::from_str(&body).expect("JSON");
                let name = question["context"]["mcp"]["resource_id"].as_str().expect("a name").to_owned();
                asked.lock().expect("a lock").push(question);
                let _ = stream.write_all(answer(&name).as_bytes());
            });
        }
    });
    (url, questions)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_decision_point_decides_and_its_failure_denies() {
    let (url, questions) = decision_point(|name| match name {
        "read" => http("200 OK", r#"{"allow":true,"x":1}"#),
        "write" => http("200 OK", r#"{"allow":"yes"}"#),
        "pay" => http("500 Internal Server Error", r#"{"allow":true}"#),
        "delete" => String::new(),
        "twice" => http("200 OK", r#"{"allow":false,"allow":true}"#),
        "case" => http("200 OK", r#"{"allow":true,"Allow":false}"#),
        _ => http("200 OK", r#"{"allow":false}"#),
    });
    let flags =
        format!("--principal-header x-user --policy-url {url} --policy-timeout 2s --policy-server srv");
    let server = Server::with().flags(&flags).program(&["python3", GUARDED]).start();
    with_both(&server, "bob", |send| {
        let call = |tool: &str| send("tools/call", json!({"name": tool, "arguments": {"a": [1.50]}}));
        assert_eq!(call("read").status, 200);
        for tool in ["write", "pay", "delete", "twice", "case", "other"] {
            is_denied(&call(tool));
        }
        is_denied(&send("resources/read", json!({"uri": "doc://a"})));
    });
    let first = questions.lock().expect("a lock")[0].clone();
    let expected = json!({
        "principal": {"sub": "bob"},
        "operation": "mcp:tool:call",
        "resource": "mrn:mcp:srv:tool:read",
        "context": {"mcp": {
            "feature": "tool", "operation": "call", "resource_id": "read", "args": {"a": [1.5]},
            "annotations": {"readOnlyHint": true},
        }},
    });
    assert_eq!(first, expected);
    let all = server.request("GET", "/metrics", &[], b"").text();
    assert!(all.contains("mcp_policy_decisions_total{result=\"error\"} 10"), "{all}");
}

#[test]
fn a_decision_point_filters_lists() {
    let (url, _) =
        decision_point(|name| http("200 OK", &json!({"allow": name == "read" || name == "pay"}).to_string()));
    let flags = format!("--principal-header x-user --policy-url {url}");
    let server = Server::with().flags(&flags).program(&["python3", GUARDED]).start();
    let listed = |server: &Server| {
        names(&server.modern().of("bob").send("tools/list", json!({})).answer(), "tools", "name")
    };
    assert_eq!(listed(&server), ["read", "pay"]);
    let gone = "--principal-header x-user --policy-url http://127.0.0.1:1";
    let server = Server::with().flags(gone).program(&["python3", GUARDED]).start();
    assert!(listed(&server).is_empty(), "without a decision, nothing is shown");
}

#[test]
fn bad_settings_are_reported_before_anything_starts() {
    let good = policies(POLICIES);
    let bad = policies("permit(principal, action, resource);\nforbid(principal, action resource);\n");
    let header = "--principal-header x-user";
    for (flags, expected) in [
        (format!("--policy {}", good.display()), "--policy: needs to know the caller".to_owned()),
        ("--policy-url http://localhost:1".to_owned(), "--policy-url: needs to know the caller".to_owned()),
        (format!("{header} --policy {}", bad.display()), format!("{}:2:26", bad.display())),
        (format!("{header} --policy /no/such"), "/no/such: cannot be read".to_owned()),
        (
            format!("{header} --policy {} --policy-url http://x", good.display()),
            "are given together".to_owned(),
        ),
        (format!("{header} --policy-url ftp://x"), "is not the URL of a decision point".to_owned()),
        (format!("{header} --policy-url http://user:pw@x"), "is not the URL of a decision point".to_owned()),
    ] {
        let (status, log) = Server::with().flags(&flags).run();
        assert_eq!(status.code(), Some(64), "{flags}: {log}");
        assert!(log.contains(&expected), "{flags}: {log}");
    }
}

/// Runs the binary with these words.
fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_proxyrunner")).args(words).output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn policy_check_reports_every_fault() {
    let good = policies(POLICIES);
    let bad = policies("permit(principal);\n");
    let checked = run(&["policy", "check", &good.display().to_string(), EXAMPLES_RBAC]);
    assert_eq!(checked.status.code(), Some(0), "{}", out(&checked));
    assert_eq!(out(&checked), format!("{}: 5 policies\n{EXAMPLES_RBAC}: 4 policies\n", good.display()));
    let checked = run(&["policy", "check", &good.display().to_string(), &bad.display().to_string()]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(out(&checked).contains(&format!("{}:1:", bad.display())), "{}", out(&checked));
}

const EXAMPLES_RBAC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy/rbac");

/// Explains a decision on a tool by one of the examples.
fn explained(policy: &str, claims: &Value, annotations: &Value, words: &[&str]) -> (bool, String) {
    let path = Path::new(EXAMPLES).join(policy).display().to_string();
    let (claims, annotations) = (claims.to_string(), annotations.to_string());
    let options =
        ["policy", "explain", "--policy", &path, "--claims", &claims, "--annotations", &annotations];
    let output = run(&[&options[..], words].concat());
    (output.status.success(), out(&output))
}

#[test]
fn the_role_based_example_decides_by_groups() {
    for policy in ["rbac", "rbac.yaml"] {
        for (groups, tool, annotations, expected) in [
            (json!(["mcp-users"]), "read", json!({"readOnlyHint": true}), true),
            (json!(["mcp-users"]), "write", json!({}), false),
            (json!(["mcp-users"]), "odd", json!({"readOnlyHint": true, "destructiveHint": true}), false),
            (json!(["mcp-admins"]), "delete", json!({"destructiveHint": true}), true),
            (json!(["mcp-admins"]), "write", json!({}), true),
            (json!([]), "read", json!({"readOnlyHint": true}), false),
        ] {
            let claims = json!({"sub": "ann", "groups": groups});
            let (allowed, text) = explained(policy, &claims, &annotations, &["tools/call", tool]);
            assert_eq!(allowed, expected, "{policy} {groups} {tool}: {text}");
        }
        let (allowed, text) = explained(
            policy,
            &json!({"sub": "a", "groups": ["mcp-users"]}),
            &json!({}),
            &["prompts/get", "p"],
        );
        assert!(allowed, "{text}");
    }
}

#[test]
fn the_attribute_based_example_decides_by_a_claim_and_an_argument() {
    for policy in ["abac", "abac.json"] {
        for (department, arguments, expected) in [
            ("finance", json!({"amount": 1000}), true),
            ("finance", json!({"amount": 1000.01}), false),
            ("finance", json!({"amount": "1"}), false),
            ("finance", json!({"amount": [1]}), false),
            ("finance", json!({"amount": null}), false),
            ("finance", json!({"amount": 1e18}), false),
            ("finance", json!({"amount": -1e18}), false),
            ("finance", json!({"Amount": 1}), false),
            ("finance", json!({}), true),
            ("sales", json!({"amount": 1}), false),
        ] {
            let claims = json!({"sub": "ann", "department": department});
            let words = ["tools/call", "transfer", &arguments.to_string()];
            let (allowed, text) = explained(policy, &claims, &json!({}), &words);
            assert_eq!(allowed, expected, "{policy} {department} {arguments}: {text}");
        }
        let claims = json!({"sub": "ann", "department": "finance"});
        let twice = ["tools/call", "transfer", r#"{"amount": 1001, "amount": 1}"#];
        assert!(!explained(policy, &claims, &json!({}), &twice).0, "{policy}: as a request is decided on");
        for (uri, expected) in
            [("docs://public/a", true), ("docs://private/a", false), ("docs://public/../private/a", false)]
        {
            let (allowed, text) =
                explained(policy, &json!({"sub": "ann"}), &json!({}), &["resources/read", uri]);
            assert_eq!(allowed, expected, "{policy} {uri}: {text}");
        }
    }
}

#[test]
fn an_explanation_names_the_policies_and_shows_the_entities() {
    let (allowed, text) = explained(
        "rbac",
        &json!({"sub": "ann", "groups": ["mcp-users"]}),
        &json!({"readOnlyHint": true}),
        &["tools/call", "read", r#"{"x": 1}"#],
    );
    assert!(allowed, "{text}");
    for part in [
        "allow by users-call-read-only-tools",
        r#"principal: Client::"ann""#,
        r#"action: Action::"call_tool""#,
        r#"resource: Tool::"read""#,
        r#""claim_sub": "ann""#,
        r#""id": "mcp-users""#,
        r#""readOnlyHint": true"#,
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (allowed, text) =
        explained("rbac", &json!({"groups": ["mcp-admins"]}), &json!({}), &["tools/call", "x"]);
    assert!(!allowed && text.contains("deny: the caller has no subject"), "{text}");
}
