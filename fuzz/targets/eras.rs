//! Runs arbitrary sequences of operations on the upstream.
//!
//! Clients of both eras and two principals use a server of either era or of both. The server answers, asks, crashes,
//! answers twice, and answers the wrong request. The clients answer, retry, replay, forge, cancel and leave. Every
//! accepted request gets exactly one outcome of its own, under its own id. No client receives another client's
//! messages, and nothing is left at the end.
#![no_main]

#[path = "../../tests/world/mod.rs"]
mod world;

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::era::Era;
use proxyrunner::internals::era::capabilities::Capabilities;
use proxyrunner::internals::era::probe::Choice;
use proxyrunner::internals::exchange::Failure;
use proxyrunner::internals::jsonrpc::{self, ClientId};
use proxyrunner::internals::session::{Principal, Session};
use proxyrunner::internals::upstream::{Begun, Caller, Happening, LegacyStep, Refusal};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use world::{Serves, World, enveloped, incoming, open, settings};

const CLIENTS: usize = 5;
const MOST_OPERATIONS: usize = 200;

/// The messages and outcomes that one request of a client has received.
#[derive(Default)]
struct Heard {
    said: Vec<Value>,
    outcomes: Vec<Value>,
    /// Whether the request was refused before it began.
    refused: bool,
}

struct Request {
    client: usize,
    id: Value,
    /// A marker in the request's arguments and in every message of the child about the request.
    mark: String,
    heard: Arc<Mutex<Heard>>,
    driver: JoinHandle<()>,
    /// Whether the modern client left, in which case the request may have no outcome.
    left: bool,
}

struct Play {
    world: World,
    sessions: [Option<Arc<Session>>; 2],
    requests: Vec<Request>,
    /// Questions that calls asked legacy clients, as the client and the id of the question.
    questions: Vec<(usize, Value)>,
    /// States that modern clients received, with the client and the arguments of the call.
    states: Vec<(usize, String, Value)>,
    read: usize,
    elapsed: Duration,
}

/// Returns whether the client is legacy. There are two legacy clients and three modern clients of two principals.
fn is_legacy(client: usize) -> bool {
    client < 2
}

fn capabilities(client: usize) -> Value {
    if matches!(client, 1 | 3 | 4) { json!({"sampling": {}, "elicitation": {}}) } else { json!({}) }
}

fn principal(client: usize) -> Principal {
    Principal::named(if client == 4 { "bob" } else { "ann" }).expect("a name")
}

fn locked(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parsed(frame: proxyrunner::internals::jsonrpc::Spliced) -> Value {
    serde_json::from_slice(&frame.to_vec()).expect("JSON")
}

impl Play {
    async fn new(byte: u8) -> Play {
        let serves = [Serves::Legacy, Serves::Modern, Serves::Both][usize::from(byte % 3)];
        let mut settings = settings(Choice::Auto);
        if byte & 4 != 0 {
            settings.max_children = 1;
        }
        let world = World::start(serves, settings).await;
        Play {
            world,
            sessions: [None, None],
            requests: Vec::new(),
            questions: Vec::new(),
            states: Vec::new(),
            read: 0,
            elapsed: Duration::ZERO,
        }
    }

    async fn session(&mut self, client: usize) -> Arc<Session> {
        if let Some(session) = self.sessions[client].as_ref().filter(|session| !session.is_ended()) {
            return Arc::clone(session);
        }
        let session = open(&self.world, capabilities(client));
        self.world.settle().await;
        self.sessions[client] = Some(Arc::clone(&session));
        session
    }

    /// Calls a tool. `retry` contains the parameters that make the call a retry of an earlier call.
    async fn call(&mut self, client: usize, id: Value, arguments: Option<Value>, retry: Option<Value>) {
        // The marker is in angle brackets, which no sealed state contains.
        let mark = format!("<c{client}-{}>", self.requests.len());
        let arguments = arguments.unwrap_or_else(|| json!({"mark": mark}));
        let mark = arguments["mark"].as_str().expect("a mark").to_owned();
        let mut params = json!({"name": "t", "arguments": arguments});
        if let Some(Value::Object(retry)) = retry {
            params.as_object_mut().expect("an object").extend(retry);
        }
        let heard = Arc::new(Mutex::new(Heard::default()));
        let told = Arc::clone(&heard);
        let upstream = Arc::clone(&self.world.upstream);
        let driver = if is_legacy(client) {
            let session = self.session(client).await;
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
            tokio::spawn(async move {
                let begun = upstream.begin(&session, incoming(&request)).await;
                match begun {
                    Ok(Begun::Running(mut call)) => loop {
                        match call.next().await {
                            LegacyStep::Said(interim) => locked(&told).said.push(parsed(interim.frame)),
                            LegacyStep::Answered(message) => {
                                locked(&told).outcomes.push(parsed(message));
                                return;
                            }
                        }
                    },
                    Ok(Begun::Answered(message)) => locked(&told).outcomes.push(parsed(message)),
                    Err(refusal) => refused(&told, refusal),
                }
            })
        } else {
            let declared = capabilities(client);
            let params = enveloped(params, &declared);
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
            let raw = declared.to_string();
            let caller = Caller {
                principal: principal(client),
                address: None,
                capabilities: Capabilities::read(raw.as_bytes(), &(0..raw.len())),
                log_level: None,
                params: Vec::new(),
            };
            tokio::spawn(async move {
                let mut call = match upstream.begin_modern(caller, incoming(&request)).await {
                    Ok(call) => call,
                    Err(refusal) => return refused(&told, refusal),
                };
                let reply = loop {
                    match call.next().await {
                        Happening::Said(frame) => locked(&told).said.push(parsed(frame)),
                        Happening::Answered(reply) => break reply,
                        Happening::Asks => break call.park(),
                    }
                };
                locked(&told).outcomes.push(parsed(reply.message));
            })
        };
        self.requests.push(Request { client, id, mark, heard, driver, left: false });
        self.world.settle().await;
        self.listen();
    }

    /// Reads the messages that clients received since the last call and checks them against the requests.
    fn listen(&mut self) {
        for request in &self.requests {
            let mut heard = locked(&request.heard);
            assert!(heard.outcomes.len() <= 1, "two outcomes: {:?}", heard.outcomes);
            for message in heard.said.drain(..) {
                self.read += 1;
                belongs(request, &message, is_legacy(request.client));
                if message["method"].is_string() && !message["id"].is_null() {
                    self.questions.push((request.client, message["id"].clone()));
                }
            }
            if let Some(outcome) = heard.outcomes.first() {
                assert_eq!(outcome["id"], request.id, "{outcome}");
                belongs(request, outcome, false);
                let state = outcome["result"]["requestState"].as_str();
                if let Some(state) =
                    state.filter(|state| !self.states.iter().any(|(_, known, _)| known == state))
                {
                    self.states.push((request.client, state.to_owned(), json!({"mark": request.mark})));
                }
            }
        }
    }

    async fn operate(&mut self, operation: u8, byte: u8) {
        let pick = |len: usize| usize::from(byte) % len.max(1);
        match operation % 16 {
            0..=2 => {
                let id = [json!(1), json!("1"), json!(0), json!("")][usize::from(byte >> 4) % 4].clone();
                self.call(pick(CLIENTS), id, None, None).await;
            }
            3 | 4 => self.child_answers(byte, 1),
            5 => self.child_answers(byte, 2),
            6 | 7 => self.child_asks(byte),
            8 => self.child_says(byte),
            9 => {
                let count = self.world.children.len();
                if count > 0 {
                    self.world.crash(pick(count));
                }
            }
            10 => self.client_answers(byte).await,
            11 | 12 => self.client_retries(byte).await,
            13 => self.client_leaves(byte),
            14 => self.time_passes(1 + u64::from(byte) * 4).await,
            _ => self.session_ends(byte),
        }
        self.world.settle().await;
        self.listen();
    }

    /// Makes a child answer one of its calls, once or twice.
    fn child_answers(&mut self, byte: u8, times: usize) {
        let calls = self.world.children.iter_mut().filter(|child| !child.calls.is_empty());
        let Some(child) = calls.last() else { return };
        let call = child.calls.remove(usize::from(byte) % child.calls.len());
        let mark = &call["params"]["arguments"]["mark"];
        for _ in 0..times {
            child.answer(&call["id"], json!({"content": [], "structuredContent": {"mark": mark}}));
        }
    }

    /// Makes a child ask a question about one of its calls, in the format of its era.
    fn child_asks(&mut self, byte: u8) {
        let at = usize::from(byte);
        let asking = self.world.children.iter_mut().filter(|child| !child.calls.is_empty());
        let Some(child) = asking.last() else { return };
        let index = at % child.calls.len();
        let mark = child.calls[index]["params"]["arguments"]["mark"].clone();
        let schema = json!({"type": "object", "properties": {}});
        let question = json!({"message": mark, "requestedSchema": schema});
        if child.era == Some(Era::Modern) {
            let call = child.calls.remove(index);
            let asks = json!({"method": "elicitation/create", "params": question});
            let state = format!("state of {mark}");
            let result = match byte % 4 {
                0 => json!({"resultType": "input_required", "requestState": state}),
                1 => json!({"resultType": "input_required"}),
                _ => {
                    json!({"resultType": "input_required", "requestState": state, "inputRequests": {"k": asks}})
                }
            };
            child.answer(&call["id"], result);
        } else {
            let id = 1000 + u64::try_from(self.read).expect("few") * 300 + u64::from(byte);
            if child.asked.contains(&id) {
                return;
            }
            child.asked.push(id);
            child.say(
                &json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": question}),
            );
        }
    }

    /// Makes a child answer a request that it never received, or send an unsolicited notification.
    fn child_says(&mut self, byte: u8) {
        let Some(child) = self.world.children.last_mut() else { return };
        match byte % 3 {
            0 => child.say(&json!({"jsonrpc": "2.0", "id": 1_u64 << 40, "result": {"mark": "nobody"}})),
            1 => child.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})),
            _ => child.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": byte}})),
        }
    }

    async fn client_answers(&mut self, byte: u8) {
        if self.questions.is_empty() {
            return;
        }
        let at = usize::from(byte) % self.questions.len();
        let (client, id) = self.questions[at].clone();
        // Some clients answer twice.
        if byte & 64 == 0 {
            self.questions.remove(at);
        }
        let answer = if byte & 128 == 0 {
            json!({"jsonrpc": "2.0", "id": id, "result": {"action": "accept", "content": {}}})
        } else {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": "no"}})
        };
        let Some(session) = self.sessions[client].clone() else { return };
        let answer = incoming(&answer);
        let restored = session.take_answer(&ClientId::new(answer.id()), &answer.frame, &answer.message);
        if let (Some(frame), Some(seat)) = (restored, session.seat()) {
            if let Some(link) = seat.link() {
                link.answer(frame);
            }
        }
    }

    /// Makes a modern client call again with a state: its own, another client's, an old or an altered state.
    async fn client_retries(&mut self, byte: u8) {
        if self.states.is_empty() {
            return;
        }
        let at = usize::from(byte) % self.states.len();
        let (owner, mut state, arguments) = self.states[at].clone();
        let client = if byte & 64 == 0 { owner } else { 2 + usize::from(byte) % 3 };
        if byte & 128 != 0 {
            state.push('A');
        }
        let responses =
            json!({"k": {"action": "accept"}, "q1": {"action": "accept"}, "q2": {"action": "decline"}});
        let retry = json!({"requestState": state, "inputResponses": responses});
        // A client that forges a state gets an error or begins its own call with the same arguments.
        self.call(client, json!("again"), Some(arguments), Some(retry)).await;
    }

    /// Disconnects a modern client, or cancels the request of a legacy client.
    fn client_leaves(&mut self, byte: u8) {
        let running = self.requests.iter_mut().filter(|request| !request.driver.is_finished());
        let mut running: Vec<&mut Request> = running.collect();
        if running.is_empty() {
            return;
        }
        let at = usize::from(byte) % running.len();
        let request = &mut running[at];
        if !is_legacy(request.client) {
            request.driver.abort();
            request.left = true;
            return;
        }
        let params = json!({"requestId": request.id});
        let cancel =
            incoming(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
        if let Some(session) = &self.sessions[request.client] {
            let raw = request.id.to_string();
            session.cancel(&ClientId::new(raw.as_bytes()), &cancel.frame, &cancel.message);
        }
    }

    async fn time_passes(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        self.elapsed += passed;
        tokio::time::advance(passed).await;
        for _ in 0..seconds.min(20) {
            self.world.tick();
        }
        self.world.settle().await;
        self.world.upstream.expire(Instant::now() + self.elapsed);
    }

    fn session_ends(&mut self, byte: u8) {
        if let Some(session) = self.sessions[usize::from(byte) % 2].take() {
            self.world.directory.end(&session, &Failure::SessionEnded);
        }
    }

    /// Ends all calls and sessions and checks that nothing is left.
    async fn finish(mut self) {
        for _ in 0..6 {
            while self.world.children.iter().any(|child| !child.calls.is_empty()) {
                self.child_answers(0, 1);
                self.world.settle().await;
            }
            self.time_passes(700).await;
        }
        self.listen();
        for request in &self.requests {
            let heard = locked(&request.heard);
            let outcomes = heard.outcomes.len() + usize::from(heard.refused);
            assert!(outcomes == 1 || request.left && outcomes == 0, "{}: {:?}", request.mark, heard.outcomes);
        }
        assert_eq!(self.world.upstream.parked(), 0);
        for session in self.world.directory.all() {
            // A question outside any request waits for its client until the session ends.
            self.world.directory.end(&session, &Failure::SessionEnded);
        }
        self.time_passes(700).await;
        self.time_passes(700).await;
        assert_eq!(self.world.upstream.in_flight(), 0);
        assert!(self.world.upstream.children() <= 2, "more than one shared child of each era is left");
        assert!(self.world.children.iter().all(|child| child.asked.is_empty()), "a child was never answered");
    }
}

fn refused(heard: &Mutex<Heard>, refusal: Refusal) {
    // A request that did not begin is refused with a status or with the same error text.
    drop(refusal);
    locked(heard).refused = true;
}

/// Checks that every marker in the message is the marker of the request.
///
/// If `any_of_the_clients` is true, as for questions to a legacy client, every marker of the same client is accepted.
fn belongs(request: &Request, message: &Value, any_of_the_clients: bool) {
    let text = message.to_string();
    for (at, _) in text.match_indices("<c") {
        let end = text[at..].find('>').expect("a whole mark");
        let mark = &text[at..=at + end];
        let own = if any_of_the_clients {
            mark.starts_with(&format!("<c{}-", request.client))
        } else {
            mark == request.mark
        };
        assert!(own, "{} of client {} was told {message}", request.mark, request.client);
    }
    assert!(jsonrpc::scan(text.as_bytes()).is_ok(), "{message}");
}

fuzz_target!(|data: &[u8]| {
    let Some((first, operations)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut play = Play::new(*first).await;
        for pair in operations.chunks_exact(2).take(MOST_OPERATIONS) {
            play.operate(pair[0], pair[1]).await;
        }
        play.finish().await;
    });
});
