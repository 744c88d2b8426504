//! Writes log lines from a separate thread, with a bounded buffer, and counts the lines dropped when it is full.

use crate::telemetry::metrics::counters;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Maximum size in bytes of the buffered lines; further lines are dropped.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// Minimum size in bytes charged per line. It bounds the number of lines in the channel.
const LEAST: usize = 512;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Writes lines from a separate thread and buffers a limited number of bytes: a blocked reader of stderr must neither
/// block a request nor use unbounded memory.
#[derive(Clone, Debug)]
pub(super) struct Lines(NonBlocking);

impl Lines {
    /// Creates a writer to `out`. Dropping the guard writes the buffered lines.
    pub(super) fn to(out: impl io::Write + Send + 'static) -> (Lines, WorkerGuard) {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MOST_WAITING / LEAST + 1)
            .thread_name("log")
            .finish(Emptying(out));
        (Lines(writer), guard)
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
        if WAITING.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_WAITING {
            WAITING.fetch_sub(bytes, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing end: frees buffer space after each line.
struct Emptying<W>(W);

impl<W: io::Write> io::Write for Emptying<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// The thread passes one whole line per call.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.0.write_all(line);
        WAITING.fetch_sub(cost(line), Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
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
