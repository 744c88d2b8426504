//! Chaos: clients of both eras send calls while servers crash, hang and write invalid messages, and while clients come
//! and go. Each accepted request must have exactly one outcome, its own. In the end nothing may be left behind.
//!
//! The seed determines each run, as far as threads and processes allow:
//!
//! - `CHAOS_SEED=7 cargo test --test integration chaos::one_seed` repeats one run; `CHAOS_STEPS` makes it longer.
//! - `CHAOS_SEEDS=100 cargo test --test integration chaos::more_seeds` runs 100 more seeds.

use crate::support::modern::Asked;
use crate::support::{Response, Server, lives, scratch, tool_call, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Number of steps per client.
const STEPS: u64 = 24;
/// Number of clients of each kind.
const EACH: u64 = 2;

/// Settings with short times: minutes in production are moments here.
const FLAGS: &str = "--restart-limit 1000000 --restart-backoff 5ms --restart-backoff-max 20ms --restart-wait 20s \
     --max-children 6 --evict-after 500ms --session-idle 3s --request-timeout 2s --cancel-grace 200ms \
     --close-grace 100ms --terminate-grace 100ms --ping-interval 300ms --ping-timeout 300ms --park-timeout 1s \
     --max-frame 1MiB --max-body 1MiB --max-buffered 64MiB --queue-timeout 20s \
     --start-timeout 5s";

/// A splitmix64 generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("less than n")
    }
}

/// The outcomes of the requests.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    failed: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Shared,
    Own,
    Modern,
    Asked,
}

/// A client, which runs in its own thread.
struct Client<'a> {
    server: &'a Server,
    tally: &'a Tally,
    kind: Kind,
    name: u64,
    random: Random,
    session: Option<String>,
    sent: u64,
}

/// Returns a random call that may end the server or lose calls of other clients.
fn fault(random: &mut Random, tag: &str) -> (&'static str, Value) {
    let garbage = r#"{"jsonrpc":"2.0","id":$ID,"result":{"twice":true}}"#;
    let lines = |lines: &[&str]| ("emit", json!({"tag": tag, "lines": lines}));
    match random.below(16) {
        0 => ("leave", json!({"tag": tag, "code": 3})),
        1 => ("kill", json!({"tag": tag})),
        2 => ("half", json!({"tag": tag})),
        3 => ("close_stdout", json!({"tag": tag})),
        4 => ("close_stdin", json!({"tag": tag})),
        5 => ("hang", json!({"tag": tag})),
        6 => lines(&[garbage, garbage]),
        7 => lines(&[r#"{"jsonrpc":"2.0","id":9007199254740991,"result":{}}"#, r#"{"id":"1","result":{}}"#]),
        8 => lines(&["garbage", "{\"half\":", "\u{0}\u{0}", "[]", r#"{"jsonrpc":"2.0","id":$ID}"#]),
        9 => ("oversized", json!({"tag": tag, "bytes": 2 << 20, "id": "first"})),
        10 => ("oversized", json!({"tag": tag, "bytes": 2 << 20, "id": "none"})),
        11 => ("grandchild", json!({"tag": tag, "setsid": true})),
        12 => ("daemon", json!({"tag": tag, "file": scratch("chaos")})),
        13 => ("log", json!({"tag": tag, "n": 2000})),
        14 => ("progress", json!({"tag": tag, "n": 1000})),
        _ => ("blob", json!({"tag": tag, "bytes": 900_000})),
    }
}

impl Client<'_> {
    fn run(mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
        if let Some(session) = self.session.take()
            && self.random.below(2) == 0
        {
            self.server.request("DELETE", "/mcp", &[("Mcp-Session-Id", &session)], b"");
        }
    }

    fn step(&mut self) {
        self.sent += 1;
        let tag = format!("tag-{}-{}-", self.name, self.sent);
        match self.random.below(10) {
            0 | 1 => {
                let (tool, arguments) = fault(&mut self.random, &tag);
                self.call(tool, &arguments, &tag);
            }
            2 => self.begin(&tool_call(self.sent, "sleep", &json!({"tag": tag, "ms": 50}))).cut(),
            3 if self.kind == Kind::Asked => self.is_asked(&tag),
            3 => self.forget_session(),
            4 => self.cancels(&tag),
            5 => drop(self.call("sleep", &json!({"tag": tag, "ms": 30}), &tag)),
            _ => {
                if let Some(result) = self.call("echo", &json!({"tag": tag}), &tag) {
                    assert_eq!(result["tag"], tag.as_str(), "{result}");
                }
            }
        }
    }

    fn is_modern(&self) -> bool {
        matches!(self.kind, Kind::Modern | Kind::Asked)
    }

    /// Sends a request without reading the response.
    fn begin(&mut self, body: &str) -> crate::support::Connection {
        let body: Value = serde_json::from_str(body).expect("JSON");
        if self.is_modern() {
            let client = if self.kind == Kind::Asked { self.server.asked() } else { self.server.modern() };
            return client.begin_body(&client.body(body["id"].clone(), "tools/call", body["params"].clone()));
        }
        let session = self.session();
        let mut connection = self.server.connect();
        connection.post(&[("Mcp-Session-Id", &session)], body.to_string());
        connection
    }

    fn session(&mut self) -> String {
        let mut opened = self.session.clone();
        while opened.is_none() {
            let opening = self.server.opening();
            let opening = if self.kind == Kind::Own { opening.exclusive() } else { opening };
            let response = opening.send();
            opened = response.header("mcp-session-id").filter(|_| response.status == 200).map(str::to_owned);
            if let Some(id) = &opened {
                let done = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
                self.server.post(&[("Mcp-Session-Id", id)], done);
            }
        }
        self.session.clone_from(&opened);
        opened.expect("a session")
    }

    fn call(&mut self, tool: &str, arguments: &Value, tag: &str) -> Option<Value> {
        let mut body: Value = serde_json::from_str(&tool_call(self.sent, tool, arguments)).expect("JSON");
        body["params"]["_meta"] = json!({"progressToken": 1});
        let response = self.begin(&body.to_string()).response();
        self.outcome(&response, tag)
    }

    /// Checks that an accepted request has exactly one outcome, its own.
    fn outcome(&mut self, response: &Response, tag: &str) -> Option<Value> {
        let text = response.text();
        for (at, _) in text.match_indices("tag-") {
            assert!(text[at..].starts_with(tag), "{tag} got another request's data: {text}");
        }
        if response.status != 200 {
            assert!([400, 404, 500, 503].contains(&response.status), "{}: {text}", response.status);
            self.tally.refused.fetch_add(1, Ordering::Relaxed);
            if response.status == 404 {
                self.session = None;
            }
            return None;
        }
        let messages = response.messages();
        let outcomes: Vec<&Value> =
            messages.iter().filter(|it| it["method"].is_null() && it["id"] == json!(self.sent)).collect();
        assert_eq!(outcomes.len(), 1, "{tag}: {text}");
        let result = outcomes[0]["result"].clone();
        let counted = if result.is_null() { &self.tally.failed } else { &self.tally.answered };
        counted.fetch_add(1, Ordering::Relaxed);
        (!result.is_null()).then_some(result)
    }

    /// Makes a call that asks a question, and answers it or never retries.
    fn is_asked(&mut self, tag: &str) {
        let schema = json!({"type": "object", "properties": {}});
        let question = json!({"message": tag, "requestedSchema": schema});
        let arguments = json!({"tag": tag, "method": "elicitation/create", "params": question});
        let Some(result) = self.call("ask", &arguments, tag) else { return };
        // At --max-children the client shares a server, whose questions are refused.
        if result["resultType"] == "complete" {
            return;
        }
        if self.random.below(3) == 0 {
            return;
        }
        let asked = Asked::read(&result);
        let answers = asked.all(&json!({"action": "decline"}));
        let params = json!({
            "name": "ask", "arguments": arguments, "requestState": asked.state, "inputResponses": answers,
        });
        self.sent += 1;
        let body = json!({"id": self.sent, "params": params}).to_string();
        let response = self.begin(&body).response();
        self.outcome(&response, tag);
    }

    /// Cancels a running call, which may have been answered already.
    fn cancels(&mut self, tag: &str) {
        let mut calling = self.begin(&tool_call(self.sent, "late", &json!({"tag": tag})));
        match &self.session {
            Some(session) if !self.is_modern() => {
                let params = json!({"requestId": self.sent});
                let cancelled =
                    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
                self.server.post(&[("Mcp-Session-Id", session)], cancelled.to_string());
                let response = calling.response();
                if response.status == 404 {
                    self.session = None;
                }
            }
            _ => calling.cut(),
        }
    }

    fn forget_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.random.below(2) == 0 {
            self.server.request("DELETE", "/mcp", &[("Mcp-Session-Id", &session)], b"");
        }
    }
}

/// Returns all descendants of a process.
fn descendants(root: u32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .expect("a /proc")
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![i32::try_from(root).expect("a pid")];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

fn files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a process").count()
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Kills and freezes at most `most` servers: without a limit, no server would finish starting on a loaded machine.
fn harass(server: &Server, mut random: Random, mut most: u64, done: &AtomicBool) {
    while most > 0 && !done.load(Ordering::Relaxed) {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let named = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "python3"
        };
        let servers: Vec<i32> = descendants(server.pid()).into_iter().filter(named).collect();
        if servers.is_empty() || random.below(4) != 0 {
            continue;
        }
        let chosen = Pid::from_raw(servers[random.below(servers.len())]);
        most -= 1;
        // The process may have exited already.
        let _ = kill(chosen, if random.below(2) == 0 { Signal::SIGKILL } else { Signal::SIGSTOP });
    }
}

fn run(seed: u64, steps: u64) {
    println!("CHAOS_SEED={seed} CHAOS_STEPS={steps}");
    let server = Server::start(FLAGS);
    // Warm up before counting files and memory.
    let warm = server.session();
    warm.result("echo", json!({}));
    server.modern().result("echo", json!({}));
    warm.delete();
    server.until_metric("proxyrunner_sessions", 0);
    let (before, memory) = (files(&server), resident_kib(&server));
    let (tally, done) = (Tally::default(), AtomicBool::new(false));
    let mut random = Random(seed);
    std::thread::scope(|scope| {
        let harassing = Random(random.next());
        scope.spawn(|| harass(&server, harassing, steps, &done));
        let kinds = [Kind::Shared, Kind::Own, Kind::Modern, Kind::Asked];
        let clients = (0..EACH).flat_map(|_| kinds).enumerate().map(|(name, kind)| Client {
            server: &server,
            tally: &tally,
            kind,
            name: name as u64,
            random: Random(random.next()),
            session: None,
            sent: 0,
        });
        let running: Vec<_> = clients.map(|client| scope.spawn(move || client.run(steps))).collect();
        let ended: Vec<_> = running.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(
            ended.iter().all(Result::is_ok),
            "a client saw an invalid outcome; repeat it with CHAOS_SEED={seed}"
        );
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = (count(&tally.answered), count(&tally.failed), count(&tally.refused));
    println!("answered, failed, refused: {counts:?}");
    assert!(counts.0 > 0 && counts.1 > 0, "no successful or no failed requests: {counts:?}");
    for gauge in ["proxyrunner_in_flight", "proxyrunner_queued", "proxyrunner_sessions"] {
        server.until_metric(gauge, 0);
    }
    server.until_metric("proxyrunner_children", 1);
    // The last server may be frozen and still being replaced.
    let serves = || server.modern().call("echo", json!({"still": "there"})).text().contains("\"still\"");
    until("the server serves", &serves);
    // The processes that the last server started live until it exits.
    server.modern().call("leave", json!({"code": 0}));
    until("the next server serves", serves);
    until("one server and its guardian are left", || descendants(server.pid()).len() == 2);
    until("no file is left open", || files(&server) <= before);
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 64 << 10, "resident memory grew by {grown} KiB");
    let left = descendants(server.pid());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    until("no process is left", || !left.iter().any(|&pid| lives(pid)));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

macro_rules! seeds {
    ($($name:ident $seed:literal)*) => {
        $(#[test] fn $name() { run($seed, STEPS); })*
    };
}

seeds! {
    seed_1 1 seed_2 2 seed_3 3 seed_4 4 seed_5 5
    seed_6 6 seed_7 7 seed_8 8 seed_9 9 seed_10 10
}

/// Runs the seed of `CHAOS_SEED`; does nothing if the variable is not set.
#[test]
fn one_seed() {
    if let Some(seed) = number("CHAOS_SEED") {
        run(seed, number("CHAOS_STEPS").unwrap_or(STEPS));
    }
}

/// Runs `CHAOS_SEEDS` seeds from 1,000 on; does nothing if the variable is not set.
#[test]
fn more_seeds() {
    let steps = number("CHAOS_STEPS").unwrap_or(STEPS);
    for seed in 1_000..1_000 + number("CHAOS_SEEDS").unwrap_or(0) {
        run(seed, steps);
    }
}
