//! Records the outcomes of requests in spans and metrics, and the names that a child lists.

use super::{Answer, Failure, Outcome};
use crate::jsonrpc::{Span, items, member, quoted, string_member};
use crate::telemetry::{ChildOperation, Verdict};

/// Records the end of an exchange.
pub(super) fn end(operation: ChildOperation, outcome: &Outcome) {
    if let (Some((names, list)), Ok(answer)) = (operation.listed_names(), outcome)
        && let Some(result) = &answer.result
    {
        let listed = member(&answer.frame, result, list);
        for item in listed.into_iter().flat_map(|listed| items(&answer.frame, listed)) {
            if let Some(name) = string_member(&answer.frame, &item, "name") {
                names.learn(&name);
            }
        }
    }
    if let Ok(answer) = outcome {
        // A question to the client has no content (basic/patterns/mrtr), and neither does a task that has only begun.
        let is_last = |result: &Span| member(&answer.frame, result, "content").is_some();
        let result = || answer.result.clone().filter(is_last).map(|result| &answer.frame[result]);
        operation.record_result(result);
    }
    operation.end(&match outcome {
        Ok(answer) => answer.verdict(),
        Err(failure) => failure.verdict(),
    });
}

impl Answer {
    /// Returns the outcome for spans and metrics.
    pub fn verdict(&self) -> Verdict {
        let Some(error) = &self.error else {
            return if self.is_error { Verdict::ToolError } else { Verdict::Success };
        };
        let code = member(&self.frame, error, "code").and_then(|code| {
            let code = std::str::from_utf8(&self.frame[code]).ok()?;
            code.parse().ok()
        });
        let message = member(&self.frame, error, "message");
        let message = message.map(|message| quoted(&self.frame, &message)).unwrap_or_default();
        Verdict::Error { code: code.unwrap_or_default(), message: message.into() }
    }
}

impl Failure {
    /// Returns the outcome for spans and metrics.
    pub fn verdict(&self) -> Verdict {
        match self {
            Failure::Cancelled => Verdict::Cancelled,
            failure => Verdict::Error { code: self.code(), message: failure.to_string().into() },
        }
    }
}
