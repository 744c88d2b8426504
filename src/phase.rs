//! The phase of the child that readiness follows, as a value one side publishes and many watch.

use std::fmt;
use tokio::sync::watch;

/// Where the child that answers for readiness stands.
///
/// With several shared children it is the most ready of those that were started with proxyrunner; where none stays
/// (`--isolation session`), the one that showed that the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Started, its handshake not complete.
    Starting,
    /// Its handshake is complete.
    Ready,
    /// It ended, as the text says, and the next one is on its way.
    Restarting(String),
    /// It ended, or could not be started; the text says how.
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

/// Starts at [`Phase::Starting`].
pub fn channel() -> (watch::Sender<Phase>, watch::Receiver<Phase>) {
    watch::channel(Phase::Starting)
}
