//! How a message came out, as spans, metrics and logs say it.

use super::metrics::labels::ErrorType;
use super::names;
use super::trace::Span;
use std::borrow::Cow;

/// How a message came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With a result, or it wants none.
    Success,
    /// With a result that says of itself that it is an error.
    ToolError,
    /// With a JSON-RPC error.
    Error {
        /// Its code.
        code: i64,
        /// Its message.
        message: Cow<'static, str>,
    },
    /// Without an answer: its client left, or took it back.
    Cancelled,
}

impl Verdict {
    /// The same, but for the code with which the client is told an error, if that is another than the server's.
    pub fn told_as(mut self, told: Option<i64>) -> Self {
        if let (Verdict::Error { code, .. }, Some(told)) = (&mut self, told) {
            *code = told;
        }
        self
    }

    /// `error.type`; `None` where nothing went wrong.
    pub(super) fn error_type(&self) -> Option<Cow<'static, str>> {
        match self {
            Verdict::Success => None,
            Verdict::ToolError => Some("tool_error".into()),
            Verdict::Error { code, .. } => Some(code.to_string().into()),
            Verdict::Cancelled => Some("cancelled".into()),
        }
    }

    /// What it is counted as; `None` where nothing went wrong.
    #[inline]
    pub(super) fn counted(&self) -> Option<ErrorType> {
        match self {
            Verdict::Success => None,
            _ => self.counted_as(),
        }
    }

    #[cold]
    fn counted_as(&self) -> Option<ErrorType> {
        self.error_type().map(|error| ErrorType::of(&*error))
    }

    /// Says it of a span.
    pub(super) fn describe(&self, span: &mut Span) {
        let Some(error) = self.error_type() else { return };
        span.describe(|attributes| {
            attributes.text(names::ERROR, &error);
            if let Verdict::Error { .. } = self {
                attributes.text(names::STATUS, &error);
            }
        });
        match self {
            Verdict::Error { message, .. } => span.fail(message.as_ref()),
            _ => span.fail(""),
        }
    }
}
