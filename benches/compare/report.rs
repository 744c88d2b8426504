//! Runs all measurements, keeps the results as JSON, and has the document written from them.

use super::job::{Era, Shape};
use super::measure::{Row, compare, require_success};
use super::subjects::Subject;
use super::{PROGRESS, cases, document, paths};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Sessions that are open in the measurements of flatness.
pub const SESSIONS: [usize; 4] = [1, 100, 1_000, 10_000];
/// Requests in flight in the measurements of flatness.
pub const LOADS: [usize; 4] = [64, 256, 1_024, 2_048];

/// Measures everything. Exits with an error after that if anything but a peer failed.
pub fn run(subjects: Vec<Subject>, rounds: usize, seconds: f64) {
    let subjects = installed(subjects);
    let mut results = json!({
        "date": output("date", &["-u", "+%F"]), "machine": machine(), "versions": versions(&subjects),
        "rounds": rounds, "seconds": seconds,
    });
    let (mut shapes, mut all) = (Vec::new(), Vec::new());
    for shape in all_shapes() {
        eprintln!("{}", shape.name());
        let rows = compare(&subjects, shape, rounds, seconds);
        rows.iter().for_each(|row| eprintln!("  {}", row.line()));
        shapes.push(json!({
            "shape": shape.to_json(), "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        }));
        all.extend(rows);
    }
    results["shapes"] = shapes.into();
    results["footprint"] = said(
        subjects
            .iter()
            .filter(|subject| !matches!(subject, Subject::Direct))
            .map(|subject| cases::footprint(*subject)),
    );
    let fast = [Subject::Floor, Subject::Proxyrunner];
    results["large"] = said(fast.into_iter().flat_map(cases::large));
    results["quota"] = said(fast.iter().map(|subject| cases::quota(*subject)));
    let points = SESSIONS.iter().map(|count| cases::with_sessions(Subject::Proxyrunner, *count));
    results["by_sessions"] = said(points);
    let points = LOADS.iter().flat_map(|count| fast.map(|subject| cases::with_load(subject, *count)));
    results["by_load"] = said(points);
    let text = serde_json::to_string_pretty(&results).expect("JSON");
    std::fs::write(paths::results(), text + "\n").expect("target/performance.json is written");
    document::write(&results);
    require_success(&subjects, &all);
}

/// Writes the document again, from stored results.
pub fn rewrite(file: &Path) {
    let text = std::fs::read_to_string(file).expect("a file with results");
    document::write(&serde_json::from_str(&text).expect("JSON"));
}

/// Collects values, and shows each as it comes.
fn said(values: impl Iterator<Item = Value>) -> Value {
    values.inspect(|value| eprintln!("  {value}")).collect()
}

/// Returns the subjects without peers that cannot be installed here.
fn installed(mut subjects: Vec<Subject>) -> Vec<Subject> {
    subjects.retain(|subject| match subject.prepare() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{} is left out: {error}", subject.name());
            false
        }
    });
    subjects
}

fn all_shapes() -> Vec<Shape> {
    let shape = |era, (sessions, concurrency): (usize, usize), size, progress| Shape {
        era,
        sessions,
        concurrency,
        size,
        progress,
    };
    let usual = [(1, 1), (1, 32), (32, 64)];
    let mut shapes = Vec::new();
    for size in [200, 4 << 10, 64 << 10] {
        shapes.extend(usual.map(|load| shape(Era::Legacy, load, size, 0)));
    }
    shapes.extend([(1, 1), (1, 8)].map(|load| shape(Era::Legacy, load, 1 << 20, 0)));
    shapes.extend(usual.map(|load| shape(Era::Legacy, load, 200, PROGRESS)));
    shapes.extend(usual.map(|load| shape(Era::Modern, load, 200, 0)));
    shapes.push(shape(Era::Modern, (1, 32), 200, PROGRESS));
    shapes.push(shape(Era::Translated, (1, 32), 200, 0));
    shapes
}

fn machine() -> Value {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or("unknown").trim().to_owned()
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let memory = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    json!({
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu": field("/proc/cpuinfo", "model name"),
        "memory": (memory / 1024.0 / 1024.0).round() as u64,
        // What follows the number says who built the kernel.
        "kernel": output("uname", &["-r"]).split('-').next(),
    })
}

fn versions(subjects: &[Subject]) -> Value {
    let mut versions = vec![json!(format!("proxyrunner {}", env!("CARGO_PKG_VERSION")))];
    for subject in subjects {
        if let Subject::Peer(peer) = subject {
            versions.push(json!(format!("{}: {}", peer.name, peer.origin())));
        }
    }
    for (program, name) in [("rustc", ""), ("node", "Node "), ("python3", "")] {
        let text = output(program, &["--version"]);
        versions.push(json!(format!("{name}{}", text.split('(').next().unwrap_or_default().trim())));
    }
    versions.into()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
