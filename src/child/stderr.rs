//! The task that reads a child's stderr: logs each line, and keeps the last ones to explain the child's end.

use crate::framing::{Framed, Framer};
use crate::telemetry::Allowance;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// Number of last lines that are kept.
const LAST_LINES: usize = 10;
/// Maximum number of characters of each kept line.
const LINE_SHOWN: usize = 400;
/// Maximum length of a line that is logged whole, in bytes. A longer line is cut.
const LINE: usize = 16 * 1024;

/// The last lines of a child's stderr; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Returns the lines, oldest first.
    pub fn lines(&self) -> Arc<[String]> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        let mut shown: String = line.chars().take(LINE_SHOWN).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        lines.push_back(shown);
    }
}

/// Logs the lines of one child.
#[derive(Debug)]
pub struct Lines {
    child: u64,
    tail: Tail,
    allowance: Allowance,
}

impl Lines {
    /// Creates the log of child number `child`, with at most `per_second` lines per second (0: all).
    pub fn new(child: u64, tail: Tail, per_second: usize) -> Self {
        Lines { child, tail, allowance: Allowance::new(child, "stderr", per_second, Instant::now()) }
    }

    fn log(&mut self, framed: &Framed) {
        let (bytes, bytes_in_all) = match framed {
            Framed::Frame { bytes, .. } => (bytes, None),
            Framed::Oversized { head, length, .. } => (head, Some(*length)),
        };
        let more = if bytes_in_all.is_some() { "…" } else { "" };
        let line = format!("{}{more}", String::from_utf8_lossy(bytes));
        self.tail.push(&line);
        if self.allowance.take(Instant::now()) {
            tracing::info!(child = self.child, stream = "stderr", bytes_in_all, "{line}");
        }
    }
}

/// Reads lines until EOF, or until `cut` is cancelled.
pub async fn follow<R: AsyncRead + Unpin>(mut pipe: R, mut lines: Lines, cut: CancellationToken) {
    let mut framer = Framer::new(LINE);
    loop {
        let read = tokio::select! {
            biased;
            () = cut.cancelled() => break,
            read = pipe.read_buf(framer.buffer()) => read,
        };
        if matches!(read, Ok(0) | Err(_)) {
            break;
        }
        while let Some(framed) = framer.next() {
            lines.log(&framed);
        }
    }
    while let Some(framed) = framer.finish() {
        lines.log(&framed);
    }
    lines.allowance.report();
}
