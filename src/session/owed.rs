//! Answers that are expected on a session's standalone stream.

use super::Session;
use std::sync::Arc;

/// An answer that is expected on the standalone stream, as every answer of HTTP+SSE is.
#[derive(Debug)]
pub struct Owed(Arc<Session>);

impl Session {
    /// Announces an answer on the standalone stream: until it arrives, the session's end does not end that stream.
    pub fn owe(self: &Arc<Self>) -> Owed {
        self.state().owed += 1;
        Owed(Arc::clone(self))
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.owed -= 1;
        if state.owed == 0 && self.0.is_ended() {
            state.streams.finish_standalone();
        }
    }
}
