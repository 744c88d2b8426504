//! The cost of a call in each of the four pairings of eras, from the client's frame to the client's response.

#[path = "../../tests/world/mod.rs"]
mod world;

use criterion::Criterion;
use proxyrunner::internals::budget::Charged;
use proxyrunner::internals::era::envelope::Envelope;
use proxyrunner::internals::era::probe::Choice;
use proxyrunner::internals::identity::Identity;
use proxyrunner::internals::jsonrpc;
use proxyrunner::internals::session::{Principal, Session};
use proxyrunner::internals::trace_context::Trace;
use proxyrunner::internals::upstream::{Begun, Caller, Happening, Incoming, LegacyStep, Received};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::{Serves, World, charged, enveloped, open, settings};

/// The rest of a response of ordinary size. It begins with `resultType` except where proxyrunner has to add it to a
/// legacy child's response, so that the benchmark compares code paths and not messages.
const RESULT: &[u8] = br#""content":[{"type":"text","text":"the quick brown fox jumps over the lazy dog, the quick brown fox jumps over the lazy dog, the quick brown fox jumps over the lazy dog, the quick brown fox jumps over the lazy dog"}],"isError":false}}"#;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    for pairing in ["legacy-legacy", "modern-modern", "modern-legacy", "legacy-modern"] {
        group.bench_function(pairing, |bencher| {
            bencher.iter_custom(|calls| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.expect("a runtime").block_on(run(pairing, calls))
            });
        });
    }
    group.finish();
}

/// Makes calls, and returns their time. `pairing` is the client's era and the child's.
async fn run(pairing: &str, calls: u64) -> Duration {
    let (client, serves, choice) = match pairing {
        "legacy-legacy" => ("legacy", Serves::Legacy, Choice::Legacy),
        "modern-modern" => ("modern", Serves::Modern, Choice::Modern),
        "modern-legacy" => ("modern", Serves::Legacy, Choice::Legacy),
        "legacy-modern" => ("legacy", Serves::Modern, Choice::Modern),
        _ => panic!("no such pairing: {pairing}"),
    };
    let mut world = World::start(serves, settings(choice)).await;
    let session = open(&world, json!({}));
    world.settle().await;
    assert!(session.seat().is_some());
    // Clients send the same to a child of their own era, so that the benchmark compares code paths and not messages.
    let body = body(pairing != "legacy-modern");
    assert!(body.starts_with(b"{\"id\""), "the child looks for it there");
    let begun = Instant::now();
    for _ in 0..calls {
        if client == "modern" {
            modern(&mut world, &body, serves == Serves::Modern).await
        } else {
            legacy(&mut world, &session, &body).await
        }
    }
    begun.elapsed()
}

/// Returns a call of ordinary size.
fn body(modern: bool) -> Charged {
    let text = "the quick brown fox jumps over the lazy dog ".repeat(8);
    let params = json!({"name": "echo", "arguments": {"text": text, "n": 7}, "_meta": {"progressToken": 7}});
    let params = if modern { enveloped(params, &json!({})) } else { params };
    charged(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string())
}

fn scanned(body: &Charged) -> Incoming {
    let message = jsonrpc::scan(body).expect("a message");
    Received {
        frame: body.clone(),
        message,
        trace: Trace::default(),
        identity: Identity::anonymous(),
        operation: Arc::default(),
    }
    .into()
}

async fn legacy(world: &mut World, session: &Arc<Session>, body: &Charged) {
    let incoming = scanned(body);
    // Each legacy request has a session id, and each modern request has an envelope.
    let session = world.directory.find(session.id().secret(), session.principal()).expect("a session");
    let Ok(Begun::Running(mut call)) = world.upstream.begin(&session, incoming).await else {
        panic!("the call does not begin");
    };
    answer(world, true);
    let LegacyStep::Answered(message) = call.next().await else { panic!("no response") };
    black_box(message);
}

async fn modern(world: &mut World, body: &Charged, typed: bool) {
    let incoming = scanned(body);
    let envelope = Envelope::read(&incoming.frame, &incoming.message).expect("an envelope");
    let principal = Principal::anonymous();
    let capabilities = envelope.capabilities();
    let caller =
        Caller { principal, address: None, capabilities, log_level: envelope.log_level, params: Vec::new() };
    let upstream = Arc::clone(&world.upstream);
    let begun = upstream.begin_modern(caller, incoming);
    tokio::pin!(begun);
    // The first call waits for the tool list.
    let mut call = loop {
        tokio::select! {
            biased;
            call = &mut begun => break call.expect("a call"),
            () = tokio::task::yield_now() => while world.turn() {},
        }
    };
    answer(world, typed);
    let Happening::Answered(reply) = call.next().await else { panic!("no response") };
    black_box(reply);
}

/// Returns the child's response. The child reads only the id at the beginning of the call, so that its cost does not
/// depend on the length of the call.
fn answer(world: &mut World, typed: bool) {
    for child in &mut world.children {
        while let Some(frame) = child.read() {
            let frame = frame.to_vec();
            let Some(rest) = frame.strip_prefix(b"{\"id\":") else { continue };
            let end = rest.iter().position(|byte| *byte == b',').expect("more members");
            let begin: &[u8] =
                if typed { b",\"result\":{\"resultType\":\"complete\"," } else { b",\"result\":{" };
            let answer = [b"{\"jsonrpc\":\"2.0\",\"id\":", &rest[..end], begin, RESULT].concat();
            child.say_bytes(answer);
        }
    }
}
