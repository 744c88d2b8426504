//! Reading a request's body: bounded in bytes, in time, and in what all bodies take together.

use super::Server;
use super::reject::Rejection;
use crate::jsonrpc::codes;
use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

/// How long a body may take, however short; and how far a longer one may fall behind.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a longer one must bring per second beyond that: below the slowest link worth serving.
const LEAST_RATE: f64 = 16.0 * 1024.0;
/// How long, and how much of, a refused body is thrown away before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// The whole body; its bytes count among `--max-buffered` as long as any of them is in use.
///
/// # Errors
/// 413 as soon as it is known to be too long; 408 when it comes too slowly; 503 when there is no room for it.
pub async fn read(server: &Server, mut body: Incoming) -> Result<Bytes, Rejection> {
    let limit = server.settings.max_body;
    if body.size_hint().lower() > limit as u64 {
        tokio::spawn(linger(body));
        return Err(Rejection::too_large(limit));
    }
    let mut deadline = Instant::now() + PATIENCE;
    let mut charge = server.budget.open();
    let mut whole = Whole::default();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let chunk = match timeout_at(deadline.into(), frame).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => return Ok(charge.hold(whole.into_bytes())),
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(chunk) => chunk,
                Err(_trailers) => continue,
            },
        };
        if whole.len() + chunk.len() > limit {
            tokio::spawn(linger(body));
            return Err(Rejection::too_large(limit));
        }
        let asked = Instant::now();
        if timeout(PATIENCE, charge.cover(whole.len() + chunk.len())).await.is_err() {
            return Err(Rejection::busy("messages in transit take all of --max-buffered").closing());
        }
        // The wait for room is not the client's slowness.
        deadline = later(deadline + asked.elapsed(), chunk.len(), Instant::now());
        whole.push(chunk);
    }
}

/// What was brought buys time, but never more than one is patient for: a body that came quickly at first must not
/// hold its part of `--max-buffered` for as long as it would have taken.
fn later(deadline: Instant, brought: usize, now: Instant) -> Instant {
    (deadline + Duration::from_secs_f64(brought as f64 / LEAST_RATE)).min(now + PATIENCE)
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

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

fn too_slow() -> Rejection {
    let message = "the body comes too slowly";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_fall_behind_but_not_for_long() {
        let start = Instant::now();
        let mut deadline = start + PATIENCE;
        deadline = later(deadline, 64 << 20, start);
        assert_eq!(deadline, start + PATIENCE, "a quick start buys no hour");
        for second in 1..=600 {
            let now = start + Duration::from_secs(second);
            assert!(now < deadline, "the least rate is enough");
            deadline = later(deadline, LEAST_RATE as usize, now);
        }
        let slow = later(deadline, 1, start + Duration::from_secs(601));
        assert!(slow < deadline + Duration::from_millis(1));
    }
}
