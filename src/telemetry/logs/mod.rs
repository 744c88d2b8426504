//! Logs: lines on stderr, the access log, and records for a collector.

pub mod access;
mod allowance;
mod escape;
mod format;
mod records;
mod subscriber;
mod writer;

pub use allowance::Allowance;
pub use records::outbox;
pub use writer::count_lost as count_lost_lines;

pub use subscriber::Format;

pub(super) use subscriber::start;
