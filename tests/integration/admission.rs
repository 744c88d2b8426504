//! Admission: when not all requests can be in flight, clients take turns within limits, and no client starves.
//!
//! The child's tool `late` answers once its call is cancelled, so that a test decides when a place becomes free. The
//! order in which the child reads the calls is the order of admission.

use crate::support::modern::{Modern, result};
use crate::support::{Connection, Journal, Response, Server, Session, tool_call, until};
use serde_json::{Value, json};

const QUEUED: &str = "proxyrunner_queued";
const IN_FLIGHT: &str = "proxyrunner_in_flight";

struct Scene {
    server: Server,
    journal: Journal,
}

impl Scene {
    fn new(flags: &str) -> Scene {
        let journal = Journal::new();
        Scene { server: Server::with().flags(flags).child(&journal.flag()).start(), journal }
    }

    /// Returns the calls of `late` that the child has read, in order.
    fn order(&self) -> Vec<String> {
        let frames = self.journal.frames().into_iter().map(|read| read.message["params"].clone());
        let late = frames.filter(|params| params["name"] == "late");
        late.map(|params| params["arguments"]["n"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until the child has read `count` calls.
    fn until_read(&self, count: usize) {
        until("the child has read them", || self.order().len() >= count);
    }

    fn until_waiting(&self, count: u64) {
        self.server.until_metric(QUEUED, count);
    }

    /// Waits until no request is in flight or queued.
    fn until_idle(&self) {
        self.server.until_metric(IN_FLIGHT, 0);
        self.server.until_metric(QUEUED, 0);
    }
}

fn late(session: &Session<'_>, n: &str) -> Connection {
    session.begin_call(n, "late", json!({"n": n}))
}

/// Cancels a call of `late`, which makes the child answer it.
fn end(session: &Session<'_>, n: &str) {
    end_of(session, &json!(n));
}

/// Cancels a request.
fn end_of(session: &Session<'_>, id: &Value) {
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
}

fn refused(response: &Response, flag: &str) {
    assert_eq!((response.status, response.code(), response.header("retry-after")), (503, -32603, Some("1")));
    assert!(response.text().contains(flag), "{}", response.text());
}

/// The test runs with each bound: the total one and the one of the child.
#[test]
fn a_noisy_client_does_not_starve_a_quiet_one() {
    for bound in ["--max-in-flight 2", "--max-child-in-flight 2"] {
        let scene = Scene::new(bound);
        let (noisy, quiet) = (scene.server.session(), scene.server.session());
        let _running: Vec<_> = ["n1", "n2"].map(|n| (late(&noisy, n), scene.until_read(1))).into();
        scene.until_read(2);
        let mut waiting = Vec::new();
        for (at, n) in ["n3", "n4", "n5", "n6"].into_iter().enumerate() {
            waiting.push(late(&noisy, n));
            scene.until_waiting(at as u64 + 1);
        }
        waiting.push(late(&quiet, "q1"));
        scene.until_waiting(5);
        for (at, done) in ["n1", "n2", "n3", "q1"].into_iter().enumerate() {
            end(if done == "q1" { &quiet } else { &noisy }, done);
            scene.until_read(at + 3);
        }
        assert_eq!(
            scene.order()[2..],
            ["q1", "n3", "n4", "n5"],
            "{bound}: the quiet client is served second"
        );
        drop(waiting.pop());
        scene.until_waiting(1);
    }
}

#[test]
fn modern_clients_take_turns_by_principal() {
    let scene = Scene::new("--max-in-flight 1 --principal-header x-user");
    let (noisy, quiet) = (scene.server.modern().of("noisy"), scene.server.modern().of("quiet"));
    let call = |client: &Modern<'_>, n: &str| client.begin_call(n, "late", json!({"n": n}));
    let first = call(&noisy, "n1");
    scene.until_read(1);
    let mut waiting = Vec::new();
    for (at, (client, n)) in [(&noisy, "n2"), (&noisy, "n3"), (&quiet, "q1")].into_iter().enumerate() {
        waiting.push(call(client, n));
        scene.until_waiting(at as u64 + 1);
    }
    // A disconnect cancels the request; its place becomes free when the child answers the cancellation.
    first.cut();
    for at in 2..=4 {
        scene.until_read(at);
        let done = scene.order()[at - 1].clone();
        let at = ["n2", "n3", "q1"].iter().position(|n| *n == done).expect("one of them");
        waiting.push(scene.server.connect());
        waiting.swap_remove(at).cut();
    }
    assert_eq!(scene.order(), ["n1", "n2", "q1", "n3"]);
    scene.until_idle();
}

#[test]
fn a_client_at_its_own_limit_does_not_delay_others() {
    let scene = Scene::new("--max-client-in-flight 2 --queue-timeout 300ms");
    let (noisy, quiet) = (scene.server.session(), scene.server.session());
    let _running = [late(&noisy, "n1"), late(&noisy, "n2")];
    scene.until_read(2);
    let mut third = late(&noisy, "n3");
    assert_eq!(quiet.call("echo", json!({"n": 1}))["result"]["n"], 1);
    refused(&third.response(), "--max-client-in-flight");
    assert!(!scene.order().contains(&"n3".to_owned()), "the child never reads the call");
}

#[test]
fn a_request_that_exceeds_queue_timeout_gets_503_with_the_limit() {
    for bound in ["--max-in-flight", "--max-child-in-flight"] {
        // A queued request does not commit a stream, so that a refusal can still have an HTTP status.
        let scene = Scene::new(&format!("{bound} 1 --queue-timeout 300ms --sse-commit-after 20ms"));
        let _running = late(&scene.server.session(), "n1");
        scene.until_read(1);
        refused(&late(&scene.server.session(), "l").response(), &format!("{bound} requests"));
        refused(&scene.server.modern().call("late", json!({"n": "m"})), &format!("{bound} requests"));
        assert_eq!(scene.server.metric(QUEUED), 0);
        assert_eq!(scene.server.metric("proxyrunner_queued_requests_total"), 2);
        assert_eq!(scene.server.metric("proxyrunner_shed_requests_total"), 2);
    }
}

#[test]
fn a_full_queue_sheds_the_noisy_client_for_a_quiet_one() {
    let scene = Scene::new("--max-in-flight 1 --max-queued 2");
    let (noisy, quiet) = (scene.server.session(), scene.server.session());
    let _running = late(&noisy, "n1");
    scene.until_read(1);
    let _second = late(&noisy, "n2");
    scene.until_waiting(1);
    let mut third = late(&noisy, "n3");
    scene.until_waiting(2);
    refused(&late(&noisy, "n4").response(), "--max-queued");
    let _quiet = late(&quiet, "q1");
    refused(&third.response(), "--max-queued");
    end(&noisy, "n1");
    scene.until_read(2);
    end(&noisy, "n2");
    scene.until_read(3);
    assert_eq!(scene.order(), ["n1", "n2", "q1"]);
}

#[test]
fn an_exclusive_child_takes_all_admitted_requests() {
    let flags = "--max-in-flight 2000 --max-client-in-flight 1100 --max-child-in-flight 1100";
    let server = Server::start(flags);
    let session = server.opening().version("2025-03-26").exclusive().open();
    let call =
        |id: usize| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "hang"}});
    // At most 64 requests of a batch are processed at a time.
    let batch = |batch: usize| Value::from_iter((batch * 60..batch * 60 + 60).map(call)).to_string();
    let _running: Vec<_> = (0..20).map(|number| session.begin(batch(number))).collect();
    server.until_metric(QUEUED, 100);
    server.until_metric(IN_FLIGHT, 1_100);
    assert_eq!(server.metric("proxyrunner_shed_requests_total"), 0);
}

#[test]
fn a_queued_request_leaves_the_queue_on_a_disconnect() {
    let scene = Scene::new("--max-in-flight 1");
    let session = scene.server.session();
    let _running = late(&session, "n1");
    scene.until_read(1);
    let waiting = [late(&session, "gone"), scene.server.modern().begin_call(1, "late", json!({"n": "gone"}))];
    scene.until_waiting(2);
    waiting.into_iter().for_each(Connection::cut);
    scene.until_waiting(0);
    end(&session, "n1");
    assert_eq!(session.call("facts", json!({}))["error"], Value::Null);
    assert_eq!(scene.order(), ["n1"]);
    scene.until_idle();
}

/// Begins a batch of calls of `late`; the session's revision must allow batches.
fn late_batch(session: &Session<'_>, calls: &[&str]) -> Connection {
    let calls: Vec<_> = calls.iter().map(|n| tool_call(*n, "late", &json!({"n": n}))).collect();
    session.begin(format!("[{}]", calls.join(",")))
}

#[test]
fn a_queued_batch_leaves_the_queue_on_a_disconnect() {
    let scene = Scene::new("--max-in-flight 1 --queue-timeout 10m");
    let session = scene.server.opening().version("2025-03-26").open();
    let batch = late_batch(&session, &["b1", "b2", "b3"]);
    scene.until_read(1);
    scene.until_waiting(2);
    batch.cut();
    scene.until_waiting(0);
    // The call that the child has read continues, as any call of a legacy client does after a disconnect.
    assert_eq!(scene.server.metric(IN_FLIGHT), 1);
    assert!(!scene.journal.is_cancelled("late"));
    let first = scene.order()[0].clone();
    end(&session, &first);
    scene.until_idle();
    assert_eq!(scene.order(), [first]);
}

#[test]
fn a_batch_does_not_exceed_max_client_in_flight() {
    let scene = Scene::new("--max-client-in-flight 2 --sse-commit-after 0");
    let session = scene.server.opening().version("2025-03-26").open();
    let mut batch = late_batch(&session, &["b1", "b2", "b3", "b4", "b5"]);
    scene.until_read(2);
    assert_eq!(scene.server.metric("proxyrunner_queued_requests_total"), 0, "no call of the batch is queued");
    // A call that is not processed yet can be cancelled, too.
    end(&session, "b5");
    for n in 0..4 {
        scene.until_read(n + 1);
        end(&session, &scene.order()[n]);
    }
    let answers = batch.response().messages();
    let cancelled = answers.iter().filter(|answer| answer["error"]["code"] == -32800);
    assert_eq!((answers.len(), cancelled.count()), (5, 5));
    let mut first = scene.order();
    assert_eq!(first.len(), 4);
    first[..2].sort();
    assert_eq!(first[..2], ["b1", "b2"]);
}

/// Nothing more is read from a connection while its request is processed; a disconnect must be noticed nevertheless.
#[test]
fn a_disconnect_is_noticed_behind_unread_bytes() {
    let scene = Scene::new("--max-in-flight 1 --queue-timeout 10m");
    let session = scene.server.session();
    let _running = late(&session, "n1");
    scene.until_read(1);
    let pipelined = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    for behind in ["\r\n", "G", &pipelined] {
        let mut waiting =
            [late(&session, "gone"), scene.server.modern().begin_call(1, "late", json!({"n": "gone"}))];
        waiting.iter_mut().for_each(|waiting| waiting.send(behind));
        scene.until_waiting(2);
        waiting.into_iter().for_each(Connection::cut);
        scene.until_waiting(0);
    }
    end(&session, "n1");
    let mut running = scene.server.modern().begin_call(1, "late", json!({"n": "m1"}));
    running.send("\r\n");
    scene.until_read(2);
    running.cut();
    // The child answers the call once it is cancelled.
    scene.until_idle();
    assert_eq!(scene.order(), ["n1", "m1"]);
}

/// A disconnected client's quick requests are still answered.
#[test]
fn quick_requests_before_a_disconnect_are_answered() {
    let server = Server::start("");
    let mut connection = server.connect();
    connection.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3) + "\r\n");
    connection.end();
    for _ in 0..3 {
        assert_eq!(connection.response().status, 200);
    }
}

#[test]
fn answers_and_cancellations_pass_when_max_in_flight_is_reached() {
    let scene = Scene::new("--max-in-flight 1 --sse-commit-after 0");
    let session = scene.server.opening().exclusive().open();
    let mut asking =
        session.begin_call("ask", "ask", json!({"method": "sampling/createMessage", "id": 7})).events();
    let question = asking.message();
    let waiting = late(&scene.server.session(), "w");
    scene.until_waiting(1);
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"said": "yes"}}));
    assert_eq!(asking.rest()[0]["result"]["answers"][0]["result"]["said"], "yes");
    scene.until_read(1);
    drop(waiting);
    let other = scene.server.session();
    let mut cancelled = late(&other, "other");
    scene.until_waiting(1);
    assert_eq!(other.ask("ping", json!({}))["result"], json!({}), "a ping needs no place");
    assert_eq!(scene.server.request("GET", "/readyz", &[], b"").status, 200);
    end(&other, "other");
    assert_eq!(
        cancelled.response().messages()[0]["error"]["code"],
        -32800,
        "the request was cancelled in the queue"
    );
    scene.until_waiting(0);
    assert_eq!(scene.order(), ["w"]);
}

fn subscribe(id: usize, uri: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "resources/subscribe", "params": {"uri": uri}})
}

/// A child gets one subscribe request per resource at a time.
#[test]
fn waiting_subscribe_requests_are_counted_bounded_and_cancellable() {
    let server = Server::start("--max-queued 8 --cancel-grace 1h");
    let session = server.opening().version("2025-03-26").open();
    let batch = Value::from_iter((0..20).map(|id| subscribe(id, "hang:")));
    let _waiting = session.begin(batch.to_string());
    server.until_metric("proxyrunner_shed_requests_total", 11);
    assert_eq!((server.metric(QUEUED), server.metric(IN_FLIGHT)), (8, 1));
    assert!(server.session().ask("resources/subscribe", json!({"uri": "a:"}))["result"].is_object());
    let other = server.session();
    assert_eq!(other.post(subscribe(1, "hang:").to_string()).status, 503);
    session.delete();
    server.until_metric(QUEUED, 0);
    let mut first = other.begin(subscribe(1, "hang:").to_string());
    // The first session's request still counts, because the child never answered its cancellation.
    server.until_metric(IN_FLIGHT, 2);
    let mut second = other.begin(subscribe(2, "hang:").to_string());
    server.until_metric(QUEUED, 1);
    for (id, cancelled) in [(2, &mut second), (1, &mut first)] {
        end_of(&other, &json!(id));
        assert_eq!(cancelled.response().messages()[0]["error"]["code"], -32800);
    }
    server.until_metric(QUEUED, 0);
}

#[test]
fn a_batch_of_subscriptions_is_served_up_to_the_limit() {
    let scene = Scene::new("");
    let session = scene.server.opening().version("2025-03-26").open();
    let batch = (0..64).map(|id| subscribe(id, &format!("x:{id}-{}", "y".repeat(2_000))));
    let answers = session.post(Value::from_iter(batch).to_string()).answer();
    let (watched, refused): (Vec<_>, Vec<_>) =
        answers.as_array().expect("a batch").iter().partition(|answer| answer["result"].is_object());
    assert_eq!((watched.len(), refused.len()), (4, 60));
    assert!(refused.iter().all(|answer| answer["error"]["code"] == -32602));
    let heard = |method: &str| {
        let frames = scene.journal.frames().into_iter();
        frames.filter(|read| read.message["method"] == method).count()
    };
    assert_eq!((heard("resources/subscribe"), heard("resources/unsubscribe")), (4, 0));
}

/// A call that reports progress until it is released.
fn work(id: &str) -> Value {
    let params = json!({"name": "work", "arguments": {"name": "go"}, "_meta": {"progressToken": "p"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn eras(flags: &str) -> [Scene; 2] {
    let journal = Journal::new();
    let modern = Server::with().flags(flags).modern_child(&journal.flag()).start();
    [Scene::new(flags), Scene { server: modern, journal }]
}

fn modern_work(server: &Server) -> Connection {
    let params = json!({"name": "work", "arguments": {"name": "go"}});
    let client = server.modern().meta("progressToken", "p");
    client.begin_body(&client.body(1, "tools/call", params))
}

#[test]
fn progress_keeps_a_request_alive() {
    for scene in eras("--request-timeout 1s") {
        let session = scene.server.session();
        let calls = [session.begin(work("l").to_string()), modern_work(&scene.server)];
        until("the calls run", || scene.journal.runs("work") == 2);
        let mut silent = session.begin_call("silent", "hang", json!({}));
        let failed = silent.response().answer();
        assert!(failed["error"]["message"].as_str().is_some_and(|why| why.contains("--request-timeout")));
        // The working calls began before the silent one, and would have timed out before it.
        session.call("release", json!({"name": "go"}));
        for mut call in calls {
            let answer = call.response().messages().pop().expect("an answer");
            let worked = [&answer["result"]["worked"], &answer["result"]["structuredContent"]["worked"]];
            assert!(worked.contains(&&json!(true)), "{answer}");
        }
    }
}

#[test]
fn progress_does_not_extend_a_request_beyond_request_max() {
    for scene in eras("--request-timeout 500ms --request-max 500ms --cancel-grace 200ms") {
        let session = scene.server.session();
        for mut call in [session.begin(work("l").to_string()), modern_work(&scene.server)] {
            let answer = call.response().messages().pop().expect("an answer");
            assert_eq!(answer["error"]["data"]["reason"], "timed_out", "{answer}");
            assert!(answer["error"]["message"].as_str().is_some_and(|why| why.contains("--request-max")));
            scene.journal.until_cancelled("work");
        }
        // No request is left.
        scene.until_idle();
        assert_eq!(scene.server.metric("proxyrunner_timed_out_requests_total"), 2);
        assert_eq!(
            result(&scene.server.modern().call("release", json!({"name": "go"})))["error"],
            Value::Null
        );
    }
}

/// Sends a hundred notifications from `sessions` sessions to a serial server, then a call from another session. Returns
/// the number of notifications that the server reads before the call. `held` is the number of notifications that may
/// have places at once.
fn overtaken(flags: &str, sessions: usize, held: u64) -> usize {
    let journal = Journal::new();
    let child = format!("--serial {}", journal.flag());
    let server = Server::with().flags(flags).child(&child).start();
    let noisy: Vec<_> = (0..sessions).map(|_| server.session()).collect();
    let quiet = server.session();
    let file = crate::support::scratch("read-on");
    noisy[0].result("emit", json!({"lines": [], "after": [], "file": file}));
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/custom","params":{"n":1}}"#;
    let mut noise: Vec<_> = (0..100).map(|n| noisy[n % sessions].begin(notification)).collect();
    until("most wait", || server.metric("proxyrunner_queued") >= 60);
    let mut call = quiet.begin_call(1, "facts", json!({}));
    server.until_metric("proxyrunner_in_flight", held + 1);
    std::fs::write(&file, "").expect("a scratch file");
    assert_eq!(call.response().status, 200);
    assert!(noise.iter_mut().all(|connection| connection.response().status == 202));
    let frames = journal.frames();
    let before = frames.iter().take_while(|read| read.message["params"]["name"] != "facts");
    let overtaken = before.filter(|read| read.message["method"] == "notifications/custom").count();
    let arrived = |read: &&crate::support::Read| read.message["method"] == "notifications/custom";
    until("all have arrived", || journal.frames().iter().filter(arrived).count() == 100);
    server.until_metric("proxyrunner_in_flight", 0);
    overtaken
}

/// Number of messages in the pipe of a slow server when it stops reading.
const UNREAD: usize = 32;

/// Regression: notifications did not take turns. One client's notifications filled the queue in front of the child, and
/// another client's call waited for all of them.
#[test]
fn notifications_wait_their_turn_like_requests() {
    let overtaken = overtaken("--max-client-in-flight 4", 1, 4);
    assert!(overtaken <= UNREAD + 4, "a call waited for {overtaken} notifications");
}

#[test]
fn notifications_take_at_most_a_quarter_of_max_child_in_flight() {
    let overtaken = overtaken("--max-child-in-flight 24", 5, 6);
    assert!(overtaken <= UNREAD + 6, "a call waited for {overtaken} notifications");
}

/// Regression: abandoned calls and their cancellations filled the pipe of a slow server, and the calls of other clients
/// waited for a minute.
#[test]
fn abandoned_calls_do_not_delay_other_clients() {
    let journal = Journal::new();
    let child = format!("--serial {}", journal.flag());
    let server = Server::with().child(&child).start();
    let (leaver, patient) = (server.modern(), server.session());
    let file = crate::support::scratch("read-on");
    patient.result("emit", json!({"lines": [], "after": [], "file": file}));
    let left: Vec<_> = (0..200).map(|n| leaver.begin_call(n, "facts", json!({"left": n}))).collect();
    server.until_metric("proxyrunner_in_flight", 200);
    let mut call = patient.begin_call(1, "echo", json!({"n": 1}));
    server.until_metric("proxyrunner_in_flight", 201);
    drop(left);
    // A written call stays in flight until it is answered.
    until("the abandoned calls end", || server.metric("proxyrunner_in_flight") <= UNREAD as u64);
    std::fs::write(&file, "").expect("a scratch file");
    assert_eq!(call.response().answer()["result"]["n"], 1);
    let frames = journal.frames();
    let before = frames.iter().take_while(|read| read.message["params"]["name"] != "echo");
    let of_others = before.filter(|read| {
        read.message["params"]["name"] == "facts" || read.message["method"] == "notifications/cancelled"
    });
    let of_others = of_others.count();
    assert!(of_others <= 2 * UNREAD, "the call waited for {of_others} messages");
}
