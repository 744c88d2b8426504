//! The `Authorization` headers of a server's last callers, so that the claims of a caller are not written for each request.

use super::token::{Minted, Minter};
use crate::identity::Identity;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Maximum number of remembered callers. The tokens of all others are found by their claims.
const MOST: usize = 8;

/// The headers of the last callers, the latest one last.
#[derive(Debug, Default)]
pub(super) struct Bearers(Mutex<Vec<Bearer>>);

#[derive(Debug)]
struct Bearer {
    /// The address of a caller that is remembered is not used again.
    caller: Weak<Identity>,
    value: HeaderValue,
    minted: Minted,
}

impl Bearers {
    /// Returns the header of a caller, if it is remembered and may still be given out. `now` is in seconds since 1970.
    pub(super) fn of(&self, caller: &Arc<Identity>, minter: &Minter, now: u64) -> Option<HeaderValue> {
        let known = self.0.lock();
        let own = known.iter().find(|bearer| bearer.caller.as_ptr() == Arc::as_ptr(caller))?;
        minter.is_fresh(&own.minted, now).then(|| own.value.clone())
    }

    /// Remembers the header of a caller.
    pub(super) fn keep(&self, caller: &Arc<Identity>, value: &HeaderValue, minted: Minted) {
        let mut known = self.0.lock();
        known.retain(|bearer| bearer.caller.as_ptr() != Arc::as_ptr(caller));
        if known.len() == MOST {
            known.remove(0);
        }
        known.push(Bearer { caller: Arc::downgrade(caller), value: value.clone(), minted });
    }
}
