//! Logs: lines on stderr, the access log, and log records for a collector.

pub mod access;
mod allowance;
mod escape;
mod format;
mod records;
mod subscriber;
mod writer;

pub use allowance::Allowance;
pub(crate) use escape::{escaped, escaped_json};
pub use records::{outbox, put_audit_line};
pub use writer::{LastLines, count_lost as count_lost_lines};

pub use subscriber::LogFormat;

pub(super) use subscriber::start;
