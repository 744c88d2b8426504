//! A session's streams of events: queues that a reader follows, and that keep events for a reader that resumes. They
//! use no clock and no I/O (`docs/architecture.md#no-clock`).
//!
//! 1. An event's id is `STREAM-SEQ`, unique in the session; a stream's events are numbered upwards from 1.
//! 2. A stream has at most one reader. A new reader takes the stream over, and the earlier reader ends.
//! 3. An event is *pending* while an attached reader has yet to take it, else it is *kept*. Kept events are limited
//!    in number and bytes over the whole session, and dropped in the order of their [`Worth`]. Pending events are
//!    limited by their [`Class`](crate::exchange::Class). `--max-buffered` limits the bytes of both. A stream is
//!    opened with its reader, so that no event is lost before the reader begins.
//! 4. Each message is on exactly one stream (2025-11-25, transports §Multiple Connections). Messages that belong to
//!    no request go to the standalone stream that was opened last. Events on a standalone stream without a reader
//!    move to the next one that is opened.

use super::event_id::StreamId;
use super::kept::{Kept, KeptEvent, Since, Worth};
use crate::exchange::Class;
use crate::jsonrpc::Spliced;
use crate::sorted::sorted;
use crate::telemetry::counters;
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

/// Limit on the standalone streams that one session reads at once; another one ends the oldest.
const STANDALONE_READERS: usize = 8;

/// `Last-Event-ID` names no event of this session, or a stream of which nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownEvent;

/// A message to be put on a stream.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub frame: Spliced,
    pub class: Class,
}

/// An event as a reader takes it.
#[derive(Debug)]
pub struct Item {
    /// The event's number on its stream.
    pub seq: u64,
    /// The message.
    pub frame: Spliced,
}

/// A reader's hold on a stream.
#[derive(Debug)]
pub(super) struct Attached {
    pub stream: StreamId,
    /// The event after which the reader began.
    pub after: u64,
    reader: u64,
}

#[derive(Debug)]
struct Stored {
    seq: u64,
    event: StreamEvent,
}

#[derive(Debug, Default)]
struct Stream {
    standalone: bool,
    events: VecDeque<Stored>,
    last_seq: u64,
    /// The newest event that any reader has taken.
    taken: u64,
    /// The newest event that the attached reader has taken.
    cursor: u64,
    attached: bool,
    readers: u64,
    finished: bool,
    waker: Option<Waker>,
}

/// All streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    max_pending: usize,
    last: u32,
    streams: HashMap<StreamId, Stream>,
    kept: Kept,
}

impl Streams {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Streams {
            max_pending: max_events.max(1),
            last: 0,
            streams: HashMap::new(),
            kept: Kept::new(max_events, max_bytes),
        }
    }

    /// Gives streams numbers that those of a former owner of the session have not had, unless they were millions.
    #[cfg(feature = "gateway")]
    pub(super) fn number_from(&mut self, epoch: u64) {
        self.last = (epoch as u32 & 0xff) << 24;
    }

    /// Opens the stream of a request with its reader.
    pub(super) fn open(&mut self) -> Attached {
        let stream = self.insert(Stream { attached: true, readers: 1, ..Stream::default() });
        Attached { stream, after: 0, reader: 1 }
    }

    /// Opens a standalone stream with its reader, and moves the events that wait for one to it. Ends the oldest
    /// standalone streams above the limit.
    pub(super) fn open_standalone(&mut self) -> Attached {
        let others: Vec<_> =
            self.streams.iter().filter(|(_, s)| s.standalone).map(|(id, s)| (*id, s.attached)).collect();
        let others = sorted(others);
        let stream =
            self.insert(Stream { standalone: true, attached: true, readers: 1, ..Stream::default() });
        for &(id, _) in others.iter().filter(|(_, attached)| !attached) {
            for event in self.remove(id) {
                self.push(stream, event);
            }
        }
        let attached = others.iter().filter(|(_, attached)| *attached);
        let excess = (attached.clone().count() + 1).saturating_sub(STANDALONE_READERS);
        for (id, _) in attached.take(excess) {
            self.finish(*id, None);
        }
        Attached { stream, after: 0, reader: 1 }
    }

    fn insert(&mut self, stream: Stream) -> StreamId {
        self.last += 1;
        let id = StreamId::numbered(self.last);
        self.streams.insert(id, stream);
        id
    }

    /// Removes a stream without a reader, and returns the events that no reader has taken.
    fn remove(&mut self, id: StreamId) -> impl Iterator<Item = StreamEvent> + use<> {
        self.kept.retain(|place| place.stream != id);
        let Stream { events, taken, .. } = self.streams.remove(&id).unwrap_or_default();
        events.into_iter().filter(move |stored| stored.seq > taken).map(|stored| stored.event)
    }

    pub(super) fn push(&mut self, id: StreamId, event: StreamEvent) {
        if event.class == Class::Idempotent {
            self.withdraw_equal(id, &event);
        }
        let stream = self.streams.get_mut(&id).filter(|stream| {
            let has_room = event.class == Class::Dear || stream.pending() < self.max_pending;
            !stream.finished && has_room
        });
        let Some(stream) = stream else { return counters::DROPPED_EVENTS.increment() };
        stream.last_seq += 1;
        let (seq, class, bytes) = (stream.last_seq, event.class, event.frame.len());
        stream.events.push_back(Stored { seq, event });
        if stream.attached {
            wake(&mut stream.waker);
        } else {
            self.keep(KeptEvent { stream: id, seq, bytes }, Worth::of(class, false));
        }
    }

    /// Removes an event that no reader has taken and that `event` repeats. The new event goes last: of the states A,
    /// B, A, the client must end with A.
    fn withdraw_equal(&mut self, id: StreamId, event: &StreamEvent) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let untaken = stream.index_after(stream.taken);
        let equal =
            |stored: &Stored| stored.event.class == Class::Idempotent && stored.event.frame == event.frame;
        if let Some(at) = stream.events.range(untaken..).position(equal)
            && let Some(Stored { seq, .. }) = stream.events.remove(untaken + at)
        {
            self.kept.retain(|place| (place.stream, place.seq) != (id, seq));
        }
    }

    /// Returns the standalone stream for new messages: the newest one with a reader, else the newest that may be
    /// resumed.
    pub(super) fn newest_standalone(&self) -> Option<StreamId> {
        let open = self.streams.iter().filter(|(_, stream)| stream.standalone && !stream.finished);
        open.max_by_key(|(id, stream)| (stream.attached, **id)).map(|(id, _)| *id)
    }

    /// Puts a message on the standalone stream. Without one, the message waits for the next that is opened.
    pub(super) fn push_standalone(&mut self, event: StreamEvent) {
        let newest = self.newest_standalone();
        let id = newest.unwrap_or_else(|| self.insert(Stream { standalone: true, ..Stream::default() }));
        self.push(id, event);
    }

    pub(super) fn finish(&mut self, id: StreamId, last: Option<StreamEvent>) {
        if let Some(event) = last {
            self.push(id, event);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.finished = true;
        wake(&mut stream.waker);
        self.sweep(id);
    }

    pub(super) fn finish_standalone(&mut self) {
        let open: Vec<_> = self.streams.iter().filter(|(_, s)| s.standalone).map(|(id, _)| *id).collect();
        for id in open {
            self.finish(id, None);
        }
    }

    /// Attaches a reader that starts after the event `after`. The stored events after it become pending, so that they
    /// are not dropped while they are read.
    pub(super) fn attach(&mut self, id: StreamId, after: u64) -> Option<Attached> {
        let stream = self.streams.get_mut(&id).filter(|stream| after <= stream.last_seq)?;
        wake(&mut stream.waker);
        stream.readers += 1;
        let reader = stream.readers;
        let skipped = if stream.attached { stream.to_keep(id, stream.cursor, after) } else { Vec::new() };
        stream.attached = true;
        stream.cursor = after;
        self.kept.retain(|place| place.stream != id || place.seq <= after);
        for (place, worth) in skipped {
            self.keep(place, worth);
        }
        Some(Attached { stream: id, after, reader })
    }

    /// Ends the readers with pending events, and keeps the events for a reader that resumes; returns false if there
    /// is no such reader.
    pub(super) fn end_slow_readers(&mut self) -> bool {
        let slow = self.streams.iter().filter(|(_, stream)| stream.attached && stream.pending() > 0);
        let slow: Vec<_> = slow.map(|(&id, _)| id).collect();
        for &id in &slow {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            wake(&mut stream.waker);
            // The effect is that of another reader that took the stream over and left.
            stream.readers += 1;
            stream.attached = false;
            for (place, worth) in stream.to_keep(id, stream.cursor, u64::MAX) {
                self.keep(place, worth);
            }
        }
        !slow.is_empty()
    }

    /// Drops a stream that still has a reader.
    pub(super) fn discard(&mut self, attached: &Attached) {
        if self.held(attached).is_some() {
            self.kept.retain(|place| place.stream != attached.stream);
            self.streams.remove(&attached.stream);
        }
    }

    pub(super) fn detach(&mut self, attached: &Attached) {
        let id = attached.stream;
        let Some(stream) = self.held(attached) else { return };
        stream.attached = false;
        stream.waker = None;
        for (place, worth) in stream.to_keep(id, stream.cursor, u64::MAX) {
            self.keep(place, worth);
        }
        self.sweep(id);
    }

    pub(super) fn poll_next(&mut self, attached: &Attached, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let Some(stream) = self.held(attached) else { return Poll::Ready(None) };
        let Some(stored) = stream.events.get(stream.index_after(stream.cursor)) else {
            if stream.finished {
                return Poll::Ready(None);
            }
            set_waker(&mut stream.waker, cx);
            return Poll::Pending;
        };
        let Stored { seq, event } = stored;
        let item = Item { seq: *seq, frame: event.frame.clone() };
        let worth = Worth::of(event.class, true);
        stream.cursor = item.seq;
        stream.taken = stream.taken.max(item.seq);
        self.keep(KeptEvent { stream: attached.stream, seq: item.seq, bytes: item.frame.len() }, worth);
        Poll::Ready(Some(item))
    }

    pub(super) fn is_over(&self, attached: &Attached) -> bool {
        let over =
            |stream: &Stream| stream.finished && stream.index_after(stream.cursor) == stream.events.len();
        let stream = self.streams.get(&attached.stream);
        stream.filter(|stream| stream.readers == attached.reader).is_none_or(over)
    }

    /// Returns the stream, unless another reader took it over or it is gone.
    fn held(&mut self, attached: &Attached) -> Option<&mut Stream> {
        self.streams.get_mut(&attached.stream).filter(|stream| stream.readers == attached.reader)
    }

    /// Returns whether a question or an answer waits for a reader.
    pub(super) fn owes(&self) -> bool {
        self.kept.oldest(Worth::Owed).is_some()
    }

    /// Drops the kept events that are not owed to the client.
    pub(super) fn forget_delivered(&mut self) {
        while let Some(place) = self.kept.pop(Worth::Seen) {
            self.drop_event(place);
        }
    }

    /// Returns the age of the oldest event that is owed to a client that left.
    pub(super) fn oldest_owed(&self) -> Option<Since> {
        self.kept.oldest(Worth::Owed)
    }

    /// Drops the oldest event that is owed to a client that left.
    pub(super) fn forget_oldest_owed(&mut self) {
        if let Some(place) = self.kept.pop_oldest(Worth::Owed) {
            self.drop_event(place);
        }
    }

    fn keep(&mut self, place: KeptEvent, worth: Worth) {
        self.kept.put(place, worth);
        while let Some(place) = self.kept.pop_excess() {
            self.drop_event(place);
        }
    }

    fn drop_event(&mut self, KeptEvent { stream: id, seq, .. }: KeptEvent) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Ok(at) = stream.events.binary_search_by_key(&seq, |stored| stored.seq) {
            stream.events.remove(at);
        }
        if seq > stream.taken {
            counters::DROPPED_EVENTS.increment();
        }
        self.sweep(id);
    }

    /// Removes a stream that has ended and of which nothing is kept.
    fn sweep(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| s.finished && !s.attached && s.events.is_empty()) {
            self.streams.remove(&id);
        }
    }
}

impl Stream {
    /// Returns the index of the first stored event after `seq`.
    fn index_after(&self, seq: u64) -> usize {
        self.events.partition_point(|stored| stored.seq <= seq)
    }

    /// Returns the number of events that the attached reader has yet to take.
    fn pending(&self) -> usize {
        if self.attached { self.events.len() - self.index_after(self.cursor) } else { 0 }
    }

    /// Returns the events after `after` up to `until`, in the form in which they are kept.
    fn to_keep(&self, id: StreamId, after: u64, until: u64) -> Vec<(KeptEvent, Worth)> {
        let (from, to) = (self.index_after(after), self.index_after(until));
        let events = self.events.range(from..to.max(from));
        let place = |Stored { seq, event }: &Stored| {
            let worth = Worth::of(event.class, *seq <= self.taken);
            (KeptEvent { stream: id, seq: *seq, bytes: event.frame.len() }, worth)
        };
        events.map(place).collect()
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}
