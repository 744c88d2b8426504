//! The child server: sequential and fast, so that it is never what a measurement measures. It writes its responses when
//! no complete request is left in its buffer.

use super::scan::{self, Found};
use std::io::{Read, Write};

/// Size above which responses are written although requests are left.
const WRITE_AT: usize = 256 * 1024;
/// Free space for each read.
const READ_AT_LEAST: usize = 64 * 1024;

const TOOLS: &str = r#"{"name":"echo","description":"Returns its text","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}},{"name":"progress","description":"Reports progress, then returns its text","inputSchema":{"type":"object","properties":{"text":{"type":"string"},"count":{"type":"integer"}},"required":["text"]}}"#;

/// Serves stdin and stdout until stdin is closed.
pub fn run(modern: bool) {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut buffer = Lines::default();
    let mut responses = Vec::new();
    while buffer.fill(&mut input) {
        while let Some(line) = buffer.next() {
            answer(line, modern, &mut responses);
            if responses.len() >= WRITE_AT {
                output.write_all(&responses).expect("stdout");
                responses.clear();
            }
        }
        output.write_all(&responses).and_then(|()| output.flush()).expect("stdout");
        responses.clear();
    }
}

/// A buffer that is cut into lines.
#[derive(Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// End of the bytes that were read.
    end: usize,
    /// Start of the next line.
    start: usize,
    /// Start of the bytes in which no newline was looked for yet.
    unseen: usize,
}

impl Lines {
    /// Reads once. Returns `false` at the end of the input.
    pub fn fill(&mut self, input: &mut impl Read) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.unseen -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < self.end + READ_AT_LEAST {
            self.bytes.resize((self.end + READ_AT_LEAST).next_power_of_two(), 0);
        }
        match input.read(&mut self.bytes[self.end..]) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.end += count;
                true
            }
        }
    }

    /// Returns the next complete line without its newline.
    pub fn next(&mut self) -> Option<&[u8]> {
        match memchr::memchr(b'\n', &self.bytes[self.unseen..self.end]) {
            Some(length) => {
                let line = self.start..self.unseen + length;
                self.start = line.end + 1;
                self.unseen = self.start;
                Some(&self.bytes[line])
            }
            None => {
                self.unseen = self.end;
                None
            }
        }
    }
}

/// Appends the response to a request. Notifications have none.
fn answer(line: &[u8], modern: bool, out: &mut Vec<u8>) {
    let Some(found) = scan::scan(line) else { return };
    let (Some(id), Some(method)) = (found.id.clone(), found.method.clone()) else { return };
    if &line[method.clone()] == b"\"tools/call\"" {
        report_progress(line, &found, out);
    }
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(&line[id]);
    result(line, &line[method], &found, modern, out);
    out.extend_from_slice(b"}\n");
}

/// Appends what follows the id.
fn result(line: &[u8], method: &[u8], found: &Found, modern: bool, out: &mut Vec<u8>) {
    let kind = if modern { "\"resultType\":\"complete\"," } else { "" };
    let text = match method {
        b"\"tools/call\"" => {
            out.extend_from_slice(b",\"result\":{");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
            out.extend_from_slice(found.text.clone().map_or(b"\"\"", |span| &line[span]));
            return out.extend_from_slice(b"}]}");
        }
        b"\"initialize\"" if !modern => {
            r#","result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"compare","version":"1"}}"#.to_owned()
        }
        b"\"server/discover\"" if modern => {
            r#","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":60000,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"compare","version":"1"}}}"#.to_owned()
        }
        b"\"tools/list\"" if modern => {
            format!(r#","result":{{{kind}"tools":[{TOOLS}],"ttlMs":60000,"cacheScope":"public"}}"#)
        }
        b"\"tools/list\"" => format!(r#","result":{{"tools":[{TOOLS}]}}"#),
        b"\"ping\"" => r#","result":{}"#.to_owned(),
        _ => r#","error":{"code":-32601,"message":"Method not found"}"#.to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends the progress notifications that a call asks for.
fn report_progress(line: &[u8], found: &Found, out: &mut Vec<u8>) {
    let Some(token) = &found.token else { return };
    let count = scan::number(line, found.count.clone()).unwrap_or(0);
    for step in 1..=count {
        out.extend_from_slice(
            b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":",
        );
        out.extend_from_slice(&line[token.clone()]);
        let _ = writeln!(out, ",\"progress\":{step},\"total\":{count}}}}}");
    }
}
