//! The interface of a legacy session towards its child, so that this module does not depend on sessions.

use super::{ListChanges, SessionId};
use crate::budget::Charged;
use crate::exchange::{Class, Failure};
use crate::jsonrpc::{Message, Spliced};
use std::fmt::{self, Debug};

/// A legacy session that sits at a child.
pub trait SeatedSession: Send + Sync {
    /// Returns the session's id.
    fn id(&self) -> &SessionId;

    /// Returns the changes of the lists of the session's exclusive child.
    fn changes(&self) -> &ListChanges;

    /// Puts a notification of the child on the stream to which it belongs.
    fn notify(&self, frame: Spliced, class: Class);

    /// Charges a notification of the child to the session and passes it on; drops it when the session has no room.
    fn deliver(&self, frame: Charged, message: &Message, class: Class);

    /// Sends a question of the child to the client.
    ///
    /// # Errors
    /// Fails when too many questions are unanswered, or when the session has no room for this one.
    fn ask(&self, frame: &mut Charged, message: &Message) -> Result<(), TooManyQuestions>;

    /// Withdraws the question that the child asked under `child_id`, and notifies the client.
    fn withdraw_question(&self, child_id: &[u8], frame: &Charged, message: &Message);

    /// Ends the session.
    fn end(&self, failure: &Failure);
}

impl Debug for dyn SeatedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeatedSession({:?})", self.id())
    }
}

/// The client has left the maximum number of questions unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyQuestions;
