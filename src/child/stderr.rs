//! The task that reads a child's stderr: structured log lines, and the last of them for whoever asks how it died.

use crate::framing::{Framed, Framer};
use crate::telemetry::Allowance;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// Lines that are attached to the error when the child dies.
const LAST_LINES: usize = 10;
/// What is kept of each of them, in characters.
const LINE_SHOWN: usize = 400;
/// A longer line is logged by its beginning.
const LINE: usize = 16 * 1024;

/// The last lines of a child's stderr; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Oldest first.
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

/// The lines of one child, on their way to the log.
#[derive(Debug)]
pub struct Lines {
    child: u64,
    tail: Tail,
    allowance: Allowance,
}

impl Lines {
    /// Those of child number `child`, of which so many are logged in a second.
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

/// Reads until EOF or until `cut` is cancelled.
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
