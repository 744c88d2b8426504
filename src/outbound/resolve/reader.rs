//! Reads the bytes of a DNS message (RFC 1035 §4).

/// Maximum length of a name in a message.
pub(super) const LONGEST: usize = 255;

/// A message, read up to a position.
pub(super) struct Reader<'a> {
    pub(super) message: &'a [u8],
    /// The position in bytes.
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// Skips labels up to the root, or up to a pointer to the rest of the name.
    pub(super) fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                length @ 1..=63 => drop(self.take(length.into())?),
                192.. => return self.take(1).map(drop),
                _ => return None,
            }
        }
    }
}
