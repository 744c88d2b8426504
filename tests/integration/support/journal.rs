//! Journal of the frames that all scripted children of a test read, including children that have exited.

use super::{scratch, until};
use serde_json::Value;
use std::path::PathBuf;

/// The file to which scripted children write with `--journal`.
pub struct Journal {
    path: PathBuf,
}

/// A frame that a child read.
#[derive(Debug)]
pub struct Read {
    /// The process id of the child.
    pub pid: u64,
    /// The text of the frame.
    pub text: String,
    /// The parsed frame.
    pub message: Value,
}

impl Journal {
    /// Creates an empty journal.
    pub fn new() -> Journal {
        Journal { path: scratch("journal") }
    }

    /// Returns the flag that makes a child write to the journal.
    pub fn flag(&self) -> String {
        format!("--journal {}", self.path.display())
    }

    /// Returns all frames so far; the frames of each child are in order.
    pub fn frames(&self) -> Vec<Read> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let frames = whole.map(|line| {
            let (pid, frame) = line.split_once(' ').expect("a pid, then a frame");
            let (pid, message) = (pid.parse().expect("a number"), serde_json::from_str(frame).expect("JSON"));
            Read { pid, text: frame.trim_end_matches('\n').to_owned(), message }
        });
        frames.collect()
    }

    /// Returns how often a tool was called.
    pub fn runs(&self, tool: &str) -> usize {
        self.frames().iter().filter(|read| read.message["params"]["name"] == tool).count()
    }

    /// Returns the last call of a tool.
    pub fn call(&self, tool: &str) -> Read {
        let called = self.frames().into_iter().rfind(|read| read.message["params"]["name"] == tool);
        called.unwrap_or_else(|| panic!("{tool} was never called"))
    }

    /// Waits until a tool is called, and returns the last call.
    pub fn until_called(&self, tool: &str) -> Read {
        until("the call", || self.runs(tool) > 0);
        self.call(tool)
    }

    /// Returns whether the last call of a tool was cancelled at its child.
    pub fn is_cancelled(&self, tool: &str) -> bool {
        let call = self.call(tool);
        self.frames().iter().any(|read| {
            read.pid == call.pid
                && read.message["method"] == "notifications/cancelled"
                && read.message["params"]["requestId"] == call.message["id"]
        })
    }

    /// Waits until the last call of a tool is cancelled.
    pub fn until_cancelled(&self, tool: &str) {
        until("the cancellation", || self.is_cancelled(tool));
    }

    /// Returns the answers that children got to their questions.
    pub fn answers(&self) -> Vec<Value> {
        let answers = self.frames().into_iter().map(|read| read.message);
        answers.filter(|message| message["method"].is_null()).collect()
    }
}
