//! Reads a request's body, bounded in bytes, in time, and in the memory of all bodies together.

use super::Server;
use super::deviation::Deviation;
use super::peers::{Pace, Persistence};
use super::reject::Rejection;
use crate::budget::{Account, Budget, Charge, Charged, OVERHEAD};
use crate::jsonrpc::{self, Defect, Fault, Kind, Message, Span, codes, text};
use crate::tasks;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::HeaderMap;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::time::{sleep_until, timeout, timeout_at};

/// Maximum time that a body waits for memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a body of unknown length may hold while it waits for more memory. A longer body gets the memory for
/// `--max-body` at once, so that no two bodies wait for each other.
const PART: usize = 256 * 1024;
/// Bytes up to which a body never waits long for memory.
const SMALL: usize = 4 * 1024;
/// Time for which a refused body is discarded before its connection is closed.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a refused body that are discarded.
const LINGER_BYTES: usize = 256 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A whole body, with its charge.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    charge: Charge,
}

impl Whole {
    /// Removes the byte order mark that some platforms prepend (RFC 8259 §8.1).
    fn remove_byte_order_mark(&mut self) {
        if self.bytes.starts_with(BYTE_ORDER_MARK) {
            self.bytes.drain(..BYTE_ORDER_MARK.len());
        }
    }

    /// Returns the bytes as received.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the body as one message on one line. Members that are null and have no meaning are removed.
    ///
    /// # Errors
    /// 400 when the body is not a valid message.
    pub fn into_message(mut self, headers: &HeaderMap) -> Result<(Charged, Message), Rejection> {
        let message = match jsonrpc::scan(&self.bytes) {
            Ok(message) => message,
            Err(fault) => {
                let refusal = Rejection::fault(fault.clone(), &self.bytes);
                let message = self.without_nulls(&fault).ok_or(refusal)?;
                Deviation::NullMembers.tolerate(headers);
                message
            }
        };
        check_spelling(&message, &self.bytes)?;
        if message.multiline {
            jsonrpc::break_no_lines(&mut self.bytes);
        }
        self.bytes.shrink_to_fit();
        Ok((self.charge.hold(self.bytes), message))
    }

    fn without_nulls(&mut self, fault: &Fault) -> Option<Message> {
        let (message, defect) = jsonrpc::mended(&mut self.bytes, fault)?;
        let method = || text(&self.bytes, message.method.as_ref()?).strip_prefix("notifications/").map(drop);
        // A request whose id is null could not be answered.
        let is_whole = message.kind != Kind::Notification || method().is_some();
        (defect == Defect::Nulls && is_whole).then_some(message)
    }

    /// Returns the body on one line, valid or not.
    pub fn into_frame(mut self) -> Charged {
        jsonrpc::break_no_lines(&mut self.bytes);
        self.bytes.shrink_to_fit();
        self.charge.hold(self.bytes)
    }
}

/// Checks that every server takes the members of a client's message for what they are.
///
/// # Errors
/// 400 when a member's name differs from a known one only in case, or by what follows a NUL.
pub fn check_spelling(message: &Message, frame: &[u8]) -> Result<(), Rejection> {
    let rejection = match message.lookalike {
        Some(name) => Rejection::invalid(format!(
            "some servers ignore the case of members: spell {name:?} exactly so, and give it once"
        )),
        None if names_end_early(message, frame) => {
            Rejection::invalid("a method, name, URI or id contains a NUL, where some servers would end it")
        }
        None => return Ok(()),
    };
    Err(match &message.id {
        Some(id) if message.kind == Kind::Request => rejection.of(&frame[id.clone()]),
        _ => rejection,
    })
}

/// Returns whether a name contains a NUL, which JSON has to escape.
fn names_end_early(message: &Message, frame: &[u8]) -> bool {
    let ends_early = |span: &Option<Span>| {
        let name = span.as_ref().map_or(&[][..], |span| &frame[span.clone()]);
        memchr::memchr(b'\\', name).is_some() && memchr::memmem::find(name, b"\\u0000").is_some()
    };
    ends_early(&message.method)
        || message.params.as_ref().is_some_and(|params| {
            [&params.name, &params.uri, &params.task_id, &params.request_id].into_iter().any(ends_early)
        })
}

/// Reads the whole body, whose bytes are charged to `account` as long as they are in use.
///
/// A body of known length gets all of its memory before it is read, so that no two bodies wait for each other.
///
/// # Errors
/// 413 as soon as the body is known to exceed `--max-body`; 408 when it arrives too slowly, which is stricter while
/// others wait for its memory; 503 when there is no memory for it, or proxyrunner is shutting down.
pub async fn read(
    server: &Server,
    mut body: Incoming,
    account: &Account,
    persistence: &Persistence,
) -> Result<Whole, Rejection> {
    match receive(server, &mut body, account, persistence).await {
        Ok(whole) => Ok(whole),
        Err(rejection) => Err(refuse(body, rejection)),
    }
}

/// Discards the rest of a body, so that a client that is still sending can read the refusal.
pub fn refuse(body: Incoming, rejection: Rejection) -> Rejection {
    if !body.is_end_stream() {
        tasks::spawn(linger(body));
    }
    rejection
}

/// Returns whether a body is known to be small.
pub fn is_small(body: &Incoming) -> bool {
    body.size_hint().upper().is_some_and(|length| length < SMALL as u64)
}

/// Returns whether a body is known to be at most this long.
pub fn is_at_most(body: &Incoming, bytes: u64) -> bool {
    body.size_hint().upper().is_some_and(|length| length <= bytes)
}

async fn receive(
    server: &Server,
    body: &mut Incoming,
    account: &Account,
    persistence: &Persistence,
) -> Result<Whole, Rejection> {
    let limit = server.settings.max_body;
    let length = body.size_hint();
    if length.lower() > limit as u64 {
        return Err(Rejection::too_large(limit));
    }
    // The limit is a usize, and the length does not exceed it.
    let length = length.exact().map_or(0, |length| length as usize);
    let mut whole = Whole { bytes: Vec::new(), charge: account.charge() };
    make_room(server, &mut whole, length, persistence).await?;
    // `None` until bytes are awaited.
    let mut pace = None;
    loop {
        if length > 0 && body.is_end_stream() && whole.bytes.len() == length {
            whole.remove_byte_order_mark();
            return Ok(whole);
        }
        let chunk = match next(server, body, &mut pace, &whole.charge).await? {
            // The connection ended before the body did.
            None if whole.bytes.len() < length => return Err(Rejection::invalid("the body is incomplete")),
            None => {
                whole.remove_byte_order_mark();
                return Ok(whole);
            }
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => chunk,
                Err(_trailers) => continue,
            },
        };
        let longer = whole.bytes.len() + chunk.len();
        if longer > limit {
            return Err(Rejection::too_large(limit));
        }
        let mut waited = Duration::ZERO;
        if longer > whole.bytes.capacity() {
            let doubled = longer.max(2 * whole.bytes.capacity());
            let wanted = if doubled > PART { limit } else { doubled.min(limit) };
            waited = make_room(server, &mut whole, wanted, persistence).await?;
        }
        if let Some(pace) = &mut pace {
            pace.extend(waited);
            pace.credit(chunk.len(), whole.charge.bytes(), Instant::now());
        }
        whole.bytes.extend_from_slice(&chunk);
    }
}

/// Reserves memory for `bytes` bytes of a body, after it is charged, and returns the time that it had to wait.
async fn make_room(
    server: &Server,
    whole: &mut Whole,
    bytes: usize,
    persistence: &Persistence,
) -> Result<Duration, Rejection> {
    let charged = bytes + OVERHEAD;
    let mut waited = Duration::ZERO;
    if !whole.charge.try_cover(charged) {
        let begun = Instant::now();
        let covering = async {
            let covered = timeout(PATIENCE, whole.charge.cover(charged)).await;
            covered.map_err(|_| Rejection::busy("--max-buffered is used up by messages in transit").closing())
        };
        Box::pin(persistence.while_connected(until_over(server, covering))).await?;
        waited = begun.elapsed();
    }
    let more = bytes - whole.bytes.len();
    whole.bytes.reserve_exact(more);
    Ok(waited)
}

/// Waits for a part of a body until proxyrunner ends.
async fn until_over<T>(
    server: &Server,
    waiting: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Rejection> {
    tokio::select! {
        biased;
        done = waiting => done,
        () = server.shutdown.over() => Err(Rejection::shutting_down().closing()),
    }
}

/// Returns the next frame of a body, which must arrive in time.
async fn next(
    server: &Server,
    body: &mut Incoming,
    pace: &mut Option<Pace>,
    charge: &Charge,
) -> Result<Next, Rejection> {
    if let Some(frame) = at_hand(body).await {
        return Ok(frame);
    }
    let pace = pace.get_or_insert_with(|| Pace::begin(Instant::now()));
    Box::pin(until_over(server, next_in_time(body, pace, charge))).await
}

/// Returns the next frame if it has arrived already. Most bodies arrive together with their head: hyper passes such a
/// body on as soon as it was asked for, when the connection is polled [again](super::again). Then neither a timer is
/// needed nor a registered waker, which would cause another poll.
async fn at_hand(body: &mut Incoming) -> Option<Next> {
    let mut has_asked = false;
    std::future::poll_fn(|cx| {
        match Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending if has_asked => Poll::Ready(None),
            Poll::Pending => {
                has_asked = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

async fn next_in_time(body: &mut Incoming, pace: &mut Pace, charge: &Charge) -> Result<Next, Rejection> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    if charge.bytes() < SMALL {
        let frame = timeout_at(pace.deadline().into(), frame).await;
        return frame.map_err(|_| too_slow("the body arrives too slowly"));
    }
    next_while_others_may_wait(frame, pace, charge.account().budget()).await
}

type Next = Option<Result<Frame<Bytes>, hyper::Error>>;

async fn next_while_others_may_wait(
    frame: impl Future<Output = Next>,
    pace: &mut Pace,
    budget: &Budget,
) -> Result<Next, Rejection> {
    let mut frame = pin!(frame);
    loop {
        pace.set_awaited(budget.is_awaited(), Instant::now());
        let begins = async {
            match pace.is_awaited() {
                true => std::future::pending().await,
                false => budget.awaited().await,
            }
        };
        tokio::select! {
            biased;
            frame = &mut frame => return Ok(frame),
            () = begins => {}
            () = sleep_until(pace.deadline().into()) => {
                let was_awaited = pace.is_awaited();
                pace.set_awaited(budget.is_awaited(), Instant::now());
                if pace.deadline() <= Instant::now() {
                    let why = "the body arrives too slowly while others wait for its memory";
                    return Err(too_slow(if was_awaited { why } else { "the body arrives too slowly" }));
                }
            }
        }
    }
}

/// Discards the rest of a refused body for a moment. Closing a connection with unread bytes resets it, and the client
/// would lose the refusal.
async fn linger(mut body: Incoming) {
    let discard = async {
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, Bytes::len),
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER, discard).await;
}

fn too_slow(message: &'static str) -> Rejection {
    Rejection::new(StatusCode::REQUEST_TIMEOUT, codes::INVALID_REQUEST, message).closing()
}

fn broken(error: &hyper::Error) -> Rejection {
    Rejection::new(
        StatusCode::BAD_REQUEST,
        codes::PARSE_ERROR,
        format!("the body could not be read: {error}"),
    )
    .closing()
}
