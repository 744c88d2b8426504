//! The task that writes a child's stdin: whole frames, one per line, the urgent ones first.

use crate::exchange::{Intake, Mux, Order, Urgent};
use crate::jsonrpc::Spliced;
use bytes::BytesMut;
use std::io;
use std::os::fd::AsFd;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

/// Frames up to this size are gathered into one write.
const GATHERED: usize = 16 * 1024;
/// One write of gathered frames is at most about this long: a pipe's default capacity.
const BATCH: usize = 64 * 1024;

/// Writes until `close` is cancelled, nobody is left who could send anything, or the child has closed its end; then
/// stdin is closed. A frame that was begun is finished first, unless the child doesn't take it. If the child closed its
/// end, `mute` is cancelled before the first who has something to send is refused. Must be called within a tokio runtime.
///
/// # Errors
/// When the child has closed its end, at once even if there is nothing to write: what was written to it last may be
/// lost.
pub async fn write<W: AsyncWrite + AsFd + Unpin>(
    mut pipe: W,
    mut intake: Intake,
    mux: Mux,
    close: CancellationToken,
    mute: CancellationToken,
) -> io::Result<()> {
    let other_end = OtherEnd::of(&pipe)?;
    let mut batch = BytesMut::new();
    let writing = async {
        while let Some(message) = next(&mut intake).await {
            write_message(&mut pipe, &mut batch, &mux, message).await?;
            while batch.len() < BATCH
                && let Some(message) = ready(&mut intake)
            {
                write_message(&mut pipe, &mut batch, &mux, message).await?;
            }
            flush(&mut pipe, &mut batch).await?;
        }
        io::Result::Ok(())
    };
    let written = tokio::select! {
        biased;
        result = writing => result,
        () = close.cancelled() => Ok(()),
        closed = other_end.closed() => Err(closed),
    };
    if written.is_err() {
        mute.cancel();
    }
    written
}

/// Watches whether anybody still reads what is written.
struct OtherEnd(pipe::Sender);

impl OtherEnd {
    fn of(pipe: &impl AsFd) -> io::Result<Self> {
        Ok(OtherEnd(pipe::Sender::from_owned_fd(pipe.as_fd().try_clone_to_owned()?)?))
    }

    /// A pipe that nobody reads any more has an error (poll(2), POLLERR).
    async fn closed(&self) -> io::Error {
        match self.0.ready(Interest::ERROR).await {
            Ok(_) => io::ErrorKind::BrokenPipe.into(),
            Err(error) => error,
        }
    }
}

enum Message {
    Order(Order),
    Urgent(Urgent),
}

async fn next(intake: &mut Intake) -> Option<Message> {
    tokio::select! {
        biased;
        Some(urgent) = intake.urgent.recv() => Some(Message::Urgent(urgent)),
        Some(order) = intake.orders.recv() => Some(Message::Order(order)),
        else => None,
    }
}

fn ready(intake: &mut Intake) -> Option<Message> {
    let urgent = intake.urgent.try_recv().map(Message::Urgent);
    urgent.or_else(|_| intake.orders.try_recv().map(Message::Order)).ok()
}

async fn write_message<W: AsyncWrite + Unpin>(
    pipe: &mut W,
    batch: &mut BytesMut,
    mux: &Mux,
    message: Message,
) -> io::Result<()> {
    let frame = match message {
        // What was cancelled before its turn came is never begun.
        Message::Order(Order::Request { wire_id, frame }) if mux.mark_sent(wire_id) => frame,
        Message::Order(Order::Request { .. }) => return Ok(()),
        Message::Order(Order::Notification(frame)) | Message::Urgent(Urgent(frame)) => frame,
    };
    put(pipe, batch, frame).await
}

async fn put<W: AsyncWrite + Unpin>(pipe: &mut W, batch: &mut BytesMut, frame: Spliced) -> io::Result<()> {
    if frame.len() <= GATHERED {
        frame.segments().iter().for_each(|segment| batch.extend_from_slice(segment));
    } else {
        flush(pipe, batch).await?;
        for segment in frame.segments() {
            pipe.write_all(segment).await?;
        }
    }
    batch.extend_from_slice(b"\n");
    Ok(())
}

async fn flush<W: AsyncWrite + Unpin>(pipe: &mut W, batch: &mut BytesMut) -> io::Result<()> {
    pipe.write_all(batch).await?;
    batch.clear();
    pipe.flush().await
}
