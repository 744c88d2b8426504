//! Measures the real binary in front of an echo child: requests per second, time and memory for large messages, and idle
//! memory. This program is also the child.
//!
//!     cargo bench --bench bridge                 everything
//!     cargo bench --bench bridge -- load|large|idle
//!     cargo bench --bench bridge -- load 3       only the load, three rounds
//!
//! The number of requests is limited, and they go to loopback. Quote ratios and medians, because machines are noisy.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const SHAPES: [(usize, usize, usize, usize); 4] =
    [(1, 1, 200, 10_000), (1, 32, 200, 60_000), (32, 64, 200, 100_000), (1, 32, 64 * 1024, 10_000)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|word| word == "child") {
        return echo();
    }
    let wants = |part: &str| arguments.first().is_none_or(|word| word == part);
    let rounds = arguments.get(1).and_then(|word| word.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wants("idle") {
            idle().await;
        }
        if wants("load") {
            for shape in SHAPES {
                load(shape, rounds).await;
            }
        }
        if wants("large") {
            large().await;
        }
    });
}

/// Answers each line with its own params, in sequence.
fn echo() {
    let mut input = BufReader::with_capacity(1 << 20, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).expect("stdin") > 0 {
        if let Some(answer) = answer(&line) {
            output.write_all(&answer).and_then(|()| output.flush()).expect("stdout");
        }
        line.clear();
    }
}

fn answer(line: &[u8]) -> Option<Vec<u8>> {
    let message = proxyrunner::internals::jsonrpc::scan(line).expect("a message");
    let id = &line[message.id?];
    let method = proxyrunner::internals::jsonrpc::text(line, message.method.as_ref()?);
    let params = message.params.as_ref().map_or(&b"{}"[..], |params| &line[params.span.clone()]);
    let result = match &*method {
        "initialize" => {
            &br#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}"#[..]
        }
        _ => params,
    };
    Some([&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id, b",\"result\":", result, b"}\n"].concat())
}

// ---- measurements

async fn idle() {
    let bridge = Bridge::start(&[]);
    bridge.open_session().await;
    println!("idle: {:.1} MiB resident after one session", bridge.memory("VmRSS:") / 1024.0);
}

async fn load((connections, depth, size, count): (usize, usize, usize, usize), rounds: usize) {
    let bridge = Bridge::start(&[]);
    let session = bridge.open_session().await;
    let mut rates = Vec::new();
    let mut costs = Vec::new();
    let mut middle = Vec::new();
    for _ in 0..rounds {
        let cpu = bridge.cpu();
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..connections * depth {
            clients.spawn(calls(
                bridge.address.clone(),
                session.clone(),
                size,
                count / (connections * depth),
            ));
        }
        let mut waits: Vec<Duration> = clients.join_all().await.concat();
        let done = waits.len() as f64;
        rates.push(done / begun.elapsed().as_secs_f64());
        costs.push((bridge.cpu() - cpu) * 1e6 / done);
        waits.sort_unstable();
        middle.push(waits[waits.len() / 2].as_secs_f64() * 1e6);
    }
    println!(
        "load {connections}x{depth}, {size} B: {:.0} requests/s, p50 {:.0} us, {:.1} us of proxyrunner's CPU per request (medians of {rounds})",
        median(&mut rates),
        median(&mut middle),
        median(&mut costs)
    );
}

async fn calls(address: String, session: String, size: usize, count: usize) -> Vec<Duration> {
    let mut client = connect(&address).await;
    let payload = "x".repeat(size);
    let body = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","text":"{payload}"}}}}"#
    ));
    let mut waits = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let answer = exchange(&mut client, &address, Some(&session), body.clone()).await;
        waits.push(begun.elapsed());
        assert!(
            answer.len() > size,
            "an answer was lost: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(200)])
        );
    }
    waits
}

async fn large() {
    for mebibytes in [1, 2, 4, 8, 16, 32] {
        let bridge = Bridge::start(&[]);
        let session = bridge.open_session().await;
        let mut client = connect(&bridge.address).await;
        let size = mebibytes << 20;
        let payload = "x".repeat(size);
        let body = Bytes::from(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"text":"{payload}"}}}}"#
        ));
        let idle = bridge.memory("VmRSS:");
        let mut times = Vec::new();
        let mut costs = Vec::new();
        for _ in 0..5 {
            let cpu = bridge.cpu();
            let begun = Instant::now();
            let answer = exchange(&mut client, &bridge.address, Some(&session), body.clone()).await;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            costs.push((bridge.cpu() - cpu) * 1e3);
            assert!(answer.len() > size);
        }
        let peak = (bridge.memory("VmHWM:") - idle) / 1024.0;
        println!(
            "large {mebibytes} MiB each way: {:.0} ms, {:.0} ms of proxyrunner's CPU, peak {peak:.0} MiB above idle, {:.1} times the message (medians of 5)",
            median(&mut times),
            median(&mut costs),
            peak / mebibytes as f64
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

// ---- the real binary and a client

struct Bridge {
    process: Child,
    address: String,
}

impl Bridge {
    fn start(flags: &[&str]) -> Self {
        let myself = std::env::current_exe().expect("this program");
        let mut process = Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(flags)
            .arg("--")
            .arg(myself)
            .arg("child")
            .stderr(Stdio::piped())
            .spawn()
            .expect("proxyrunner starts");
        let mut lines = BufReader::new(process.stderr.take().expect("its stderr")).lines();
        let address = lines
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
                Some(line["fields"]["address"].as_str()?.to_owned())
            })
            .expect("a listening address");
        std::thread::spawn(move || lines.for_each(drop));
        Bridge { process, address }
    }

    async fn open_session(&self) -> String {
        let mut client = connect(&self.address).await;
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
        let response = send(&mut client, &self.address, None, Bytes::from_static(body.as_bytes())).await;
        let session = response.headers()["mcp-session-id"].to_str().expect("an id").to_owned();
        collect(response.into_body()).await;
        session
    }

    fn memory(&self, field: &str) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("its status");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Returns the CPU seconds used so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("its stat");
        let after_name = stat.rsplit(')').next().expect("fields");
        let ticks: f64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        ticks / 100.0
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

async fn connect(address: &str) -> SendRequest<Whole> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    client
}

async fn send(
    client: &mut SendRequest<Whole>,
    address: &str,
    session: Option<&str>,
    body: Bytes,
) -> Response<Incoming> {
    let mut request = Request::post("/mcp")
        .header("host", address)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    client.ready().await.expect("a live connection");
    client.send_request(request.body(Whole(Some(body))).expect("a request")).await.expect("a response")
}

async fn exchange(
    client: &mut SendRequest<Whole>,
    address: &str,
    session: Option<&str>,
    body: Bytes,
) -> Vec<u8> {
    collect(send(client, address, session, body).await.into_body()).await
}

async fn collect(mut body: Incoming) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(chunk) = frame.expect("a whole body").into_data() {
            whole.extend_from_slice(&chunk);
        }
    }
    whole
}
