//! `proxyrunner gateway` in front of real sidecars: both eras, sessions at their owners, streams, and shutting down.

use crate::support::modern::{Asked, result};
use crate::support::{Connection, Server, scratch, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Sidecars of the scripted server, and a gateway that serves them at `/servers/tools/mcp`.
struct Fleet {
    replicas: Vec<Server>,
    gateway: Server,
}

fn file(servers: &Value) -> PathBuf {
    let path = scratch("servers.json");
    fs::write(&path, json!({"mcpServers": servers}).to_string()).expect("a file");
    path
}

/// Starts a sidecar, and waits until its child is ready: the gateway sends nothing to one that is not.
fn ready(flags: &str) -> Server {
    let server = Server::start(flags);
    until("the sidecar is ready", || server.request("GET", "/readyz", &[], b"").status == 200);
    server
}

fn url(replica: &Server) -> String {
    format!("http://{}/mcp", replica.address())
}

impl Fleet {
    fn start(count: usize, sidecars: &str, gateway: &str) -> Fleet {
        let replicas: Vec<_> = (0..count).map(|_| ready(sidecars)).collect();
        let urls: Vec<_> = replicas.iter().map(url).collect();
        let servers = file(&json!({"team/tools": {"urls": urls}}));
        let gateway = Server::with().gateway(&servers).flags(gateway).start().at("/servers/tools/mcp");
        Fleet { replicas, gateway }
    }

    fn one() -> Fleet {
        Fleet::start(1, "", "")
    }
}

fn pid(facts: &Value) -> u64 {
    facts["pid"].as_u64().expect("a pid")
}

#[test]
fn a_session_passes_with_all_its_streams() {
    let fleet = Fleet::one();
    let session = fleet.gateway.opening().exclusive().open();
    assert_eq!(session.version(), "2025-11-25");
    assert_eq!(session.result("echo", json!({"a": "\u{a0}\u{3000}é"}))["a"], "\u{a0}\u{3000}é");
    let mut stream = session.listen();
    let call = session.begin_call(5, "ask", json!({"method": "sampling/createMessage"}));
    let mut events = call.events();
    let question = events.message();
    assert_eq!(question["method"], "sampling/createMessage", "{question}");
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"role": "user"}}));
    assert_eq!(events.message()["id"], 5);
    session.result(
        "emit",
        json!({"lines": [r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#]}),
    );
    assert_eq!(stream.message()["method"], "notifications/tools/list_changed");
    assert_eq!(session.delete().status, 204);
    assert_eq!(stream.next(), None, "the session's stream ends with it");
    let after = session.post(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
    assert_eq!((after.status, after.code()), (404, -32001));
}

#[test]
fn a_stream_is_resumed_at_its_owner() {
    let fleet = Fleet::start(3, "--sse-commit-after 0s", "");
    for name in ["a", "b", "c", "d"] {
        let session = fleet.gateway.session();
        let mut events = session.begin_call(1, "wait", json!({"name": name})).events();
        let primed = events.next().expect("an event").id.expect("an id");
        events.cut();
        session.result("release", json!({"name": name}));
        assert_eq!(session.resume(&primed).message()["id"], 1);
    }
}

#[test]
fn sessions_stay_at_their_owner_and_end_with_it() {
    let mut fleet = Fleet::start(3, "", "");
    let sessions: Vec<_> = (0..12).map(|_| fleet.gateway.session()).collect();
    let owners: Vec<_> = sessions.iter().map(|session| pid(&session.result("facts", json!({})))).collect();
    assert!(owners.iter().collect::<BTreeSet<_>>().len() > 1, "several replicas: {owners:?}");
    for _ in 0..3 {
        for (session, owner) in sessions.iter().zip(&owners) {
            assert_eq!(pid(&session.result("facts", json!({}))), *owner);
        }
    }
    let gone = fleet.replicas.remove(0);
    let lost = pid(&gone.session().result("facts", json!({})));
    drop(gone);
    for (session, owner) in sessions.iter().zip(&owners) {
        let response = session.post(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
        if *owner == lost {
            assert_eq!((response.status, response.code()), (404, -32001));
            assert_eq!(response.json()["id"], 7);
        } else {
            assert_eq!(response.status, 200);
        }
    }
    // New sessions are opened elsewhere, and no request fails.
    for _ in 0..6 {
        assert_ne!(pid(&fleet.gateway.session().result("facts", json!({}))), lost);
    }
}

#[test]
fn while_a_replica_drains_its_sessions_end_and_all_else_goes_elsewhere() {
    let fleet = Fleet::start(2, "--isolation shared --drain-delay 0s --drain-timeout 60s", "");
    let sessions: Vec<_> = (0..12).map(|_| fleet.gateway.session()).collect();
    let owners: Vec<_> = sessions.iter().map(|session| pid(&session.result("facts", json!({})))).collect();
    let draining = &fleet.replicas[0];
    let busy = draining.session();
    let leaving = pid(&busy.result("facts", json!({})));
    assert!(owners.contains(&leaving) && owners.iter().any(|owner| *owner != leaving), "{owners:?}");
    let _in_flight = busy.begin_call(1, "wait", json!({"name": "never"}));
    draining.until_metric("proxyrunner_in_flight", 1);
    draining.signal(Signal::SIGTERM);
    until("it refuses requests", || draining.modern().send("tools/list", json!({})).status == 503);
    let client = fleet.gateway.modern();
    for _ in 0..20 {
        assert_ne!(pid(&client.result("facts", json!({}))), leaving);
        assert_ne!(pid(&fleet.gateway.session().result("facts", json!({}))), leaving);
    }
    for (session, owner) in sessions.iter().zip(&owners) {
        let call =
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"facts","arguments":{}}}"#;
        assert_eq!(session.post(call).status, if *owner == leaving { 404 } else { 200 });
    }
}

#[test]
fn sessions_leave_a_replica_before_it_ends() {
    let fleet = Fleet::start(2, "--isolation shared --drain-delay 60s", "");
    let session = fleet.gateway.session();
    let owner = pid(&session.result("facts", json!({})));
    let is_owner = |replica: &&Server| pid(&replica.session().result("facts", json!({}))) == owner;
    let leaving = fleet.replicas.iter().find(is_owner).expect("the owner");
    leaving.signal(Signal::SIGTERM);
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"facts","arguments":{}}}"#;
    until("the session ends", || session.post(call).status == 404);
    assert_eq!(leaving.modern().send("tools/list", json!({})).status, 200, "it still serves others");
    let told = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#;
    assert_eq!(session.post(told).status, 202, "what a call in flight may need still passes");
    assert_ne!(pid(&fleet.gateway.session().result("facts", json!({}))), owner);
}

#[test]
fn an_answer_tells_that_its_replica_is_shutting_down() {
    let fleet = Fleet::start(2, "--isolation shared --drain-delay 60s", "");
    let leaving = &fleet.replicas[0];
    let owner = pid(&leaving.session().result("facts", json!({})));
    leaving.signal(Signal::SIGTERM);
    until("it is not ready", || leaving.request("GET", "/health/ready", &[], b"").status == 503);
    let client = fleet.gateway.modern();
    let answers = (0..40).filter(|_| pid(&client.result("facts", json!({}))) == owner).count();
    assert!(answers <= 1, "{answers} of 40");
}

#[test]
fn a_session_id_works_for_its_server_and_its_principal_only() {
    let replica = ready("");
    let servers = file(&json!({"a": {"url": url(&replica)}, "b": {"url": url(&replica)}}));
    let gateway = Server::with().gateway(&servers).flags("--principal-header x-user").start();
    let a = gateway.at("/servers/a/mcp");
    let id = a.opening().header("X-User", "ann").open().id;
    assert!(id.len() < 1024 && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let status = |server: &Server, user: &str, id: &str| {
        let response = server.post(&[("X-User", user), ("Mcp-Session-Id", id)], ping);
        if response.status == 404 {
            assert_eq!(response.code(), -32001);
        }
        response.status
    };
    let at_b = || {
        let headers = Connection::post_headers(&[("X-User", "ann"), ("Mcp-Session-Id", &id)]);
        a.request("POST", "/servers/b/mcp", &headers, ping.as_bytes()).status
    };
    assert_eq!(status(&a, "bob", &id), 404, "another principal, before the gateway remembers the id");
    assert_eq!(status(&a, "ann", &id), 200);
    assert_eq!(status(&a, "bob", &id), 404, "another principal");
    assert_eq!(at_b(), 404, "another server, even with the same replica");
    assert_eq!(status(&a, "ann", &id), 200);
    let mut forged: Vec<_> = (0..id.len()).step_by(7).map(|at| id[..at].to_owned()).collect();
    forged.retain(|id| !id.is_empty());
    forged.extend([format!("{id}A"), id.to_ascii_lowercase(), "x".to_owned(), "A".repeat(5000)]);
    for forged in forged {
        assert_eq!(status(&a, "ann", &forged), 404, "{forged}");
    }
    // The replica's own id is worth nothing at the gateway.
    let inner = replica.session().id;
    assert_eq!(status(&a, "ann", &inner), 404);
    for method in ["GET", "DELETE"] {
        let headers = [("X-User", "bob"), ("Mcp-Session-Id", &*id), ("Accept", "text/event-stream")];
        assert_eq!(a.request(method, a.path(), &headers, b"").status, 404, "{method}");
    }
}

#[test]
fn gateways_with_the_same_key_share_sessions() {
    let replica = ready("");
    let servers = file(&json!({"tools": {"url": url(&replica)}}));
    let key = |name: &str| {
        let key = scratch(name);
        fs::write(&key, name.repeat(32)).expect("a file");
        format!("--state-key-file {}", key.display())
    };
    let start = |flags: &str| Server::with().gateway(&servers).flags(flags).start().at("/servers/tools/mcp");
    let shared = key("a");
    let (one, two, other) = (start(&shared), start(&shared), start(&key("b")));
    let id = one.session().id;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let status = |server: &Server| server.post(&[("Mcp-Session-Id", &id)], ping).status;
    assert_eq!((status(&two), status(&other)), (200, 404));
}

#[test]
fn a_modern_client_is_served_by_any_replica() {
    let fleet = Fleet::start(3, "--isolation shared", "");
    let client = fleet.gateway.modern();
    let pids: BTreeSet<_> = (0..30).map(|_| pid(&client.result("facts", json!({})))).collect();
    assert!(pids.len() > 1, "{pids:?}");
    let progress = client.clone().meta("progressToken", "p");
    let messages = progress.call("progress", json!({"n": 3})).messages();
    assert_eq!(messages.len(), 4, "{messages:?}");
    let list = client.send("tools/list", json!({}));
    assert!(list.answer()["result"]["tools"].is_array());
    // A session id of before has no meaning in this era.
    let old = client.clone().header("Mcp-Session-Id", "old");
    assert!(old.send("tools/list", json!({})).answer()["result"].is_object());
}

#[test]
fn the_answers_to_questions_reach_the_replica_that_asked() {
    let fleet = Fleet::start(3, "", "");
    let client = fleet.gateway.asked();
    for n in 0..8 {
        let arguments = json!({"method": "elicitation/create", "params": {"message": format!("{n}?"), "requestedSchema": {"type": "object", "properties": {}}}});
        let asked = Asked::of(&client.call("ask", arguments.clone()));
        let answers = asked.all(&json!({"action": "accept", "content": {}}));
        let done = client.retry("ask", arguments, &asked, answers);
        assert!(result(&done)["isError"].is_null(), "{}", done.text());
    }
}

#[test]
fn a_client_that_disconnects_ends_its_request() {
    let fleet = Fleet::start(1, "", "");
    let replica = &fleet.replicas[0];
    let begun = |n| replica.until_metric("proxyrunner_in_flight", n);
    // Before the head of the answer, and in the middle of a stream.
    let call = fleet.gateway.modern().begin_call(1, "hang", json!({}));
    begun(1);
    call.cut();
    let client = fleet.gateway.modern().meta("progressToken", "p");
    let mut events = client.begin_call(2, "work", json!({"name": "never"})).events();
    events.message();
    events.cut();
    until("the cancellations", || {
        let frames = replica.session().child_read();
        frames.iter().filter(|frame| frame["method"] == "notifications/cancelled").count() == 2
    });
    until("the end at the gateway", || fleet.gateway.metric("proxyrunner_in_flight") == 0);
}

#[test]
fn shutting_down_waits_for_calls_and_ends_streams() {
    let fleet = Fleet::start(1, "--sse-commit-after 0s", "--drain-timeout 20s");
    let session = fleet.gateway.session();
    let mut stream = session.listen();
    let mut call = session.begin_call(1, "wait", json!({"name": "a"})).events();
    fleet.gateway.signal(Signal::SIGTERM);
    fleet.gateway.until_logged("shutting down");
    until("new requests are refused", || fleet.gateway.modern().send("tools/list", json!({})).status == 503);
    // Directly, because the gateway takes no more requests.
    let direct = fleet.replicas[0].session();
    direct.result("release", json!({"name": "a"}));
    assert_eq!(call.rest().last().expect("the answer")["id"], 1);
    assert_eq!(stream.rest(), Vec::<Value>::new());
    assert_eq!(fleet.gateway.exit_code(), 0);
}

#[test]
fn an_answer_whose_replica_dies_does_not_look_complete() {
    let mut fleet = Fleet::one();
    let client = fleet.gateway.modern().meta("progressToken", "p");
    let mut events = client.begin_call(7, "work", json!({"name": "never"})).events();
    events.message();
    let session = fleet.gateway.session();
    drop(fleet.replicas.remove(0));
    let rest = events.rest();
    assert!(
        rest.iter().all(|event| event["method"] == "notifications/progress"),
        "the stream is cut: {rest:?}"
    );
    let ping = session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(ping.status, 404);
    let refused = fleet.gateway.modern().send("tools/list", json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["id"], 1);
}

#[test]
fn the_file_is_followed() {
    let replica = ready("");
    let servers = file(&json!({"a": {"url": url(&replica)}}));
    let gateway =
        Server::with().gateway(&servers).flags("--reload-interval 50ms").start().at("/servers/a/mcp");
    let session = gateway.session();
    let replace = |text: &str| {
        let next = servers.with_extension("next");
        fs::write(&next, text).expect("a file");
        fs::rename(&next, &servers).expect("a rename");
    };
    let of = |name: &str| {
        let path = format!("/servers/{name}/mcp");
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
        gateway.request("POST", &path, &headers, gateway.opening().body().as_bytes()).status
    };
    replace(&json!({"mcpServers": {"a": {"url": url(&replica)}, "b": {"url": url(&replica)}}}).to_string());
    until("the new server", || of("b") == 200);
    session.result("facts", json!({}));
    replace("{\"mcpServers\": {\"a\": {\"ulr\": \"x\"}}}");
    gateway.until_logged("unusable");
    assert_eq!((of("a"), of("b")), (200, 200), "a bad file changes nothing");
    replace(&json!({"mcpServers": {"b": {"url": url(&replica)}}}).to_string());
    until("the removed server", || of("a") == 404);
    assert_eq!(of("b"), 200);
}
