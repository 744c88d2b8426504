//! Writes log lines from a separate thread, with a bounded buffer, and counts the lines dropped when it is full.

use crate::telemetry::metrics::counters;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Maximum size in bytes of the buffered lines; further lines are dropped.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// Minimum size in bytes charged per line. It bounds the number of lines in the channel.
const LEAST: usize = 512;
/// Time at the end for the buffered lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTED: AtomicUsize = AtomicUsize::new(0);

enum Task {
    Write(Vec<u8>),
    End,
}

/// Writes lines from a separate thread and buffers a limited number of bytes: a blocked reader of stderr must neither
/// block a request nor use unbounded memory.
#[derive(Clone, Debug)]
pub(super) struct Lines(mpsc::Sender<Task>);

/// Writes the lines that are still buffered when it is dropped, unless stderr is blocked.
#[derive(Debug)]
pub struct LastLines {
    tasks: mpsc::Sender<Task>,
    /// Disconnected when the thread ends.
    running: mpsc::Receiver<()>,
}

impl Drop for LastLines {
    fn drop(&mut self) {
        if self.tasks.send(Task::End).is_ok() {
            let _ = self.running.recv_timeout(LAST_LINES);
        }
    }
}

impl Lines {
    /// Creates a writer to `out`.
    ///
    /// # Panics
    /// If the system refuses to create a thread.
    pub(super) fn to(mut out: impl io::Write + Send + 'static) -> (Lines, LastLines) {
        let (tasks, intake) = mpsc::channel();
        let (ended, running) = mpsc::channel::<()>();
        let write = move || {
            let _ended = ended;
            for task in intake {
                let Task::Write(line) = task else { break };
                // There is nowhere else to report it.
                let _ = out.write_all(&line);
                WAITING.fetch_sub(cost(&line), Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("log".into()).spawn(write).expect("the system grants a thread");
        (Lines(tasks.clone()), LastLines { tasks, running })
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

impl io::Write for Lines {
    /// Buffers a whole line, or drops it if the buffer is full.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = cost(line);
        let fits = WAITING.fetch_add(bytes, Ordering::Relaxed) + bytes <= MOST_WAITING;
        if !fits || self.0.send(Task::Write(line.to_vec())).is_err() {
            WAITING.fetch_sub(bytes, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cost(line: &[u8]) -> usize {
    line.len().max(LEAST)
}

/// Adds the lines dropped since the last call to the counter, and logs their number.
pub fn count_lost() {
    let dropped = DROPPED.load(Ordering::Relaxed);
    let lost = dropped.saturating_sub(COUNTED.swap(dropped, Ordering::Relaxed));
    if lost > 0 {
        counters::LOST_LINES.add(lost as u64);
        // This line may be dropped, too; the next one repeats the total.
        tracing::warn!(lines = lost, total = dropped, "lost log lines because stderr is read too slowly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_reader_takes_no_more_memory_than_allowed() {
        let (read, write) = std::io::pipe().expect("a pipe");
        let (mut lines, guard) = Lines::to(write);
        let line = vec![b'x'; 64 * 1024];
        let before = DROPPED.load(Ordering::Relaxed);
        for _ in 0..1_000 {
            io::Write::write_all(&mut lines, &line).expect("it is taken or dropped");
            assert!(WAITING.load(Ordering::Relaxed) <= MOST_WAITING);
        }
        let dropped = DROPPED.load(Ordering::Relaxed) - before;
        assert!((900..1_000).contains(&dropped), "{dropped}");
        drop(read);
        drop((lines, guard));
    }
}
