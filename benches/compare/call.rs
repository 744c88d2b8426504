//! Requests, and the check of their responses.

use super::http::Head;
use super::job::{Era, Job};
use super::scan;
use std::fmt::Write as _;
use std::ops::Range;

/// Ids have eight digits, so that every request of a connection has the same length.
const FIRST_ID: usize = 10_000_000;
/// Number of characters by which the texts of requests differ.
const DISTINCT: usize = 16;
const HEADERS: &str = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"compare","version":"1"}"#;

/// The call that a connection makes again and again, each time with another id and text.
pub struct Call {
    /// Head and body.
    request: Vec<u8>,
    body_at: usize,
    id_at: usize,
    token_at: Option<usize>,
    text: Range<usize>,
    progress: usize,
    connection: usize,
    connections: usize,
    made: usize,
}

impl Call {
    /// Returns the call of one of the job's connections.
    pub fn new(job: &Job, connection: usize, session: Option<&str>) -> Call {
        let shape = job.shape;
        let prefix = job.target.as_ref().map_or("", |target| &target.prefix);
        let tool = format!("{prefix}{}", if shape.progress > 0 { "progress" } else { "echo" });
        let text = "x".repeat(shape.size.max(DISTINCT));
        let body = body(shape.era, shape.progress, &tool, &text);
        let mut request = head(job, session, "tools/call", Some(&tool), body.len()).into_bytes();
        let body_at = request.len();
        request.extend_from_slice(body.as_bytes());
        let after = |key: &str| body.find(key).map(|at| body_at + at + key.len());
        let text_at = after("\"text\":\"").expect("a text");
        Call {
            body_at,
            id_at: after("\"id\":").expect("an id"),
            token_at: after("\"progressToken\":"),
            text: text_at..text_at + text.len(),
            progress: shape.progress,
            connection,
            connections: shape.in_flight(),
            made: 0,
            request,
        }
    }

    /// Prepares the next call, and returns the request.
    pub fn next(&mut self) -> &[u8] {
        let number = FIRST_ID + self.made * self.connections + self.connection;
        assert!(number < 10 * FIRST_ID, "too many requests for ids of eight digits");
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        for at in std::iter::once(self.id_at).chain(self.token_at) {
            self.request[at..at + digits.len()].copy_from_slice(digits);
        }
        let mut distinct = [b'-'; DISTINCT];
        distinct[..digits.len()].copy_from_slice(digits);
        distinct[DISTINCT - digits.len()..].copy_from_slice(digits);
        distinct[8..].reverse();
        self.request[self.text.start..self.text.start + DISTINCT].copy_from_slice(&distinct);
        self.made += 1;
        &self.request
    }

    /// Returns the message of the request without HTTP.
    pub fn message(&self) -> &[u8] {
        &self.request[self.body_at..]
    }

    /// Checks the response to the present request: its id, its text, and the progress before it.
    pub fn check(&self, head: &Head, body: &[u8]) -> Result<(), String> {
        if head.status != 200 {
            return Err(format!("status {}: {}", head.status, excerpt(body)));
        }
        let mut steps = 0;
        if !head.is_events {
            self.check_message(body, &mut steps)?;
            return self.check_steps(steps);
        }
        let mut answered = false;
        for line in body.split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            if !data.trim_ascii().is_empty() && self.check_message(data, &mut steps)? {
                if answered {
                    return Err("two responses to one request".to_owned());
                }
                answered = true;
            }
        }
        if !answered {
            return Err(format!("no response in the stream: {}", excerpt(body)));
        }
        self.check_steps(steps)
    }

    /// Checks a message for the present request. Returns `true` for the response, `false` for a notification.
    pub fn check_message(&self, message: &[u8], steps: &mut usize) -> Result<bool, String> {
        let text = &self.request[self.text.clone()];
        let Some(at) = memchr::memmem::find(message, &text[..DISTINCT]) else {
            self.check_notification(message, steps)?;
            return Ok(false);
        };
        let end = at + text.len();
        if message.get(at..end) != Some(text) || message.get(end) != Some(&b'"') {
            return Err("the text of a response is damaged".to_owned());
        }
        if !self.has_id(&message[..at]) && !self.has_id(&message[end..]) {
            return Err(format!("a response with another id: {}", excerpt(message)));
        }
        Ok(true)
    }

    /// Checks that all progress was reported before the response.
    pub fn check_steps(&self, steps: usize) -> Result<(), String> {
        if steps == self.progress {
            return Ok(());
        }
        Err(format!("{steps} of {} progress notifications on the stream of the call", self.progress))
    }

    fn check_notification(&self, message: &[u8], steps: &mut usize) -> Result<(), String> {
        let found = scan::scan(message).unwrap_or_default();
        if found.method.is_none() {
            return Err(format!("a wrong response: {}", excerpt(message)));
        }
        if let (Some(token), Some(progress)) = (found.token, found.progress) {
            *steps += 1;
            let own = self.token_at.map(|at| &self.request[at..at + 8]);
            let step = message[progress].split(|byte| *byte == b'.').next();
            if Some(&message[token]) != own || step != Some(steps.to_string().as_bytes()) {
                return Err(format!("progress out of order: {}", excerpt(message)));
            }
        }
        Ok(())
    }

    fn has_id(&self, part: &[u8]) -> bool {
        let own = &self.request[self.id_at..self.id_at + 8];
        memchr::memmem::find_iter(part, b"\"id\":").any(|at| {
            let value = part[at + 5..].trim_ascii_start();
            value.starts_with(own) && !value.get(own.len()).is_some_and(u8::is_ascii_digit)
        })
    }
}

/// Returns which connection the id or token in a message without HTTP belongs to.
pub fn connection_of(id: u64, connections: usize) -> usize {
    (id as usize).wrapping_sub(FIRST_ID) % connections
}

/// Returns the request that opens a session, or `None` if clients have none.
pub fn initialize(job: &Job) -> Option<String> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"compare","version":"1"}}}"#;
    let head = head(job, None, "initialize", None, body.len());
    (!job.shape.era.has_modern_client()).then(|| head + body)
}

/// Returns the notification after that.
pub fn initialized(job: &Job, session: Option<&str>) -> String {
    let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    head(job, session, "notifications/initialized", None, body.len()) + body
}

/// Returns a request for the event stream of a session.
pub fn stream(job: &Job, session: Option<&str>) -> String {
    let head = head(job, session, "", None, 0).replacen("POST", "GET", 1);
    head.replace(HEADERS, "accept: text/event-stream\r\n").replace("content-length: 0\r\n", "")
}

fn body(era: Era, progress: usize, tool: &str, text: &str) -> String {
    let mut body = format!(
        r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{text}""#
    );
    let _ = match progress {
        0 => write!(body, "}}"),
        count => write!(body, r#","count":{count}}}"#),
    };
    let token = format!(r#""progressToken":{FIRST_ID}"#);
    let meta = match (era.has_modern_client(), progress > 0) {
        (false, false) => String::new(),
        (false, true) => token,
        (true, false) => META.to_owned(),
        (true, true) => format!("{META},{token}"),
    };
    if !meta.is_empty() {
        let _ = write!(body, r#","_meta":{{{meta}}}"#);
    }
    body + "}}"
}

/// Returns the head of a request to the job's target; nothing for a child without a bridge.
fn head(job: &Job, session: Option<&str>, method: &str, name: Option<&str>, length: usize) -> String {
    let Some(target) = &job.target else { return String::new() };
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n{HEADERS}", target.path, target.address);
    if let Some(session) = session {
        let _ = write!(head, "mcp-session-id: {session}\r\n");
    }
    if job.shape.era.has_modern_client() {
        let _ = write!(head, "mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n");
        if let Some(name) = name {
            let _ = write!(head, "mcp-name: {name}\r\n");
        }
    } else if method != "initialize" {
        head.push_str("mcp-protocol-version: 2025-06-18\r\n");
    }
    let _ = write!(head, "content-length: {length}\r\n\r\n");
    head
}

/// Returns the beginning of a message, for errors.
pub fn excerpt(message: &[u8]) -> String {
    let start = String::from_utf8_lossy(&message[..message.len().min(160)]);
    start.replace(['\r', '\n'], " ").trim().to_owned()
}
