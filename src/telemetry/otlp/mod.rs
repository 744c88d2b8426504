//! The messages of the OpenTelemetry Protocol, encoded as bytes: records as they occur, and the requests that carry
//! them.

mod attributes;
mod metrics;
mod protobuf;
mod request;
#[cfg(test)]
mod tests;

pub use attributes::{Attributes, cut};
pub use metrics::{Delivered, Exports, Temporality};
pub use protobuf::{Field, Fields, fields};
pub use request::{Resource, rejected, request};
