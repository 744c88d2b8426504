//! Measurements other than load: start, memory, idle sessions and streams, a CPU quota, and costs that must stay flat.
//! Each returns JSON; where a subject fails, a text takes the place of the number.

use super::job::{Era, Job, Sample, Shape, median};
use super::measure::generate;
use super::process;
use super::quota::Quota;
use super::subjects::{Subject, free_address};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Number of idle sessions, and of open streams.
pub const MANY: usize = 10_000;
/// Number of these where each needs a child.
pub const FEW: usize = 80;
/// Shares of one CPU that the quota grants.
pub const CPU_QUOTA: f64 = 0.1;
/// Requests per second at which latency under the quota is measured.
pub const SLOW_RATE: f64 = 20.0;

const STARTS: usize = 20;
const STARTS_OF_SLOW: usize = 5;
/// Time for a subject to come to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// Limits of proxyrunner that these numbers of sessions and streams exceed, or nearly. Others keep their defaults.
const ROOM: [&str; 4] = ["--max-sessions", "30000", "--max-connections", "30000"];

const fn shape(sessions: usize, concurrency: usize) -> Shape {
    Shape { era: Era::Legacy, sessions, concurrency, size: 200, progress: 0 }
}

/// Sizes of large messages in MiB.
const LARGE: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Measures calls with so many MiB of text each way, one at a time.
pub fn large(subject: Subject) -> Vec<Value> {
    let of = |mebibytes: &usize| {
        let running = subject.start(Era::Legacy, &[]);
        let result = running.and_then(|running| {
            let shape = Shape { size: mebibytes << 20, ..shape(1, 1) };
            generate(&Job::new(Some(running.target.clone()), shape, 1.0))
        });
        point(subject, *mebibytes, result)
    };
    LARGE.iter().map(of).collect()
}

/// Measures start and memory of one subject.
pub fn footprint(subject: Subject) -> Value {
    let many = match subject {
        Subject::Peer(peer) if peer.most_sessions < MANY => FEW,
        _ => MANY,
    };
    let mut found = json!({"subject": subject.name(), "many": many});
    found["ready"] = value(ready(subject));
    match memory(subject) {
        Ok(memory) => memory.into_iter().for_each(|(key, kib)| found[key] = json!(kib)),
        Err(error) => found["rss"] = json!(error),
    }
    // The floor has neither sessions nor streams.
    if !matches!(subject, Subject::Floor) {
        found["session"] = value(growth(subject, many, 0));
        found["stream"] = value(growth(subject, 0, many));
    }
    found
}

fn value(result: Result<f64, String>) -> Value {
    result.map_or_else(|error| json!(format!("fails: {error}")), |number| json!(number))
}

/// Returns the median of the milliseconds from exec to the first connection.
fn ready(subject: Subject) -> Result<f64, String> {
    let starts = if subject.may_fail() { STARTS_OF_SLOW } else { STARTS };
    let mut times = Vec::with_capacity(starts);
    for _ in 0..starts {
        // A peer must be installed before the clock starts, and the address be known.
        subject.prepare()?;
        let address = free_address();
        let command = subject.command(address.port(), Era::Legacy, &[]);
        let begun = Instant::now();
        let running = subject.launch(command, address)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(running);
    }
    Ok(median(times))
}

/// Returns memory in KiB with one session at rest. Proportional sizes are absent where /proc does not tell them.
fn memory(subject: Subject) -> Result<Vec<(&'static str, f64)>, String> {
    let running = subject.start(Era::Legacy, &[])?;
    let mut job = Job::new(Some(running.target.clone()), shape(1, 1), 0.2);
    job.warm_up = 0.1;
    generate(&job)?;
    std::thread::sleep(SETTLE);
    let root = running.target.process;
    let (family, all) = (process::family(root), process::descendants(root));
    let mut found = vec![
        ("rss_main", process::memory(&[root], "VmRSS:")),
        ("rss", process::memory(&family, "VmRSS:")),
        ("processes", family.len() as f64),
    ];
    let sum = |pids: &[u32]| pids.iter().map(|pid| process::proportional(*pid)).sum::<Option<f64>>();
    found.extend(sum(&[root]).map(|kib| ("pss_main", kib)));
    found.extend(sum(&family).map(|kib| ("pss", kib)));
    found.extend(sum(&all).map(|kib| ("pss_with_child", kib)));
    Ok(found)
}

/// Returns the bytes by which resident memory grows for each idle session, or each session with a stream.
fn growth(subject: Subject, sessions: usize, streams: usize) -> Result<f64, String> {
    let running = subject.start(Era::Legacy, flags(subject))?;
    let mut job = Job::new(Some(running.target.clone()), shape(1, 1), 0.0);
    (job.idle_sessions, job.streams) = (sessions, streams);
    let sample = generate(&job)?;
    Ok((sample.after - sample.before) * 1024.0 / (sessions + streams) as f64)
}

fn flags(subject: Subject) -> &'static [&'static str] {
    if matches!(subject, Subject::Proxyrunner) { &ROOM } else { &[] }
}

/// Measures throughput and latency of one subject, its child included, with a tenth of a CPU.
pub fn quota(subject: Subject) -> Value {
    let mut found = json!({"subject": subject.name()});
    match Quota::new(CPU_QUOTA) {
        Err(reason) => found["failure"] = json!(reason),
        Ok(quota) => match under_quota(subject, &quota) {
            Ok((full, slow)) => {
                found["full"] = full.to_json();
                found["slow"] = slow.to_json();
            }
            Err(error) => found["failure"] = json!(format!("fails: {error}")),
        },
    }
    found
}

fn under_quota(subject: Subject, quota: &Quota) -> Result<(Sample, Sample), String> {
    subject.prepare()?;
    let address = free_address();
    let command = quota.within(&subject.command(address.port(), Era::Legacy, &[]));
    let running = subject.launch(command, address)?;
    let mut job = Job::new(Some(running.target.clone()), shape(1, 8), 5.0);
    (job.warm_up, job.patience) = (2.0, 30.0);
    let full = generate(&job)?;
    (job.rate, job.seconds) = (SLOW_RATE, 10.0);
    Ok((full, generate(&job)?))
}

/// Measures 64 connections while so many sessions are open.
pub fn with_sessions(subject: Subject, sessions: usize) -> Value {
    let running = subject.start(Era::Legacy, flags(subject));
    let result = running.and_then(|running| {
        let mut job = Job::new(Some(running.target.clone()), shape(1, 64), 2.0);
        job.idle_sessions = sessions - 1;
        generate(&job)
    });
    point(subject, sessions, result)
}

/// Measures with so many requests in flight, 64 in each session.
pub fn with_load(subject: Subject, in_flight: usize) -> Value {
    let running = subject.start(Era::Legacy, &[]);
    let result = running.and_then(|running| {
        generate(&Job::new(Some(running.target.clone()), shape(in_flight / 64, 64), 2.0))
    });
    point(subject, in_flight, result)
}

fn point(subject: Subject, count: usize, result: Result<Sample, String>) -> Value {
    match result {
        Ok(sample) => json!({"subject": subject.name(), "count": count, "sample": sample.to_json()}),
        Err(error) => {
            json!({"subject": subject.name(), "count": count, "failure": format!("fails: {error}")})
        }
    }
}
