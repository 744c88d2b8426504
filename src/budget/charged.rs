//! Message bytes with their charge.

use super::{Account, Charge, OVERHEAD};
use bytes::Buf;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of bytes in proxyrunner's own messages, and in short values copied from others.
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of message bytes outside every budget. Each value is small by construction, and the number of
/// values is bounded.
pub fn outside() -> usize {
    OUTSIDE.load(Ordering::Relaxed)
}

/// The bytes of a message. Slices and clones share the charge, which lasts as long as any of them.
#[derive(Clone)]
pub struct Charged(Repr);

#[derive(Clone)]
enum Repr {
    Fixed(&'static [u8]),
    Held { held: Arc<Held>, range: Range<usize> },
}

/// The bytes and the charge that slices share.
struct Held {
    bytes: Vec<u8>,
    owner: Owner,
}

enum Owner {
    Charge(Charge),
    /// The bytes have no account and count among [`outside`].
    Outside,
}

impl Drop for Held {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Outside) {
            OUTSIDE.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

impl Charged {
    pub(super) fn paid(bytes: Vec<u8>, charge: Charge) -> Self {
        Self::held(bytes, Owner::Charge(charge))
    }

    /// Wraps a message of proxyrunner's own, or a short value copied from another one. The caller ensures that it is
    /// at most a few KiB.
    pub fn own(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        OUTSIDE.fetch_add(bytes.len(), Ordering::Relaxed);
        Self::held(bytes, Owner::Outside)
    }

    /// Wraps bytes that are part of the program.
    pub const fn fixed(bytes: &'static [u8]) -> Self {
        Charged(Repr::Fixed(bytes))
    }

    fn held(bytes: Vec<u8>, owner: Owner) -> Self {
        let range = 0..bytes.len();
        Charged(Repr::Held { held: Arc::new(Held { bytes, owner }), range })
    }

    /// Wraps new bytes in the same account: a modified copy that is not much longer.
    pub fn derive(&self, bytes: Vec<u8>) -> Self {
        match self.account() {
            Some(account) => account.hold(bytes),
            None => Self::own(bytes),
        }
    }

    /// Returns a slice, which shares the charge.
    ///
    /// # Panics
    /// When the range is out of bounds.
    pub fn slice(&self, part: Range<usize>) -> Self {
        match &self.0 {
            Repr::Fixed(bytes) => Charged(Repr::Fixed(&bytes[part])),
            Repr::Held { held, range } => {
                assert!(part.start <= part.end && part.end <= range.len(), "a part of the bytes");
                let range = range.start + part.start..range.start + part.end;
                Charged(Repr::Held { held: Arc::clone(held), range })
            }
        }
    }

    /// Returns the account that the bytes are charged to.
    pub fn account(&self) -> Option<&Account> {
        match &self.0 {
            Repr::Held { held, .. } => match &held.owner {
                Owner::Charge(charge) => Some(charge.account()),
                Owner::Outside => None,
            },
            Repr::Fixed(_) => None,
        }
    }

    /// Moves the charge to another account, unless it is shared.
    pub fn move_to(&mut self, account: &Account) {
        if let Repr::Held { held, .. } = &mut self.0
            && let Some(Held { owner: Owner::Charge(charge), .. }) = Arc::get_mut(held)
        {
            charge.move_to(account);
        }
    }
}

impl Account {
    /// Charges an existing message, even above the limit. Only for messages with a small maximum size.
    pub fn hold(&self, bytes: Vec<u8>) -> Charged {
        let mut charge = self.charge();
        charge.add(bytes.len() + OVERHEAD);
        charge.hold(bytes)
    }

    /// Charges a message if there is room for it.
    pub fn try_hold(&self, bytes: Vec<u8>) -> Option<Charged> {
        let charge = self.try_charge(bytes.len() + OVERHEAD)?;
        Some(charge.hold(bytes))
    }
}

impl Charge {
    /// Attaches the charge to the bytes of a message, for as long as any slice of them lives.
    pub fn hold(mut self, bytes: Vec<u8>) -> Charged {
        let needed = bytes.len() + OVERHEAD;
        if needed > self.bytes() {
            self.add(needed - self.bytes());
        }
        self.shrink_to(needed);
        self.note_message();
        Charged::paid(bytes, self)
    }
}

impl Default for Charged {
    fn default() -> Self {
        Self::fixed(b"")
    }
}

impl Deref for Charged {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Fixed(bytes) => bytes,
            Repr::Held { held, range } => &held.bytes[range.clone()],
        }
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Buf for Charged {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self
    }

    fn advance(&mut self, count: usize) {
        match &mut self.0 {
            Repr::Fixed(bytes) => *bytes = &bytes[count..],
            Repr::Held { range, .. } => {
                assert!(count <= range.len(), "no further than the end");
                range.start += count;
            }
        }
    }
}

impl fmt::Debug for Charged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Charged {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Charged {}

impl std::hash::Hash for Charged {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Lets tests write messages as literals.
#[cfg(test)]
impl<T: Into<Vec<u8>>> From<T> for Charged {
    fn from(bytes: T) -> Self {
        Charged::own(bytes)
    }
}
