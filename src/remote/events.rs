//! Cuts the body of an event stream into its events (WHATWG HTML §9.2), with the ids by which a stream is resumed.

use memchr::memchr;

/// Maximum length of an id that is remembered.
const LONGEST_ID: usize = 1024;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty for a message.
    pub kind: Vec<u8>,
    /// Its data, the lines of which are joined by newlines.
    pub data: Vec<u8>,
}

/// The part of a stream that was received and not taken yet.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    /// No line ends before this index.
    searched: usize,
    has_begun: bool,
    event: Event,
    id: Option<Vec<u8>>,
    last_id: Option<Vec<u8>>,
    retry: Option<u64>,
}

impl Events {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.event.data.len() + self.event.kind.len()
    }

    /// Returns the id of the last complete event that has one, by which the stream can be resumed.
    pub fn last_id(&self) -> Option<&[u8]> {
        self.last_id.as_deref().filter(|id| !id.is_empty())
    }

    /// Returns the time in milliseconds after which the server wants the stream to be resumed.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Returns the next complete event that has data.
    pub fn next(&mut self) -> Option<Event> {
        let mut taken = 0;
        let mut found = None;
        while found.is_none() {
            let Some(end) = memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                break;
            };
            let end = self.searched + end;
            let line = &self.buffer[taken..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = if self.has_begun { line } else { line.strip_prefix(BOM).unwrap_or(line) };
            self.has_begun = true;
            if line.is_empty() {
                self.last_id = self.id.take().or(self.last_id.take());
                let mut event = std::mem::take(&mut self.event);
                event.data.pop();
                found = Some(event).filter(|event| !event.data.is_empty());
            } else {
                let (name, value) = match memchr(b':', line) {
                    Some(colon) => (&line[..colon], &line[colon + 1..]),
                    None => (line, &b""[..]),
                };
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match name {
                    b"data" => {
                        self.event.data.extend_from_slice(value);
                        self.event.data.push(b'\n');
                    }
                    b"event" => self.event.kind = value.to_vec(),
                    b"id" if value.len() <= LONGEST_ID && !value.contains(&0) => {
                        self.id = Some(value.to_vec());
                    }
                    b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                        let text = std::str::from_utf8(value).unwrap_or_default();
                        self.retry = text.parse().ok().or(self.retry);
                    }
                    // A comment, or a field of the future.
                    _ => {}
                }
            }
            taken = end + 1;
            self.searched = taken;
        }
        self.buffer.drain(..taken);
        self.searched -= taken;
        found
    }
}

/// Reads a stream in parts of `size` bytes, for the fuzz target: the data of its events and its last id.
pub fn events_in(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let mut events = Events::default();
    let mut found = Vec::new();
    for part in stream.chunks(size.max(1)) {
        events.push(part);
        while let Some(event) = events.next() {
            found.push(event.data);
        }
        assert!(events.held() <= stream.len() + 1, "no byte is held twice");
    }
    (found, events.last_id().map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = b"\xef\xbb\xbf: hello\n\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":\ndata:1}\n\n\
            retry: 5\r\ndata: b\r\nid:2\r\n\r\nid: 3\ndata: cut";
        for size in 1..stream.len() {
            let (found, last) = events_in(stream, size);
            assert_eq!(found, [b"{\"a\":\n1}".to_vec(), b"b".to_vec()], "in parts of {size}");
            assert_eq!(last.as_deref(), Some(&b"2"[..]), "an event that was cut has no id yet");
        }
    }

    #[test]
    fn an_event_without_data_has_an_id() {
        let mut events = Events::default();
        events.push(b"id: 7\ndata:\nretry: 250\n\n");
        assert_eq!(events.next(), None);
        assert_eq!((events.last_id(), events.retry()), (Some(&b"7"[..]), Some(250)));
        events.push(b"id\nretry: soon\n\n");
        assert_eq!(events.next(), None);
        assert_eq!((events.last_id(), events.retry()), (None, Some(250)));
    }

    #[test]
    fn an_event_has_the_type_that_it_names() {
        let mut events = Events::default();
        events.push(b"event: endpoint\ndata: /messages\n\ndata: {}\n\n");
        let endpoint = events.next().expect("an event");
        assert_eq!((&endpoint.kind[..], &endpoint.data[..]), (&b"endpoint"[..], &b"/messages"[..]));
        assert_eq!(events.next().expect("an event").kind, b"");
    }
}
