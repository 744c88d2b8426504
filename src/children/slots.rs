//! For how many requests a child has room: for all that are admitted, so that nobody who has a place is refused a slot.

use super::settings::Settings;
use crate::mux::MAX_SLOTS;

/// Requests of proxyrunner's own that a child may have beside those of clients.
const OWN_REQUESTS: usize = 64;

impl Settings {
    /// Requests for which a shared child has room: all that are admitted, and subscriptions, which are requests too
    /// where the child is modern, and in pairs while they are opened again.
    pub(super) fn slots_to_share(&self) -> usize {
        let listens = self.max_listens.saturating_mul(2);
        self.max_in_flight.saturating_add(listens).saturating_add(OWN_REQUESTS).min(MAX_SLOTS)
    }

    /// Requests for which a session's own child has room: all of one client's that are admitted at one child.
    pub(super) fn slots_for_one(&self) -> usize {
        let admitted = self.max_client_in_flight.min(self.max_child_in_flight).min(self.max_in_flight);
        admitted.saturating_add(OWN_REQUESTS).min(MAX_SLOTS)
    }
}
