//! When to measure: after a warm-up, for a time, until all have stopped. It also counts, and notices a standstill.

use super::job::{Job, Sample};
use super::process;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The phase before is 0, the warm-up.
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// How often a standstill is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// The measurement that all connections take part in.
#[derive(Default)]
pub struct Window {
    phase: AtomicU8,
    done: AtomicUsize,
    /// Connections that have not stopped.
    running: AtomicUsize,
}

impl Window {
    /// Returns the window of `connections`, which call [`stop`](Self::stop) each.
    pub fn new(connections: usize) -> Window {
        Window { running: AtomicUsize::new(connections), ..Window::default() }
    }

    /// Counts a response. Returns whether its latency counts.
    pub fn count(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.phase.load(Ordering::Relaxed) == MEASURING
    }

    /// Returns whether no more requests are to be made.
    pub fn is_over(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == OVER
    }

    /// Says that a connection makes no more requests.
    pub fn stop(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Runs the measurement while other threads make the requests. `root` is the process that is measured. Percentiles
    /// are left for [`finish`].
    pub fn measure(&self, job: &Job, root: u32) -> Sample {
        self.wait(job, job.warm_up);
        let family = process::family(root);
        let (begun, cpu, done) = (Instant::now(), process::cpu(&family), self.done.load(Ordering::Relaxed));
        self.phase.store(MEASURING, Ordering::Relaxed);
        self.wait(job, job.seconds);
        let requests = (self.done.load(Ordering::Relaxed) - done) as f64;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), process::cpu(&family) - cpu);
        let peak = process::memory(&family, "VmHWM:");
        self.phase.store(OVER, Ordering::Relaxed);
        self.drain(job);
        if requests == 0.0 {
            fail("no response in the time of the measurement");
        }
        Sample { rate: requests / seconds, cpu: cpu * 1e6 / requests, peak, ..Sample::default() }
    }

    /// Waits until all connections have stopped.
    fn drain(&self, job: &Job) {
        let mut last = (Instant::now(), self.done.load(Ordering::Relaxed));
        while self.running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(1));
            let done = self.done.load(Ordering::Relaxed);
            if done != last.1 {
                last = (Instant::now(), done);
            } else if last.0.elapsed().as_secs_f64() > job.patience {
                fail("some requests were never answered");
            }
        }
    }

    /// Waits for so many seconds, and fails if nothing is answered for too long.
    fn wait(&self, job: &Job, seconds: f64) {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut last = (Instant::now(), self.done.load(Ordering::Relaxed));
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(LOOK));
            let done = self.done.load(Ordering::Relaxed);
            if done != last.1 {
                last = (Instant::now(), done);
            } else if last.0.elapsed().as_secs_f64() > job.patience {
                fail(&format!("no response within {} s", job.patience));
            }
        }
    }
}

/// Completes the sample with percentiles of the latencies, which are in nanoseconds.
pub fn finish(mut sample: Sample, mut latencies: Vec<u64>) -> Sample {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies
            .get(index.min(latencies.len().wrapping_sub(1)))
            .map_or(f64::NAN, |value| *value as f64 / 1e3)
    };
    (sample.p50, sample.p99) = (at(0.5), at(0.99));
    sample
}

/// Ends the process with one message, however many connections fail at once.
pub fn fail(message: &str) -> ! {
    static FIRST: std::sync::Once = std::sync::Once::new();
    FIRST.call_once(|| {
        eprintln!("{message}");
        std::process::exit(1)
    });
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
