//! The task that reads a child's stdout: it cuts the bytes into frames, and passes them to a sink that never waits.

use crate::aside::Aside;
use crate::budget::{Account, Charge};
use crate::framing::{Framed, Framer, LARGE};
use bytes::BufMut;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Interval between ticks of the sink.
const TICK: Duration = Duration::from_secs(1);

/// Maximum number of bytes of one read.
const READ: usize = 64 * 1024;

/// Maximum time that a child's unfinished lines may wait for memory. Meanwhile no other bytes of the child are read.
const PATIENCE: Duration = Duration::from_secs(2);

/// While no line waits, one part in this many of the elapsed time is regained.
const REGAINED: u32 = 4;

/// The total time that lines may still wait for memory. Many short waits delay other messages as much as one long
/// wait.
#[derive(Debug)]
struct WaitAllowance {
    left: Duration,
    since: Instant,
}

impl WaitAllowance {
    fn new(now: Instant) -> Self {
        WaitAllowance { left: PATIENCE, since: now }
    }

    /// Returns the maximum duration of a wait that begins now.
    fn left(&mut self, now: Instant) -> Duration {
        self.left = PATIENCE.min(self.left + (now - self.since) / REGAINED);
        self.since = now;
        self.left
    }

    /// Subtracts a wait that ends now.
    fn note_waited(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(now - self.since);
        self.since = now;
    }
}

/// An event of the task.
enum Event {
    Cut,
    Tick,
    GiveUp,
    Read(io::Result<usize>),
}

/// An event on stdout.
#[derive(Debug)]
pub enum Heard {
    /// A frame, and the charge for its bytes.
    Frame(Framed, Charge),
    /// A last frame without a newline, and the charge for its bytes.
    Rest(Framed, Charge),
    /// A second has passed.
    Tick,
}

/// The account that a child's unfinished lines are charged to.
#[derive(Debug)]
pub struct Lines {
    /// The child's account.
    pub account: Account,
    /// Notified when the child has to give up its unfinished line.
    pub give_up: std::sync::Arc<Notify>,
}

impl Lines {
    /// Creates lines that are charged to `account`, and given up when it has to give way.
    pub fn of(account: Account) -> Self {
        let give_up = std::sync::Arc::new(Notify::new());
        let notified = std::sync::Arc::clone(&give_up);
        account.on_give_way(move || {
            notified.notify_one();
            true
        });
        Lines { account, give_up }
    }
}

/// Reads until EOF, or until `cut` is cancelled.
pub async fn read<R: AsyncRead + Unpin>(
    mut pipe: R,
    max_frame: usize,
    lines: Lines,
    cut: CancellationToken,
    mut sink: impl FnMut(Heard),
) {
    let mut framer = Framer::new(max_frame);
    let mut charge = lines.account.charge();
    let mut patience = WaitAllowance::new(Instant::now());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cut = pin!(cut.cancelled());
    let mut given_up = pin!(lines.give_up.notified());
    let mut aside = Aside::new(|cx| {
        if cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Cut);
        }
        if tick.poll_tick(cx).is_ready() {
            return Poll::Ready(Event::Tick);
        }
        given_up.as_mut().poll(cx).map(|()| {
            given_up.set(lines.give_up.notified());
            Event::GiveUp
        })
    });
    loop {
        // Short lines are held only briefly, in a buffer that every child has.
        if framer.held() > LARGE && !has_room(&mut charge, framer.held() + READ, &mut patience).await {
            framer.give_up();
            charge = lines.account.charge();
        }
        let mut room = framer.buffer().limit(READ);
        let mut read = pin!(pipe.read_buf(&mut room));
        let event = poll_fn(|cx| match aside.poll(cx) {
            Poll::Pending => read.as_mut().poll(cx).map(Event::Read),
            event => event,
        });
        match event.await {
            Event::Cut | Event::Read(Ok(0)) => break,
            Event::Tick => {
                sink(Heard::Tick);
                continue;
            }
            Event::GiveUp => {
                // A late notification does not concern the next line.
                if !charge.is_empty() {
                    framer.give_up();
                    charge = lines.account.charge();
                }
                continue;
            }
            Event::Read(Ok(_)) => {}
            Event::Read(Err(error)) => {
                tracing::warn!(%error, "cannot read the server's stdout");
                break;
            }
        }
        while let Some(framed) = framer.next() {
            sink(Heard::Frame(framed, std::mem::replace(&mut charge, lines.account.charge())));
        }
    }
    while let Some(framed) = framer.finish() {
        sink(Heard::Rest(framed, std::mem::replace(&mut charge, lines.account.charge())));
    }
}

/// Returns whether there is room for `bytes` of an unfinished line, now or after a short wait.
async fn has_room(charge: &mut Charge, bytes: usize, patience: &mut WaitAllowance) -> bool {
    if charge.try_cover(bytes) {
        return true;
    }
    let budget = charge.account().budget().clone();
    // Under lasting memory pressure, waiting would only delay the child's other messages.
    if budget.is_tight() {
        return false;
    }
    let has_room = timeout(patience.left(Instant::now()), charge.cover(bytes)).await.is_ok();
    patience.note_waited(Instant::now());
    if !has_room {
        budget.note_tight();
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_together_wait_no_longer_than_one() {
        let begun = Instant::now();
        let (mut patience, mut now) = (WaitAllowance::new(begun), begun);
        for _ in 0..10 {
            // Memory is released just in time.
            now += patience.left(now).min(PATIENCE * 9 / 10);
            patience.note_waited(now);
        }
        assert_eq!(now - begun, PATIENCE);
        now += PATIENCE;
        assert_eq!(patience.left(now), PATIENCE / REGAINED, "the allowance grows while no line waits");
        assert_eq!(patience.left(now + PATIENCE * 10), PATIENCE);
    }
}
