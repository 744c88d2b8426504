//! The number of slots of a child: equal to the number of admitted requests, so that an admitted request always gets
//! a slot.

use super::settings::Settings;
use crate::mux::MAX_SLOTS;

/// Slots for proxyrunner's own requests.
const OWN_REQUESTS: usize = 64;

impl Settings {
    /// Returns the slots of a shared child: for all admitted requests, and for two requests per subscription, since a
    /// modern child's subscription is a request and overlaps with its successor.
    pub(super) fn slots_to_share(&self) -> usize {
        let listens = self.max_listens.saturating_mul(2);
        self.max_in_flight.saturating_add(listens).saturating_add(OWN_REQUESTS).min(MAX_SLOTS)
    }

    /// Returns the slots of an exclusive child: for all of one client's requests that are admitted at one child.
    pub(super) fn slots_for_one(&self) -> usize {
        let admitted = self.max_client_in_flight.min(self.max_child_in_flight).min(self.max_in_flight);
        admitted.saturating_add(OWN_REQUESTS).min(MAX_SLOTS)
    }
}
