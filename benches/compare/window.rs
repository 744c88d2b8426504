//! When to measure: after a warm-up, for a time, until all have stopped. It also counts, and notices a standstill.

use super::job::{Job, Sample};
use super::process;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The phase before is 0, the warm-up.
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// Interval at which progress is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Least number of responses to measure; the time is extended for them.
const LEAST: usize = 10;

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
        let begun = Instant::now();
        self.wait(job, |done| done > 0 && begun.elapsed().as_secs_f64() >= job.warm_up);
        let family = process::family(root);
        let (begun, cpu, first) = (Instant::now(), process::cpu(&family), self.done());
        self.phase.store(MEASURING, Ordering::Relaxed);
        self.wait(job, |done| done >= first + LEAST && begun.elapsed().as_secs_f64() >= job.seconds);
        let requests = (self.done() - first) as f64;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), process::cpu(&family) - cpu);
        let peak = process::memory(&family, "VmHWM:");
        self.phase.store(OVER, Ordering::Relaxed);
        self.wait(job, |_| self.running.load(Ordering::Relaxed) == 0);
        Sample { rate: requests / seconds, cpu: cpu * 1e6 / requests, peak, ..Sample::default() }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until the number of responses, or something else, satisfies `enough`. Fails if nothing is answered for too
    /// long.
    fn wait(&self, job: &Job, enough: impl Fn(usize) -> bool) {
        let (mut last, mut at) = (self.done(), Instant::now());
        while !enough(self.done()) {
            std::thread::sleep(LOOK);
            let done = self.done();
            if done != last {
                (last, at) = (done, Instant::now());
            } else if at.elapsed().as_secs_f64() > job.patience {
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
