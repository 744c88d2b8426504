//! The soak test: sessions are opened and ended, each with some calls, while proxyrunner's memory is sampled.
//!
//! `cargo bench --bench soak -- --sessions 100000 --calls 10` checks every response, prints the curve, and fails unless
//! the curve is flat and all memory is returned. With `--keep` it writes `docs/soak.svg` and `docs/soak.csv`.

#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../tests/integration/support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use support::{Connection, Server, tool_call};

/// Number of concurrent clients, each on one connection.
const CLIENTS: usize = 16;
/// Number of memory samples in a run.
const SAMPLES: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--child") {
        return child();
    }
    let number = |name: &str, default: usize| {
        let at = words.iter().position(|word| word == name);
        at.map_or(default, |at| words[at + 1].parse().expect("a number"))
    };
    let (sessions, calls) = (number("--sessions", 1_000), number("--calls", 10));
    let curve = soak(sessions, calls);
    let third = curve.len() / 3;
    let median = |samples: &[(usize, f64)]| {
        let mut values: Vec<f64> = samples.iter().map(|(_, mib)| *mib).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (early, late) = (median(&curve[third..2 * third]), median(&curve[2 * third..]));
    println!("resident: {early:.1} MiB in the second third, {late:.1} MiB in the last");
    assert!(late <= early * 1.1 + 1.0, "the curve is not flat");
    if words.iter().any(|word| word == "--keep") {
        keep(sessions, calls, &curve);
    }
}

/// A server that answers every call at once with its arguments.
fn child() {
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines().map_while(Result::ok) {
        let message: Value = serde_json::from_str(&line).expect("JSON");
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "soak", "version": "1"},
            }),
            Some("tools/call") => message["params"]["arguments"].clone(),
            _ => json!({}),
        };
        if !message["id"].is_null() {
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            writeln!(output, "{answer}").expect("someone reads");
            output.flush().expect("someone reads");
        }
    }
}

/// Runs all sessions; returns samples of the number of completed requests and the resident MiB.
fn soak(sessions: usize, calls: usize) -> Vec<(usize, f64)> {
    let own = std::env::current_exe().expect("a path");
    let flags = "--child-era legacy --session-idle 2s --max-sessions 20000";
    let server = Server::with().flags(flags).program(&[&own.to_string_lossy(), "--child"]).start();
    let (next, done, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let total = sessions * calls;
    let mut curve = Vec::with_capacity(SAMPLES + 1);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = server.connect();
                loop {
                    let session = next.fetch_add(1, Ordering::Relaxed);
                    if session >= sessions {
                        return;
                    }
                    one_session(&server, &mut connection, session, calls, &done);
                }
            });
        }
        let mut wanted = 0;
        while wanted <= total {
            let made = done.load(Ordering::Relaxed);
            if made < wanted {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            let mib = resident_mib(&server);
            curve.push((made, mib));
            let per_second = made as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{made} of {total} requests, {per_second:.0}/s, {mib:.1} MiB");
            wanted += (total / SAMPLES).max(1);
        }
    });
    for gauge in ["proxyrunner_sessions", "proxyrunner_in_flight"] {
        server.until_metric(gauge, 0);
    }
    println!(
        "{total} requests in {sessions} sessions in {:.0} s, every answer right",
        begun.elapsed().as_secs_f64()
    );
    curve
}

fn one_session(
    server: &Server,
    connection: &mut Connection,
    number: usize,
    calls: usize,
    done: &AtomicUsize,
) {
    connection.post(&[], server.opening().body());
    let response = connection.response();
    let id = response.header("mcp-session-id").unwrap_or_else(|| panic!("{}", response.text())).to_owned();
    let headers = [("Mcp-Session-Id", id.as_str())];
    connection.post(&headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(connection.response().status, 202);
    for call in 0..calls {
        let tag = format!("{number}-{call}");
        connection.post(&headers, tool_call(call, "echo", &json!({"tag": tag})));
        assert_eq!(connection.response().answer()["result"]["tag"], tag.as_str());
        done.fetch_add(1, Ordering::Relaxed);
    }
    // One session in ten is abandoned and expires.
    if !number.is_multiple_of(10) {
        connection.request("DELETE", "/mcp", &headers, b"");
        assert_eq!(connection.response().status, 204);
    }
}

fn resident_mib(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

/// Writes the curve to the project as numbers and as a picture.
fn keep(sessions: usize, calls: usize, curve: &[(usize, f64)]) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut csv = String::from("requests,resident_mib\n");
    for (requests, mib) in curve {
        let _ = writeln!(csv, "{requests},{mib:.2}");
    }
    std::fs::write(format!("{root}/docs/soak.csv"), csv).expect("the docs' folder");
    std::fs::write(format!("{root}/docs/soak.svg"), picture(sessions, calls, curve))
        .expect("the docs' folder");
}

fn picture(sessions: usize, calls: usize, curve: &[(usize, f64)]) -> String {
    let (left, top, width, height) = (60.0, 50.0, 680.0, 240.0);
    let most = curve.iter().map(|(_, mib)| *mib).fold(1.0, f64::max);
    let ceiling = (most / 10.0).ceil() * 10.0;
    let total = sessions * calls;
    let at = |requests: usize, mib: f64| {
        (left + width * requests as f64 / total as f64, top + height * (1.0 - mib / ceiling))
    };
    let mut svg = String::from(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="780" height="350" viewBox="0 0 780 350" font-family="sans-serif" font-size="12" fill="#333">
<rect width="780" height="350" fill="#fff"/>
"##,
    );
    let _ = writeln!(
        svg,
        r#"<text x="60" y="28" font-size="15">Resident memory over {total} requests in {sessions} sessions</text>"#
    );
    for step in 0..=4 {
        let mib = ceiling * f64::from(step) / 4.0;
        let (_, y) = at(0, mib);
        let _ = writeln!(
            svg,
            r##"<path d="M60 {y:.1}H740" stroke="#ddd"/><text x="52" y="{:.1}" text-anchor="end">{mib:.0}</text>"##,
            y + 4.0
        );
        let requests = total * usize::try_from(step).unwrap_or(0) / 4;
        let (x, _) = at(requests, 0.0);
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="308" text-anchor="middle">{}</text>"#, requests / 1000);
    }
    let points: Vec<_> = curve
        .iter()
        .map(|&(requests, mib)| at(requests, mib))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        r##"<polyline points="{}" fill="none" stroke="#1769aa" stroke-width="2"/>"##,
        points.join(" ")
    );
    let _ = writeln!(
        svg,
        r#"<text x="400" y="332" text-anchor="middle">thousand requests</text><text x="18" y="170" text-anchor="middle" transform="rotate(-90 18 170)">MiB</text>"#
    );
    svg.push_str("</svg>\n");
    svg
}
