//! Metrics: how long operations, sessions and waits took, what the processes take, and all that is counted.

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
pub use family::{Definition, Family, Kind, Sample, Value};
pub use gather::{Levels, gather};
pub use histogram::{Bounds, CONVENTION, Distribution, Exemplar, Histogram};
pub use recording::{are_kept, keep, operation, request, session, started};
