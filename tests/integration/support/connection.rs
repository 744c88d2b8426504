//! A raw HTTP/1.1 client: the test controls each byte that is sent, and reads each byte of the response.

use super::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

/// The headers of every POST.
pub const JSON: &[(&str, &str)] =
    &[("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];

/// A connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Connection {
    /// Returns the headers of a POST and these.
    pub fn post_headers<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [JSON, more].concat()
    }

    /// Connects; reads fail after [`PATIENCE`].
    pub fn open(address: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(address).expect("a listener"))
    }

    /// Wraps an open connection.
    pub fn over(stream: TcpStream) -> Connection {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Connection { stream: BufReader::new(stream) }
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the bytes are sent");
    }

    /// Sends bytes to a peer that may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request's head, with a blank line at its end.
    pub fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.stream.get_ref().peer_addr().expect("a peer"));
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        self.send(head + "\r\n");
    }

    /// Sends a whole request.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if !body.is_empty() || method == "POST" {
            headers.push(("Content-Length", &length));
        }
        self.head(method, path, &headers);
        self.send(body);
    }

    /// Sends a POST to the endpoint with the usual headers and these.
    pub fn post(&mut self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        self.request("POST", "/mcp", &[JSON, headers].concat(), body.as_ref());
    }

    /// Sends a POST to a peer that may close, in one piece.
    pub fn try_post(&mut self, headers: &[(&str, &str)], body: &str) -> std::io::Result<()> {
        let host = self.stream.get_ref().peer_addr()?;
        let mut whole = format!("POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
        let headers = Connection::post_headers(headers);
        headers.iter().for_each(|(name, value)| whole += &format!("{name}: {value}\r\n"));
        self.try_send(whole + "\r\n" + body)
    }

    /// Sends one chunk of a body.
    pub fn chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.try_send(format!("{:x}\r\n", bytes.len()))?;
        self.try_send(bytes)?;
        self.try_send("\r\n")
    }

    /// Returns whether a response begins before the connection ends.
    pub fn is_answered(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Reads a response with its whole body.
    pub fn response(&mut self) -> Response {
        let head = self.response_head();
        self.whole(head)
    }

    /// Reads the body of a response.
    fn whole(&mut self, mut response: Response) -> Response {
        match response.header("content-length") {
            Some(length) => {
                let length: usize = length.parse().expect("a number");
                response.body = vec![0; length];
                self.stream.read_exact(&mut response.body).expect("the whole body");
            }
            None if matches!(response.status, 204 | 304) => {}
            None => {
                while let Some(chunk) = self.read_chunk() {
                    response.body.extend(chunk);
                }
            }
        }
        response
    }

    /// Reads a response's head.
    pub fn response_head(&mut self) -> Response {
        let line = self.line();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let headers = std::iter::from_fn(|| {
            let line = self.line();
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Response { status, headers: headers.collect(), body: Vec::new() }
    }

    /// Reads the head of a response, which must be an event stream.
    pub fn events(self) -> Events {
        self.try_events().unwrap_or_else(|other| panic!("not a stream: {other:?} {}", other.text()))
    }

    /// Reads the head of a response; returns the response if it is not an event stream.
    pub fn try_events(mut self) -> Result<Events, Response> {
        let head = self.response_head();
        if head.status != 200 || head.header("content-type") != Some("text/event-stream") {
            return Err(self.whole(head));
        }
        Ok(Events { connection: self, head, buffer: Vec::new() })
    }

    /// Returns whether the server closes the connection without sending more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]))
    }

    /// Reads all bytes until the server closes the connection.
    #[cfg(feature = "gateway")]
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Closes both directions at once.
    pub fn cut(self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    /// Shuts down the sending side only.
    pub fn end(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).expect("a connection");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "the connection ended: {line:?}");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Reads the next chunk; returns `None` at the end of the body or of the connection.
    fn read_chunk(&mut self) -> Option<Vec<u8>> {
        if self.stream.fill_buf().expect("more in time").is_empty() {
            return None;
        }
        let line = self.line();
        let length = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).expect("a whole chunk");
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }
}

impl Response {
    /// Returns the value of a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    /// Returns the body as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Returns the code of the JSON-RPC error in the body.
    pub fn code(&self) -> i64 {
        let error = self.json();
        assert_eq!(error["jsonrpc"], "2.0", "{error}");
        error["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {error}"))
    }

    /// Returns all messages of the response, either JSON or a complete stream.
    pub fn messages(&self) -> Vec<Value> {
        if self.header("content-type") != Some("text/event-stream") {
            return vec![self.json()];
        }
        let text = self.text();
        let events = text.split("\n\n").filter_map(Event::parse);
        events.filter(|event| !event.data.is_empty()).map(|event| event.json()).collect()
    }

    /// Returns the final message of the response.
    pub fn answer(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        let last = self.messages().pop();
        last.unwrap_or_else(|| panic!("no message in {:?}", self.text()))
    }
}

/// An event or a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: Option<String>,
    pub id: Option<String>,
    pub data: String,
    pub retry: Option<u64>,
    pub comment: Option<String>,
}

impl Event {
    fn parse(block: &str) -> Option<Event> {
        let mut event = Event::default();
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => event.comment = Some(value),
                "event" => event.name = Some(value),
                "id" => event.id = Some(value),
                "data" => event.data += &value,
                "retry" => event.retry = Some(value.parse().expect("a number")),
                _ => panic!("an unknown field: {line:?}"),
            }
        }
        (!block.is_empty()).then_some(event)
    }

    /// Returns the message of the event.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream of events, which are read one at a time.
pub struct Events {
    connection: Connection,
    pub head: Response,
    buffer: Vec<u8>,
}

impl Events {
    /// Reads the next event or comment; returns `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Event::parse(std::str::from_utf8(&block[..end]).expect("UTF-8"));
            }
            match self.connection.read_chunk() {
                Some(chunk) => self.buffer.extend(chunk),
                None => {
                    assert!(self.buffer.is_empty(), "an incomplete event: {:?}", self.buffer);
                    return None;
                }
            }
        }
    }

    /// Reads the next event that has a message.
    pub fn next_event(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.next().expect("another event");
            if !event.data.is_empty() {
                return event;
            }
            assert!(Instant::now() < deadline, "only comments");
        }
    }

    /// Reads the next message.
    pub fn message(&mut self) -> Value {
        self.next_event().json()
    }

    /// Reads all messages up to the end of the stream.
    pub fn rest(&mut self) -> Vec<Value> {
        let events = std::iter::from_fn(|| self.next());
        events.filter(|event| !event.data.is_empty()).map(|event| event.json()).collect()
    }

    /// Closes the connection in the middle of the stream.
    pub fn cut(self) {
        self.connection.cut();
    }
}
