//! The reasons why a request fails without an answer of the child, with the party at fault and the remedy.

use super::Hint;
use crate::budget::Charged;
use crate::jsonrpc::{codes, rewrite};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The end of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// A description: `exited with code 3`, `was killed by signal 9 (SIGKILL)`.
    pub how: Arc<str>,
    /// The exit code that a shell would report: the child's own, or 128 + the signal.
    pub code: i32,
    /// The last lines that it wrote to stderr.
    pub last_words: LastWords,
}

impl End {
    /// Returns the text for the log, with the last line of stderr.
    pub fn for_log(&self) -> impl fmt::Display {
        self.with_words(&self.last_words.lines)
    }

    /// Returns whether it wrote nothing to stderr.
    pub fn is_silent(&self) -> bool {
        self.last_words.lines.is_empty()
    }

    fn with_words(&self, lines: &[String]) -> String {
        let last = lines.last().map(|line| format!("; last line of stderr: {line}")).unwrap_or_default();
        format!("the server {}{last}", self.how)
    }
}

/// The text for clients, probes and spans.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_words(self.last_words.exposed()))
    }
}

/// The last lines that a child wrote to stderr. They may contain secrets, and text caused by one client: only the log
/// shows them, unless `--expose-stderr` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    lines: Arc<[String]>,
    is_exposed: bool,
}

impl LastWords {
    /// Creates the lines, oldest first; `is_exposed` is `--expose-stderr`.
    pub fn new(lines: Arc<[String]>, is_exposed: bool) -> Self {
        LastWords { lines, is_exposed }
    }

    /// Returns the lines that clients may see.
    fn exposed(&self) -> &[String] {
        if self.is_exposed { &self.lines } else { &[] }
    }
}

/// The reason why the child did not answer a request.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The child ended.
    Ended(End),
    /// The child closed its stdout and can no longer answer.
    ClosedStdout,
    /// The child closed its stdin and can no longer receive requests.
    ClosedStdin,
    /// The child closed its stdin or stdout, and is therefore being stopped.
    ClosedPipe,
    /// The child was silent for too long, and is being replaced.
    Hung,
    /// The answer exceeds `--max-frame`.
    Oversized {
        /// The answer's length, in bytes.
        length: u64,
    },
    /// The answer is not a JSON-RPC message.
    Malformed(&'static str),
    /// The child neither answered nor reported progress within `--request-timeout`.
    TimedOut(Duration),
    /// The child reported progress, but did not answer within `--request-max`.
    TookTooLong(Duration),
    /// The client did not answer the child's question within `--park-timeout`, or `--request-timeout` if the child is of
    /// the client's era.
    Unanswered(Duration),
    /// The child did not answer a request of its handshake within `--start-timeout`.
    SlowStart {
        /// The timeout.
        after: Duration,
        /// The method of the request.
        asked: &'static str,
        /// The likely reason.
        hint: Hint,
    },
    /// There was no room for the child's message (`--max-buffered`).
    NoRoom,
    /// Other clients needed the memory that the request's messages held (`--max-buffered`).
    GaveWay,
    /// The client cancelled the request.
    Cancelled,
    /// The client ended the session, or it expired or was evicted.
    SessionEnded,
    /// The restarted child reports a different version, different capabilities or instructions, so the session ended.
    Changed,
    /// proxyrunner is shutting down.
    ShuttingDown,
    /// The child runs, but its handshake failed.
    NotStarted(Arc<str>),
    /// The operator's program could not be executed: why, and proxyrunner's exit code for it.
    NoProgram(Arc<str>, i32),
    /// A defect of proxyrunner: the request was lost.
    Lost,
}

impl Failure {
    /// Returns the JSON-RPC error for the client.
    pub fn response(&self, id: &[u8]) -> Charged {
        rewrite::error(Some(id), self.code(), &self.to_string(), Some(self.data()))
    }

    /// Returns the text for the log.
    pub fn for_log(&self) -> impl fmt::Display {
        match self {
            Failure::Ended(end) => end.for_log().to_string(),
            failure => failure.to_string(),
        }
    }

    /// Returns the text for probes, which anyone may read: without the server's own words.
    pub fn for_probes(&self) -> String {
        match self {
            Failure::Ended(end) => end.to_string(),
            Failure::NotStarted(_) => "the server's handshake failed; see the log".to_owned(),
            Failure::NoProgram(..) => "the server cannot be started; see the log".to_owned(),
            failure => failure.to_string(),
        }
    }

    /// Returns whether the child is gone, so that the next one may serve the request.
    pub fn is_childs_end(&self) -> bool {
        let pipes = matches!(self, Failure::ClosedStdout | Failure::ClosedStdin | Failure::ClosedPipe);
        pipes || matches!(self, Failure::Ended(_) | Failure::Hung)
    }

    pub(super) fn code(&self) -> i64 {
        match self {
            Failure::Cancelled => codes::REQUEST_CANCELLED,
            _ => codes::INTERNAL_ERROR,
        }
    }

    fn data(&self) -> Value {
        let (reason, fault) = match self {
            Failure::Ended(end) => {
                let mut data = json!({"reason": "child_ended", "fault": "child", "exitCode": end.code});
                if end.last_words.is_exposed {
                    data["stderr"] = end.last_words.exposed().into();
                }
                return data;
            }
            Failure::ClosedStdout => ("child_closed_stdout", "child"),
            Failure::ClosedStdin => ("child_closed_stdin", "child"),
            Failure::ClosedPipe => ("child_closed_pipe", "child"),
            Failure::Hung => ("child_hung", "child"),
            Failure::Oversized { .. } => ("answer_too_large", "child"),
            Failure::Malformed(_) => ("answer_malformed", "child"),
            Failure::TimedOut(_) | Failure::TookTooLong(_) => ("timed_out", "child"),
            Failure::SlowStart { .. } => ("child_slow_to_start", "child"),
            Failure::NotStarted(_) | Failure::NoProgram(..) => ("child_not_started", "child"),
            Failure::Cancelled => ("cancelled", "client"),
            Failure::Unanswered(_) => ("question_unanswered", "client"),
            Failure::SessionEnded => ("session_ended", "client"),
            Failure::Changed => ("child_changed", "child"),
            Failure::ShuttingDown => ("shutting_down", "proxyrunner"),
            Failure::NoRoom | Failure::GaveWay => ("no_room", "proxyrunner"),
            Failure::Lost => ("lost", "proxyrunner"),
        };
        json!({"reason": reason, "fault": fault})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Ended(end) => write!(f, "{end}; the request was lost with it"),
            Failure::ClosedStdout => f.write_str("the server closed its stdout and can no longer answer"),
            Failure::ClosedStdin => f.write_str("the server closed its stdin and can no longer take requests"),
            Failure::ClosedPipe => {
                f.write_str("the server closed its stdin or stdout and is being stopped")
            }
            Failure::Hung => f.write_str("the server hung and is being replaced"),
            Failure::Oversized { length } => {
                write!(f, "the server's answer of {length} bytes is longer than --max-frame allows")
            }
            Failure::Malformed(what) => write!(f, "the server's answer is not a JSON-RPC message: {what}"),
            Failure::TimedOut(after) => write!(
                f,
                "the server neither answered nor reported progress for {} s (--request-timeout); the request was cancelled there",
                after.as_secs_f64()
            ),
            Failure::TookTooLong(after) => write!(
                f,
                "the server did not finish within {} s (--request-max); the request was cancelled there",
                after.as_secs_f64()
            ),
            Failure::SlowStart { after, asked, hint } => {
                let after = after.as_secs_f64();
                write!(f, "the server did not answer {asked} within {after} s (--start-timeout)")?;
                if *hint == Hint::Quiet { Ok(()) } else { write!(f, ": {hint}") }
            }
            Failure::NoRoom => f.write_str(
                "the server's answer was dropped because --max-buffered is used up; try again later, or raise it",
            ),
            Failure::GaveWay => f.write_str(
                "--max-buffered is used up, and this client held most of it; the request was cancelled to make room",
            ),
            Failure::Cancelled => f.write_str("cancelled by the client"),
            Failure::Unanswered(after) => write!(
                f,
                "the client did not answer the server's question within {} s",
                after.as_secs_f64()
            ),
            Failure::SessionEnded => {
                f.write_str("the session ended before the server answered; open a new one")
            }
            Failure::Changed => f.write_str(
                "the restarted server reports a different version, different capabilities or instructions; open a new session",
            ),
            Failure::ShuttingDown => f.write_str("proxyrunner is shutting down; try again elsewhere"),
            Failure::NotStarted(why) | Failure::NoProgram(why, _) => f.write_str(why),
            Failure::Lost => f.write_str("proxyrunner lost this request; please report this as a defect"),
        }
    }
}
