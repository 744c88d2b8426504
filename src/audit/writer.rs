//! The thread that writes the log: it completes lines by the chain, writes them, signs checkpoints, and notices a new
//! key. While a write fails it tries again, and calls meet the policy of `--audit-on-failure`.

use super::chain::{self, Head};
use super::event::Event;
use super::key::Key;
use super::queue::{Batch, Queue};
use super::sink::{Sink, Written};
use super::tail::Tail;
use super::{Fsync, OnFailure, Settings, level};
use crate::mounted;
use crate::telemetry::counters;
use std::io;
use std::iter::Peekable;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Maximum length of lines that are written together, in bytes. A longer line is written by itself.
const TOGETHER: usize = 64 << 10;
/// Maximum number of lines between two checkpoints.
const CHECKPOINT_LINES: u64 = 1_000;
/// Maximum time between a line and the next checkpoint.
const CHECKPOINT_TIME: Duration = Duration::from_secs(60);
/// Interval between syncs with `--audit-fsync interval`.
const SYNC: Duration = Duration::from_secs(1);
/// Delay before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Time at the end of the log in which failed writes are tried again.
const LAST_TRIES: Duration = Duration::from_secs(1);

/// The writer of a log.
pub(super) struct Writer {
    settings: Settings,
    queue: &'static Queue,
    sink: Sink,
    head: Head,
    /// A random name for the lines of this process.
    segment: String,
    key: Option<Key>,
    key_checked: Instant,
    /// Why the key file is not used, once that was reported.
    bad_key: Option<String>,
    /// Lines since the last checkpoint, and the time of the first of them.
    unsigned: u64,
    unsigned_since: Instant,
    /// Lines since the last sync, and the time of the first of them.
    unsynced: u64,
    unsynced_since: Instant,
    /// Whether the last sync failed.
    is_unsynced: bool,
    give_up_at: Option<Instant>,
}

impl Writer {
    /// Creates the writer, which continues the chain of an earlier process if it can.
    pub fn new(settings: Settings, queue: &'static Queue, sink: Sink, tail: Tail, segment: String) -> Self {
        let now = Instant::now();
        let head = if let Tail::Ends { head, .. } = tail { head } else { Head::EMPTY };
        let key = settings.key.as_ref().map(|(_, key)| key.clone());
        Writer {
            settings,
            queue,
            sink,
            head,
            segment,
            key,
            key_checked: now,
            bad_key: None,
            unsigned: 0,
            unsigned_since: now,
            unsynced: 0,
            unsynced_since: now,
            is_unsynced: false,
            give_up_at: None,
        }
    }

    /// Writes until the log ends, and syncs it.
    pub fn run(mut self) {
        loop {
            let Batch { lines, stop } = self.queue.take(self.patience());
            let mut lines = lines.into_iter().peekable();
            while lines.peek().is_some() {
                self.report_lost();
                self.write_some(&mut lines);
                if self.unsigned >= CHECKPOINT_LINES {
                    self.checkpoint(false);
                }
            }
            if self.settings.fsync == Fsync::Always {
                self.sync();
            }
            self.keep_up();
            if let Some(stopped) = stop {
                return self.finish(&stopped);
            }
        }
    }

    /// Returns how long the writer may sleep.
    fn patience(&self) -> Option<Duration> {
        let left = |since: Instant, most: Duration| most.saturating_sub(since.elapsed());
        let checkpoint = (self.unsigned > 0).then(|| left(self.unsigned_since, CHECKPOINT_TIME));
        let sync = (self.unsynced > 0 && self.settings.fsync == Fsync::Interval)
            .then(|| left(self.unsynced_since, SYNC));
        let retry = (self.is_unsynced || self.sink.has_rest()).then_some(RETRY);
        [checkpoint, sync, retry].into_iter().flatten().min()
    }

    /// Does what is due by time.
    fn keep_up(&mut self) {
        if self.sink.has_rest() {
            let completed = self.sink.complete();
            self.note(completed);
        }
        let is_due = self.settings.fsync == Fsync::Interval && self.unsynced_since.elapsed() >= SYNC;
        if is_due || self.is_unsynced {
            self.sync();
        }
        if self.unsigned > 0 && self.unsigned_since.elapsed() >= CHECKPOINT_TIME {
            self.checkpoint(false);
        }
        self.check_key();
    }

    /// Writes as many of the lines as one write may have, at least one.
    fn write_some(&mut self, lines: &mut Peekable<impl Iterator<Item = String>>) {
        let most_lines = CHECKPOINT_LINES.saturating_sub(self.unsigned).max(1);
        let most_bytes = self.sink.room().min(TOGETHER);
        let (mut text, mut head, mut count, mut released) = (String::new(), self.head, 0, 0);
        while count < most_lines
            && let Some(mut line) = lines
                .next_if(|next| count == 0 || text.len() + next.len() + chain::LONGEST_LINK <= most_bytes)
        {
            released += line.len();
            head = head.seal(&mut line, None);
            count += 1;
            if text.is_empty() {
                text = line;
            } else {
                text.push_str(&line);
            }
        }
        self.write_sealed(&text, head, count);
        self.queue.release(released, count as usize);
    }

    /// Completes a line of the log's own by the chain and writes it. Only a checkpoint is signed.
    fn write(&mut self, mut line: String, is_checkpoint: bool) {
        let signer = self.key.as_ref().filter(|_| is_checkpoint);
        let head = self.head.seal(&mut line, signer);
        self.write_sealed(&line, head, 1);
    }

    /// Writes lines of the chain, which then ends with `head`. With `block` and `deny`, tries until they are written.
    fn write_sealed(&mut self, lines: &str, head: Head, count: u64) {
        loop {
            match self.sink.write(lines) {
                Written::Taken(completed) => {
                    self.commit(head, count);
                    self.note(completed);
                    break;
                }
                Written::Refused(error) => {
                    self.note(Err(error));
                    if self.settings.on_failure == OnFailure::Drop || !self.may_retry() {
                        return self.queue.lose(count);
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
        // The rest of lines whose beginning is written.
        while self.settings.on_failure != OnFailure::Drop && self.queue.is_failing() && self.may_retry() {
            std::thread::sleep(RETRY);
            let completed = self.sink.complete();
            self.note(completed);
        }
    }

    fn commit(&mut self, head: Head, lines: u64) {
        self.head = head;
        level::SEQ.store(head.seq, std::sync::atomic::Ordering::Relaxed);
        counters::AUDIT_LINES.add(lines);
        if self.unsigned == 0 {
            self.unsigned_since = Instant::now();
        }
        if self.unsynced == 0 {
            self.unsynced_since = Instant::now();
        }
        self.unsigned += lines;
        self.unsynced += lines;
    }

    /// Returns whether a failed write may be tried again: always, until the log ends.
    fn may_retry(&mut self) -> bool {
        if self.give_up_at.is_none() && self.queue.is_over() {
            self.give_up_at = Some(Instant::now() + LAST_TRIES);
        }
        self.give_up_at.is_none_or(|at| Instant::now() < at)
    }

    /// Records the outcome of a write, and logs the first failure and the recovery.
    fn note(&mut self, written: io::Result<()>) {
        let was_failing = self.queue.is_failing();
        match written {
            Ok(()) => {
                self.queue.set_failing(false);
                if was_failing {
                    tracing::info!("the audit log is written again");
                }
            }
            Err(error) => {
                counters::FAILED_AUDIT_WRITES.increment();
                // Before it is told, so that no call passes afterwards.
                self.queue.set_failing(true);
                if !was_failing {
                    let policy = self.settings.on_failure.name();
                    tracing::error!(%error, policy, "cannot write the audit log (--audit-on-failure)");
                }
            }
        }
    }

    fn sync(&mut self) {
        if self.unsynced == 0 {
            return;
        }
        let synced = self.sink.sync();
        let was_unsynced = std::mem::replace(&mut self.is_unsynced, synced.is_err());
        if synced.is_ok() {
            self.unsynced = 0;
        }
        if was_unsynced || self.is_unsynced {
            self.note(synced);
        }
    }

    /// Writes a line that states the number of lost lines.
    fn report_lost(&mut self) {
        if self.queue.is_failing() {
            return;
        }
        let lines = self.queue.take_lost();
        if lines > 0 {
            let event = Event::own("audit_gap", "failure").number("lost_lines", lines);
            self.write(event.finish(&self.settings.component), false);
        }
    }

    /// Writes a checkpoint, which is signed if there is a key, and sends its head elsewhere.
    fn checkpoint(&mut self, is_final: bool) {
        let event = Event::own("audit_checkpoint", "success")
            .text("segment", &self.segment)
            .text("key_id", self.key.as_ref().map_or("", Key::id))
            .flag("final", is_final);
        self.write(event.finish(&self.settings.component), true);
        self.unsigned = 0;
        tracing::info!(seq = self.head.seq, head = self.head.hex(), is_final, "audit checkpoint");
    }

    /// Reads the key file again if it is time.
    fn check_key(&mut self) {
        if self.key_checked.elapsed() >= mounted::interval() {
            self.key_checked = Instant::now();
            self.read_key();
        }
    }

    /// Reads the key file again. A new key signs from now on; a file without a usable key keeps the old one.
    pub(super) fn read_key(&mut self) {
        let Some((path, _)) = &self.settings.key else { return };
        match Key::read(path) {
            Ok(key) if self.key.as_ref() != Some(&key) => {
                self.checkpoint(false);
                let event = Event::own("key_change", "success").text("key", "audit").text("key_id", key.id());
                (self.key, self.bad_key) = (Some(key), None);
                self.write(event.finish(&self.settings.component), false);
                self.checkpoint(false);
            }
            Ok(_) => self.bad_key = None,
            Err(reason) if self.bad_key.as_ref() != Some(&reason) => {
                counters::FAILED_RELOADS.increment(counters::Reloaded::AuditKey as usize);
                tracing::warn!(path = %path.display(), "the audit key file {reason}; keeping the previous key");
                let event = Event::own("key_change", "failure").text("key", "audit").text("reason", &reason);
                self.bad_key = Some(reason);
                self.write(event.finish(&self.settings.component), false);
            }
            Err(_) => {}
        }
    }

    fn finish(&mut self, _stopped: &mpsc::Sender<()>) {
        self.report_lost();
        self.checkpoint(true);
        self.sync();
    }
}
