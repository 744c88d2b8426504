//! The ids of events on a session's streams, as SSE's `id` field carries them: `STREAM-SEQ`.

/// A stream's number in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// Returns the id of the event `seq` on this stream. Event 0 is the priming event.
    pub fn event_id(self, seq: u64) -> String {
        format!("{}-{seq}", self.0)
    }

    pub(super) fn numbered(number: u32) -> Self {
        StreamId(number)
    }
}

/// Returns the stream and the number of the event that an event id names.
pub(super) fn parse_event_id(id: &str) -> Option<(StreamId, u64)> {
    let (stream, seq) = id.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), seq.parse().ok()?))
}
