//! Limits that several processes share in Redis (`--redis`). A real Redis, with its failures, is in `tests/gateway`.

use crate::support::redis::{OK, Redis, SILENCE};
use crate::support::{Server, scratch, tool_call, until};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const TAKEN: &str = "*2\r\n:0\r\n:0\r\n";

fn flags(url: &str) -> String {
    let path = scratch("limits");
    let bucket = json!({"maxTokens": 60, "refillPeriod": "1h0m0s"});
    fs::write(&path, json!({"shared": bucket, "perUser": bucket}).to_string()).expect("a file");
    format!(
        "--rate-limits {} --redis {url} --server-name com.example/time --principal-header x-user",
        path.display()
    )
}

/// Calls a tool as this caller, and returns the status and the message of an error.
fn called(server: &Server, user: &str) -> (u16, String) {
    let answer = server.modern().of(user).call("echo", json!({}));
    (answer.status, answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// Returns the answers of a Redis whose buckets are full.
fn full(words: &[String]) -> String {
    if words[0].starts_with("EVAL") { TAKEN } else { OK }.to_owned()
}

#[test]
fn tokens_are_taken_from_buckets_in_redis() {
    let asked = AtomicUsize::new(0);
    let redis = Redis::answering(move |words| match words[0].as_str() {
        "EVALSHA" if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            "-NOSCRIPT No matching script.\r\n".to_owned()
        }
        "EVALSHA" => "*2\r\n:2\r\n:6500000\r\n".to_owned(),
        _ => full(words),
    });
    let server = Server::start(&flags(&redis.url()));
    assert_eq!(called(&server, "ann").0, 200);
    let refused = server.modern().of("ann").call("echo", json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("7")));
    assert_eq!(refused.header("ratelimit"), Some("\"per-user\";r=0;t=7"));
    let (named, whole) = (redis.commands("EVALSHA"), redis.commands("EVAL"));
    assert_eq!((named.len(), whole.len()), (2, 1), "the script is sent once");
    assert_eq!(named[0][2..], whole[0][2..]);
    let words = &named[0][2..];
    assert_eq!(words[..2], ["2", "proxyrunner:limits:{com.example/time}:shared"]);
    assert!(words[2].starts_with("proxyrunner:limits:{com.example/time}:per-user:"), "{words:?}");
    assert!(!words[2].contains("ann"), "{words:?}");
    assert_eq!(words[3..], ["60000000.000", "3600000000.000", "60000000.000", "3600000000.000"]);
    assert_eq!(server.metric("proxyrunner_redis_connected"), 1);
    assert_eq!(server.metric("proxyrunner_redis_commands_total{result=\"ok\"}"), 2);
}

#[test]
fn while_redis_is_down_only_calls_that_need_it_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let server = Server::start(&flags(&format!("redis://127.0.0.1:{port}")));
    server.until_logged("cannot connect to Redis, and will retry");
    let (status, why) = called(&server, "ann");
    assert_eq!(
        (status, why),
        (503, {
            "the shared rate limits cannot be checked: Redis cannot be reached; try again (--redis)"
                .to_owned()
        })
    );
    assert_eq!(server.modern().of("ann").send("tools/list", json!({})).status, 200);
    assert_eq!(server.request("GET", "/health/ready", &[], b"").status, 200);
    assert_eq!(server.metric("proxyrunner_redis_connected"), 0);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let redis = Redis::on(listener, full);
    until("calls are served", || called(&server, "ann").0 == 200);
    redis.cut();
    until("calls are served again", || called(&server, "ann").0 == 200);
    server.until_logged("the connection to Redis was lost");
}

#[test]
fn a_redis_that_does_not_answer_is_given_up() {
    let redis = Redis::answering(|words| if words[0].starts_with("EVAL") { SILENCE } else { OK }.to_owned());
    let server = Server::start(&flags(&redis.url()));
    server.until_logged("connected to Redis");
    let (status, why) = called(&server, "ann");
    assert!(status == 503 && why.contains("Redis does not answer in time"), "{status} {why}");
    server.until_logged("the connection to Redis was lost: no answer within 2 s");
}

#[test]
fn what_is_not_redis_is_not_used() {
    let redis = Redis::answering(|_| "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned());
    let server = Server::start(&flags(&redis.url()));
    server.until_logged("a reply is not of Redis' protocol");
    assert_eq!(called(&server, "ann").0, 503);
}

#[test]
fn sentinels_are_asked_where_the_primary_is_whenever_it_changes() {
    let old = Redis::answering(|words| match words[0].as_str() {
        "EVALSHA" => "-READONLY You can't write against a read only replica.\r\n".to_owned(),
        "ROLE" => "*1\r\n$6\r\nmaster\r\n".to_owned(),
        _ => OK.to_owned(),
    });
    let new = Redis::answering(full);
    let (before, after, has_changed) = (old.port, new.port, Arc::new(AtomicBool::new(false)));
    let changed = Arc::clone(&has_changed);
    let sentinel = Redis::answering(move |words| {
        assert_eq!(words, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
        let port = if changed.load(Ordering::SeqCst) { after } else { before }.to_string();
        format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
    });
    // The first one is down.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/mymaster/3", sentinel.port);
    let server = Server::start(&flags(&url));
    until("the old primary is used", || {
        let _ = called(&server, "ann");
        !old.commands("EVALSHA").is_empty()
    });
    assert_eq!(old.commands("SELECT")[0], ["SELECT", "3"]);
    has_changed.store(true, Ordering::SeqCst);
    until("the new primary is used", || called(&server, "ann").0 == 200);
    assert!(!new.commands("EVALSHA").is_empty());
}

#[test]
fn a_changed_password_is_used_for_the_next_connection_and_never_told() {
    let secret = Arc::new(std::sync::Mutex::new("s3cret-1"));
    let wanted = Arc::clone(&secret);
    let redis = Redis::answering(move |words| match words[0].as_str() {
        "AUTH" if words[1..] != ["mcp", *wanted.lock().expect("it is not poisoned")] => {
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n".to_owned()
        }
        _ => full(words),
    });
    let password = scratch("redis-password");
    fs::write(&password, "s3cret-1\n").expect("a file");
    let flags = flags(&format!("redis://mcp@127.0.0.1:{}", redis.port));
    let server = Server::start(&format!("{flags} --redis-password-file {}", password.display()));
    until("calls are served", || called(&server, "ann").0 == 200);
    *secret.lock().expect("it is not poisoned") = "s3cret-2";
    redis.cut();
    server.until_logged("WRONGPASS");
    fs::write(&password, "s3cret-2\n").expect("a file");
    until("calls are served again", || called(&server, "ann").0 == 200);
    assert!(!server.logged().contains("s3cret"));
}

#[test]
fn settings_that_do_not_fit_are_refused_and_no_password_is_shown() {
    let refused = |flags: &str| {
        let (status, logged) = Server::with().flags(flags).run();
        assert_eq!(status.code(), Some(64), "{logged}");
        assert!(!logged.contains("s3cret"), "{logged}");
        logged
    };
    assert!(refused(&flags("redis://:s3cret@cache")).contains("give --redis-password-file instead"));
    assert!(refused("--redis redis://cache --server-name a.b/c").contains("give --rate-limits, too"));
    assert!(refused(&flags("redis://ann@cache")).contains("names a user without a password"));
    assert!(refused("--redis-password-file /s").contains("has no effect without --redis"));
    let nameless = flags("redis://cache").replace("--server-name com.example/time", "");
    assert!(refused(&nameless).contains("needs the name of the server"));
    let absent = format!("{} --redis-password-file /does/not/exist", flags("redis://cache"));
    assert!(refused(&absent).contains("--redis-password-file: cannot be read"));
}

#[test]
fn calls_without_a_shared_limit_do_not_ask_redis() {
    let redis = Redis::answering(full);
    let path = scratch("limits");
    let limits = json!({"maxCallsPerPrincipal": 9, "tools": [
        {"name": "facts", "shared": {"maxTokens": 9, "refillPeriod": "1h"}},
    ]});
    fs::write(&path, limits.to_string()).expect("a file");
    let flags = format!("--rate-limits {} --redis {} --server-name a.b/c", path.display(), redis.url());
    let server = Server::start(&flags);
    let session = server.session();
    assert_eq!(session.post(tool_call(1, "echo", &json!({}))).status, 200);
    assert!(redis.commands("EVALSHA").is_empty());
    assert_eq!(session.post(tool_call(2, "facts", &json!({}))).status, 200);
    assert_eq!(redis.commands("EVALSHA").len(), 1);
}
