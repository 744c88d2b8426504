//! Runs arbitrary sequences of operations on a session's streams.
//!
//! A connected reader gets every `Dear` event once and in order, the id of an event is never reused, the replay buffer
//! stays within its bounds, and every event can be parsed from its SSE bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::budget::{Budget, Charged};
use proxyrunner::internals::client::Client;
use proxyrunner::internals::exchange::Class;
use proxyrunner::internals::sse;
use proxyrunner::internals::jsonrpc::{self, Spliced, rewrite};
use proxyrunner::internals::session::{Directory, Principal, Reader, Session, Settings, StreamId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const EVENTS: usize = 5;
const BYTES: usize = 40_000;

/// A client's connection and the messages that it must receive.
struct Connection {
    reader: Reader,
    last_seq: u64,
    due: VecDeque<u64>,
    /// Whether a later connection took over the stream.
    over: bool,
}

struct World {
    session: Arc<Session>,
    connections: Vec<Connection>,
    streams: Vec<StreamId>,
    standalone: HashSet<StreamId>,
    finished: HashSet<StreamId>,
    /// The message number that each event id had when it was first seen.
    seen: HashMap<(StreamId, u64), u64>,
    said: u64,
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            idle: Duration::MAX,
            max_age: Duration::MAX,
            max_sessions: 1,
            evict_after: Duration::from_secs(60),
            replay_events: EVENTS,
            replay_bytes: BYTES,
        };
        let directory = Directory::new(settings);
        let account = Budget::new(1 << 30).account(Client::at(None));
        let session =
            directory.open(Principal::anonymous(), None, account, Instant::now()).expect("there is a place");
        World {
            session,
            connections: Vec::new(),
            streams: Vec::new(),
            standalone: HashSet::new(),
            finished: HashSet::new(),
            seen: HashMap::new(),
            said: 0,
        }
    }

    /// Creates a unique message whose id is its number.
    fn message(&mut self, long: bool) -> Spliced {
        self.said += 1;
        let pad = "x".repeat(if long { 17_000 } else { 10 });
        let json = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"x","params":{{"pad":"{pad}"}}}}"#);
        let frame = Charged::own(json);
        let message = jsonrpc::scan(&frame).expect("it is a message");
        rewrite::with_id(&frame, &message, self.said.to_string().as_bytes())
    }

    fn opened(&mut self, reader: Reader) {
        self.streams.push(reader.stream());
        self.connections.push(Connection { reader, last_seq: 0, due: VecDeque::new(), over: false });
    }

    /// Records that the reader of a stream must receive the `Dear` event that was just added to the stream.
    fn owe(&mut self, stream: StreamId) {
        let on_it = |c: &&mut Connection| !c.over && c.reader.stream() == stream;
        if let Some(connection) = self.connections.iter_mut().find(on_it) {
            connection.due.push_back(self.said);
        }
    }

    fn push(&mut self, stream: StreamId, class: Class, long: bool) {
        let message = self.message(long);
        self.session.push(stream, message, class);
        if class == Class::Dear && !self.finished.contains(&stream) {
            self.owe(stream);
        }
    }

    fn finish(&mut self, stream: StreamId) {
        self.session.finish(stream, None);
        self.finished.insert(stream);
    }

    fn notify(&mut self, class: Class, long: bool) {
        let message = self.message(long);
        let stream = self.session.newest_standalone();
        self.session.notify(message, class);
        if let (Class::Dear, Some(stream)) = (class, stream) {
            self.owe(stream);
        }
    }

    /// Reads up to `most` events and returns whether the stream has ended.
    fn read(&mut self, at: usize, most: usize) -> bool {
        let World { connections, seen, .. } = self;
        let connection = &mut connections[at];
        for _ in 0..most {
            let item = match connection.reader.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(item)) => item,
                Poll::Ready(None) => {
                    assert!(connection.over || connection.due.is_empty(), "ended before all was said");
                    return true;
                }
                Poll::Pending => {
                    assert!(connection.due.is_empty(), "nothing comes, but {:?} is due", connection.due);
                    return false;
                }
            };
            assert!(!connection.over, "taken over");
            let stream = connection.reader.stream();
            let number = parsed_back(&stream.event_id(item.seq), &item.frame);
            assert!(item.seq > connection.last_seq, "ids go up");
            connection.last_seq = item.seq;
            assert_eq!(*seen.entry((stream, item.seq)).or_insert(number), number);
            if connection.due.front() == Some(&number) {
                connection.due.pop_front();
            }
            assert!(!connection.due.contains(&number), "{number} overtook {:?}", connection.due);
        }
        false
    }

    fn resume(&mut self, stream: StreamId, seq: u64) {
        let Ok(reader) = self.session.resume(&stream.event_id(seq)) else { return };
        for earlier in self.connections.iter_mut().filter(|c| c.reader.stream() == stream) {
            earlier.over = true;
        }
        self.connections.push(Connection { reader, last_seq: seq, due: VecDeque::new(), over: false });
    }

    /// Breaks all connections and checks that the events left for resuming are within the bounds of the replay buffer.
    fn end(mut self) {
        for at in 0..self.connections.len() {
            self.read(at, usize::MAX);
        }
        self.connections.clear();
        let (mut events, mut bytes) = (0, 0);
        for stream in &self.streams {
            let Ok(mut reader) = self.session.resume(&stream.event_id(0)) else { continue };
            while let Poll::Ready(Some(item)) = reader.poll_next(&mut Context::from_waker(Waker::noop())) {
                events += 1;
                bytes += item.frame.len();
            }
        }
        assert!(events <= 1 || (events <= EVENTS && bytes <= BYTES), "{events} events, {bytes} bytes");
    }
}

/// Returns the number of a message, parsed from the SSE bytes of its event.
fn parsed_back(id: &str, message: &Spliced) -> u64 {
    let mut out = VecDeque::new();
    sse::encode(Some(id), message, &mut out);
    let bytes: Vec<u8> = out.iter().flat_map(|piece| piece.iter()).copied().collect();
    let text = std::str::from_utf8(&bytes).expect("SSE is UTF-8");
    let (mut fields, mut events) = (HashMap::<&str, Vec<&str>>::new(), Vec::new());
    for line in text.strip_suffix('\n').expect("the last line ends").split('\n') {
        match line.split_once(": ") {
            Some((field, value)) => fields.entry(field).or_default().push(value),
            None => {
                assert_eq!(line, "");
                events.push(std::mem::take(&mut fields));
            }
        }
    }
    assert!(fields.is_empty(), "a blank line ends the event");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"], ["message"]);
    assert_eq!(events[0]["id"], [id]);
    assert_eq!(events[0]["data"].len(), 1);
    let data = events[0]["data"][0].as_bytes();
    assert_eq!(data, &message.clone().to_vec()[..]);
    let message = jsonrpc::scan(data).expect("the data is the message");
    jsonrpc::integer(&data[message.id.expect("it has one")]).expect("a number")
}

fuzz_target!(|operations: &[u8]| {
    let mut world = World::new();
    for operation in operations.chunks_exact(2).take(200) {
        let (verb, argument) = (operation[0], operation[1]);
        let class = [Class::Droppable, Class::Idempotent, Class::Dear][usize::from(argument >> 4) % 3];
        let long = argument >= 0xf0;
        let last = |known: usize| known.checked_sub(1 + usize::from(argument & 0xf) % known.max(1));
        let stream = last(world.streams.len()).map(|at| world.streams[at]);
        let connection = last(world.connections.len());
        match (verb % 12, stream, connection) {
            (0, ..) => {
                let reader = world.session.open_stream();
                world.opened(reader);
            }
            (1, ..) => {
                let reader = world.session.open_standalone();
                world.standalone.insert(reader.stream());
                world.opened(reader);
            }
            (2, ..) => world.notify(class, long),
            (3, ..) if argument < 8 => world.session.forget_oldest_owed(),
            (3, ..) => world.session.forget_delivered(),
            (4..=6, Some(stream), _) if !world.standalone.contains(&stream) => {
                world.push(stream, class, long)
            }
            (7 | 8, _, Some(at)) => {
                world.read(at, usize::from(argument >> 4));
            }
            (9, _, Some(at)) => drop(world.connections.remove(at)),
            (10, Some(stream), _) => {
                let seen = world.seen.keys().filter(|(of, _)| *of == stream).map(|(_, seq)| *seq).max();
                world.resume(stream, seen.unwrap_or(0).saturating_sub(u64::from(argument >> 6)));
            }
            (11, Some(stream), _) => world.finish(stream),
            _ => {}
        }
    }
    world.end();
});
