//! What an answer says: whose it is, and whether it refuses.

use super::fault::Fault;
use crate::budget::Charged;
use crate::jsonrpc::{self, Message, codes, integer, member, text};
use hyper::StatusCode;

/// Returns the fault of a server whose event stream ends without an answer.
pub(super) fn cut_short() -> Fault {
    Fault::broken(
        "the remote server ended its answer before it was complete; the request may have been carried out"
            .to_owned(),
    )
}

/// Returns an answer if it is that of the request with this id. An error without an id is, too, and one with another id
/// beside an HTTP error, which some servers invent: the request is the only one that it can mean.
pub(super) fn own_answer(
    answer: Charged,
    read: Message,
    id: &[u8],
    status: StatusCode,
) -> Result<(Charged, Message), Fault> {
    let its = read.id.clone().map(|its| &answer[its]);
    match (its, &read.error) {
        (Some(its), _) if is_same(its, id) => Ok((answer, read)),
        (its, Some(error)) if its.is_none() || !status.is_success() => {
            let text =
                [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"error\":", &answer[error.clone()], b"}"].concat();
            let answer = answer.derive(text);
            let read = jsonrpc::scan(&answer).map_err(|fault| {
                let text = format!("the remote server answered {status} and no error: {}", fault.reason);
                Fault::status(status.as_u16(), text)
            })?;
            Ok((answer, read))
        }
        _ => Err(Fault::refused(
            "the remote server answered another request; is a proxy mixing up responses?".to_owned(),
        )),
    }
}

/// Returns whether two raw ids are equal.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let parsed = |raw: &[u8]| serde_json::from_slice::<serde_json::Value>(raw).ok();
    one == other || (integer(one).is_none() && parsed(one).is_some_and(|one| Some(one) == parsed(other)))
}

/// Returns the code of an error.
pub(super) fn code(answer: &[u8], read: &Message) -> Option<i64> {
    let code = member(answer, read.error.as_ref()?, "code")?;
    std::str::from_utf8(&answer[code]).ok()?.parse().ok()
}

/// Returns whether an error says that the session is unknown: some servers send it with the status 400.
pub(super) fn is_unknown_session(answer: &[u8], read: &Message) -> bool {
    let Some(error) = &read.error else { return false };
    let says = member(answer, error, "message").map(|says| text(answer, &says).to_ascii_lowercase());
    matches!(code(answer, read), Some(-32000 | codes::SESSION_NOT_FOUND))
        && says.is_some_and(|says| says.contains("session"))
}
