//! An HTTP/2 client that controls its streams: when they are reset, and what it accepts of their responses.

use super::connection::JSON;
use super::{PATIENCE, Server};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request, Response};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A connection.
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub driver: JoinHandle<Result<(), h2::Error>>,
    host: String,
}

/// A request whose response has not been read. Dropping its parts resets the stream.
pub struct Asked {
    pub response: h2::client::ResponseFuture,
    pub body: SendStream<Bytes>,
}

impl Http2 {
    /// Connects in clear text, with prior knowledge.
    pub async fn open(server: &Server) -> Http2 {
        Self::with(server, &Builder::new()).await
    }

    /// Connects with these settings.
    pub async fn with(server: &Server, builder: &Builder) -> Http2 {
        let stream = TcpStream::connect(server.address()).await.expect("a listener");
        Self::over(stream, builder, format!("http://{}", server.address())).await
    }

    /// Wraps a connection; `base` is the URL before the path.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &Builder,
        base: String,
    ) -> Http2 {
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Http2 { sender, driver: tokio::spawn(connection), host: base }
    }

    /// Returns a request of this method and path.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.host));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Sends a request's head; `ends` if it has no body.
    pub async fn send(&mut self, request: Request<()>, ends: bool) -> Asked {
        let mut ready = in_time(self.sender.clone().ready()).await.expect("an open connection");
        let (response, body) = ready.send_request(request, ends).expect("a stream");
        Asked { response, body }
    }

    /// Sends a GET.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Asked {
        let request = self.request("GET", path, headers);
        self.send(request, true).await
    }

    /// Sends a POST to the endpoint.
    pub async fn post(&mut self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Asked {
        let request = self.request("POST", "/mcp", &[JSON, headers].concat());
        let mut asked = self.send(request, false).await;
        asked.body.send_data(body.into(), true).expect("a stream");
        asked
    }

    /// Sends a request of a modern client.
    pub async fn modern(&mut self, server: &Server, method: &str, params: Value) -> Asked {
        let modern = server.modern();
        let body = modern.body(1, method, params);
        let name = body["params"]["name"].as_str().unwrap_or_default().to_owned();
        let headers =
            [("mcp-protocol-version", super::modern::VERSION), ("mcp-method", method), ("mcp-name", &name)];
        let headers = if name.is_empty() { &headers[..2] } else { &headers[..] };
        self.post(headers, body.to_string()).await
    }
}

impl Asked {
    /// Waits for the response's head.
    pub async fn head(self) -> Response<RecvStream> {
        in_time(self.response).await.expect("a response")
    }

    /// Waits for the whole response.
    pub async fn whole(self) -> Whole {
        let (Parts { status, headers, .. }, mut body) = self.head().await.into_parts();
        let mut bytes = Vec::new();
        while let Some(part) = in_time(body.data()).await {
            let part = part.expect("a part of the body");
            body.flow_control().release_capacity(part.len()).expect("capacity");
            bytes.extend_from_slice(&part);
        }
        Whole { status: status.as_u16(), headers, body: bytes }
    }
}

/// A complete response.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Whole {
    /// Returns the last message of the body: JSON, or in an event stream.
    pub fn json(&self) -> Value {
        let text = String::from_utf8(self.body.clone()).expect("UTF-8");
        let last = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back();
        serde_json::from_str(last.unwrap_or(&text)).unwrap_or_else(|_| panic!("no message: {text:?}"))
    }
}

/// Waits, but not forever.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}
