//! Tells the operator's log why callers are refused. Anybody can cause such lines, so each reason has one a minute; the
//! others are at level debug, and the audit log has them all.

use crate::telemetry::Seldom;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Display;

/// The reasons so far. There are as many as the code has names for them.
static REASONS: Mutex<BTreeMap<&'static str, Seldom>> = Mutex::new(BTreeMap::new());

/// Logs that a caller was refused. Neither text contains anything of the credentials.
pub fn tell(reason: &'static str, why: &dyn Display) {
    let is_due = REASONS.lock().entry(reason).or_default().is_due();
    if is_due {
        tracing::info!(reason, "a caller was refused: {why} (logged once a minute for each reason)");
    } else {
        tracing::debug!(reason, "a caller was refused: {why}");
    }
}
