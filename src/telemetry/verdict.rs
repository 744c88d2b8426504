//! The outcome of a message for spans, metrics and the access log.

use super::metrics::labels::ErrorType;
use super::names;
use super::trace::Span;
use std::borrow::Cow;

/// The outcome of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A result, or a message that expects none.
    Success,
    /// A tool result with `isError`.
    ToolError,
    /// A JSON-RPC error.
    Error {
        /// The error code.
        code: i64,
        /// The error message.
        message: Cow<'static, str>,
    },
    /// A refusal with an HTTP status.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error code.
        code: i64,
        /// The error message.
        message: Cow<'static, str>,
    },
    /// No answer: the client disconnected or cancelled the request.
    Cancelled,
}

impl Verdict {
    /// Replaces the error code, if the client receives another code than the child sent.
    pub fn with_code(mut self, told: Option<i64>) -> Self {
        if let (Verdict::Error { code, .. } | Verdict::Refused { code, .. }, Some(told)) = (&mut self, told) {
            *code = told;
        }
        self
    }

    /// Returns `error.type`; `None` on success.
    pub(super) fn error_type(&self) -> Option<Cow<'static, str>> {
        match self {
            Verdict::Success => None,
            Verdict::ToolError => Some("tool_error".into()),
            Verdict::Error { code, .. } | Verdict::Refused { code, .. } => Some(code.to_string().into()),
            Verdict::Cancelled => Some("cancelled".into()),
        }
    }

    /// Returns the label for metrics; `None` on success.
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

    /// Adds the outcome to a span.
    pub(super) fn describe(&self, span: &mut Span) {
        let Some(error) = self.error_type() else { return };
        span.describe(|attributes| {
            attributes.text(names::ERROR, &error);
            if let Verdict::Error { .. } | Verdict::Refused { .. } = self {
                attributes.text(names::STATUS, &error);
            }
        });
        match self {
            Verdict::Error { message, .. } | Verdict::Refused { message, .. } => span.fail(message.as_ref()),
            _ => span.fail(""),
        }
    }
}
