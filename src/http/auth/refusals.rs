//! Tells the operator's log why callers are refused. Anybody can cause such lines, so each reason has one a minute; the
//! others are at level debug, and the audit log has them all.

use crate::telemetry::Seldom;
use parking_lot::Mutex;
use std::fmt::Display;

/// The reasons so far. There are as many as the code has names for them.
static REASONS: Mutex<Vec<(&str, Seldom)>> = Mutex::new(Vec::new());

/// Returns whether a reason is logged now. There are few.
fn is_due(reasons: &mut Vec<(&'static str, Seldom)>, reason: &'static str) -> bool {
    match reasons.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, seldom)) => seldom.is_due(),
        None => {
            let seldom = Seldom::default();
            let is_due = seldom.is_due();
            reasons.push((reason, seldom));
            is_due
        }
    }
}

/// Logs that a caller was refused. Neither text contains anything of the credentials.
pub fn tell(reason: &'static str, why: &dyn Display) {
    let is_due = is_due(&mut REASONS.lock(), reason);
    if is_due {
        tracing::info!(reason, "a caller was refused: {why} (logged once a minute for each reason)");
    } else {
        tracing::debug!(reason, "a caller was refused: {why}");
    }
}
