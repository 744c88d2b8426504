//! Connections to one replica by HTTP/1.1. The task of a request drives its connection, from the request to the end of the
//! answer, so that no other task has to be woken for it. In between a connection is idle, and nobody polls it.

use crate::outbound::Stream;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use parking_lot::Mutex;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::task::unconstrained;
use tonic::body::Body;

/// Idle time of a connection. Common servers close an idle connection after 5 s, and a request that is written at that
/// moment would be lost.
const IDLE: Duration = Duration::from_secs(4);
/// Maximum number of idle connections to one replica. With fewer than requests in flight, many requests open one anew.
const MOST_IDLE: usize = 256;
/// Bytes that a connection reads before the client takes them.
pub(super) const BUFFER: usize = 32 * 1024;

/// The idle connections to one replica.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    line: Line,
    since: Instant,
}

/// A connection with no request in flight.
pub(super) struct Line {
    sender: SendRequest<Body>,
    connection: Box<Connection<Stream, Body>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: hyper::Error,
    /// The request, if nothing of it was written.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Lines {
    /// Returns an idle connection. If its peer has closed it, it gives the request back.
    pub(super) fn take(&self) -> Option<Line> {
        loop {
            let Idle { line, since } = self.0.lock().pop()?;
            if since.elapsed() < IDLE {
                return Some(line);
            }
        }
    }

    /// Keeps a connection for later requests.
    fn keep(&self, line: Line) {
        let mut idle = self.0.lock();
        if idle.len() < MOST_IDLE {
            idle.push(Idle { line, since: Instant::now() });
        }
    }

    /// Closes the connections that were idle for too long. Returns whether none is left.
    pub(super) fn close_idle(&self, now: Instant) -> bool {
        let mut idle = self.0.lock();
        let old = idle.iter().take_while(|idle| now.saturating_duration_since(idle.since) >= IDLE).count();
        let closed: Vec<Idle> = idle.drain(..old).collect();
        let is_empty = idle.is_empty();
        if is_empty {
            *idle = Vec::new();
        }
        drop(idle);
        drop(closed);
        is_empty
    }
}

impl Line {
    /// Begins to use a connection.
    ///
    /// # Errors
    /// When it is closed already.
    pub(super) async fn new(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = Builder::new().max_buf_size(BUFFER).handshake(stream).await?;
        Ok(Line { sender, connection: Box::new(connection) })
    }

    /// Sends a request, and returns the head of its answer. Dropping the future, or the body of the answer, closes the
    /// connection. After the body it is kept in `lines`.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) async fn exchange(
        mut self,
        request: Request<Body>,
        lines: &Arc<Lines>,
    ) -> Result<Response<Received>, Failed> {
        // Nothing but the connection ends its wait, so it needs no waker of its own. A waker would wake this very task.
        let mut answered = pin!(unconstrained(self.sender.try_send_request(request)));
        let mut connection = Some(self.connection);
        // The connection reads before it takes the request. A peer that has closed it, or has said what nobody asked for, ends it.
        let answered = poll_fn(|cx| {
            let is_over =
                connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready());
            if is_over {
                connection = None;
            }
            answered.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        let response = answered.map_err(|mut failed| {
            let unsent = failed.take_message().map(Box::new);
            Failed { error: failed.into_error(), unsent }
        })?;
        let line = connection.map(|connection| Line { sender: self.sender, connection });
        Ok(response.map(|body| {
            let mut received = Received { body, line, lines: Arc::clone(lines) };
            received.keep_at_end();
            received
        }))
    }
}

/// The body of an answer. Polling it drives the connection.
#[derive(Debug)]
pub(crate) struct Received {
    body: Incoming,
    /// `None` once the connection has ended, or serves another request.
    line: Option<Line>,
    lines: Arc<Lines>,
}

impl Received {
    /// Gives the connection back once the body is complete.
    fn keep_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if let Some(line) = self.line.take().filter(|line| line.sender.is_ready()) {
            self.lines.keep(line);
        }
    }

    /// Polls for a part that has arrived. Parts come from the connection only, which has the waker.
    fn poll_arrived(&mut self) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let part = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(Waker::noop()));
        match &part {
            Poll::Ready(Some(Ok(_))) => self.keep_at_end(),
            Poll::Ready(Some(Err(_))) => self.line = None,
            Poll::Ready(None) => self.keep(),
            Poll::Pending => {}
        }
        part
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // First, so that the connection knows that a part is wanted.
        if let Poll::Ready(part) = self.poll_arrived() {
            return Poll::Ready(part);
        }
        if let Some(line) = &mut self.line
            && Pin::new(&mut *line.connection).poll(cx).is_ready()
        {
            self.line = None;
        }
        self.poll_arrived()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::{Connector, Reach, Tls};
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

    /// A connection, and its other end.
    async fn connected() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let connector = Connector::new(&Tls::default(), Reach::Anywhere, IDLE).expect("a connector");
        let stream = connector.connect(&url.parse().expect("a URL")).await.expect("a connection");
        (Line::new(stream).await.expect("a connection"), listener.accept().await.expect("a connection").0)
    }

    fn request() -> Request<Body> {
        Request::post("/mcp").header("host", "a").body(Body::empty()).expect("a request")
    }

    /// Reads one request, and answers it with each of these parts, a little later one after another.
    async fn answer(peer: &mut TcpStream, parts: &[&str]) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(peer.read_u8().await.expect("a request"));
        }
        for part in parts {
            tokio::task::yield_now().await;
            peer.write_all(part.as_bytes()).await.expect("written");
        }
    }

    async fn received(line: Line, lines: &Arc<Lines>) -> Bytes {
        let response = line.exchange(request(), lines).await.expect("an answer");
        response.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_another() {
        let (line, mut peer) = connected().await;
        let lines = Arc::<Lines>::default();
        let answering = async {
            for parts in [
                &[WHOLE][..],
                &[CHUNKS],
                &[&WHOLE[..30], &WHOLE[30..]],
                &["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"],
                &[&CHUNKS[..52], &CHUNKS[52..]],
            ] {
                answer(&mut peer, parts).await;
            }
        };
        let asking = async {
            let mut line = Some(line);
            for body in ["ok", "ok", "ok", "", "ok"] {
                assert_eq!(received(line.take().expect("it is kept"), &lines).await, body);
                line = lines.take();
            }
            assert!(line.is_some() && lines.take().is_none());
        };
        tokio::join!(answering, asking);
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_has_closed_gives_the_request_back() {
        let lines = Arc::<Lines>::default();
        loop {
            let (line, mut peer) = connected().await;
            let (_, body) = tokio::join!(answer(&mut peer, &[WHOLE]), received(line, &lines));
            assert_eq!(body, "ok");
            drop(peer);
            tokio::task::yield_now().await;
            let line = lines.take().expect("a connection");
            let failed = line.exchange(request(), &lines).await.expect_err("it is closed");
            // If the runtime did not know of it yet, it was written.
            if failed.unsent.is_some() {
                break;
            }
        }
        assert!(lines.take().is_none());
        let (line, mut peer) = connected().await;
        let last = ["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"];
        tokio::join!(answer(&mut peer, &last), received(line, &lines));
        assert!(lines.take().is_none());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_read_to_its_end_closes_its_connection() {
        for sent in ["", &WHOLE[..WHOLE.len() - 1], &CHUNKS[..CHUNKS.len() - 1]] {
            let (line, mut peer) = connected().await;
            let lines = Arc::<Lines>::default();
            let mut exchange = Box::pin(line.exchange(request(), &lines));
            let begun = poll_fn(|cx| Poll::Ready(exchange.as_mut().poll(cx).is_ready())).await;
            assert!(!begun, "nothing is answered yet");
            answer(&mut peer, &[sent]).await;
            match sent {
                "" => drop(exchange),
                _ => drop(exchange.await.expect("an answer")),
            }
            assert!(lines.take().is_none());
            // It ends, or is reset because of bytes that were not read.
            assert!(matches!(peer.read(&mut [0; 8]).await, Ok(0) | Err(_)));
        }
    }

    #[tokio::test]
    async fn idle_connections_are_closed_and_their_number_is_bounded() {
        let (lines, mut peers) = (Lines::default(), Vec::new());
        for _ in 0..MOST_IDLE + 1 {
            let (line, peer) = connected().await;
            lines.keep(line);
            peers.push(peer);
        }
        assert_eq!(lines.0.lock().len(), MOST_IDLE);
        lines.close_idle(Instant::now());
        assert_eq!(lines.0.lock().len(), MOST_IDLE);
        lines.close_idle(Instant::now() + IDLE);
        assert!(lines.0.lock().is_empty());
    }
}
