//! Traces: spans, what they may say, and which of them are recorded.

pub(crate) mod capture;
mod ids;
mod redact;
mod sampler;
pub mod scope;
mod span;

pub use sampler::Sampler;
pub use span::{Parent, Span, SpanKind, Tracer, tracer};
