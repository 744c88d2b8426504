//! Reading a request's body: bounded in bytes, in time, and in what all bodies take together.

use super::Server;
use super::pace::Pace;
use super::reject::Rejection;
use crate::budget::{Budget, CHARGED_FROM, Charge};
use crate::jsonrpc::codes;
use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::time::{sleep_until, timeout, timeout_at};

/// How long a body may wait for room.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long, and how much of, a refused body is thrown away before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The whole body; its bytes count among `--max-buffered` as long as any of them is in use.
///
/// A body that says how long it is gets all of its room before any of it is read, so that none waits with a part of its
/// own for another's.
///
/// # Errors
/// 413 as soon as it is known to be too long; 408 when it comes too slowly, and sooner so while others wait for the
/// room that it takes; 503 when there is no room for it.
pub async fn read(server: &Server, mut body: Incoming) -> Result<Bytes, Rejection> {
    match receive(server, &mut body).await {
        Ok(whole) => Ok(whole),
        Err(rejection) => Err(refuse(body, rejection)),
    }
}

/// Lets a client that may still be sending read why it is refused.
pub fn refuse(body: Incoming, rejection: Rejection) -> Rejection {
    if !body.is_end_stream() {
        tokio::spawn(linger(body));
    }
    rejection
}

/// Whether it is certain, before any of it is read, that a body takes none of `--max-buffered`.
pub fn is_small(body: &Incoming) -> bool {
    body.size_hint().upper().is_some_and(|length| length < CHARGED_FROM as u64)
}

/// Returns whether a body is known to be at most this long.
pub fn is_at_most(body: &Incoming, bytes: u64) -> bool {
    body.size_hint().upper().is_some_and(|length| length <= bytes)
}

async fn receive(server: &Server, body: &mut Incoming) -> Result<Bytes, Rejection> {
    let limit = server.settings.max_body;
    let length = body.size_hint();
    if length.lower() > limit as u64 {
        return Err(Rejection::too_large(limit));
    }
    let mut charge = server.budget.open();
    // It is no longer than the limit, which is a usize.
    let length = length.exact().map_or(0, |length| length as usize);
    cover(&mut charge, length).await?;
    let mut pace = Pace::begin(Instant::now());
    let mut whole = Whole::default();
    loop {
        let chunk = match next(body, &mut pace, &charge).await? {
            None => return Ok(charge.hold(whole.into_bytes())),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => chunk,
                Err(_trailers) => continue,
            },
        };
        if whole.len() + chunk.len() > limit {
            return Err(Rejection::too_large(limit));
        }
        let brought = Instant::now();
        cover(&mut charge, whole.len() + chunk.len()).await?;
        let now = Instant::now();
        pace.waited(now - brought);
        pace.brought(chunk.len(), charge.bytes(), now);
        whole.push(chunk);
    }
}

/// Room for so many bytes of a body together.
async fn cover(charge: &mut Charge, bytes: usize) -> Result<(), Rejection> {
    if charge.try_cover(bytes) {
        return Ok(());
    }
    let covered = Box::pin(timeout(PATIENCE, charge.cover(bytes))).await;
    covered.map_err(|_| Rejection::busy("messages in transit take all of --max-buffered").closing())
}

/// What comes next of a body, which must not take too long.
async fn next(body: &mut Incoming, pace: &mut Pace, charge: &Charge) -> Result<Next, Rejection> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    if charge.is_empty() {
        let frame = timeout_at(pace.deadline().into(), frame).await;
        return frame.map_err(|_| too_slow("the body comes too slowly"));
    }
    Box::pin(next_while_others_may_wait(frame, pace, charge.budget())).await
}

type Next = Option<Result<Frame<Bytes>, hyper::Error>>;

async fn next_while_others_may_wait(
    frame: impl Future<Output = Next>,
    pace: &mut Pace,
    budget: &Budget,
) -> Result<Next, Rejection> {
    let mut frame = pin!(frame);
    loop {
        pace.awaited(budget.is_awaited(), Instant::now());
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
                pace.awaited(budget.is_awaited(), Instant::now());
                if pace.deadline() <= Instant::now() {
                    let why = "the body comes too slowly while others wait for the room that it takes";
                    return Err(too_slow(if was_awaited { why } else { "the body comes too slowly" }));
                }
            }
        }
    }
}

/// Throws the rest of a refused body away for a moment: closing a connection with unread bytes resets it, and the
/// client would lose the answer that says why.
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

/// A body that came in one piece, as nearly all do, is not copied.
#[derive(Default)]
struct Whole {
    first: Bytes,
    rest: BytesMut,
}

impl Whole {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, chunk: Bytes) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if !self.first.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&chunk);
    }

    /// Returns the text without the byte order mark that some platforms prepend (RFC 8259 §8.1).
    fn into_bytes(self) -> Bytes {
        let bytes = if self.rest.is_empty() { self.first } else { self.rest.freeze() };
        if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes }
    }
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
