//! Sessions that survive their replica (`--resume-sessions` with `--redis`): another replica takes them over. A real Redis, which runs
//! the scripts, is in `tests/gateway`.

use crate::support::redis::{OK, Redis};
use crate::support::{Journal, Server, Session, scratch, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
const NOTHING: &str = "$-1\r\n";

/// What the scripts keep: leases with their ends; and of each session the owner, the epoch and the record.
#[derive(Default)]
struct Content {
    leases: HashMap<String, (String, Instant)>,
    sessions: HashMap<String, (String, String, String)>,
    is_down: bool,
}

/// A Redis that does what the scripts would do.
struct Store {
    redis: Redis,
    content: Arc<Mutex<Content>>,
}

impl Store {
    fn start() -> Store {
        let content = Arc::<Mutex<Content>>::default();
        let shared = Arc::clone(&content);
        let redis = Redis::answering(move |words| locked(&shared).answer(words));
        Store { redis, content }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        locked(&self.content)
    }

    /// Returns the owner and the epoch of the only session.
    fn owner(&self) -> (String, String) {
        let content = self.content();
        let (owner, epoch, _) = content.sessions.values().next().expect("a session").clone();
        (owner, epoch)
    }
}

fn locked(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Content {
    fn answer(&mut self, words: &[String]) -> String {
        if self.is_down {
            return "-ERR it is down\r\n".to_owned();
        }
        if words[0] != "EVALSHA" {
            return OK.to_owned();
        }
        let (key, arguments) = (words[3].clone(), &words[4..]);
        let now = Instant::now();
        let known = self.sessions.get(&key).cloned();
        match arguments {
            [] if key.contains("{replica:") => {
                let lease = self.leases.get(&key).filter(|(_, until)| now < *until);
                lease.map_or(NOTHING.to_owned(), |(process, _)| bytes(process))
            }
            [] => match known {
                Some((owner, epoch, _)) => format!("*2\r\n{}{}", bytes(&owner), bytes(&epoch)),
                None => format!("*2\r\n{NOTHING}{NOTHING}"),
            },
            [process, time] => {
                let until = now + Duration::from_millis(time.parse().expect("a number"));
                let old = self.leases.insert(key, (process.clone(), until));
                let is_unbroken = old.is_some_and(|(old, until)| old == *process && now < until);
                format!(":{}\r\n", u8::from(is_unbroken))
            }
            [begin, epoch, _, text, name] if begin.ends_with('.') => {
                if known.is_some_and(|(known, number, _)| !known.starts_with(begin) || number != *epoch) {
                    return ":0\r\n".to_owned();
                }
                let owner = if text.is_empty() { "" } else { name };
                self.sessions.insert(key, (owner.to_owned(), epoch.clone(), text.clone()));
                ":1\r\n".to_owned()
            }
            [from, before, to, after, _] => match self.sessions.get_mut(&key) {
                Some((owner, epoch, text)) if (&*owner, &*epoch) == (from, before) => {
                    (*owner, *epoch) = (to.clone(), after.clone());
                    bytes(text)
                }
                _ => ":0\r\n".to_owned(),
            },
            _ => panic!("no script has these arguments: {arguments:?}"),
        }
    }
}

/// Replicas with one key and one Redis.
struct Fleet {
    store: Store,
    key: PathBuf,
}

impl Fleet {
    fn new() -> Fleet {
        let key = scratch("state-key");
        fs::write(&key, "k".repeat(64)).expect("a file");
        Fleet { store: Store::start(), key }
    }

    fn flags(&self) -> String {
        format!(
            "--forward-sessions 127.0.0.1 --state-key-file {} --resume-sessions --redis {} --server-name a.b/c",
            self.key.display(),
            self.store.redis.url()
        )
    }

    fn replica(&self, more: &str, child: &str) -> Server {
        let server = Server::with().flags(&format!("{} {more}", self.flags())).child(child).start();
        until("the replica is ready", || server.request("GET", "/readyz", &[], b"").status == 200);
        until("it has a lease", || {
            let port = format!(":{}}}", server.address().port());
            self.store.content().leases.keys().any(|key| key.ends_with(&port))
        });
        server
    }

    fn replicas<const N: usize>(&self, more: &str) -> [Server; N] {
        [(); N].map(|()| self.replica(more, ""))
    }
}

fn pid(session: &Session<'_>) -> u64 {
    session.result("facts", json!({}))["pid"].as_u64().expect("a pid")
}

/// Ends a replica at once, and waits until nothing of it listens.
fn kill(server: &Server) {
    server.signal(Signal::SIGKILL);
    until("it is gone", || TcpStream::connect(server.address()).is_err());
}

fn unknown(session: &Session<'_>) {
    let response = session.post(PING);
    assert_eq!((response.status, response.code()), (404, -32001), "{}", response.text());
}

fn takeovers(server: &Server, result: &str) -> u64 {
    server.metric(&format!("proxyrunner_session_takeovers_total{{result=\"{result}\"}}"))
}

#[test]
fn a_session_survives_its_replica_with_its_log_level_and_subscriptions() {
    let fleet = Fleet::new();
    let journal = Journal::new();
    let [a, c] = fleet.replicas("");
    let b = fleet.replica("", &journal.flag());
    let session = a.opening().exclusive().open();
    let own = pid(&session);
    session.ask("logging/setLevel", json!({"level": "debug"}));
    session.ask("resources/subscribe", json!({"uri": "a://\u{e9}"}));
    session.ask("resources/subscribe", json!({"uri": "b://x"}));
    session.ask("resources/unsubscribe", json!({"uri": "b://x"}));
    assert_eq!(pid(&session.through(&b)), own, "its owner is there");
    kill(&a);
    let next = pid(&session.through(&b));
    assert_ne!(next, own);
    let frames = journal.frames().into_iter().filter(|read| read.pid == next);
    let frames: Vec<Value> = frames.map(|read| read.message).collect();
    let methods: Vec<_> = frames.iter().map(|frame| frame["method"].as_str().expect("a method")).collect();
    let handshake =
        ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"];
    assert_eq!(methods, handshake);
    assert_eq!(frames[0]["params"]["capabilities"], json!({"sampling": {}, "elicitation": {}}));
    assert_eq!(
        (&frames[2]["params"]["level"], &frames[3]["params"]["uri"]),
        (&json!("debug"), &json!("a://\u{e9}"))
    );
    assert_eq!(pid(&session.through(&c)), next, "the other replica passes requests on to the new owner");
    assert_eq!((takeovers(&b, "taken"), takeovers(&c, "taken")), (1, 0));
    assert!(
        !fleet.store.content().sessions.values().any(|(_, _, text)| text.contains("debug")),
        "records are sealed"
    );
    let mut stream = session.through(&b).resume("3-7");
    session.through(&c).result(
        "emit",
        json!({"lines": [r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#]}),
    );
    assert_eq!(
        stream.message()["method"],
        "notifications/tools/list_changed",
        "the former stream is replaced"
    );
}

#[test]
fn one_replica_takes_a_session_over_that_several_are_asked_for() {
    let fleet = Fleet::new();
    let [a, b, c] = fleet.replicas("");
    let session = a.session();
    let own = pid(&session);
    kill(&a);
    let (by_b, by_c) = (session.through(&b), session.through(&c));
    let calls = [&by_b, &by_c, &by_b, &by_c].map(|session| session.begin_call(1, "facts", json!({})));
    let pids: Vec<_> = calls.map(|mut call| call.response().answer()["result"]["pid"].clone()).into();
    assert!(pids.iter().all(|pid| *pid == pids[0] && *pid != own), "{pids:?} {own}");
    assert_eq!(takeovers(&b, "taken") + takeovers(&c, "taken"), 1);
}

#[test]
fn an_owner_that_was_stopped_does_not_serve_the_session_any_more() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let session = a.opening().exclusive().open();
    let own = pid(&session);
    a.signal(Signal::SIGSTOP);
    let address = a.address().to_string();
    until("its lease has expired", || {
        let content = fleet.store.content();
        content.leases.iter().all(|(key, (_, until))| !key.contains(&address) || *until < Instant::now())
    });
    // It arrives while the owner is stopped.
    let mut late = session.begin_call(1, "facts", json!({}));
    let next = pid(&session.through(&b));
    assert_ne!(next, own);
    assert_eq!(fleet.store.owner().1, "2");
    a.signal(Signal::SIGCONT);
    assert_eq!(late.response().answer()["result"]["pid"], next, "it is passed on to the new owner");
    assert_eq!(pid(&session.through(&a)), next);
    a.until_metric(r#"proxyrunner_session_takeovers_total{result="lost"}"#, 1);
    a.until_metric("proxyrunner_sessions", 0);
}

#[test]
fn an_owner_that_is_only_cut_off_from_redis_keeps_the_session() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let session = a.session();
    let own = pid(&session);
    // As if its lease had expired, which it could not renew.
    for _ in 0..3 {
        fleet.store.content().leases.clear();
        assert_eq!(pid(&session.through(&b)), own);
    }
    assert_eq!(pid(&session), own);
    assert_eq!(takeovers(&b, "taken"), 0);
}

#[test]
fn a_session_that_was_deleted_is_not_taken_over() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let (session, other) = (a.session(), a.session());
    assert_eq!(session.delete().status, 204);
    kill(&a);
    unknown(&session.through(&b));
    let taken = other.through(&b);
    assert!(pid(&taken) > 0);
    assert_eq!(taken.delete().status, 204);
    unknown(&taken);
    assert!(
        fleet.store.content().sessions.values().all(|(owner, _, text)| owner.is_empty() && text.is_empty())
    );
}

#[test]
fn a_session_belongs_to_its_caller_also_after_its_replica() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("--principal-header x-user");
    let session = a.opening().header("x-user", "ann").open();
    kill(&a);
    let headers = [("Mcp-Session-Id", session.id.as_str()), ("x-user", "bob")];
    assert_eq!(b.post(&headers, tool_call(1, "facts", &json!({}))).status, 404);
    assert!(pid(&session.through(&b)) > 0);
    let wrong = format!("{}x", session.id);
    let headers = [("Mcp-Session-Id", wrong.as_str()), ("x-user", "ann")];
    assert_eq!(b.post(&headers, PING).status, 404);
}

#[test]
fn without_redis_only_requests_that_need_it_are_refused() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let session = a.session();
    let (own, by_b) = (pid(&session), session.through(&b));
    fleet.store.content().is_down = true;
    assert_eq!((pid(&session), pid(&by_b)), (own, own), "the owner is asked, which its id names");
    let opened = b.session();
    assert!(pid(&opened) > 0);
    assert_eq!(takeovers(&b, "unrecorded"), 1);
    kill(&a);
    let refused = by_b.post(tool_call(1, "facts", &json!({})));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("Redis refuses the command"), "{}", refused.text());
    fleet.store.content().is_down = false;
    until("the session is taken over", || by_b.post(PING).status == 200);
    until("both are recorded", || fleet.store.content().sessions.len() == 2);
}

#[test]
fn a_replica_that_shuts_down_hands_its_sessions_over() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("--drain-delay 1h");
    let session = a.opening().exclusive().open();
    let (own, _call) = (pid(&session), session.begin_call(5, "wait", json!({"name": "x"})));
    a.until_metric("proxyrunner_in_flight", 1);
    a.signal(Signal::SIGTERM);
    until("the lease is given up", || {
        fleet.store.content().leases.values().any(|(process, _)| process == "-")
    });
    let next = pid(&session.through(&b));
    assert_ne!(next, own);
    assert_eq!(pid(&session), next, "the former owner passes requests on");
    session.through(&b).tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    assert_eq!(a.metric("proxyrunner_in_flight"), 1, "calls in flight are finished");
}

#[test]
fn a_process_at_the_same_address_takes_its_predecessors_sessions_over() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let session = a.session();
    let own = pid(&session);
    let address = a.address().to_string();
    let key = |content: &Content| content.leases.keys().find(|key| key.contains(&address)).cloned();
    kill(&a);
    let mut content = fleet.store.content();
    let key = key(&content).expect("a lease");
    content.leases.insert(key, ("another".to_owned(), Instant::now() + Duration::from_secs(3_600)));
    drop(content);
    assert_ne!(pid(&session.through(&b)), own, "at once");
}

#[test]
fn what_was_not_recorded_by_a_replica_is_not_taken_over() {
    let fleet = Fleet::new();
    let [a, b] = fleet.replicas("");
    let sessions = [a.session(), a.session(), a.session()];
    kill(&a);
    let mut content = fleet.store.content();
    let foreign = ["", "x", "bm90IHNlYWxlZA"];
    for ((_, _, text), foreign) in content.sessions.values_mut().zip(foreign) {
        *text = foreign.to_owned();
    }
    drop(content);
    for session in &sessions {
        unknown(&session.through(&b));
    }
    assert_eq!(takeovers(&b, "failed"), 3);
    let third = b.session();
    for (owner, epoch, _) in fleet.store.content().sessions.values_mut() {
        (*owner, *epoch) = ("nonsense".to_owned(), "x".to_owned());
    }
    for session in &sessions {
        assert_eq!(session.through(&b).post(PING).status, 503);
    }
    assert_eq!(third.post(PING).status, 200);
}

#[test]
fn a_session_is_not_continued_by_a_server_that_describes_itself_differently() {
    let fleet = Fleet::new();
    let told = scratch("told");
    fs::write(&told, "I am another").expect("a file");
    let a = fleet.replica("", "");
    let b = fleet.replica("", &format!("--told {}", told.display()));
    let (one, other) = (a.session(), a.opening().exclusive().open());
    kill(&a);
    for session in [one, other] {
        unknown(&session.through(&b));
        unknown(&session.through(&b));
    }
    b.until_metric("proxyrunner_sessions", 0);
}

#[test]
fn redis_is_needed_with_both_settings_only() {
    let fleet = Fleet::new();
    let flags = fleet.flags();
    for (flags, why) in [
        (flags.replace("--resume-sessions", ""), "has nothing to share"),
        (flags.replace("--forward-sessions 127.0.0.1", ""), "has nothing to share"),
        (flags.replace("--server-name a.b/c", ""), "needs the name of the server"),
    ] {
        let (status, logged) = Server::with().flags(&flags).run();
        assert_eq!(status.code(), Some(64), "{logged}");
        assert!(logged.contains(why), "{logged}");
    }
}
