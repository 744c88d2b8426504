//! The audit log (`--audit`): one JSON line for each message of a client that has ended, for each refused request, and
//! for what happens to sessions, children, keys and the process. `docs/audit.md` describes it for operators.
//!
//! A line is built where its event happens and passes through a bounded queue to a thread of its own, which completes
//! it by the chain of hashes and writes it. Without `--audit` an event costs one branch.

mod chain;
mod event;
mod key;
pub mod level;
mod object;
mod queue;
mod sink;
mod stamp;
mod tail;
#[cfg(test)]
mod tests;
pub mod verify;
mod writer;

pub use key::Key;

use crate::identity::Identity;
use crate::telemetry::{Ended, Visitor, evidence};
use crate::trace_context::Context;
use event::Event;
use queue::{Cause, Queue};
use sink::Sink;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use writer::Writer;

/// The destination of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, which is appended to.
    File(PathBuf),
    /// stdout.
    Stdout,
    /// The collector of log records.
    Collector,
}

/// The fate of calls while the log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They wait.
    Block,
    /// They are refused.
    Deny,
    /// They are served, and their lines are counted.
    Drop,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::File(path) => path.display().fmt(f),
            Target::Stdout => f.write_str("-"),
            Target::Collector => f.write_str("otlp"),
        }
    }
}

impl OnFailure {
    /// Returns the name of the setting's value.
    pub fn name(self) -> &'static str {
        match self {
            OnFailure::Block => "block",
            OnFailure::Deny => "deny",
            OnFailure::Drop => "drop",
        }
    }
}

/// The time at which lines must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After each batch of lines.
    Always,
    /// Once a second.
    Interval,
    /// When the system decides.
    Never,
}

impl Fsync {
    /// Returns how long lines may wait for others before they are written. Waking the writer costs more than the line.
    fn gather(self) -> Duration {
        match self {
            Fsync::Always => Duration::ZERO,
            Fsync::Interval | Fsync::Never => Duration::from_millis(10),
        }
    }
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `--audit`
    pub target: Target,
    /// `--audit-component`: the name of the server.
    pub component: String,
    /// `--audit-content`: whether lines include redacted arguments and results.
    pub content: bool,
    /// `--audit-key-file`: signs checkpoints. The file is read again when it changes.
    pub key: Option<(PathBuf, Key)>,
    /// `--audit-max-size`: the size in bytes at which the file is rotated.
    pub max_size: Option<u64>,
    /// `--audit-keep`: the number of rotated files.
    pub keep: usize,
    /// `--audit-on-failure`
    pub on_failure: OnFailure,
    /// `--audit-fsync`
    pub fsync: Fsync,
}

/// Time at the end of the log for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The running log.
struct Log {
    queue: &'static Queue,
    component: String,
    is_over: AtomicBool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Returns whether there is a log.
#[inline]
pub fn is_enabled() -> bool {
    LOG.get().is_some()
}

/// Opens the log, and records the start of the process with the digest of its settings. Only the first call has an
/// effect.
///
/// # Errors
/// When the file cannot be opened, belongs to another process, or the system grants no thread.
pub fn start(settings: &Settings, settings_digest: &str) -> io::Result<()> {
    let (sink, tail) = Sink::open(settings)?;
    let queue: &'static Queue = Box::leak(Box::new(Queue::new(settings.on_failure, settings.fsync.gather())));
    let log = Log { queue, component: settings.component.clone(), is_over: AtomicBool::new(false) };
    if LOG.set(log).is_err() {
        return Ok(());
    }
    let mut segment = String::new();
    stamp::put_uuid(&mut segment);
    let started = Event::own("audit_start", "success")
        .text("segment", &segment)
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("settings_sha256", settings_digest)
        .text("key_id", settings.key.as_ref().map_or("", |(_, key)| key.id()));
    put(match tail {
        tail::Tail::Empty => started.text("continues", "nothing"),
        tail::Tail::Ends { head, torn, .. } => {
            started.text("continues", &head.hex()).number("torn_bytes", torn)
        }
        tail::Tail::Unreadable { torn } => started.text("continues", "unreadable").number("torn_bytes", torn),
    });
    let writer = Writer::new(settings.clone(), queue, sink, tail, segment);
    std::thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
    evidence::install(record, settings.content);
    Ok(())
}

/// Records the end of the process, and writes the last lines and a final checkpoint, unless the destination is blocked.
/// Events after it are lost.
pub fn stop() {
    if let Some(log) = LOG.get().filter(|log| !log.is_over.swap(true, Relaxed)) {
        put(Event::own("audit_stop", "success"));
        let _ = log.queue.stop().recv_timeout(LAST_LINES);
    }
}

/// Returns whether lines go to the collector, whose export ends before the process.
pub fn is_exported(settings: Option<&Settings>) -> bool {
    settings.is_some_and(|settings| settings.target == Target::Collector)
}

/// Admits a call: its line will be written. With `--audit-on-failure block`, waits until lines can be written.
///
/// # Errors
/// With `--audit-on-failure deny`, while lines cannot be written.
pub async fn admit() -> Result<(), Unwritable> {
    match LOG.get() {
        Some(log) => log.queue.admit().await.map_err(|()| Unwritable),
        None => Ok(()),
    }
}

/// The log cannot be written, and calls are refused until it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable;

fn record(ended: &Ended<'_>) {
    if let Some(log) = LOG.get() {
        log.queue.put(event::of_message(ended, &log.component), Cause::Call);
    }
}

fn put(event: Event) {
    if let Some(log) = LOG.get() {
        log.queue.put(event.finish(&log.component), Cause::Event);
    }
}

/// An HTTP request that carried no message, or was refused before its message was read.
#[derive(Debug)]
pub struct Visited<'a> {
    /// The request.
    pub visitor: &'a Visitor,
    /// The caller.
    pub identity: &'a Identity,
    /// The HTTP method.
    pub method: &'a str,
    /// The status of the response; 0 if the client disconnected before there was one.
    pub status: u16,
    /// Why the caller was refused.
    pub reason: Option<&'static str>,
    /// The position in its trace.
    pub context: Option<Context>,
    /// The time from its head to the end of its response.
    pub took: Duration,
}

/// Records an HTTP request without a message.
pub fn visited(visited: &Visited<'_>) {
    if let Some(log) = LOG.get() {
        log.queue.put(event::of_visit(visited, &log.component), Cause::Event);
    }
}

/// Records that a session was opened, with its id as logs show it.
pub fn session_started(session: &dyn std::fmt::Display, principal: &str) {
    if is_enabled() {
        put(Event::own("session_start", "success").user(principal).text("session_id", &session.to_string()));
    }
}

/// Records the end of a session.
pub fn session_ended(session: &dyn std::fmt::Display, principal: &str, reason: &str, lasted: Duration) {
    if is_enabled() {
        let event = Event::own("session_end", "success").user(principal);
        let event = event.text("session_id", &session.to_string()).text("reason", reason);
        put(event.number("duration_ms", lasted.as_millis() as u64));
    }
}

/// Records the start of a child.
pub fn child_started(child: u64, pid: u32) {
    if is_enabled() {
        put(Event::own("server_start", "success").number("child", child).number("pid", pid.into()));
    }
}

/// Records a child that could not be started.
pub fn child_not_started(reason: &dyn std::fmt::Display) {
    if is_enabled() {
        put(Event::own("server_start", "error").text("reason", &reason.to_string()));
    }
}

/// Records the exit of a child.
pub fn child_exited(child: u64, pid: u32, how: &str) {
    if is_enabled() {
        let event = Event::own("server_exit", "success").number("child", child);
        put(event.number("pid", pid.into()).text("reason", how));
    }
}

/// Records that changed files, such as keys, policies or limits, are in use from now on. `what` names their flags.
pub fn reloaded(what: &str) {
    if is_enabled() {
        put(Event::own("configuration_change", "success").text("setting", what));
    }
}

/// Records that changed files are not used, and why. `reason` contains no content of the files.
pub fn not_reloaded(what: &str, reason: &str) {
    if is_enabled() {
        put(Event::own("configuration_change", "failure").text("setting", what).text("reason", reason));
    }
}

/// Records what has become of a replica of a gateway's server: `registered`, `withdrawn`, `expired` or `forbidden`.
#[cfg(feature = "gateway")]
pub fn registered(what: &str, server: &str, address: &str, caller: &str) {
    if is_enabled() {
        let event = Event::own("registration_change", "success").user(caller);
        put(event.text("change", what).text("server", server).text("address", address));
    }
}

/// Returns the SHA-256 of a text in hexadecimal.
pub fn digest(text: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    stamp::put_hex(&mut hex, ring::digest::digest(&ring::digest::SHA256, text).as_ref());
    hex
}
