//! The floor's pipe to its child: ids are exchanged for unique integers and back, and nothing else is looked at.

use super::scan::{self, Found, Span};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::io::IoSlice;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, mpsc, oneshot};

/// Size up to which copying is cheaper than passing on a slice.
pub const SMALL: usize = 4096;
/// Number of slices per write.
const SLICES: usize = 64;
/// Free space for each read.
const READ: usize = 256 * 1024;

/// Where the child's messages for a request go.
pub enum Receiver {
    /// The response only.
    Response(oneshot::Sender<Vec<Bytes>>),
    /// Progress notifications, too, each as an event; ends after the response.
    Events(mpsc::UnboundedSender<Bytes>),
}

/// A request that the child has not answered.
struct Waiting {
    wire: u64,
    id: Bytes,
    token: Option<Bytes>,
    receiver: Receiver,
}

#[derive(Default)]
struct State {
    /// Slices to be written, the last one excepted.
    pending: Vec<Bytes>,
    /// The last slice, to which small messages are copied.
    tail: BytesMut,
    waiting: Vec<Option<Waiting>>,
    free: Vec<usize>,
    turn: u64,
}

/// The pipe to the child.
pub struct Pipe {
    state: Mutex<State>,
    wake: Notify,
}

impl Pipe {
    /// Starts the child. The process ends when the child does.
    pub fn start(command: &[String]) -> Arc<Pipe> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let pipe = Arc::new(Pipe { state: Mutex::default(), wake: Notify::new() });
        tokio::spawn(Arc::clone(&pipe).write(input));
        tokio::spawn(Arc::clone(&pipe).read(output, child));
        pipe
    }

    /// Queues a request. Its id is replaced, and its progress token if it has one.
    pub fn request(&self, body: &Bytes, found: &Found, receiver: Receiver) {
        let id = found.id.clone().expect("a request has an id");
        let mut state = self.state.lock();
        state.turn += 1;
        let slot = state.free.pop().unwrap_or(state.waiting.len());
        let wire = state.turn << 16 | slot as u64;
        let events = matches!(receiver, Receiver::Events(_));
        let token = found.token.clone().filter(|_| events);
        let waiting = Some(Waiting {
            wire,
            id: body.slice(id.clone()),
            token: token.clone().map(|span| body.slice(span)),
            receiver,
        });
        match state.waiting.get_mut(slot) {
            Some(place) => *place = waiting,
            None => state.waiting.push(waiting),
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(wire).as_bytes();
        let (first, second) = match token {
            Some(token) if token.start < id.start => (token, Some(id)),
            token => (id, token),
        };
        let mut at = 0;
        for span in std::iter::once(first).chain(second) {
            state.push(body, at..span.start);
            state.tail.extend_from_slice(digits);
            at = span.end;
        }
        state.push(body, at..body.len());
        state.tail.extend_from_slice(b"\n");
        drop(state);
        self.wake.notify_one();
    }

    /// Queues a notification.
    pub fn notify(&self, body: &Bytes) {
        let mut state = self.state.lock();
        state.push(body, 0..body.len());
        state.tail.extend_from_slice(b"\n");
        drop(state);
        self.wake.notify_one();
    }

    /// Writes all that is queued at once, again and again.
    async fn write(self: Arc<Self>, mut input: ChildStdin) {
        loop {
            let chunks = self.state.lock().take();
            if chunks.is_empty() {
                self.wake.notified().await;
            } else {
                write_all(&mut input, chunks).await;
            }
        }
    }

    async fn read(self: Arc<Self>, mut output: ChildStdout, _child: Child) {
        let mut buffer = BytesMut::new();
        let mut seen = 0;
        loop {
            buffer.reserve(READ);
            if output.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                eprintln!("the child has ended");
                std::process::exit(1);
            }
            while let Some(length) = memchr::memchr(b'\n', &buffer[seen..]) {
                let mut line = buffer.split_to(seen + length + 1);
                line.truncate(seen + length);
                seen = 0;
                self.deliver(line.freeze());
            }
            seen = buffer.len();
        }
    }

    /// Passes on a message of the child.
    fn deliver(&self, line: Bytes) {
        match scan::id(&line) {
            Some(id) => {
                let wire = scan::number(&line, Some(id.clone())).expect("an id of the floor");
                let mut state = self.state.lock();
                let slot = (wire & 0xffff) as usize;
                let waiting = state.waiting[slot].take_if(|waiting| waiting.wire == wire).expect("a request");
                state.free.push(slot);
                drop(state);
                match waiting.receiver {
                    Receiver::Response(sender) => drop(sender.send(replaced(&line, id, &waiting.id))),
                    Receiver::Events(sender) => drop(sender.send(event(&line, id, &waiting.id))),
                }
            }
            None => self.deliver_progress(&line),
        }
    }

    fn deliver_progress(&self, line: &Bytes) {
        let span = scan::scan(line).and_then(|found| found.token).expect("a token");
        let wire = scan::number(line, Some(span.clone())).expect("a token of the floor");
        let state = self.state.lock();
        let waiting = state.waiting[(wire & 0xffff) as usize].as_ref();
        let waiting = waiting.filter(|waiting| waiting.wire == wire).expect("a request");
        if let (Receiver::Events(sender), Some(token)) = (&waiting.receiver, &waiting.token) {
            let _ = sender.send(event(line, span, token));
        }
    }
}

impl State {
    /// Appends a part of a message.
    fn push(&mut self, body: &Bytes, span: Span) {
        if span.len() <= SMALL {
            return self.tail.extend_from_slice(&body[span]);
        }
        if !self.tail.is_empty() {
            self.pending.push(self.tail.split().freeze());
        }
        self.pending.push(body.slice(span));
    }

    fn take(&mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.pending.push(self.tail.split().freeze());
        }
        std::mem::take(&mut self.pending)
    }
}

async fn write_all(input: &mut ChildStdin, mut chunks: Vec<Bytes>) {
    let mut next = 0;
    while next < chunks.len() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = SLICES.min(chunks.len() - next);
        for (slice, chunk) in slices.iter_mut().zip(&chunks[next..]) {
            *slice = IoSlice::new(chunk);
        }
        let mut written = input.write_vectored(&slices[..count]).await.expect("the child's stdin");
        while next < chunks.len() && written >= chunks[next].len() {
            written -= chunks[next].len();
            next += 1;
        }
        if written > 0 {
            chunks[next] = chunks[next].slice(written..);
        }
    }
}

/// Returns the message with other text at `span`, in one piece or, if it is large, in three.
fn replaced(line: &Bytes, span: Span, text: &Bytes) -> Vec<Bytes> {
    if line.len() > SMALL {
        return vec![line.slice(..span.start), text.clone(), line.slice(span.end..)];
    }
    vec![[&line[..span.start], &text[..], &line[span.end..]].concat().into()]
}

/// Returns the message as an event, with other text at `span`.
fn event(line: &Bytes, span: Span, text: &Bytes) -> Bytes {
    [b"event: message\ndata: ", &line[..span.start], &text[..], &line[span.end..], b"\n\n"].concat().into()
}
