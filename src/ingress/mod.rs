//! A client's message before its child is chosen: the message as it came, the queues in which it waits, and why it may be
//! refused. Children and calls both use these.

mod entrance;
mod incoming;

pub(crate) use entrance::{Entrance, Limits, Lingering};
pub use incoming::{Incoming, Refusal};
