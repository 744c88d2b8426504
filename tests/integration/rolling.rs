//! A rolling restart under load: the replicas behind a service are replaced in sequence, and no accepted request is
//! lost.

use crate::support::modern::Asked;
use crate::support::{Connection, Journal, Response, Server, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Delay after a replica becomes unready until the service stops sending it new connections, as with kube-proxy.
const LATE: Duration = Duration::from_millis(300);

/// A service: the replicas that get new connections.
struct Service {
    journal: Journal,
    replicas: Mutex<Vec<Arc<Server>>>,
    turn: AtomicUsize,
}

impl Service {
    fn new() -> Service {
        Service { journal: Journal::new(), replicas: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    fn replicas(&self) -> MutexGuard<'_, Vec<Arc<Server>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns any replica.
    fn choose(&self) -> Arc<Server> {
        let replicas = self.replicas();
        Arc::clone(&replicas[self.turn.fetch_add(1, Ordering::Relaxed) % replicas.len()])
    }

    fn add(&self) -> Arc<Server> {
        let flags = "--drain-delay 1s --drain-timeout 20s --max-children 16";
        let server = Arc::new(Server::with().flags(flags).child(&self.journal.flag()).start());
        until("ready", || server.request("GET", "/readyz", &[], b"").status == 200);
        self.replicas().push(Arc::clone(&server));
        server
    }

    /// Terminates a replica, which still gets new connections for [`LATE`].
    fn end(&self, server: &Arc<Server>) {
        server.signal(Signal::SIGTERM);
        until("not ready", || server.request("GET", "/readyz", &[], b"").status == 503);
        std::thread::sleep(LATE);
        self.replicas().retain(|replica| !Arc::ptr_eq(replica, server));
    }
}

/// The outcomes of the requests.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    refused: AtomicUsize,
    moved: AtomicUsize,
    unanswered: Mutex<Vec<String>>,
}

impl Tally {
    fn unanswered(&self) -> MutexGuard<'_, Vec<String>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Shared,
    Own,
    Modern,
    Asked,
}

struct Client<'a> {
    service: &'a Service,
    tally: &'a Tally,
    kind: Kind,
    name: usize,
    sent: usize,
    session: Option<(Arc<Server>, String)>,
}

impl Client<'_> {
    fn run(mut self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            self.sent += 1;
            let tag = format!("{}-{}", self.name, self.sent);
            match self.kind {
                Kind::Asked => self.is_asked(&tag),
                Kind::Modern => self.calls_modern(&tag),
                Kind::Shared | Kind::Own => self.calls(&tag),
            }
        }
    }

    /// Returns a call that is answered at once, takes some time, or reports progress.
    fn tool(&self, tag: &str) -> (&'static str, Value) {
        match self.sent % 3 {
            0 => ("sleep", json!({"tag": tag, "ms": 300})),
            1 => ("echo", json!({"tag": tag})),
            _ => ("progress", json!({"tag": tag, "n": 3})),
        }
    }

    fn calls(&mut self, tag: &str) {
        let Some((server, session)) = self.seated() else { return };
        let (tool, arguments) = self.tool(tag);
        let mut body: Value = serde_json::from_str(&tool_call(self.sent, tool, &arguments)).expect("JSON");
        body["params"]["_meta"] = json!({"progressToken": "p"});
        // The replica may have exited. An unanswered call is lost only if the server behind the replica has read it.
        let Ok(stream) = TcpStream::connect(server.address()) else { return self.moves() };
        let mut connection = Connection::over(stream);
        let sent = connection.try_post(&[("Mcp-Session-Id", &session)], &body.to_string());
        if sent.is_err() || !connection.is_answered() {
            self.tally.unanswered().push(tag.to_owned());
            return self.moves();
        }
        let response = connection.response();
        match response.status {
            404 | 503 => self.moves(),
            _ => self.answered(&response, tool, tag),
        }
    }

    fn seated(&mut self) -> Option<(Arc<Server>, String)> {
        if self.session.is_none() {
            let server = self.service.choose();
            let opening = server.opening();
            let opening = if matches!(self.kind, Kind::Own) { opening.exclusive() } else { opening };
            let response = opening.send();
            if response.status == 503 {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            let id = response.header("mcp-session-id").expect("a session").to_owned();
            let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            assert_eq!(server.post(&[("Mcp-Session-Id", &id)], initialized).status, 202);
            self.session = Some((server, id));
        }
        self.session.clone()
    }

    /// Leaves a replica that exits; the request was not accepted.
    fn moves(&mut self) {
        self.session = None;
        self.tally.moved.fetch_add(1, Ordering::Relaxed);
    }

    fn calls_modern(&mut self, tag: &str) {
        let (tool, arguments) = self.tool(tag);
        let server = self.service.choose();
        let response = server.modern().meta("progressToken", "p").call(tool, arguments);
        match response.status {
            503 => drop(self.tally.refused.fetch_add(1, Ordering::Relaxed)),
            _ => self.answered(&response, tool, tag),
        }
    }

    /// Makes a call that asks a question, waits, and retries at the same replica, which may be draining by then.
    fn is_asked(&mut self, tag: &str) {
        let server = self.service.choose();
        let schema = json!({"type": "object", "properties": {}});
        let question = json!({"message": tag, "requestedSchema": schema});
        let arguments = json!({"tag": tag, "method": "elicitation/create", "params": question});
        let response = server.asked().call("ask", arguments.clone());
        if response.status == 503 {
            self.tally.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let asked = Asked::of(&response);
        std::thread::sleep(Duration::from_millis(200));
        let answers = asked.all(&json!({"action": "accept", "content": {}}));
        let heard = server.asked().retry("ask", arguments, &asked, answers).answer();
        assert_eq!(heard["result"]["answers"][0]["result"]["action"], "accept", "{heard}");
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, response: &Response, tool: &str, tag: &str) {
        let answer = response.answer();
        match tool {
            "progress" => assert_eq!(answer["result"]["n"], 3, "{tag}: {answer}"),
            _ => assert_eq!(answer["result"]["tag"], tag, "{answer}"),
        }
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns whether a replica still listens.
fn accepts(server: &Server) -> bool {
    TcpStream::connect(server.address()).is_ok()
}

#[test]
fn a_rolling_restart_under_load_loses_no_accepted_request() {
    let (service, tally, done) = (Service::new(), Tally::default(), AtomicBool::new(false));
    let mut old = vec![service.add(), service.add()];
    std::thread::scope(|scope| {
        let kinds = [Kind::Shared, Kind::Own, Kind::Modern, Kind::Asked];
        let clients = (0..2).flat_map(|_| kinds).enumerate().map(|(name, kind)| {
            let (service, tally) = (&service, &tally);
            Client { service, tally, kind, name, sent: 0, session: None }
        });
        let running: Vec<_> = clients.map(|client| scope.spawn(|| client.run(&done))).collect();
        for replica in old.clone() {
            service.add();
            service.end(&replica);
            until("the exit", || !accepts(&replica));
        }
        done.store(true, Ordering::Relaxed);
        let ended: Vec<_> = running.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        assert!(ended.iter().all(Result::is_ok), "an accepted request was lost");
    });
    let unanswered = tally.unanswered().clone();
    let read = service.journal.frames();
    let lost: Vec<_> = unanswered
        .iter()
        .filter(|tag| read.iter().any(|read| read.message["params"]["arguments"]["tag"] == ***tag))
        .collect();
    assert!(lost.is_empty(), "accepted but not answered: {lost:?}");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = (count(&tally.answered), count(&tally.refused), count(&tally.moved));
    println!("answered, refused, moved: {counts:?}");
    assert!(counts.0 > 100 && counts.2 >= 2, "too little load, or no client had to move: {counts:?}");
    while let Some(replica) = old.pop() {
        let replica = Arc::into_inner(replica).expect("the last reference");
        assert_eq!(replica.exit_code(), 0);
    }
}
