//! A simulation without processes: the real upstream in front of children that are plain data. Messages pass through
//! the real queues and the real router, so that whole exchanges run in one thread on virtual time.
//!
//! A child answers `tools/call` only on request, and all other methods by itself. It panics on messages that do not
//! belong to its era.

#![allow(dead_code, reason = "the fuzz target and the benchmark each use their own part")]

use proxyrunner::internals::budget::{Account, Budget, Charged};
use proxyrunner::internals::client::Client;
use proxyrunner::internals::era::{Era, probe::Choice};
use proxyrunner::internals::exchange::{End, Ends, Failure, Intake, LastWords, Link, Order, Urgent};
use proxyrunner::internals::framing::Framed;
use proxyrunner::internals::identity::Identity;
use proxyrunner::internals::jsonrpc::{self, Spliced};
use proxyrunner::internals::lifecycle::Policy;
use proxyrunner::internals::phase;
use proxyrunner::internals::router::Router;
use proxyrunner::internals::session::{Directory, Principal, Session};
use proxyrunner::internals::trace_context::Trace;
use proxyrunner::internals::upstream::{
    AtCap, ChildPlace, Incoming, Isolation, Received, Seal, Settings, Upstream, Want,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The `_meta` key that marks modern messages.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The `_meta` key of a modern client's capabilities.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const STAMP: &str = "io.modelcontextprotocol/subscriptionId";
/// Ticks of a child's router after which a cancelled call no longer counts.
const GRACE: u64 = 10;

/// The eras that a server supports. Each process of a dual server uses the era of its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    Legacy,
    Modern,
    Both,
}

/// The upstream and its children.
pub struct World {
    pub upstream: Arc<Upstream>,
    pub directory: Arc<Directory>,
    pub children: Vec<Child>,
    serves: Serves,
    wanted: mpsc::Receiver<Want>,
    started: u64,
}

/// A simulated process.
pub struct Child {
    pub era: Option<Era>,
    /// The unanswered calls.
    pub calls: Vec<Value>,
    /// The child's unanswered questions, by id.
    pub asked: Vec<u64>,
    link: Arc<Link>,
    router: Router,
    account: Account,
    intake: Intake,
    stop: CancellationToken,
    end: watch::Sender<Option<End>>,
    _place: ChildPlace,
}

/// Settings for a world, with small limits.
pub fn settings(choice: Choice) -> Settings {
    Settings {
        child_era: choice,
        probe_timeout: Duration::from_secs(5),
        isolation: Isolation::Auto,
        children: 1,
        max_children: 6,
        warm: 0,
        evict_after: Duration::from_secs(60),
        at_cap: AtCap::Share,
        forward_roots: false,
        cache_lists: None,
        private_lists: false,
        disclosure: None,
        max_in_flight: 64,
        max_client_in_flight: 64,
        max_child_in_flight: 64,
        max_queued: 64,
        queue_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(300),
        restarts: Policy {
            limit: u32::MAX,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(8),
            stable: Duration::from_secs(60),
        },
        restart_wait: Duration::from_secs(10),
        resume_sessions: false,
        ping_interval: Duration::ZERO,
        ping_timeout: Duration::from_secs(10),
        request_max: Duration::from_secs(3600),
        cancel_grace: Duration::from_secs(GRACE),
        max_listens: 64,
        max_parked: 32,
        park_timeout: Duration::from_secs(600),
    }
}

impl World {
    /// Creates a world whose first child is ready.
    pub async fn start(serves: Serves, settings: Settings) -> World {
        let budget = Budget::new(1 << 30);
        let sessions = proxyrunner::internals::session::Settings {
            idle: Duration::from_secs(1 << 20),
            max_age: Duration::from_secs(1 << 20),
            max_sessions: 64,
            evict_after: Duration::from_secs(60),
            replay_events: 16,
            replay_bytes: 1 << 16,
        };
        let directory = Arc::new(Directory::new(sessions));
        let (phase, _) = phase::channel();
        let seal = Seal::new(None).expect("randomness");
        let patience = Duration::from_secs(300);
        let (upstream, wanted) =
            Upstream::new(settings, patience, Arc::clone(&directory), phase, seal, &budget);
        let mut world = World { upstream, directory, children: Vec::new(), serves, wanted, started: 0 };
        let starting = Arc::clone(&world.upstream);
        let starting = tokio::spawn(async move { starting.start().await });
        while !starting.is_finished() {
            world.settle().await;
        }
        starting.await.expect("no panic").expect("a started child");
        let kept = Arc::clone(&world.upstream);
        tokio::spawn(async move { kept.keep_filled().await });
        world
    }

    /// Runs until nothing more can happen without time passing.
    pub async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            tokio::task::yield_now().await;
            quiet = if self.turn() { 0 } else { quiet + 1 };
        }
    }

    /// Starts requested children, and lets all children read and answer; returns whether anything happened.
    pub fn turn(&mut self) -> bool {
        let mut happened = false;
        while let Ok(want) = self.wanted.try_recv() {
            happened = true;
            self.started += 1;
            self.children.push(Child::new(self.started, want));
        }
        for child in &mut self.children {
            while let Some(frame) = child.read() {
                happened = true;
                child.receive(self.serves, frame);
            }
        }
        let stopped = self.children.iter().position(|child| child.stop.is_cancelled());
        if let Some(at) = stopped {
            self.children.remove(at).die("exited with code 0");
            happened = true;
        }
        happened
    }

    /// Advances the routers by one second.
    pub fn tick(&mut self) {
        self.children.iter_mut().for_each(|child| child.router.tick());
    }

    /// Ends a child unexpectedly.
    pub fn crash(&mut self, at: usize) {
        self.children.remove(at).die("exited with code 9");
    }
}

impl Child {
    fn new(number: u64, want: Want) -> Child {
        let Want { audience, slots, place, reply, .. } = want;
        let (link, Ends { answering, intake, stop, end, .. }) = Link::new(number, slots);
        let account = Budget::new(1 << 30).account(Client::child(number));
        let router = Router::new(number, answering, audience, link.inbox().clone(), GRACE);
        if reply.send(Ok(Arc::clone(&link))).is_err() {
            link.stop();
        }
        let (calls, asked) = (Vec::new(), Vec::new());
        Child { era: None, calls, asked, link, router, account, intake, stop, end, _place: place }
    }

    /// Returns the next frame on the child's stdin, as the writer would write it.
    pub fn read(&mut self) -> Option<Spliced> {
        loop {
            if let Ok(Urgent(frame)) = self.intake.urgent.try_recv() {
                return Some(frame);
            }
            match self.intake.orders.try_next()? {
                Order::Request { wire_id, frame } if self.link.mux().mark_sent(wire_id) => {
                    return Some(frame);
                }
                Order::Request { .. } => {}
                Order::Notification { frame, .. } => return Some(frame),
            }
        }
    }

    /// Writes a frame to the child's stdout.
    pub fn say(&mut self, message: &Value) {
        self.say_bytes(message.to_string().into_bytes());
    }

    pub fn say_bytes(&mut self, bytes: Vec<u8>) {
        self.router.deliver(Framed::Frame { bytes, bom: false }, self.account.charge());
    }

    /// Writes the response to a request.
    pub fn answer(&mut self, id: &Value, mut result: Value) {
        if self.era == Some(Era::Modern) && result["resultType"].is_null() {
            result["resultType"] = json!("complete");
        }
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn receive(&mut self, serves: Serves, frame: Spliced) {
        let frame = frame.to_vec();
        assert!(jsonrpc::scan(&frame).is_ok(), "{frame:?}");
        let message: Value = serde_json::from_slice(&frame).expect("JSON");
        let Some(method) = message["method"].as_str() else {
            let id = message["id"].as_u64().expect("a question's id");
            let at = self.asked.iter().position(|asked| *asked == id);
            self.asked.remove(at.expect("each question is answered once"));
            return;
        };
        if message["id"].is_null() {
            return self.hear(method, &message["params"]);
        }
        let (id, params) = (&message["id"], &message["params"]);
        let enveloped = params["_meta"][PROTOCOL_VERSION].is_string();
        match method {
            "server/discover" if serves == Serves::Legacy => {
                self.say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}));
            }
            "initialize" if serves == Serves::Modern || self.era == Some(Era::Modern) => {
                let data = json!({"supported": ["2026-07-28"], "requested": "2025-11-25"});
                let error = json!({"code": -32022, "message": "no", "data": data});
                self.say(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
            "initialize" => {
                self.era = Some(Era::Legacy);
                let info = json!({"name": "world", "version": "1"});
                let tools = json!({"tools": {"listChanged": true}});
                let version = &params["protocolVersion"];
                self.answer(
                    id,
                    json!({"protocolVersion": version, "capabilities": tools, "serverInfo": info}),
                );
            }
            _ => {
                let era = *self.era.get_or_insert(Era::Modern);
                assert_eq!(enveloped, era == Era::Modern, "of the other era: {message}");
                self.serve(method, id, &message);
            }
        }
    }

    fn serve(&mut self, method: &str, id: &Value, message: &Value) {
        let hints = json!({"ttlMs": 0, "cacheScope": "private"});
        let mut result = match method {
            "tools/call" => return self.calls.push(message.clone()),
            "server/discover" => {
                json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": true}}})
            }
            "tools/list" => json!({"tools": []}),
            "subscriptions/listen" => {
                let filter = &message["params"]["notifications"];
                let params = json!({"_meta": {STAMP: id}, "notifications": filter});
                let method = "notifications/subscriptions/acknowledged";
                return self.say(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
            }
            _ => json!({}),
        };
        if self.era == Some(Era::Modern) {
            result.as_object_mut().expect("an object").extend(hints.as_object().expect("one").clone());
        }
        self.answer(id, result);
    }

    fn hear(&mut self, method: &str, params: &Value) {
        // A modern child must not answer a cancelled request; a legacy child may.
        if method == "notifications/cancelled" && self.era == Some(Era::Modern) {
            self.calls.retain(|call| call["id"] != params["requestId"]);
        }
    }

    fn die(mut self, how: &str) {
        let end = End { how: how.into(), code: 9, last_words: LastWords::default() };
        self.end.send_replace(Some(end.clone()));
        self.router.close(&Failure::Ended(end));
    }
}

/// Returns a memory account that is large enough for any test.
pub fn account() -> Account {
    Budget::new(1 << 30).account(Client::at(None))
}

/// Returns the bytes of a message.
pub fn charged(bytes: impl Into<Vec<u8>>) -> Charged {
    account().hold(bytes.into())
}

/// Returns a message of a client.
pub fn incoming(message: &Value) -> Incoming {
    let frame = charged(message.to_string());
    let message = jsonrpc::scan(&frame).expect("a message");
    Received {
        frame,
        message,
        trace: Trace::default(),
        identity: Identity::anonymous(),
        operation: Arc::default(),
    }
    .into()
}

/// Returns the parameters of a modern client's call.
pub fn enveloped(mut params: Value, capabilities: &Value) -> Value {
    let meta = params.as_object_mut().expect("an object").entry("_meta").or_insert_with(|| json!({}));
    meta[PROTOCOL_VERSION] = json!("2026-07-28");
    meta[CLIENT_CAPABILITIES] = capabilities.clone();
    params
}

/// Begins to open a session, which gets a seat once its child is ready.
pub fn open(world: &World, capabilities: Value) -> Arc<Session> {
    let opened = world.directory.open(Principal::anonymous(), None, account(), Instant::now());
    let session = opened.expect("there is room");
    world.directory.list(&session);
    let info = json!({"name": "c", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info});
    let initialize = incoming(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
    let (upstream, seated) = (Arc::clone(&world.upstream), Arc::clone(&session));
    tokio::spawn(async move {
        // A refused session has no seat.
        drop(upstream.initialize(&seated, initialize).await);
    });
    session
}
