//! Metrics: durations, levels, resource usage of processes, and counters.

pub mod counters;
mod definitions;
mod exposition;
mod family;
mod gather;
mod histogram;
pub mod labels;
mod operations;
mod recording;
pub mod usage;

#[cfg(test)]
pub(super) use definitions::RESERVED;
pub use exposition::{Format, write};
pub use family::{Definition, Family, MetricKind, Sample, Temporality, Value};
pub use gather::{Levels, gather};
#[cfg(test)]
pub use histogram::{CONVENTION, Histogram};
pub use histogram::{Distribution, Exemplar};
pub use recording::{enable, is_enabled, operation, request, session, started};
