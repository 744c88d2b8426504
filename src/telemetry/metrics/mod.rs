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
pub use histogram::{BucketBounds, CONVENTION, Distribution, Exemplar, Histogram};
pub use recording::{enable, is_enabled, operation, request, session, started};
