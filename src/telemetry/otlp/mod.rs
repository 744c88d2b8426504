//! The OpenTelemetry Protocol's messages, written as bytes: records as they come, requests around them.

mod attributes;
mod protobuf;

pub use attributes::{Attributes, cut};
pub use protobuf::{Field, Fields, fields};
