//! The phase of the child that readiness follows: published by one task, watched by many.

use std::fmt;
use tokio::sync::watch;

/// The phase of the child that decides readiness.
///
/// With several shared children, it is the most advanced of those started with proxyrunner. If no child is kept
/// (`--isolation session`), it is the child that showed that the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The child is started, but its handshake is not complete.
    Starting,
    /// Its handshake is complete.
    Ready,
    /// The child ended for this reason, and is being restarted.
    Restarting(String),
    /// The child ended or could not be started, for this reason.
    Failed(String),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Starting => f.write_str("the server has not completed its handshake yet"),
            Phase::Ready => f.write_str("the server has completed its handshake"),
            Phase::Restarting(why) => write!(f, "{why}; it is being restarted"),
            Phase::Failed(why) => f.write_str(why),
        }
    }
}

/// Creates a channel whose first value is [`Phase::Starting`].
pub fn channel() -> (watch::Sender<Phase>, watch::Receiver<Phase>) {
    watch::channel(Phase::Starting)
}
