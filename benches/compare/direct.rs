//! The limit: the load generator at the child's own pipes, without any bridge.

use super::call::{self, Call};
use super::child::Lines;
use super::job::{Era, Job, Sample};
use super::scan;
use super::window::{Window, fail, finish};
use parking_lot::{Condvar, Mutex};
use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// Requests that are to be written; `None` after the last one.
#[derive(Default)]
struct Queue {
    bytes: Mutex<Option<Vec<u8>>>,
    wake: Condvar,
}

impl Queue {
    fn push(&self, message: &[u8]) {
        if let Some(bytes) = &mut *self.bytes.lock() {
            bytes.extend_from_slice(message);
            bytes.push(b'\n');
        }
        self.wake.notify_one();
    }

    fn close(&self) {
        *self.bytes.lock() = None;
        self.wake.notify_one();
    }

    /// Writes all that is queued at once, again and again.
    fn write(&self, mut input: ChildStdin) {
        let mut taken = Vec::new();
        loop {
            {
                let mut bytes = self.bytes.lock();
                while bytes.as_ref().is_some_and(Vec::is_empty) {
                    self.wake.wait(&mut bytes);
                }
                let Some(bytes) = &mut *bytes else { return };
                std::mem::swap(bytes, &mut taken);
            }
            if input.write_all(&taken).is_err() {
                fail("the child has closed its stdin");
            }
            taken.clear();
        }
    }
}

/// Starts a child and measures it. CPU time and memory are the child's.
pub fn run(job: &Job) -> Sample {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.arg("child").stdin(Stdio::piped()).stdout(Stdio::piped());
    if job.shape.era == Era::Modern {
        command.arg("--modern");
    }
    let mut child = command.spawn().expect("the child starts");
    let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let queue = Arc::new(Queue { bytes: Mutex::new(Some(Vec::new())), ..Queue::default() });
    let writer = Arc::clone(&queue);
    std::thread::spawn(move || writer.write(input));
    if let Some(request) = call::initialize(job) {
        queue.push(request.as_bytes());
        queue.push(call::initialized(job, None).as_bytes());
    }
    let window = Arc::new(Window::new(1));
    let calls = (0..job.shape.in_flight()).map(|connection| Call::new(job, connection, None)).collect();
    let reader = std::thread::spawn({
        let (window, queue, sessions) =
            (Arc::clone(&window), Arc::clone(&queue), call::initialize(job).is_some());
        move || read(output, calls, sessions, &window, &queue)
    });
    let sample = window.measure(job, child.id());
    let latencies = reader.join().expect("no panic");
    queue.close();
    let _ = child.wait();
    finish(sample, latencies)
}

/// A call that is under way.
struct Underway {
    call: Call,
    begun: Instant,
    steps: usize,
}

fn read(
    mut output: impl Read,
    calls: Vec<Call>,
    has_session: bool,
    window: &Window,
    queue: &Queue,
) -> Vec<u64> {
    let mut lines = Lines::default();
    if has_session {
        while lines.next().is_none() {
            assert!(lines.fill(&mut output), "the child has ended");
        }
    }
    let begin = |mut call: Call| {
        call.next();
        queue.push(call.message());
        Underway { call, begun: Instant::now(), steps: 0 }
    };
    let mut underway: Vec<Underway> = calls.into_iter().map(begin).collect();
    let (mut latencies, mut left) = (Vec::new(), underway.len());
    while left > 0 {
        if !lines.fill(&mut output) {
            fail("the child has ended");
        }
        while let Some(line) = lines.next() {
            match receive(line, &mut underway, window, &mut latencies) {
                Ok(None) => {}
                Ok(Some(_)) if window.is_over() => left -= 1,
                Ok(Some(finished)) => {
                    finished.call.next();
                    finished.begun = Instant::now();
                    queue.push(finished.call.message());
                }
                Err(error) => fail(&error),
            }
        }
    }
    window.stop();
    latencies
}

/// Checks a message. Returns the call that it finishes.
fn receive<'a>(
    line: &[u8],
    underway: &'a mut [Underway],
    window: &Window,
    latencies: &mut Vec<u64>,
) -> Result<Option<&'a mut Underway>, String> {
    let owner = scan::id(line).or_else(|| scan::scan(line).and_then(|found| found.token));
    let id = scan::number(line, owner).ok_or_else(|| format!("no id: {}", call::excerpt(line)))?;
    let count = underway.len();
    let owner = &mut underway[call::connection_of(id, count)];
    if !owner.call.check_message(line, &mut owner.steps)? {
        return Ok(None);
    }
    owner.call.check_steps(owner.steps)?;
    owner.steps = 0;
    if window.count() {
        latencies.push(owner.begun.elapsed().as_nanos() as u64);
    }
    Ok(Some(owner))
}
