//! The load generator: connections that make one call after another and check every response.

use super::call::{self, Call};
use super::direct;
use super::http::Connection;
use super::job::{Job, Sample, Target};
use super::process;
use super::window::{Window, fail, finish};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Connections over which idle sessions are opened.
const OPENERS: usize = 16;
/// Time for memory to settle after idle sessions were opened.
const SETTLE: Duration = Duration::from_secs(1);

/// Does the job, which is JSON, and prints the sample as JSON.
pub fn run(text: &str) {
    process::raise_file_limit();
    let job = Job::from_json(&serde_json::from_str(text).expect("JSON"));
    let sample = match job.target.clone() {
        Some(target) => over_http(&Arc::new(job), &target),
        None => direct::run(&job),
    };
    println!("{}", sample.to_json());
}

fn over_http(job: &Arc<Job>, target: &Target) -> Sample {
    let runtime = new_runtime();
    let sessions = runtime.block_on(open_sessions(job, target, job.shape.sessions));
    let (before, after, held) = runtime.block_on(open_idle(job, target));
    let mut sample = if job.seconds > 0.0 { calls(job, target, sessions) } else { Sample::default() };
    drop(held);
    (sample.before, sample.after) = (before, after);
    sample
}

/// Opens idle sessions and streams. Returns resident memory before and after, and what must be kept open.
async fn open_idle(job: &Arc<Job>, target: &Target) -> (f64, f64, Vec<Connection>) {
    let resident = || process::memory(&process::family(target.process), "VmRSS:");
    if job.idle_sessions + job.streams == 0 {
        let resident = resident();
        return (resident, resident, Vec::new());
    }
    // What grows with the first sessions only does not count for each.
    let first = (job.idle_sessions + job.streams) / 100;
    open_sessions(job, target, first.max(10)).await;
    tokio::time::sleep(SETTLE).await;
    let before = resident();
    open_sessions(job, target, job.idle_sessions).await;
    let mut held = Vec::new();
    for session in open_sessions(job, target, job.streams).await {
        let mut connection = Connection::open(target.address).await.unwrap_or_else(|error| fail(&error));
        let request = call::stream(job, session.as_deref());
        match connection.begin(request.as_bytes()).await {
            Ok(head) if head.status == 200 && head.is_events => held.push(connection),
            Ok(head) => fail(&format!("stream {}: status {}", held.len(), head.status)),
            Err(error) => fail(&format!("stream {}: {error}", held.len())),
        }
    }
    tokio::time::sleep(SETTLE).await;
    (before, resident(), held)
}

/// Opens sessions, and returns their ids. Modern clients have none.
async fn open_sessions(job: &Arc<Job>, target: &Target, count: usize) -> Vec<Option<String>> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS.min(count) {
        let (job, address) = (Arc::clone(job), target.address);
        let share = count / OPENERS + usize::from(opener < count % OPENERS);
        openers.spawn(async move {
            let connecting = tokio::time::timeout(Duration::from_secs(30), Connection::open(address));
            let mut connection = connecting.await.map_err(|_| "connect: no answer")??;
            let mut sessions = Vec::with_capacity(share);
            for _ in 0..share {
                let opening = open_session(&job, &mut connection);
                let patience = Duration::from_secs_f64(job.patience.max(10.0));
                sessions.push(
                    tokio::time::timeout(patience, opening).await.map_err(|_| "initialize: no answer")??,
                );
            }
            Ok::<_, String>(sessions)
        });
    }
    let mut sessions = Vec::with_capacity(count);
    while let Some(opened) = openers.join_next().await {
        sessions.extend(opened.expect("no panic").unwrap_or_else(|error| fail(&error)));
    }
    sessions
}

async fn open_session(job: &Job, connection: &mut Connection) -> Result<Option<String>, String> {
    let Some(request) = call::initialize(job) else { return Ok(None) };
    let (head, body) = connection.exchange(request.as_bytes()).await?;
    if head.status != 200 || memchr::memmem::find(body, b"\"protocolVersion\"").is_none() {
        return Err(format!("initialize: status {}: {}", head.status, call::excerpt(body)));
    }
    let request = call::initialized(job, head.session.as_deref());
    let (accepted, body) = connection.exchange(request.as_bytes()).await?;
    if accepted.status / 100 != 2 {
        return Err(format!("initialized: status {}: {}", accepted.status, call::excerpt(body)));
    }
    Ok(head.session)
}

/// Makes calls on all connections at once.
fn calls(job: &Arc<Job>, target: &Target, sessions: Vec<Option<String>>) -> Sample {
    let window = Arc::new(Window::new(job.shape.in_flight()));
    let threads = threads().min(job.shape.in_flight());
    let ready = Arc::new(std::sync::Barrier::new(threads + 1));
    let mut workers = Vec::new();
    for thread in 0..threads {
        let (job, address) = (Arc::clone(job), target.address);
        let (window, ready) = (Arc::clone(&window), Arc::clone(&ready));
        let own: Vec<Call> = (thread..job.shape.in_flight())
            .step_by(threads)
            .map(|connection| Call::new(&job, connection, sessions[connection % sessions.len()].as_deref()))
            .collect();
        workers.push(std::thread::spawn(move || {
            new_runtime().block_on(async {
                let mut connected = Vec::with_capacity(own.len());
                for call in own {
                    let connection = Connection::open(address).await.unwrap_or_else(|error| fail(&error));
                    connected.push((call, connection));
                }
                ready.wait();
                let begun = Instant::now();
                let mut tasks = JoinSet::new();
                for (number, (call, connection)) in connected.into_iter().enumerate() {
                    let pace = Pace::new(&job, begun, thread + number * threads);
                    tasks.spawn(repeat(call, connection, Arc::clone(&window), pace));
                }
                tasks.join_all().await.concat()
            })
        }));
    }
    ready.wait();
    let sample = window.measure(job, target.process);
    finish(sample, workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect())
}

/// When a connection makes its next request.
struct Pace {
    next: Instant,
    /// `None` for at once.
    every: Option<Duration>,
}

impl Pace {
    fn new(job: &Job, begun: Instant, connection: usize) -> Pace {
        let every =
            (job.rate > 0.0).then(|| Duration::from_secs_f64(job.shape.in_flight() as f64 / job.rate));
        let first = every.unwrap_or_default().mul_f64(connection as f64 / job.shape.in_flight() as f64);
        Pace { next: begun + first, every }
    }

    /// Waits, and returns the time from which latency counts: a late request has waited already.
    async fn wait(&mut self) -> Instant {
        let Some(every) = self.every else { return Instant::now() };
        let due = self.next;
        self.next += every;
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

async fn repeat(mut call: Call, mut connection: Connection, window: Arc<Window>, mut pace: Pace) -> Vec<u64> {
    let mut latencies = Vec::new();
    while !window.is_over() {
        let begun = pace.wait().await;
        let checked = match connection.exchange(call.next()).await {
            Ok((head, body)) => call.check(&head, body),
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            fail(&error);
        }
        if window.count() {
            latencies.push(begun.elapsed().as_nanos() as u64);
        }
    }
    window.stop();
    latencies
}

/// Returns the number of threads that make requests: half of the cores, so that the subject is not starved.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).clamp(1, 8)
}

fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
