//! One connection that is in use: many commands are on their way, and their answers come in order.

use super::command::command;
use super::connect::shown;
use super::reply::Reply;
use super::wire::{self, Wire};
use crate::outbound::Duplex;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Maximum number of commands on their way.
pub(super) const MOST: usize = 1024;
/// Maximum number of commands that are taken at once.
const BATCH: usize = 64;
/// Interval between looks at a connection: one that is unused is tried.
const LOOK: Duration = Duration::from_secs(1);
/// Time without the oldest answer after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(2);

/// A command, and where its answer goes.
#[derive(Debug)]
pub(super) struct Order {
    pub bytes: Bytes,
    pub answer: oneshot::Sender<Reply>,
}

struct Waiting {
    /// `None`: nobody waits for it.
    answer: Option<oneshot::Sender<Reply>>,
    since: Instant,
}

/// The end of a connection.
#[derive(Debug)]
pub(super) struct Lost {
    /// The reason in words.
    pub why: String,
    /// Whether a command was answered before.
    pub was_of_use: bool,
}

/// Serves orders until the connection is of no use any more; returns `None` once there are no orders any more. Commands
/// whose answers have not come then have none.
pub(super) async fn serve(wire: Wire, orders: &mut mpsc::Receiver<Order>) -> Option<Lost> {
    let Wire { stream, mut read } = wire;
    let (mut reader, mut writer) = split(stream);
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let (mut out, mut is_pending) = (BytesMut::new(), false);
    let mut taken = Vec::with_capacity(BATCH);
    let mut was_of_use = false;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let lost = |why| Some(Lost { why, was_of_use });
        let failed = |error: io::Error| Some(Lost { why: error.to_string(), was_of_use });
        tokio::select! {
            count = reader.read_buf(&mut read) => match count {
                Ok(0) => return failed(wire::closed()),
                Ok(_) => {
                    if let Err(why) = distribute(&mut read, &mut waiting, &mut was_of_use) {
                        return Some(Lost { why, was_of_use });
                    }
                }
                Err(error) => return failed(error),
            },
            count = orders.recv_many(&mut taken, BATCH), if waiting.len() < MOST => {
                if count == 0 {
                    return None;
                }
                // Nobody waits any more for what was ordered long before the connection was opened.
                for Order { bytes, answer } in taken.drain(..).filter(|order| !order.answer.is_closed()) {
                    out.extend_from_slice(&bytes);
                    waiting.push_back(Waiting { answer: Some(answer), since: Instant::now() });
                    is_pending = true;
                }
            }
            sent = send(&mut writer, &mut out), if is_pending => match sent {
                Ok(()) => is_pending = false,
                Err(error) => return failed(error),
            },
            _ = look.tick() => match waiting.front() {
                Some(oldest) if oldest.since.elapsed() > SILENCE => {
                    return lost(format!("no answer within {} s", SILENCE.as_secs()));
                }
                Some(_) => {}
                None => {
                    out.extend_from_slice(&command(&[b"PING"]));
                    waiting.push_back(Waiting { answer: None, since: Instant::now() });
                    is_pending = true;
                }
            },
        }
    }
}

/// Sends what is to be sent. What has been sent is removed, also if the future is dropped.
async fn send(writer: &mut WriteHalf<Box<dyn Duplex>>, out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        if writer.write_buf(out).await? == 0 {
            return Err(wire::closed());
        }
    }
    writer.flush().await
}

/// Gives the replies that have come to those who wait.
fn distribute(
    read: &mut BytesMut,
    waiting: &mut VecDeque<Waiting>,
    was_of_use: &mut bool,
) -> Result<(), String> {
    while let Some(reply) = wire::next(read).map_err(|error| error.to_string())? {
        let Waiting { answer, .. } = waiting.pop_front().ok_or("it answered what it was not asked")?;
        let end = ends_connection(&reply);
        if let Some(answer) = answer {
            *was_of_use |= end.is_none();
            let _ = answer.send(reply);
        }
        if let Some(why) = end {
            return Err(why);
        }
    }
    Ok(())
}

/// Returns why a reply means that another connection may succeed: the server is a replica now, or the password has
/// changed.
pub(super) fn ends_connection(reply: &Reply) -> Option<String> {
    let Reply::Error(error) = reply else { return None };
    let code = reply.error_code().unwrap_or_default();
    let ends = ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS"].contains(&code);
    ends.then(|| shown(error))
}
