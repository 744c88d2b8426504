//! Reads DER, the encoding of certificates (ITU-T X.690): definite lengths, and tags of one byte.

/// The rest of an encoded value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Der<'a>(&'a [u8]);

/// One element: its tag, its contents, and all of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub tag: u8,
    pub contents: &'a [u8],
    pub whole: &'a [u8],
}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// Of a length: its own length follows in the other bits.
const LONG: u8 = 0x80;
/// Of a tag: its number follows.
const LONG_TAG: u8 = 0x1f;

impl<'a> Der<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Der(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next element; `None` if there is none, or it is malformed.
    pub fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & LONG != 0 {
            let (digits, behind) = rest.split_at_checked(usize::from(first & !LONG))?;
            // The shortest form is the only valid one.
            let is_short = matches!(digits, [] | [0, ..] | [0..=0x7f]) || digits.len() > 3;
            if is_short {
                return None;
            }
            length = digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit));
            rest = behind;
        }
        let (contents, behind) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - behind.len()];
        self.0 = behind;
        (tag & LONG_TAG != LONG_TAG).then_some(Element { tag, contents, whole })
    }

    /// Takes the contents of the next element, which must have this tag.
    pub fn take(&mut self, tag: u8) -> Option<Der<'a>> {
        self.next().filter(|element| element.tag == tag).map(|element| Der(element.contents))
    }

    /// Takes the contents of the next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Option<Der<'a>> {
        if self.0.first() == Some(&tag) { self.take(tag) } else { None }
    }

    /// Returns the bytes that are left.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_their_shortest_form_only() {
        let contents = |bytes: &[u8]| Der::new(bytes).next().map(|element| element.contents.len());
        assert_eq!(contents(&[OCTETS, 2, 1, 2]), Some(2));
        assert_eq!(contents(&[OCTETS, 0]), Some(0));
        let long = [&[OCTETS, 0x81, 0x80][..], &[0; 128]].concat();
        assert_eq!(contents(&long), Some(128));
        for bad in [
            &[OCTETS][..],
            &[OCTETS, 3, 1, 2],
            &[OCTETS, 0x80, 1],
            &[OCTETS, 0x81, 1, 1],
            &[OCTETS, 0x82, 0, 1, 1],
            &[OCTETS, 0x84, 1, 0, 0, 0],
            &[OCTETS, 0xff],
            &[0x1f, 1, 1],
            &[],
        ] {
            assert_eq!(contents(bad), None, "{bad:?}");
        }
    }
}
