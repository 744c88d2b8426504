//! A session's streams of events, as queues that a reader follows and that are kept a while for a reader who
//! comes back. No clock, no I/O.
//!
//! 1. An event's id is `STREAM-SEQ`, unique in the session; a stream's events are numbered from 1 without gaps.
//! 2. A stream has at most one reader; a new one takes it over, and the earlier one ends.
//! 3. An event is *pending* while an attached reader has yet to take it, else it is *kept*. Kept events are
//!    bounded in number and bytes over the whole session, oldest out first; pending ones by what
//!    [`Class`](crate::exchange::Class) says, and all together by `--max-buffered`.
//! 4. Each message is on exactly one stream (2025-11-25, transports §Multiple Connections): the standalone stream
//!    that was opened last has those that belong to no request. What waits on one whose reader left moves to the
//!    next that is opened.

use super::Session;
use crate::exchange::Class;
use crate::jsonrpc::Spliced;
use crate::telemetry::counters;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Standalone streams that one session may read at once; one more ends the oldest.
const STANDALONE_READERS: usize = 8;

/// A stream's number in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// The id of the event `seq` on this stream, as SSE's `id` field carries it. Event 0 is the priming event.
    pub fn event_id(self, seq: u64) -> String {
        format!("{}-{seq}", self.0)
    }
}

/// The stream and number in an event id of ours.
pub(super) fn parse_event_id(id: &str) -> Option<(StreamId, u64)> {
    let (stream, seq) = id.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), seq.parse().ok()?))
}

/// `Last-Event-ID` names no event of this session, or one that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownEvent;

/// A message to be put on a stream.
#[derive(Debug)]
pub(super) struct Event {
    pub frame: Spliced,
    pub class: Class,
}

/// What a reader takes.
#[derive(Debug)]
pub struct Item {
    /// The event's number on its stream.
    pub seq: u64,
    /// The message.
    pub frame: Spliced,
}

#[derive(Debug)]
struct Stored {
    seq: u64,
    event: Event,
    kept: bool,
}

#[derive(Debug, Default)]
struct Stream {
    standalone: bool,
    events: VecDeque<Stored>,
    last_seq: u64,
    taken: u64,
    reader: u64,
    attached: bool,
    finished: bool,
    pending: usize,
    waker: Option<Waker>,
    watcher: Option<Waker>,
}

/// All streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    max_events: usize,
    max_bytes: usize,
    last: u32,
    streams: HashMap<StreamId, Stream>,
    kept: VecDeque<(StreamId, u64)>,
    kept_bytes: usize,
    /// Standalone messages while nobody has opened a stream for them.
    backlog: VecDeque<Event>,
}

impl Streams {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Streams {
            max_events,
            max_bytes,
            last: 0,
            streams: HashMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            backlog: VecDeque::new(),
        }
    }

    /// A new stream, and its reader.
    pub(super) fn open(&mut self, standalone: bool) -> Attached {
        self.last += 1;
        let id = StreamId(self.last);
        let reader = 1;
        self.streams.insert(id, Stream { standalone, reader, attached: true, ..Stream::default() });
        if standalone {
            self.inherit(id);
        }
        Attached { stream: id, reader, after: 0 }
    }

    /// Moves what waits for a standalone stream to the new one, and closes the oldest above the bound.
    fn inherit(&mut self, heir: StreamId) {
        let mut others: Vec<_> = self
            .streams
            .iter()
            .filter(|(id, s)| s.standalone && **id != heir)
            .map(|(id, s)| (*id, s.attached))
            .collect();
        others.sort_unstable();
        let mut waiting: Vec<Event> = Vec::new();
        for &(id, _) in others.iter().filter(|(_, attached)| !attached) {
            let taken = self.streams[&id].taken;
            waiting.extend(self.remove(id).into_iter().filter(|s| s.seq > taken).map(|s| s.event));
        }
        waiting.extend(self.backlog.drain(..));
        for event in waiting {
            self.push(heir, event);
        }
        let attached: Vec<_> = others.into_iter().filter(|(_, attached)| *attached).collect();
        if let Some(excess) = (attached.len() + 1).checked_sub(STANDALONE_READERS) {
            for (id, _) in &attached[..excess] {
                self.finish(*id, None);
            }
        }
    }

    /// Takes a stream out, with what is stored of it.
    fn remove(&mut self, id: StreamId) -> VecDeque<Stored> {
        let Some(stream) = self.streams.remove(&id) else { return VecDeque::new() };
        let kept_bytes: usize = stream.events.iter().filter(|s| s.kept).map(|s| s.event.frame.len()).sum();
        self.kept_bytes -= kept_bytes;
        self.kept.retain(|(of, _)| *of != id);
        stream.events
    }

    pub(super) fn push(&mut self, id: StreamId, event: Event) {
        let max_pending = self.max_events.max(1);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.finished || stream.has_pending(&event) {
            return;
        }
        if stream.attached && event.class != Class::Dear && stream.pending >= max_pending {
            counters::DROPPED_EVENTS.increment();
            return;
        }
        stream.last_seq += 1;
        let seq = stream.last_seq;
        let bytes = event.frame.len();
        stream.events.push_back(Stored { seq, event, kept: !stream.attached });
        if stream.attached {
            stream.pending += 1;
            wake(&mut stream.waker);
        } else {
            self.keep(id, seq, bytes);
        }
    }

    /// The standalone stream for what is said now: the one opened last that is read, else that may be resumed.
    pub(super) fn newest_standalone(&self) -> Option<StreamId> {
        let open = self.streams.iter().filter(|(_, stream)| stream.standalone && !stream.finished);
        open.max_by_key(|(id, stream)| (stream.attached, **id)).map(|(id, _)| *id)
    }

    /// Puts a message on the standalone stream, or lets it wait for one; false when there is no room.
    pub(super) fn push_standalone(&mut self, event: Event) -> bool {
        let newest = |attached: bool| {
            let open =
                self.streams.iter().filter(|(_, s)| s.standalone && !s.finished && s.attached == attached);
            open.map(|(id, _)| *id).max()
        };
        if let Some(id) = newest(true).or_else(|| newest(false)) {
            self.push(id, event);
            return true;
        }
        if event.class == Class::Idempotent && self.backlog.iter().any(|waiting| waiting.frame == event.frame)
        {
            return true;
        }
        if self.backlog.len() >= self.max_events {
            counters::DROPPED_EVENTS.increment();
            return false;
        }
        self.backlog.push_back(event);
        true
    }

    pub(super) fn finish(&mut self, id: StreamId, last: Option<Event>) {
        if let Some(event) = last {
            self.push(id, event);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.finished = true;
        wake(&mut stream.waker);
        wake(&mut stream.watcher);
        self.sweep(id);
    }

    pub(super) fn finish_standalone(&mut self) {
        let open: Vec<_> = self.streams.iter().filter(|(_, s)| s.standalone).map(|(id, _)| *id).collect();
        for id in open {
            self.finish(id, None);
        }
    }

    /// A reader that starts after the event `after`.
    pub(super) fn attach(&mut self, id: StreamId, after: u64) -> Option<Attached> {
        let stream = self.streams.get_mut(&id).filter(|stream| after <= stream.last_seq)?;
        stream.reader += 1;
        stream.attached = true;
        wake(&mut stream.waker);
        Some(Attached { stream: id, reader: stream.reader, after })
    }

    fn detach(&mut self, attached: &Attached) {
        let id = attached.stream;
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.reader == attached.reader) else { return };
        stream.attached = false;
        stream.waker = None;
        stream.pending = 0;
        let unread: Vec<_> = stream
            .events
            .iter_mut()
            .filter(|s| !s.kept)
            .map(|s| {
                s.kept = true;
                (s.seq, s.event.frame.len())
            })
            .collect();
        for (seq, bytes) in unread {
            self.keep(id, seq, bytes);
        }
        self.sweep(id);
    }

    fn poll_next(&mut self, attached: &mut Attached, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let id = attached.stream;
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.reader == attached.reader) else {
            return Poll::Ready(None);
        };
        let Some(stored) = stream.after(attached.after) else {
            if stream.finished {
                return Poll::Ready(None);
            }
            set(&mut stream.waker, cx);
            return Poll::Pending;
        };
        let (seq, was_kept) = (stored.seq, std::mem::replace(&mut stored.kept, true));
        let item = Item { seq, frame: stored.event.frame.clone() };
        let bytes = item.frame.len();
        attached.after = seq;
        stream.taken = stream.taken.max(seq);
        if !was_kept {
            stream.pending -= 1;
            self.keep(id, seq, bytes);
        }
        Poll::Ready(Some(item))
    }

    pub(super) fn poll_finished(&mut self, id: StreamId, cx: &mut Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id) {
            Some(stream) if !stream.finished => {
                set(&mut stream.watcher, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn forget_kept(&mut self) {
        while self.forget_oldest() {}
    }

    /// Counts an event among the kept ones; the newest stays whatever its size.
    fn keep(&mut self, id: StreamId, seq: u64, bytes: usize) {
        self.kept.push_back((id, seq));
        self.kept_bytes += bytes;
        while self.kept.len() > 1 && (self.kept.len() > self.max_events || self.kept_bytes > self.max_bytes) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((id, seq)) = self.kept.pop_front() else { return false };
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(at) = stream.events.iter().position(|stored| stored.seq == seq)
            && let Some(stored) = stream.events.remove(at)
        {
            self.kept_bytes -= stored.event.frame.len();
            if seq > stream.taken {
                counters::DROPPED_EVENTS.increment();
            }
            self.sweep(id);
        }
        true
    }

    /// Forgets a stream that is over and of which nothing is kept.
    fn sweep(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| s.finished && !s.attached && s.events.is_empty()) {
            self.streams.remove(&id);
        }
    }
}

impl Stream {
    /// The first stored event after `seq`.
    fn after(&mut self, seq: u64) -> Option<&mut Stored> {
        let at = self.events.partition_point(|stored| stored.seq <= seq);
        self.events.get_mut(at)
    }

    fn has_pending(&self, event: &Event) -> bool {
        let pending = self.events.iter().rev().take_while(|stored| stored.seq > self.taken);
        event.class == Class::Idempotent
            && pending.into_iter().any(|stored| stored.event.frame == event.frame)
    }
}

/// A reader's place on a stream.
#[derive(Debug)]
pub(super) struct Attached {
    stream: StreamId,
    reader: u64,
    after: u64,
}

/// Follows one stream; dropping it leaves the stream to whoever resumes it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    attached: Attached,
}

impl Reader {
    pub(super) fn new(session: Arc<Session>, attached: Attached) -> Self {
        Reader { session, attached }
    }

    /// Whose stream it is.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Which stream it is.
    pub fn stream(&self) -> StreamId {
        self.attached.stream
    }

    /// The number of the event that was taken last.
    pub fn position(&self) -> u64 {
        self.attached.after
    }

    /// The next event; `None` once the stream has ended or another reader took it over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.session.state().streams.poll_next(&mut self.attached, cx)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.state().streams.detach(&self.attached);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn set(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}
