//! The task that writes a child's stdin: whole frames, one per line, the urgent ones first.

use crate::exchange::{Intake, Mux, Order, Uptake, Urgent};
use crate::jsonrpc::Spliced;
use bytes::BytesMut;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
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
    pipe: W,
    mut intake: Intake,
    mux: Mux,
    close: CancellationToken,
    mute: CancellationToken,
) -> io::Result<()> {
    let other_end = OtherEnd::of(&pipe)?;
    let mut writer = Writer { pipe, batch: BytesMut::new(), mux, uptake: Arc::clone(&intake.uptake) };
    let intake_over = Arc::clone(&intake.uptake);
    let writing = async {
        while let Some(message) = next(&mut intake).await {
            writer.put_message(message).await?;
            while writer.batch.len() < BATCH
                && let Some(message) = ready(&mut intake)
            {
                writer.put_message(message).await?;
            }
            writer.flush().await?;
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
    intake_over.note_read(other_end.has_read_all());
    written
}

/// Watches whether anybody still reads what is written.
struct OtherEnd(pipe::Sender);

impl OtherEnd {
    fn of(pipe: &impl AsFd) -> io::Result<Self> {
        Ok(OtherEnd(pipe::Sender::from_owned_fd(pipe.as_fd().try_clone_to_owned()?)?))
    }

    /// Whether the pipe is empty. What a child left unread when it ended is still there.
    fn has_read_all(&self) -> bool {
        let mut unread: nix::libc::c_int = 0;
        // SAFETY: the file is open, and FIONREAD writes one c_int (ioctl_pipe, FIONREAD(2const)).
        let asked = unsafe { nix::libc::ioctl(self.0.as_raw_fd(), nix::libc::FIONREAD, &raw mut unread) };
        asked == 0 && unread == 0
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
        urgent = intake.urgent.recv() => match urgent {
            Some(urgent) => Some(Message::Urgent(urgent)),
            // Nobody is left who could send anything.
            None => intake.orders.ready().map(Message::Order),
        },
        order = intake.orders.next() => Some(Message::Order(order)),
    }
}

fn ready(intake: &mut Intake) -> Option<Message> {
    let urgent = intake.urgent.try_recv().ok().map(Message::Urgent);
    urgent.or_else(|| intake.orders.ready().map(Message::Order))
}

/// What is written, and what is gathered to be.
struct Writer<W> {
    pipe: W,
    batch: BytesMut,
    mux: Mux,
    uptake: Arc<Uptake>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn put_message(&mut self, message: Message) -> io::Result<()> {
        let frame = match message {
            // What was cancelled before its turn came is never begun.
            Message::Order(Order::Request { wire_id, frame }) if self.mux.mark_sent(wire_id) => frame,
            Message::Order(Order::Request { .. }) => return Ok(()),
            Message::Order(Order::Notification(frame)) | Message::Urgent(Urgent(frame)) => frame,
        };
        self.put(frame).await
    }

    async fn put(&mut self, frame: Spliced) -> io::Result<()> {
        if frame.len() <= GATHERED {
            frame.segments().iter().for_each(|segment| self.batch.extend_from_slice(segment));
        } else {
            self.flush().await?;
            for segment in frame.segments() {
                write_all(&mut self.pipe, segment, &self.uptake).await?;
            }
        }
        self.batch.extend_from_slice(b"\n");
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        write_all(&mut self.pipe, &self.batch, &self.uptake).await?;
        self.batch.clear();
        self.pipe.flush().await
    }
}

/// Writes all of it, and says how the child takes it.
async fn write_all<W: AsyncWrite + Unpin>(pipe: &mut W, mut bytes: &[u8], uptake: &Uptake) -> io::Result<()> {
    uptake.note_waiting(true);
    while !bytes.is_empty() {
        match pipe.write(bytes).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => bytes = &bytes[taken..],
        }
        uptake.note_taken();
    }
    uptake.note_waiting(false);
    Ok(())
}
