//! Processes: the descendants of a server end with it and with proxyrunner, as PID 1 or not; signals, limits and users.

use crate::support::{Server, Session, lives, scratch, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::Command;

fn pid(answer: &Value) -> i32 {
    answer["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// Starts processes that only a guardian finds: both have their own sessions, and the parents of one have exited.
fn leave_behind(session: &Session<'_>) -> [i32; 2] {
    let file = scratch("daemon");
    [
        pid(&session.result("grandchild", json!({"setsid": true}))),
        pid(&session.result("daemon", json!({"file": file}))),
    ]
}

fn until_gone(pids: &[i32]) {
    until("their exit", || !pids.iter().any(|&pid| lives(pid)));
}

/// Waits until another server answers; calls that are sent to the exited server are lost.
fn until_replaced(session: &Session<'_>, before: i32) {
    until("the next server", || {
        let answer = session.call("facts", json!({}));
        answer["result"]["pid"].as_i64().is_some_and(|pid| pid != i64::from(before))
    });
}

/// Returns the fields of `/proc/pid/stat` after the name: state, parent, …
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// Returns the children of a process, including zombies, with their states and names.
fn children(parent: i32) -> Vec<(i32, String, String)> {
    let pids = std::fs::read_dir("/proc")
        .expect("a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let children = pids.filter_map(|pid| {
        let fields = stat(pid)?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (fields[1] == parent.to_string()).then(|| (pid, fields[0].clone(), name.trim().to_owned()))
    });
    children.collect()
}

fn descendants(root: i32) -> Vec<i32> {
    let mut found: Vec<i32> = children(root).into_iter().map(|(pid, ..)| pid).collect();
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]).into_iter().map(|(pid, ..)| pid));
        at += 1;
    }
    found
}

fn own_pid(server: &Server) -> i32 {
    i32::try_from(server.pid()).expect("a pid")
}

#[test]
fn processes_left_behind_by_a_server_end_with_it() {
    let server = Server::start("--restart-backoff 10ms");
    let session = server.session();
    let left = leave_behind(&session);
    assert!(left.iter().all(|&pid| lives(pid)));
    assert_eq!(session.call("leave", json!({"code": 5}))["error"]["data"]["exitCode"], 5);
    until_gone(&left);
    assert!(pid(&session.result("facts", json!({}))) > 0, "the next server serves");
}

#[test]
fn processes_left_behind_by_a_session_end_with_its_child() {
    let server = Server::start("");
    let (one, two) = (server.opening().exclusive().open(), server.opening().exclusive().open());
    let (left, kept) = (leave_behind(&one), leave_behind(&two));
    one.delete();
    until_gone(&left);
    assert!(kept.iter().all(|&pid| lives(pid)));
}

#[test]
fn no_process_outlives_proxyrunner() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGABRT] {
        let server = Server::with().flags("--close-grace 100ms --terminate-grace 100ms");
        let server = server.child("--ignore-eof --ignore-sigterm").start();
        let (shared, own) = (server.session(), server.opening().exclusive().open());
        let left = [leave_behind(&shared), leave_behind(&own)].concat();
        let all = descendants(own_pid(&server));
        assert!(all.len() >= 4, "two servers with a guardian each: {all:?}");
        server.signal(signal);
        until_gone(&all);
        until_gone(&left);
    }
}

#[test]
fn a_server_ends_with_its_guardian_and_is_replaced() {
    let server = Server::start("--restart-backoff 10ms");
    let session = server.session();
    let served = pid(&session.result("facts", json!({})));
    let guardian: i32 = stat(served).expect("a process")[1].parse().expect("a pid");
    assert_ne!(guardian, own_pid(&server));
    kill(Pid::from_raw(guardian), Signal::SIGKILL).expect("a process");
    until_gone(&[served]);
    until_replaced(&session, served);
    assert!(server.logged().contains("its guardian was killed"), "{}", server.logged());
}

#[test]
fn a_guardian_holds_no_pipe_and_has_one_thread() {
    let server = Server::start("--close-grace 1h --terminate-grace 1h");
    let session = server.session();
    let served = pid(&session.result("facts", json!({})));
    let guardian = stat(served).expect("a process")[1].clone();
    let files = std::fs::read_dir(format!("/proc/{guardian}/fd")).expect("a process");
    let held = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let pipes: Vec<_> = held.filter(|file| file.to_string_lossy().starts_with("pipe:")).collect();
    assert!(pipes.is_empty(), "{pipes:?}");
    let threads = std::fs::read_dir(format!("/proc/{guardian}/task")).expect("a process").count();
    assert_eq!(threads, 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0, "EOF on its stdin ended the server");
}

#[test]
fn other_signals_are_forwarded_to_the_server() {
    let server = Server::with().child("--signals").start();
    let session = server.session();
    for (signal, name) in [
        (Signal::SIGHUP, "SIGHUP"),
        (Signal::SIGUSR1, "SIGUSR1"),
        (Signal::SIGUSR2, "SIGUSR2"),
        (Signal::SIGQUIT, "SIGQUIT"),
    ] {
        server.signal(signal);
        server.until_logged(&format!("got {name}"));
    }
    assert!(pid(&session.result("facts", json!({}))) > 0);
}

#[test]
fn a_server_inherits_no_blocked_or_ignored_signals() {
    let server = Server::start("");
    let status = server.session().result("state", json!({}))["status"].clone();
    assert_eq!(status["SigBlk"], "0000000000000000");
    let ignored = u64::from_str_radix(status["SigIgn"].as_str().expect("a mask"), 16).expect("a mask");
    // Python itself ignores SIGPIPE (13) and SIGXFSZ (25); signals above 31 belong to the C library.
    assert_eq!(ignored & 0x7fff_ffff, (1 << 12) | (1 << 24));
    assert_eq!(status["NoNewPrivs"], "1");
}

#[test]
fn resource_limits_apply_to_the_server() {
    let flags = "--child-memory 4GiB --child-nofile 200 --child-nice=7 --no-new-privileges=false";
    let server = Server::start(flags);
    for session in [server.session(), server.opening().exclusive().open()] {
        let state = session.result("state", json!({}));
        assert_eq!(state["RLIMIT_AS"], json!([4u64 << 30, 4u64 << 30]));
        assert_eq!(state["RLIMIT_NOFILE"], json!([200, 200]));
        assert_eq!((&state["nice"], &state["status"]["NoNewPrivs"]), (&json!(7), &json!("0")));
    }
}

#[test]
fn a_server_may_run_as_another_user() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can change users");
    }
    // Other users may not be able to read the scripted child's file.
    let run = |flags: &str| {
        let start =
            Server::with().flags(flags).program(&["/usr/bin/env", "-i", "/bin/sh", "-c", "id >&2; exit 3"]);
        start.flags("--restart-limit 0 --child-era legacy").run()
    };
    let (status, log) = run("--child-user 65532");
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("uid=65532 gid=65532 groups=65532"), "{log}");
    let (_, log) = run("--child-user nobody --child-group daemon");
    assert!(log.contains("uid=65534(nobody) gid=1(daemon) groups=1(daemon)"), "{log}");
    let (status, log) = run("--child-user no-such-user --child-nice 30");
    assert_eq!(status.code(), Some(64));
    assert!(log.contains("--child-user") && log.contains("--child-nice"), "both errors are reported: {log}");
}

#[test]
fn as_pid_1_it_reaps_adopted_processes_and_keeps_its_servers_status() {
    let alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new(alone[0]).args(&alone[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this system does not allow a new PID namespace");
    }
    let server = Server::with().flags("--restart-limit 0").under(&alone).start();
    let init = children(own_pid(&server))[0].0;
    let session = server.session();
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{init}/comm")).expect("a process").trim(),
        "proxyrunner"
    );
    session.result("daemon", json!({"file": scratch("daemon")}));
    // A process from outside, as of `docker exec`, whose children are adopted by PID 1 when it exits.
    let init_pid = init.to_string();
    let orphan = ["-t", &init_pid, "-p", "sh", "-c", "sleep 0.3 & sleep 0.2 & exit 0"];
    let entered = Command::new("nsenter").args(orphan).status().expect("nsenter");
    assert!(entered.success());
    let sleepers = || children(init).into_iter().filter(|(_, _, name)| name == "sleep").count();
    until("orphans are adopted", || sleepers() == 2);
    until("the orphans are reaped", || sleepers() == 0);
    assert!(children(init).iter().all(|(_, state, _)| state != "Z"), "{:?}", children(init));
    let all = descendants(init);
    assert_eq!(session.call("leave", json!({"code": 7}))["error"]["data"]["exitCode"], 7);
    assert_eq!(server.exit_code(), 7, "the exit code is the server's");
    until_gone(&all);
}

#[test]
fn left_behind_processes_end_even_if_the_guardian_is_killed() {
    let server = Server::start("--restart-backoff 10ms");
    let session = server.session();
    let served = pid(&session.result("facts", json!({})));
    let left = leave_behind(&session);
    let guardian: i32 = stat(served).expect("a process")[1].parse().expect("a pid");
    kill(Pid::from_raw(guardian), Signal::SIGKILL).expect("a process");
    until_gone(&left);
    until_replaced(&session, served);
}

#[test]
fn as_pid_1_it_survives_servers_that_cannot_be_started() {
    let alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new(alone[0]).args(&alone[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this system does not allow a new PID namespace");
    }
    let folder = scratch("cwd");
    std::fs::create_dir(&folder).expect("a folder");
    let flags = format!("--isolation session --cwd {}", folder.display());
    let server = Server::with().flags(&flags).under(&alone).start();
    server.until_logged("\"ready\"");
    for _ in 0..20 {
        std::fs::remove_dir(&folder).expect("an empty folder");
        let refused = server.opening().send();
        assert!(refused.text().contains("is not a directory"), "{}", refused.text());
        std::fs::create_dir(&folder).expect("a folder");
        let session = server.session();
        assert!(pid(&session.result("facts", json!({}))) > 0);
        session.delete();
    }
}

#[test]
fn a_server_that_stops_its_guardian_and_exits_is_replaced() {
    let server = Server::start("--restart-backoff 10ms");
    let session = server.session();
    let left = leave_behind(&session);
    let answer = session.call("betray", json!({"signal": "SIGSTOP", "code": 5}));
    assert_eq!(
        answer["error"]["data"]["exitCode"], 5,
        "the guardian continues and reports the exit code: {answer}"
    );
    until_gone(&left);
    assert!(pid(&session.result("facts", json!({}))) > 0, "the next server serves");
    server.until_logged("guardian was stopped");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}

/// A server that ignores every request to end and keeps stopping its guardian.
const STOPPER: &str = "import os, signal\nguardian = os.getppid()\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                       os.fork()\nwhile os.path.exists(f'/proc/{guardian}'): os.kill(guardian, signal.SIGSTOP)";

#[test]
fn a_server_that_keeps_its_guardian_stopped_is_killed_at_the_deadline() {
    let graces = "--close-grace 100ms --terminate-grace 100ms --child-era legacy --drain-timeout 100ms";
    let server = Server::with().flags(graces).program(&["python3", "-c", STOPPER]).start();
    server.until_logged("guardian was stopped");
    let all = descendants(own_pid(&server));
    assert!(all.len() >= 2, "a server and its guardian: {all:?}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    until_gone(&all);
}

#[test]
fn a_server_that_stops_its_guardian_at_startup_still_starts() {
    let script = format!("{}/tests/children/scripted.py", env!("CARGO_MANIFEST_DIR"));
    let stop = "kill -STOP $PPID; exec python3 \"$0\"";
    let server = Server::with().program(&["sh", "-c", stop, &script]).start();
    let session = server.session();
    assert!(pid(&session.result("facts", json!({}))) > 0);
}

#[test]
fn processes_that_proxyrunner_did_not_start_survive_the_end_of_a_guardian() {
    let before = ["sh", "-c", "sleep 600 & exec \"$@\"", "sh"];
    let server = Server::with().flags("--restart-backoff 10ms").under(&before).start();
    let sleep = children(own_pid(&server)).into_iter().find(|(_, _, name)| name == "sleep");
    let (sleep, ..) = sleep.expect("the earlier child");
    let session = server.session();
    let served = pid(&session.result("facts", json!({})));
    let left = leave_behind(&session);
    // The server may be killed before or after it answers.
    session.call("betray", json!({"signal": "SIGKILL"}));
    until_gone(&left);
    until_replaced(&session, served);
    assert!(lives(sleep), "the server did not start it");
    kill(Pid::from_raw(sleep), Signal::SIGKILL).expect("a process");
}

#[test]
fn as_pid_1_it_ends_only_the_processes_of_a_killed_guardian() {
    let alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new(alone[0]).args(&alone[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this system does not allow a new PID namespace");
    }
    let server = Server::with().flags("--restart-backoff 10ms").under(&alone).start();
    let init = children(own_pid(&server))[0].0;
    let session = server.session();
    let served = pid(&session.result("facts", json!({})));
    let before = descendants(init);
    session.result("grandchild", json!({"setsid": true}));
    session.result("daemon", json!({"file": scratch("daemon")}));
    let left: Vec<_> = descendants(init).into_iter().filter(|pid| !before.contains(pid)).collect();
    assert_eq!(left.len(), 2);
    let init_pid = init.to_string();
    let orphan = ["-t", &init_pid, "-p", "sh", "-c", "sleep 600 & exit 0"];
    assert!(Command::new("nsenter").args(orphan).status().expect("nsenter").success());
    let sleeper = || children(init).into_iter().find(|(_, _, name)| name == "sleep").map(|(pid, ..)| pid);
    until("an orphan is adopted", || sleeper().is_some());
    let sleeper = sleeper().expect("a process");
    // The server may be killed before or after it answers.
    session.call("betray", json!({"signal": "SIGKILL"}));
    until_gone(&left);
    until_replaced(&session, served);
    assert!(lives(sleeper), "no server started it");
    server.until_logged("leaving adopted processes alone");
}

#[test]
fn a_server_cannot_read_the_secrets_of_proxyrunner() {
    // The guardian's parent is proxyrunner; the fields after the name in stat(5) contain no spaces themselves.
    let read = "p=$(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat); cat /proc/$p/stat /proc/$p/environ /proc/$PPID/environ >&2; \
                [ -r /proc/$p/mem ] && echo readable >&2; exit 3";
    let start = Server::with()
        .flags("--restart-limit 0 --child-era legacy --env-clear")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2")
        .program(&["sh", "-c", read]);
    let other = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"];
    let start = if nix::unistd::geteuid().is_root() {
        if !Command::new(other[0]).args(&other[1..]).arg("true").status().is_ok_and(|status| status.success())
        {
            return eprintln!("skipped: root may read everything, and the user cannot be changed");
        }
        start.under(&other)
    } else {
        start
    };
    let (status, log) = start.run();
    assert_eq!(status.code(), Some(3), "the server starts nevertheless: {log}");
    assert!(log.contains("(proxyrunner)"), "the script found proxyrunner: {log}");
    assert!(log.contains("environ: Permission denied"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("readable"), "{log}");
}
