//! The OpenTelemetry Protocol's messages, written as bytes: records as they come, requests around them.

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
