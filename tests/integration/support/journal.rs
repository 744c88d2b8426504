//! What the scripted children read, all of them together, while they live and after.

use super::{scratch, until};
use serde_json::Value;
use std::path::PathBuf;

/// The file that scripted children keep with `--journal`.
pub struct Journal {
    path: PathBuf,
}

/// A frame that a child read.
#[derive(Debug)]
pub struct Read {
    /// Who read it.
    pub pid: u64,
    /// Its bytes.
    pub text: String,
    /// The message.
    pub message: Value,
}

impl Journal {
    /// An empty one.
    pub fn new() -> Journal {
        Journal { path: scratch("journal") }
    }

    /// The flag that makes a child keep it.
    pub fn flag(&self) -> String {
        format!("--journal {}", self.path.display())
    }

    /// All frames so far; of one child, they are in order.
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

    /// How often a tool was called.
    pub fn runs(&self, tool: &str) -> usize {
        self.frames().iter().filter(|read| read.message["params"]["name"] == tool).count()
    }

    /// The last call of a tool.
    pub fn call(&self, tool: &str) -> Read {
        let called = self.frames().into_iter().rfind(|read| read.message["params"]["name"] == tool);
        called.unwrap_or_else(|| panic!("{tool} was never called"))
    }

    /// Waits until the last call of a tool is there.
    pub fn until_called(&self, tool: &str) -> Read {
        until("the call", || self.runs(tool) > 0);
        self.call(tool)
    }

    /// Whether the last call of a tool was cancelled, where it runs.
    pub fn is_cancelled(&self, tool: &str) -> bool {
        let call = self.call(tool);
        self.frames().iter().any(|read| {
            read.pid == call.pid
                && read.message["method"] == "notifications/cancelled"
                && read.message["params"]["requestId"] == call.message["id"]
        })
    }

    /// Waits until the last call of a tool has been cancelled.
    pub fn until_cancelled(&self, tool: &str) {
        until("the cancellation", || self.is_cancelled(tool));
    }

    /// The answers that children got to their questions.
    pub fn answers(&self) -> Vec<Value> {
        let answers = self.frames().into_iter().map(|read| read.message);
        answers.filter(|message| message["method"].is_null()).collect()
    }
}
