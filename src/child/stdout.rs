//! The task that reads a child's stdout: bytes into frames, frames into a sink that never waits.

use crate::framing::{Framed, Framer};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the sink may look after what has become old.
const TICK: Duration = Duration::from_secs(1);

/// What happens on stdout.
#[derive(Debug)]
pub enum Heard {
    /// A frame.
    Frame(Framed),
    /// What stands at the end without a newline.
    Rest(Framed),
    /// A second has passed.
    Tick,
}

/// Reads until EOF or until `cut` is cancelled, whichever is first.
pub async fn read<R: AsyncRead + Unpin>(
    mut pipe: R,
    max_frame: usize,
    cut: CancellationToken,
    mut sink: impl FnMut(Heard),
) {
    let mut framer = Framer::new(max_frame);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let read = tokio::select! {
            biased;
            () = cut.cancelled() => break,
            _ = tick.tick() => {
                sink(Heard::Tick);
                continue;
            }
            read = pipe.read_buf(framer.buffer()) => read,
        };
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the server's stdout");
                break;
            }
        }
        while let Some(framed) = framer.next() {
            sink(Heard::Frame(framed));
        }
    }
    while let Some(framed) = framer.finish() {
        sink(Heard::Rest(framed));
    }
}
