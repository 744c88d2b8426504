//! Bytes that are few most often: what is written anew in a request to the child takes no allocation.

use std::ops::Deref;

/// Room for two ids and a traceparent with its key.
const SHORT: usize = 120;

/// Bytes in place as long as there are few, and on the heap when there are more.
#[derive(Debug)]
pub struct SmallBytes {
    len: usize,
    short: [u8; SHORT],
    /// All of them, once there are more.
    long: Vec<u8>,
}

impl SmallBytes {
    /// None yet.
    pub fn new() -> Self {
        SmallBytes { len: 0, short: [0; SHORT], long: Vec::new() }
    }

    /// Puts some behind the others.
    #[inline(always)]
    pub fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.short.get_mut(self.len..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => self.push_long(bytes),
        }
        self.len = end;
    }

    #[cold]
    fn push_long(&mut self, bytes: &[u8]) {
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.short[..self.len]);
        }
        self.long.extend_from_slice(bytes);
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<u8> {
        if self.long.is_empty() { self.to_vec() } else { self.long }
    }
}

impl Default for SmallBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for SmallBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..self.len] } else { &self.long }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_same_wherever_they_are() {
        for part in [1, 7, SHORT, SHORT + 1, 3 * SHORT] {
            let (mut small, mut all) = (SmallBytes::new(), Vec::new());
            for byte in 0..=3 * SHORT / part {
                let more = vec![byte as u8; part];
                small.push(&more);
                small.push(b"");
                all.extend_from_slice(&more);
                assert_eq!(*small, *all);
            }
            assert_eq!(small.into_vec(), all);
        }
    }
}
