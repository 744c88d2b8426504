//! The encoding of server-sent events.

use crate::budget::Charged;
use crate::jsonrpc::{FLAT, Spliced};
use std::collections::VecDeque;
use std::time::Duration;

/// The comment that a silent stream sends.
pub(super) const KEEP_ALIVE: Charged = Charged::fixed(b": keep-alive\n\n");
/// Time after which a client reconnects to a stream that was closed.
const RETRY: Duration = Duration::from_millis(500);

/// Encodes one event. A message is one line, hence one `data` field. The event's name is explicit, since some clients
/// require it.
pub fn encode(id: Option<&str>, message: &Spliced, out: &mut VecDeque<Charged>) {
    let short = message.len() <= FLAT;
    let mut event = Vec::with_capacity(64 + if short { message.len() } else { 0 });
    event.extend_from_slice(b"event: message\n");
    if let Some(id) = id {
        event.extend_from_slice(b"id: ");
        event.extend_from_slice(id.as_bytes());
        event.extend_from_slice(b"\n");
    }
    event.extend_from_slice(b"data: ");
    if short {
        message.segments().iter().for_each(|segment| event.extend_from_slice(segment));
        event.extend_from_slice(b"\n\n");
        let first = message.segments().first().cloned().unwrap_or_default();
        out.push_back(first.derive(event));
    } else {
        out.push_back(Charged::own(event));
        out.extend(message.segments().iter().cloned());
        out.push_back(Charged::fixed(b"\n\n"));
    }
}

/// Encodes an event without data, which gives a client an id to resume after (2025-11-25, transports §Sending
/// Messages).
pub(super) fn prime(id: &str) -> Charged {
    Charged::own(format!("id: {id}\ndata: \n\n"))
}

/// Encodes the first event of HTTP+SSE, which names the path to post to.
pub(super) fn endpoint(post_to: &str) -> Charged {
    Charged::own(format!("event: endpoint\ndata: {post_to}\n\n"))
}

/// Encodes the request to reconnect soon: to this process or, when it shuts down, to its replacement.
pub(super) fn retry() -> Charged {
    Charged::own(format!("retry: {}\n\n", RETRY.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_messages_are_framed_in_the_same_way() {
        for length in [10, FLAT, FLAT + 1] {
            let message = Spliced::from(Charged::own(vec![b'x'; length]));
            let mut out = VecDeque::new();
            encode(Some("3-1"), &message, &mut out);
            let whole: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
            let expected = format!("event: message\nid: 3-1\ndata: {}\n\n", "x".repeat(length));
            assert_eq!(whole, expected.as_bytes());
        }
    }
}
