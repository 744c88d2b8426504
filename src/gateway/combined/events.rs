//! Cuts the body of an event stream into the data of its events.

use memchr::memchr;

/// The part of a stream that was received and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffer: Vec<u8>,
    /// No line ends before this index.
    searched: usize,
    data: Vec<u8>,
}

impl Events {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.data.len()
    }

    /// Returns the data of the next complete event that has any.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut taken = 0;
        let mut event = None;
        while event.is_none() {
            let Some(end) = memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                break;
            };
            let end = self.searched + end;
            let line = &self.buffer[taken..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && !self.data.is_empty() {
                self.data.pop();
                event = Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty());
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
                self.data.push(b'\n');
            }
            taken = end + 1;
            self.searched = taken;
        }
        self.buffer.drain(..taken);
        self.searched -= taken;
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = b": hello\n\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":\ndata:1}\n\nretry: 5\r\ndata: b\r\n\r\ndata: cut";
        for size in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for part in stream.chunks(size) {
                events.push(part);
                while let Some(event) = events.next() {
                    found.push(String::from_utf8(event).expect("UTF-8"));
                }
            }
            assert_eq!(found, ["{\"a\":\n1}", "b"], "in parts of {size}");
        }
    }
}
