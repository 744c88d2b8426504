//! Answers of a gateway's servers of which the caller may see a part only: lists without what it may not use. An answer
//! that is no stream is read whole first. Of a stream, each event with an answer is; all others pass as they are.

use super::cut::Cut;
use super::relay::Relay;
use crate::budget::{Account, Charge, Charged};
use crate::jsonrpc::{self, Kind, Spliced, break_no_lines};
use crate::policy::View;
use crate::telemetry::Seldom;
use memchr::{memchr2, memmem};
use parking_lot::Mutex;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Maximum length of a message that is filtered.
const LONGEST: usize = 64 << 20;

/// Why an answer cannot be filtered. It is not passed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfiltered {
    /// It has broken off.
    Broken,
    /// It is too long.
    TooLong,
    /// There is no room for it.
    NoRoom,
    /// It is no message.
    NoMessage,
}

/// Reads an answer that is no stream, and returns it as its caller may see it. `is_failure` says whether its status is an
/// error, whose text need not be a message.
///
/// # Errors
/// When it cannot be filtered.
pub async fn whole(
    mut relay: Relay,
    view: &View,
    account: &Account,
    is_failure: bool,
) -> Result<Spliced, Unfiltered> {
    let (mut bytes, mut charge) = (Vec::new(), account.charge());
    while let Some(part) = poll_fn(|cx| relay.poll_next(cx)).await {
        let part = part.map_err(|Cut| Unfiltered::Broken)?;
        if bytes.len() + part.len() > LONGEST {
            return Err(Unfiltered::TooLong);
        }
        if !charge.try_cover(bytes.len() + part.len()) {
            return Err(Unfiltered::NoRoom);
        }
        bytes.extend_from_slice(&part);
    }
    if bytes.is_empty() {
        return Ok(Spliced::from(charge.hold(bytes)));
    }
    let mut message = bytes.clone();
    one_line(&mut message);
    match jsonrpc::scan(&message) {
        Ok(scanned) => {
            let id = scanned.id.map_or(&b"null"[..], |id| &message[id]).to_vec();
            Ok(view.apply_as(&id, Spliced::from(charge.hold(message))).await)
        }
        Err(_) if is_failure => Ok(Spliced::from(charge.hold(bytes))),
        Err(_) => Err(Unfiltered::NoMessage),
    }
}

/// The body of an event stream.
pub struct Filtered(State);

enum State {
    Idle(Box<Stream>),
    /// The next event is being received and filtered. The lock is never waited for.
    Working(Mutex<Next>),
    Ended,
}

/// A part of the body; `None` at its end.
type Part = Option<Result<Charged, Cut>>;

/// What yields the next part, and the stream again.
type Next = Pin<Box<dyn Future<Output = (Box<Stream>, Part)> + Send>>;

impl fmt::Debug for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered").finish_non_exhaustive()
    }
}

impl Filtered {
    /// Begins to pass on a stream.
    pub fn new(relay: Relay, view: View, account: &Account) -> Self {
        let charge = account.charge();
        Filtered(State::Idle(Box::new(Stream { relay, view, events: Events::default(), charge })))
    }

    /// Returns the next part.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        loop {
            match std::mem::replace(&mut self.0, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(mut stream) => {
                    self.0 = State::Working(Mutex::new(Box::pin(async move {
                        let part = stream.next().await;
                        (stream, part)
                    })));
                }
                State::Working(mut working) => match working.get_mut().as_mut().poll(cx) {
                    Poll::Pending => {
                        self.0 = State::Working(working);
                        return Poll::Pending;
                    }
                    Poll::Ready((stream, part)) => {
                        if matches!(part, Some(Ok(_))) {
                            self.0 = State::Idle(stream);
                        }
                        return Poll::Ready(part);
                    }
                },
            }
        }
    }

    /// Returns whether the body is complete.
    pub fn is_end(&self) -> bool {
        matches!(self.0, State::Ended)
    }
}

struct Stream {
    relay: Relay,
    view: View,
    events: Events,
    charge: Charge,
}

impl Stream {
    async fn next(&mut self) -> Part {
        loop {
            while let Some(event) = self.events.next() {
                if let Some(event) = self.seen(event).await {
                    let account = self.charge.account().clone();
                    self.charge.shrink_to(self.events.held());
                    return Some(Ok(account.hold(event)));
                }
            }
            let part = match poll_fn(|cx| self.relay.poll_next(cx)).await {
                Some(Ok(part)) => part,
                // What is left is no whole event.
                end => return end,
            };
            self.events.push(&part);
            let held = self.events.held();
            if held > LONGEST || !self.charge.try_cover(held) {
                tell("it is too long, or --max-buffered is used up");
                return Some(Err(Cut));
            }
        }
    }

    /// Returns an event as the caller may see it; `None` if that is impossible.
    async fn seen(&mut self, event: Vec<u8>) -> Option<Vec<u8>> {
        let mut data = data_of(&event);
        if data.is_empty() {
            return Some(event);
        }
        one_line(&mut data);
        let Ok(message) = jsonrpc::scan(&data) else {
            tell("it is no message");
            return None;
        };
        let Some(id) = message.id.filter(|_| message.kind == Kind::Response) else { return Some(event) };
        let id = data[id].to_vec();
        let seen = self.view.apply_as(&id, Spliced::from(self.charge.account().hold(data.clone()))).await;
        let mut seen = seen.to_vec();
        if seen == data {
            return Some(event);
        }
        one_line(&mut seen);
        let mut written = Vec::with_capacity(seen.len() + 64);
        for line in event.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !is_data(line)) {
            written.extend_from_slice(line);
            written.push(b'\n');
        }
        written.extend_from_slice(b"data: ");
        written.extend_from_slice(&seen);
        written.extend_from_slice(b"\n\n");
        Some(written)
    }
}

fn tell(why: &'static str) {
    static TOLD: Seldom = Seldom::new();
    if TOLD.is_due() {
        tracing::warn!(
            why,
            "an event of a server cannot be filtered by the policies, and is not passed; logged at most once a minute"
        );
    }
}

/// Replaces line breaks outside of texts, which a message may have, by spaces.
fn one_line(message: &mut [u8]) {
    if memchr2(b'\n', b'\r', message).is_some() {
        break_no_lines(message);
    }
}

/// Returns whether a line of an event belongs to its data.
fn is_data(line: &[u8]) -> bool {
    line == b"data" || line.starts_with(b"data:")
}

/// Returns the data of an event.
fn data_of(event: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for line in event.split(|byte| *byte == b'\n').filter(|line| is_data(line)) {
        let line = line.strip_prefix(b"data:").unwrap_or_default();
        data.extend_from_slice(line.strip_prefix(b" ").unwrap_or(line));
        data.push(b'\n');
    }
    data.pop();
    data
}

/// Cuts a stream into events with the empty lines that end them. All line breaks become line feeds, which mean the same.
#[derive(Debug, Default)]
struct Events {
    buffer: Vec<u8>,
    /// No event ends before this index.
    searched: usize,
    /// Whether the last byte was a carriage return, to which a line feed belongs.
    is_after_return: bool,
    /// Whether anything was taken, so that no byte order mark follows.
    is_begun: bool,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let is_second = std::mem::replace(&mut self.is_after_return, *byte == b'\r') && *byte == b'\n';
            if !is_second {
                self.buffer.push(if *byte == b'\r' { b'\n' } else { *byte });
            }
        }
    }

    fn held(&self) -> usize {
        self.buffer.len()
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if !self.is_begun {
            if self.buffer.len() < MARK.len() {
                return None;
            }
            if self.buffer.starts_with(MARK) {
                self.buffer.drain(..MARK.len());
            }
            self.is_begun = true;
        }
        let end = if self.buffer.first() == Some(&b'\n') {
            1
        } else {
            let from = self.searched.saturating_sub(1);
            let Some(at) = memmem::find(&self.buffer[from..], b"\n\n") else {
                self.searched = self.buffer.len();
                return None;
            };
            from + at + 2
        };
        let rest = self.buffer.split_off(end);
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

/// Returns the events of a stream that comes in these parts, for the fuzz target.
pub fn events_in<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut events, mut found) = (Events::default(), Vec::new());
    for part in parts {
        events.push(part);
        found.extend(std::iter::from_fn(|| events.next()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_a_stream_is_cut_and_its_lines_end() {
        let stream = "\u{feff}: hello\n\nid: 1\rdata:\r\rdata: {\"a\":\r\ndata:1}\r\n\r\nretry: 5\n\ndata\ndata: b\n\n\ndata: cut";
        for size in 1..stream.len() {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
            let found = events_in(stream.as_bytes().chunks(size));
            let found: Vec<_> =
                found.into_iter().map(|event| (text(event.clone()), text(data_of(&event)))).collect();
            let found: Vec<_> = found.iter().map(|(event, data)| (event.as_str(), data.as_str())).collect();
            let expected = [
                (": hello\n\n", ""),
                ("id: 1\ndata:\n\n", ""),
                ("data: {\"a\":\ndata:1}\n\n", "{\"a\":\n1}"),
                ("retry: 5\n\n", ""),
                ("data\ndata: b\n\n", "\nb"),
                ("\n", ""),
            ];
            assert_eq!(found, expected, "in parts of {size}");
        }
    }
}
