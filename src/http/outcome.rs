//! The outcome of a message that no child answers. Both fronts end the message's operation here.

use super::reject::Rejection;
use crate::jsonrpc::{Spliced, codes, rewrite};
use crate::telemetry::{Operation, Verdict};
use crate::upstream::Refusal;
use hyper::StatusCode;

/// The reason why a message gets no answer from a child.
#[derive(Debug)]
pub enum NoAnswer {
    /// The front rejects it, with an HTTP status.
    Rejected(Rejection),
    /// The upstream refuses it.
    Upstream(Refusal),
}

impl From<Rejection> for NoAnswer {
    fn from(rejection: Rejection) -> Self {
        NoAnswer::Rejected(rejection)
    }
}

impl From<Refusal> for NoAnswer {
    fn from(refusal: Refusal) -> Self {
        NoAnswer::Upstream(refusal)
    }
}

impl NoAnswer {
    fn verdict(&self) -> Verdict {
        match self {
            NoAnswer::Rejected(rejection) => rejection.verdict(),
            NoAnswer::Upstream(refusal) => refusal.verdict(),
        }
    }
}

/// Ends the operation of a message whose answer, if it has one, is known.
///
/// # Errors
/// When proxyrunner is the cause, so that the client gets an HTTP status. Errors of the child are answers like any
/// other.
pub fn settle<T: From<Spliced>>(
    operation: &Operation,
    id: &[u8],
    outcome: Result<T, NoAnswer>,
) -> Result<T, Rejection> {
    match outcome {
        Ok(answer) => {
            operation.end(&Verdict::Success);
            Ok(answer)
        }
        Err(refused) => refuse(operation, id, refused).map(T::from),
    }
}

/// Ends the operation of a message that is refused, and returns the client's answer.
///
/// # Errors
/// As [`settle`].
pub fn refuse(operation: &Operation, id: &[u8], refused: NoAnswer) -> Result<Spliced, Rejection> {
    operation.end(&refused.verdict());
    let refusal = match refused {
        NoAnswer::Rejected(rejection) => return Err(rejection.of(id)),
        NoAnswer::Upstream(refusal) => refusal,
    };
    match refusal {
        Refusal::Busy(why) => Err(Rejection::busy(why).of(id)),
        Refusal::Failed(failure) => Ok(Spliced::from(failure.response(id))),
        Refusal::Mismatch(mismatch) => {
            Err(Rejection::new(StatusCode::BAD_REQUEST, codes::HEADER_MISMATCH, mismatch.to_string()).of(id))
        }
        Refusal::Withheld(code, why) => Ok(Spliced::from(rewrite::error(Some(id), code, why, None))),
    }
}
