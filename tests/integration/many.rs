//! Large numbers of sessions and streams, and of clients that disconnect without notice.

use crate::support::{Connection, Server, until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::collections::HashSet;

const SESSIONS: &str = "proxyrunner_sessions";

/// Returns proxyrunner's resident memory in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Returns the number of proxyrunner's child processes, except zombies.
fn children(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a process");
    let listed =
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: HashSet<i32> = listed
        .flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<_>>())
        .collect();
    pids.into_iter().filter(|pid| crate::support::lives(*pid)).count()
}

/// Raises the limit on open files. Each connection uses a descriptor in both processes.
fn allow_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the hard limit is allowed");
}

/// Opens sessions in sequence on one connection.
fn open_on(connection: &mut Connection, body: &str, count: usize) {
    for _ in 0..count {
        connection.post(&[], body);
        let response = connection.response();
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

#[test]
fn ten_thousand_idle_sessions_cost_little_and_expire_together() {
    const COUNT: usize = 10_000;
    let server = Server::start("--session-idle 10s");
    let body = server.opening().body();
    let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
    // Warm up before measuring.
    connections.iter_mut().for_each(|connection| open_on(connection, &body, 10));
    let (before, few) = (resident(&server), server.metric(SESSIONS));
    std::thread::scope(|scope| {
        for connection in &mut connections {
            scope.spawn(|| open_on(connection, &body, COUNT / 4));
        }
    });
    let (grown, sessions) = (resident(&server).saturating_sub(before), server.metric(SESSIONS) - few);
    println!("{sessions} sessions: {} bytes each", grown / sessions.max(1));
    assert_eq!(server.metric("proxyrunner_opened_sessions_total"), COUNT as u64 + 40);
    assert!(grown < 16 * 1024 * COUNT as u64, "{grown} bytes for {sessions} sessions");
    server.until_metric(SESSIONS, 0);
    assert_eq!(server.metric("proxyrunner_children"), 1);
    assert_eq!(server.session().call("echo", json!({"n": 1}))["result"]["n"], 1);
}

#[test]
fn two_thousand_open_streams_all_receive_a_broadcast() {
    allow_files();
    let server = Server::start("");
    let sessions: Vec<_> = (0..2_000).map(|_| server.session()).collect();
    let mut streams: Vec<_> = sessions.iter().map(|session| session.listen()).collect();
    server.session().result("relist", json!({"method": "tools/list", "pages": [[]]}));
    for stream in &mut streams {
        assert_eq!(stream.message()["method"], "notifications/tools/list_changed");
    }
    streams.into_iter().for_each(crate::support::Events::cut);
    assert_eq!(sessions[0].call("echo", json!({"n": 1}))["result"]["n"], 1);
}

#[test]
fn a_flood_of_exclusive_clients_does_not_exceed_max_children() {
    const MOST: usize = 3;
    let server = Server::start("--max-children 3 --session-idle 1s --evict-after 1s");
    // The shared child is ready, so that no client of the flood waits for it.
    drop(server.session());
    let body = server.opening().exclusive().body();
    let count = || {
        let now = children(&server);
        assert!(now <= MOST, "{now} children");
        now
    };
    for wave in 0..10 {
        let mut flood: Vec<_> = (0..6).map(|_| server.connect()).collect();
        flood.iter_mut().for_each(|connection| connection.post(&[], &body));
        if wave == 0 {
            until("the limit is reached", || count() == MOST);
        }
        flood.into_iter().for_each(Connection::cut);
        count();
    }
    until("the flood's children have ended", || count() == 1 && server.metric("proxyrunner_children") == 1);
    let session = server.opening().exclusive().open();
    assert!(session.result("facts", json!({}))["pid"].is_number());
}
