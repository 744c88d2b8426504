//! Traces: spans, their sampling, the current span of a task, and redaction of captured contents.

mod attributes;
pub(crate) mod capture;
mod ids;
mod redact;
mod sampler;
pub mod scope;
mod span;

pub use attributes::Attributes;
pub use sampler::Sampler;
pub use span::{Parent, Span, SpanKind, Tracer, tracer};
