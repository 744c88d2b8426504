//! The floor: the least that a bridge from HTTP to a child's pipes can do. Hyper in front, one child behind, ids
//! exchanged for unique integers. It checks nothing, limits nothing and remembers nothing.

use super::pipe::{Pipe, Receiver};
use super::scan;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 4096;

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// Serves the address for ever.
pub fn run(address: SocketAddr, workers: usize, command: &[String]) {
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(workers).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pipe = Pipe::start(command);
        // The tasks of a multi-threaded runtime must not depend on the thread that blocks here.
        tokio::spawn(accept(listen(address), pipe)).await.expect("no panic");
    });
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.set_nonblocking(true).expect("nonblocking");
    socket.bind(&address.into()).expect("a free address");
    socket.listen(BACKLOG).expect("listens");
    TcpListener::from_std(socket.into()).expect("a listener")
}

async fn accept(listener: TcpListener, pipe: Arc<Pipe>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let pipe = Arc::clone(&pipe);
        tokio::spawn(async move {
            let service = service_fn(|request| serve(request, &pipe));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn serve(request: Request<Incoming>, pipe: &Pipe) -> Result<Response<Reply>, hyper::Error> {
    if request.method() != Method::POST {
        let status =
            if request.method() == Method::DELETE { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
        return Ok(empty(status));
    }
    let streams = request
        .headers()
        .get(ACCEPT)
        .is_some_and(|accept| memchr::memmem::find(accept.as_bytes(), b"text/event-stream").is_some());
    let body = collect(request.into_body()).await?;
    let Some(found) = scan::scan(&body) else { return Ok(empty(StatusCode::BAD_REQUEST)) };
    if found.id.is_none() {
        pipe.notify(&body);
        return Ok(empty(StatusCode::ACCEPTED));
    }
    if streams && found.token.is_some() {
        let (sender, events) = mpsc::unbounded_channel();
        pipe.request(&body, &found, Receiver::Events(sender));
        return Ok(response("text/event-stream", Reply::Events(events)));
    }
    let (sender, answer) = oneshot::channel();
    pipe.request(&body, &found, Receiver::Response(sender));
    let mut frames = answer.await.expect("the child answers");
    frames.reverse();
    let mut response = response("application/json", Reply::Whole(frames));
    if found.method.is_some_and(|method| &body[method] == b"\"initialize\"") {
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let id = HeaderValue::from_str(&format!("floor-{number}")).expect("a header");
        response.headers_mut().insert("mcp-session-id", id);
    }
    Ok(response)
}

/// Returns the body in one piece, which is not copied if it arrived so.
async fn collect(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let length = body.size_hint().lower() as usize;
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else { continue };
        if whole.is_empty() && chunk.len() == length {
            return Ok(chunk);
        }
        if whole.is_empty() {
            whole.reserve_exact(length);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

fn response(kind: &'static str, reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn empty(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Vec::new()));
    *response.status_mut() = status;
    response
}

/// The body of a response.
enum Reply {
    /// The pieces that are left, the next one last.
    Whole(Vec<Bytes>),
    Events(mpsc::UnboundedReceiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Reply::Whole(pieces) => Poll::Ready(pieces.pop()),
            Reply::Events(events) => events.poll_recv(cx),
        };
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Whole(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Reply::Events(_) => SizeHint::default(),
        }
    }
}
