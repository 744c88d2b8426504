//! A server behind a gateway that does what a test tells it, and keeps the requests that it has received.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The server, which runs as long as the test.
pub struct Upstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    is_draining: Arc<AtomicBool>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// The headers, with names in lower case, in the order of the names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Received {
    /// Returns the value of a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Upstream {
    /// Starts a server that answers every request with these bytes.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Upstream {
        let answer = answer.into();
        Upstream::doing(move |_, stream| stream.write_all(&answer))
    }

    /// Starts a server at an address that another process has had.
    pub fn at(address: SocketAddr, answer: &'static str) -> Upstream {
        Upstream::listening(address, move |_, stream| stream.write_all(answer.as_bytes()))
    }

    /// Starts a server that gives every request to `serve`, which writes the answer. An error closes the connection.
    pub fn doing(
        serve: impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Upstream {
        Upstream::listening(SocketAddr::from(([127, 0, 0, 1], 0)), serve)
    }

    fn listening(
        address: SocketAddr,
        serve: impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind(address).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (received, serve) = (Arc::<Mutex<Vec<Received>>>::default(), Arc::new(serve));
        let is_draining = Arc::<AtomicBool>::default();
        let (kept, draining) = (Arc::clone(&received), Arc::clone(&is_draining));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, serve, draining) = (Arc::clone(&kept), Arc::clone(&serve), Arc::clone(&draining));
                std::thread::spawn(move || converse(stream, &kept, &draining, &*serve));
            }
        });
        Upstream { address, received, is_draining }
    }

    /// Lets its probes say from now on that it is shutting down, or that it is not.
    pub fn drain(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Ordering::SeqCst);
    }

    /// Returns the URL of its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Returns the requests so far, without probes.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the last request.
    pub fn last(&self) -> Received {
        self.received().pop().expect("a request")
    }
}

fn converse(
    stream: TcpStream,
    kept: &Mutex<Vec<Received>>,
    is_draining: &AtomicBool,
    serve: &(dyn Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let served = if request.line.contains("/health/ready") {
            reader.get_mut().write_all(match is_draining.load(Ordering::SeqCst) {
                true => b"HTTP/1.1 503 Service Unavailable\r\nproxyrunner-draining: 1\r\ncontent-length: 0\r\n\r\n",
                false => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            })
        } else {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            serve(&request, reader.get_mut())
        };
        if served.is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut headers = Vec::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    headers.sort();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a number"))];
    reader.read_exact(&mut body).ok()?;
    Some(Received { line: first, headers, body: String::from_utf8(body).expect("UTF-8") })
}
