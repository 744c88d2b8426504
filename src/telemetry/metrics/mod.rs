//! Metrics: durations, levels, resource usage of processes, and counters.

pub mod counters;
mod definitions;
mod exposition;
mod family;
#[cfg(feature = "gateway")]
pub mod gateway;
mod gather;
mod histogram;
pub mod labels;
pub mod limits;
mod operations;
mod recording;
pub mod usage;

pub use exposition::{Format, write};
pub use family::{Definition, Family, MetricKind, Sample, Temporality, Value};
pub use gather::{Levels, gather};
#[cfg(any(test, feature = "gateway"))]
pub use histogram::{CONVENTION, Histogram};
pub use histogram::{Distribution, Exemplar};
#[cfg(feature = "gateway")]
pub use recording::redis as record_redis;
pub use recording::{enable, is_enabled, operation, request, session, started};
