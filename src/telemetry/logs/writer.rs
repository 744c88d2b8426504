//! The writer of log lines, and a count of those that were lost on their way.

use crate::telemetry::metrics::counters;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait for a slow stderr; further lines are dropped rather than waited for.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// What a line takes at least, in bytes, so that there are never too many of them for the channel.
const LEAST: usize = 512;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Writes lines by a thread of its own, which keeps a limited number of bytes: a blocked reader must never block a
/// request, nor take memory without bound.
#[derive(Clone, Debug)]
pub(super) struct Lines(NonBlocking);

impl Lines {
    /// Writes them there; dropping the guard writes what is still waiting.
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
    /// Takes a whole line, or drops it.
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

/// The other end, which makes room.
struct Emptying<W>(W);

impl<W: io::Write> io::Write for Emptying<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// A whole line, as the thread gives it.
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

/// Counts the lines that were lost since the last call, and logs their number.
pub fn count_lost() {
    let dropped = DROPPED.load(Ordering::Relaxed);
    let lost = dropped.saturating_sub(COUNTED.swap(dropped, Ordering::Relaxed));
    if lost > 0 {
        counters::LOST_LINES.add(lost as u64);
        // This one may be lost as well; the next one has the total.
        tracing::warn!(lines = lost, total = dropped, "log lines were lost: stderr is not read fast enough");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_never_comes_takes_no_more_memory_than_allowed() {
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
