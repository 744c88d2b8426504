//! The end by signal: whoever waits is told, whatever it waits for.

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use support::{Connection, Server, scratch};

/// Its `initialize` on its way.
fn begin_initialize(server: &Server, capabilities: serde_json::Value) -> Connection {
    let mut connection = server.connect();
    connection.post(&[], server.opening().capabilities(capabilities).body());
    connection
}

#[test]
fn whoever_waits_for_a_child_to_start_is_told_of_the_end() {
    let ask = json!({"sampling": {}});
    for (capabilities, flags) in
        [(json!({}), ""), (json!({}), "--sse-commit-after 0"), (ask, "--child-era legacy")]
    {
        let server = Server::with().flags("--drain-timeout 1s").flags(flags).child("--mute").start();
        let exclusive = capabilities != json!({});
        let mut waiting = begin_initialize(&server, capabilities);
        server.until_metric("proxyrunner_children", if exclusive { 2 } else { 1 });
        server.signal(Signal::SIGTERM);
        let answers = waiting.response().messages();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0]["error"]["message"].as_str().unwrap().contains("shutting down"), "{answers:?}");
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn whoever_waits_for_a_stdin_to_be_read_is_told_of_the_end() {
    let flags = "--drain-timeout 1s --close-grace 1s --terminate-grace 1s --max-client-in-flight 300";
    let server = Server::start(flags);
    let session = server.session();
    let until_file = scratch("never-reads-again");
    session.result("stop_reading", json!({"until": until_file}));
    let pad = "x".repeat(20_000);
    // More than its queue and a pipe hold.
    let mut calls: Vec<_> = (0..300).map(|id| session.begin_call(id, "echo", json!({"pad": pad}))).collect();
    server.until_metric("proxyrunner_in_flight", 300);
    server.signal(Signal::SIGTERM);
    for call in &mut calls {
        let answers = call.response().messages();
        assert_eq!((answers.len(), &answers[0]["error"]["data"]["reason"]), (1, &json!("shutting_down")));
    }
    assert_eq!(server.exit_code(), 0);
}
