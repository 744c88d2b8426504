//! The task that writes a child's stdin: complete frames, one per line, urgent ones first.

use crate::aside::Aside;
use crate::backoff::Backoff;
use crate::exchange::{Intake, Mux, Order, Uptake, Urgent};
use crate::jsonrpc::Spliced;
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Maximum length of a frame that is copied into a batch, in bytes.
const GATHERED: usize = 16 * 1024;
/// Maximum length of a batch, in bytes: the default capacity of a pipe.
const BATCH: usize = 64 * 1024;
/// Minimum window, in bytes: about five messages. Each child starts with it.
const LEAST_WINDOW: u64 = 1024;
/// A child that has not read written bytes within this time is slow.
const SLOW: Duration = Duration::from_millis(20);
/// The minimum and the maximum interval between checks of a child's progress.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const MOST_PAUSE: Duration = Duration::from_millis(16);

/// Writes until `close` is cancelled, all senders are gone, or the child has closed its end. Then closes stdin. A
/// frame that was begun is finished first, unless the child does not read it. `mute` is cancelled before the first
/// message is refused. Must be called within a tokio runtime.
///
/// # Errors
/// When the child has closed its end, even if there is nothing to write. The last messages may be lost then.
pub async fn write<W: AsyncWrite + AsFd + Unpin>(
    pipe: W,
    mut intake: Intake,
    mux: Mux,
    close: CancellationToken,
    mute: CancellationToken,
) -> io::Result<()> {
    let other_end = OtherEnd::of(&pipe)?;
    let uptake = Arc::clone(&intake.uptake);
    let window = Window::new(&other_end, Arc::clone(&uptake));
    let mut writer = Writer { pipe, batch: BytesMut::new(), mux, window };
    let writing = async {
        while let Some(message) = next(&mut intake, &mut writer).await {
            writer.put_message(message, &intake).await?;
            // Clients that are ready to send are polled first, so that one write carries their messages, too.
            if writer.mux.waiting() > 1 {
                tokio::task::yield_now().await;
            }
            while writer.batch.len() < BATCH
                && let Some(message) = ready(&mut intake, &mut writer)
            {
                writer.put_message(message, &intake).await?;
            }
            writer.flush().await?;
        }
        io::Result::Ok(())
    };
    let ending = async {
        tokio::select! {
            biased;
            () = close.cancelled() => Ok(()),
            closed = other_end.closed() => Err(closed),
        }
    };
    let (mut writing, mut ending) = (pin!(writing), pin!(ending));
    let mut ending = Aside::new(|cx| ending.as_mut().poll(cx));
    let written = poll_fn(|cx| match writing.as_mut().poll(cx) {
        Poll::Pending => ending.poll(cx),
        result => result,
    })
    .await;
    mute.cancel();
    uptake.note_read(other_end.unread() == Some(0));
    written
}

/// Watches the reading end of the pipe.
struct OtherEnd(pipe::Sender);

impl OtherEnd {
    fn of(pipe: &impl AsFd) -> io::Result<Self> {
        Ok(OtherEnd(pipe::Sender::from_owned_fd(pipe.as_fd().try_clone_to_owned()?)?))
    }

    /// Returns the number of bytes that the child has not read; after the child's end, of those that it left unread.
    fn unread(&self) -> Option<u64> {
        let mut unread: nix::libc::c_int = 0;
        // SAFETY: the file is open, and FIONREAD writes one c_int (ioctl_pipe, FIONREAD(2const)).
        let asked = unsafe { nix::libc::ioctl(self.0.as_raw_fd(), nix::libc::FIONREAD, &raw mut unread) };
        u64::try_from(unread).ok().filter(|_| asked == 0)
    }

    /// Resolves when the child has closed its end: the pipe then has an error (poll(2), POLLERR).
    async fn closed(&self) -> io::Error {
        match self.0.ready(Interest::ERROR).await {
            Ok(_) => io::ErrorKind::BrokenPipe.into(),
            Err(error) => error,
        }
    }
}

/// Limits the bytes that a child may leave unread. Bytes in the pipe can neither be withdrawn when their request is
/// cancelled, nor make room for other clients' messages. A slow child therefore gets a small window; a child that
/// reads quickly soon gets the whole pipe.
struct Window<'a> {
    other_end: &'a OtherEnd,
    uptake: Arc<Uptake>,
    /// The limit on unread bytes.
    size: u64,
    written: u64,
    /// Written bytes that the child has been seen to have read.
    read: u64,
    mark: Option<Mark>,
}

/// A position in the written bytes, used to measure how quickly a child reads.
struct Mark {
    /// Bytes written up to this position.
    written: u64,
    at: Instant,
    /// The child did not read up to this position in time.
    is_late: bool,
}

impl Mark {
    fn at(written: u64) -> Self {
        Mark { written, at: Instant::now(), is_late: false }
    }

    /// Returns whether the child should have read up to this position by now.
    fn is_due(&self) -> bool {
        self.at.elapsed() >= SLOW
    }
}

impl<'a> Window<'a> {
    fn new(other_end: &'a OtherEnd, uptake: Arc<Uptake>) -> Self {
        Window { other_end, uptake, size: LEAST_WINDOW, written: 0, read: 0, mark: None }
    }

    /// Returns whether a batch may begin that has about `about` bytes so far.
    fn is_open(&mut self, about: usize) -> bool {
        if self.used(about) >= self.size || self.mark.as_ref().is_some_and(Mark::is_due) {
            self.look(self.used(about));
        }
        self.fits(about)
    }

    /// Returns whether a batch of about `about` bytes may grow. Costs a system call only when the window seems full.
    fn has_more(&mut self, about: usize) -> bool {
        if !self.fits(about) {
            self.look(self.used(about));
        }
        self.fits(about)
    }

    fn used(&self, about: usize) -> u64 {
        self.written - self.read + about as u64
    }

    fn fits(&self, about: usize) -> bool {
        // A full-size window needs no check, since the pipe has a capacity of its own.
        self.used(about) < self.size || self.size >= BATCH as u64
    }

    /// Measures the unread bytes, and adapts the window. `used` counts the bytes that are unread or about to be
    /// written. The window grows for a child that reads in time and used all of it. It shrinks for a child that used
    /// little, or is late.
    fn look(&mut self, used: u64) {
        let unread = self.other_end.unread().unwrap_or(0);
        let read = self.written.saturating_sub(unread);
        if read > self.read {
            self.uptake.note_taken();
        }
        self.read = read;
        let is_read = self.mark.as_ref().is_none_or(|mark| read >= mark.written);
        match &mut self.mark {
            Some(mark) if !is_read && mark.is_due() => {
                mark.is_late = true;
                self.size = (self.size / 4).max(LEAST_WINDOW);
            }
            Some(_) if !is_read => {}
            Some(mark) if !mark.is_late && used >= self.size => self.size = (self.size * 2).min(BATCH as u64),
            _ if used < self.size / 4 => self.size = (self.size / 2).max(LEAST_WINDOW),
            _ => {}
        }
        if is_read {
            self.mark = (unread > 0).then(|| Mark::at(self.written));
        }
    }

    fn note_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
        let written = self.written;
        self.mark.get_or_insert_with(|| Mark::at(written));
    }

    /// Waits until the window is open.
    async fn wait_open(&mut self, about: usize) {
        let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        while !self.is_open(about) {
            self.uptake.note_waiting(true);
            sleep(pauses.advance()).await;
        }
        self.uptake.note_waiting(false);
    }
}

enum Message {
    Order(Order),
    Urgent(Urgent),
}

/// Returns the next message: an urgent one at once, any other as soon as the window is open.
async fn next<W>(intake: &mut Intake, writer: &mut Writer<'_, W>) -> Option<Message> {
    loop {
        let Intake { orders, urgent, .. } = intake;
        let turn = async {
            orders.wait().await;
            writer.window.wait_open(writer.batch.len()).await;
        };
        tokio::select! {
            biased;
            urgent = urgent.recv() => return match urgent {
                Some(urgent) => Some(Message::Urgent(urgent)),
                // All senders are gone.
                None => orders.try_next().map(Message::Order),
            },
            () = turn => if let Some(order) = orders.try_next() {
                return Some(Message::Order(order));
            },
        }
    }
}

fn ready<W>(intake: &mut Intake, writer: &mut Writer<'_, W>) -> Option<Message> {
    if let Ok(urgent) = intake.urgent.try_recv() {
        return Some(Message::Urgent(urgent));
    }
    let has_more = writer.window.has_more(writer.batch.len());
    has_more.then(|| intake.orders.try_next().map(Message::Order)).flatten()
}

/// Gathers frames into batches, and writes them.
struct Writer<'a, W> {
    pipe: W,
    batch: BytesMut,
    mux: Mux,
    window: Window<'a>,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn put_message(&mut self, message: Message, intake: &Intake) -> io::Result<()> {
        let frame = match message {
            // A request that was cancelled before its turn is never written.
            Message::Order(Order::Request { wire_id, frame }) if self.mux.mark_sent(wire_id) => frame,
            Message::Order(Order::Request { .. }) => return Ok(()),
            Message::Order(Order::Notification { frame, places }) => {
                intake.orders.note_written(places);
                frame
            }
            Message::Urgent(Urgent(frame)) => frame,
        };
        self.put(frame).await
    }

    async fn put(&mut self, frame: Spliced) -> io::Result<()> {
        if frame.len() <= GATHERED {
            frame.segments().iter().for_each(|segment| self.batch.extend_from_slice(segment));
        } else {
            self.flush().await?;
            for segment in frame.segments() {
                write_all(&mut self.pipe, segment, &mut self.window).await?;
            }
        }
        self.batch.extend_from_slice(b"\n");
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        write_all(&mut self.pipe, &self.batch, &mut self.window).await?;
        self.batch.clear();
        self.pipe.flush().await
    }
}

/// Writes all bytes, and records the child's progress.
async fn write_all<W: AsyncWrite + Unpin>(
    pipe: &mut W,
    mut bytes: &[u8],
    window: &mut Window<'_>,
) -> io::Result<()> {
    window.uptake.note_waiting(true);
    while !bytes.is_empty() {
        match pipe.write(bytes).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => {
                bytes = &bytes[taken..];
                window.note_written(taken);
            }
        }
        window.uptake.note_taken();
    }
    window.uptake.note_waiting(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Charged;
    use crate::exchange::fixtures::held;
    use crate::exchange::{Answering, Exchange, Link};
    use std::io::Read;
    use std::os::fd::OwnedFd;

    const FRAME: usize = 99;

    /// A child that reads when the test tells it to, and requests for it.
    struct Child {
        link: Arc<Link>,
        stdin: std::io::PipeReader,
        watch: OtherEnd,
        requests: Vec<Exchange>,
        _answering: Answering,
    }

    fn child() -> Child {
        let (stdin, pipe) = std::io::pipe().unwrap();
        let pipe = OwnedFd::from(pipe);
        let watch = OtherEnd(pipe::Sender::from_owned_fd(pipe.try_clone().unwrap()).unwrap());
        let (link, ends) = Link::new(1, 8192);
        let mux = link.mux().clone();
        let pipe = pipe::Sender::from_owned_fd(pipe).unwrap();
        tokio::spawn(write(pipe, ends.intake, mux, CancellationToken::new(), CancellationToken::new()));
        Child { link, stdin, watch, requests: Vec::new(), _answering: ends.answering }
    }

    impl Child {
        fn ask(&mut self, count: usize) {
            let frame = |_| Spliced::from(Charged::own("x".repeat(FRAME)));
            let begun = (0..count).map(|_| self.link.begin(held(), None, frame).expect("it has room"));
            self.requests.extend(begun);
        }

        /// Returns the number of unread bytes once the pipe is idle.
        async fn unread(&self) -> u64 {
            sleep(Duration::from_secs(1)).await;
            self.watch.unread().unwrap()
        }

        fn read(&mut self) {
            let unread = self.watch.unread().unwrap();
            let mut bytes = vec![0; usize::try_from(unread).unwrap()];
            self.stdin.read_exact(&mut bytes).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_child_gets_few_bytes_at_a_time() {
        let mut child = child();
        child.ask(200);
        for _ in 0..4 {
            assert_eq!(child.unread().await, LEAST_WINDOW.next_multiple_of(100), "the child is slow");
            child.read();
        }
        assert_eq!(child.unread().await, LEAST_WINDOW.next_multiple_of(100));
        drop(std::mem::take(&mut child.requests));
        child.read();
        let told = child.unread().await;
        assert!(told > 50 * 100, "cancellations of written requests do not wait: {told}");
        child.read();
        assert_eq!(child.unread().await, 0, "cancelled requests are never written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_child_gets_a_whole_pipe() {
        let mut child = child();
        child.ask(4000);
        let mut most = 0;
        for _ in 0..20 {
            sleep(Duration::from_millis(5)).await;
            most = most.max(child.watch.unread().unwrap());
            child.read();
        }
        assert!(most > BATCH as u64 - 8 * 1024, "{most}");
        drop(std::mem::take(&mut child.requests));
        while child.unread().await > 0 {
            child.read();
        }
        // The window shrinks while the child needs little of it.
        for _ in 0..10 {
            child.ask(1);
            assert_eq!(child.unread().await, 100);
            child.read();
        }
        child.ask(1000);
        sleep(SLOW).await;
        let burst = child.watch.unread().unwrap();
        assert!(burst <= 2 * LEAST_WINDOW, "it has not read yet: {burst}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_becomes_slow_is_detected_before_its_pipe_is_full() {
        let mut child = child();
        child.ask(2000);
        for _ in 0..20 {
            sleep(Duration::from_millis(5)).await;
            child.read();
        }
        child.unread().await;
        child.read();
        // The child reads nothing from now on.
        for _ in 0..200 {
            child.ask(1);
            sleep(Duration::from_millis(5)).await;
        }
        let unread = child.watch.unread().unwrap();
        assert!(unread < 10 * 100 + LEAST_WINDOW, "{unread}");
    }
}
