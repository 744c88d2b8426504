//! A small HTTP/1.1 client connection: one request at a time, bodies by length or in chunks.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How often a connection is tried before the measurement begins, 10 ms apart.
const TRIES: usize = 300;

/// What matters in the head of a response.
#[derive(Debug, Default)]
pub struct Head {
    pub status: u16,
    pub session: Option<String>,
    /// The body is a stream of events.
    pub is_events: bool,
    length: Option<usize>,
    is_chunked: bool,
    /// The server closes the connection after this response.
    closes: bool,
    /// Position after the head.
    end: usize,
}

/// A connection that is kept alive, or opened again if the server closes it after a response.
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// The bytes of the present response.
    input: Vec<u8>,
    end: usize,
    /// A body that arrived in chunks.
    body: Vec<u8>,
}

impl Connection {
    /// Connects; waits for a server that is not yet ready.
    pub async fn open(address: SocketAddr) -> Result<Connection, String> {
        let mut tries = 0;
        loop {
            match connect(address).await {
                Ok(stream) => {
                    let (input, body) = (vec![0; 4096], Vec::new());
                    return Ok(Connection { address, stream: Some(stream), input, end: 0, body });
                }
                Err(error) if tries == TRIES => return Err(format!("connect: {error}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            tries += 1;
        }
    }

    /// Sends a request and returns its response.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<(Head, &[u8]), String> {
        let head = self.begin(request).await?;
        let body = self.whole_body(&head).await?;
        Ok((head, self.body_at(body)))
    }

    /// Sends a request and returns the head of its response. The rest is left unread.
    pub async fn begin(&mut self, request: &[u8]) -> Result<Head, String> {
        if self.stream.is_none() {
            self.stream = Some(connect(self.address).await.map_err(|error| format!("connect: {error}"))?);
        }
        self.end = 0;
        let stream = self.stream.as_mut().expect("connected");
        let sent = stream.write_all(request).await;
        // A server may refuse a request before it has read all of it.
        let head = self.head().await;
        match (head, sent) {
            (Ok(head), _) => Ok(head),
            (Err(_), Err(error)) => Err(format!("send: {error}")),
            (Err(error), Ok(())) => Err(error),
        }
    }

    async fn head(&mut self) -> Result<Head, String> {
        let mut seen = 0;
        loop {
            self.read().await?;
            if let Some(at) = memchr::memmem::find(&self.input[seen..self.end], b"\r\n\r\n") {
                return parse(&self.input[..seen + at + 2]).ok_or_else(|| "no HTTP response".to_owned());
            }
            seen = self.end.saturating_sub(3);
        }
    }

    /// Reads the rest of the response. Returns the place of the body.
    async fn whole_body(&mut self, head: &Head) -> Result<Place, String> {
        let (place, end) = if head.is_chunked {
            (Place::Chunks, self.chunks(head.end).await?)
        } else if let Some(length) = head.length {
            let end = head.end + length;
            while self.end < end {
                self.reserve(end);
                self.read().await?;
            }
            (Place::Input(head.end, end), end)
        } else if matches!(head.status, 202 | 204) {
            (Place::Input(head.end, head.end), head.end)
        } else {
            while self.read_or_end().await? {}
            self.stream = None;
            (Place::Input(head.end, self.end), self.end)
        };
        if self.end > end {
            return Err(format!("{} bytes after the response", self.end - end));
        }
        if head.closes {
            self.stream = None;
        }
        Ok(place)
    }

    fn body_at(&self, place: Place) -> &[u8] {
        match place {
            Place::Input(start, end) => &self.input[start..end],
            Place::Chunks => &self.body,
        }
    }

    /// Reads all chunks into `body`. Returns the position after the last one.
    async fn chunks(&mut self, mut at: usize) -> Result<usize, String> {
        self.body.clear();
        loop {
            let line = self.line(at).await?;
            let digits = std::str::from_utf8(&self.input[at..line]).ok();
            let digits = digits.and_then(|text| text.split([';', '\r']).next());
            let size = digits.and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
            let size = size.ok_or("a bad chunk")?;
            at = line + 1;
            if size == 0 {
                return Ok(self.line(at).await? + 1);
            }
            self.reserve(at + size + 2);
            while self.end < at + size + 2 {
                self.read().await?;
            }
            self.body.extend_from_slice(&self.input[at..at + size]);
            at += size + 2;
        }
    }

    /// Returns the position of the next newline.
    async fn line(&mut self, at: usize) -> Result<usize, String> {
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.input[at..self.end]) {
                return Ok(at + length);
            }
            self.read().await?;
        }
    }

    fn reserve(&mut self, size: usize) {
        if self.input.len() < size {
            self.input.resize(size, 0);
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        if self.read_or_end().await? { Ok(()) } else { Err("the connection was closed".to_owned()) }
    }

    async fn read_or_end(&mut self) -> Result<bool, String> {
        if self.end == self.input.len() {
            self.input.resize(2 * self.end, 0);
        }
        let stream = self.stream.as_mut().ok_or("the connection was closed")?;
        let count =
            stream.read(&mut self.input[self.end..]).await.map_err(|error| format!("read: {error}"))?;
        self.end += count;
        Ok(count > 0)
    }
}

/// Where the body of a response is.
enum Place {
    /// Between two positions of the input.
    Input(usize, usize),
    Chunks,
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the head, which ends with the newline of its last header.
fn parse(bytes: &[u8]) -> Option<Head> {
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let closes = bytes.starts_with(b"HTTP/1.0");
    let mut head = Head { status, end: bytes.len() + 2, closes, ..Head::default() };
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            head.length = std::str::from_utf8(value).ok()?.parse().ok();
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            head.is_chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"content-type") {
            head.is_events = value.starts_with(b"text/event-stream");
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.closes = value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"mcp-session-id") {
            head.session = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    Some(head)
}
