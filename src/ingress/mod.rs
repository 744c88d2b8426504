//! A client's message before its child is chosen: the message as received, the queues in which it waits, and the
//! reasons to refuse it. Children and calls both use these.

mod entrance;
mod incoming;

pub(crate) use entrance::{Entrance, Limits, Lingering};
pub use incoming::{Incoming, Received, Refusal};
