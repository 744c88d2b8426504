//! A legacy client, which opens a session and sends requests within it.

use super::connection::JSON;
use super::{Connection, Events, Response, Server};
use serde_json::{Value, json};

/// Builder for a session.
pub struct Opening<'a> {
    server: &'a Server,
    version: &'a str,
    capabilities: Value,
    headers: Vec<(String, String)>,
    padding: usize,
}

/// An open session.
pub struct Session<'a> {
    server: &'a Server,
    /// `Mcp-Session-Id`.
    pub id: String,
    /// The answer to `initialize`.
    pub welcome: Value,
    headers: Vec<(String, String)>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(server: &'a Server) -> Self {
        Opening { server, version: "2025-11-25", capabilities: json!({}), headers: Vec::new(), padding: 0 }
    }

    /// Sets the protocol version that the client requests.
    pub fn version(self, version: &'a str) -> Self {
        Opening { version, ..self }
    }

    /// Sets the declared capabilities.
    pub fn capabilities(self, capabilities: Value) -> Self {
        Opening { capabilities, ..self }
    }

    /// Declares capabilities that give the client an exclusive child.
    pub fn exclusive(self) -> Self {
        self.capabilities(json!({"sampling": {}, "elicitation": {}}))
    }

    /// Adds a header to every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Makes `initialize` longer by this many bytes.
    pub fn padded(self, bytes: usize) -> Self {
        Opening { padding: bytes, ..self }
    }

    /// Returns the `initialize` request.
    pub fn body(&self) -> String {
        let mut params = json!({
            "protocolVersion": self.version,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        });
        if self.padding > 0 {
            params["padding"] = "x".repeat(self.padding).into();
        }
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
    }

    /// Sends `initialize` and returns the response, which may be an error.
    pub fn send(&self) -> Response {
        self.server.post(&borrowed(&self.headers), self.body())
    }

    /// Opens the session with `initialize` and `notifications/initialized`.
    pub fn open(self) -> Session<'a> {
        let response = self.send();
        let welcome = response.answer();
        let id = response.header("mcp-session-id");
        let id = id.unwrap_or_else(|| panic!("no session: {}", response.text())).to_owned();
        let mut headers = self.headers;
        headers.push(("Mcp-Session-Id".into(), id.clone()));
        let session = Session { server: self.server, id, welcome, headers };
        let accepted = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(accepted.status, 202);
        session
    }
}

impl<'a> Session<'a> {
    /// Returns the negotiated version.
    pub fn version(&self) -> &str {
        self.welcome["result"]["protocolVersion"].as_str().expect("a version")
    }

    /// Returns the same session, whose client sends its requests to another replica.
    #[cfg(feature = "gateway")]
    pub fn through<'b>(&self, server: &'b Server) -> Session<'b> {
        Session { server, id: self.id.clone(), welcome: self.welcome.clone(), headers: self.headers.clone() }
    }

    /// Sends a message and reads the whole response, either JSON or a stream.
    pub fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.begin(body).response()
    }

    /// Sends a message without reading the response.
    pub fn begin(&self, body: impl AsRef<[u8]>) -> Connection {
        let mut connection = self.server.connect();
        let headers = [JSON, &borrowed(&self.headers)].concat();
        connection.request("POST", self.server.path(), &headers, body.as_ref());
        connection
    }

    /// Calls a tool of the scripted child and returns the answer.
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        self.post(tool_call(1, tool, &arguments)).answer()
    }

    /// Calls a tool and returns the result.
    pub fn result(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.call(tool, arguments);
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Begins a call without reading the response.
    pub fn begin_call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Connection {
        self.begin(tool_call(id, tool, &arguments))
    }

    /// Sends a request of any method and returns the answer.
    pub fn ask(&self, method: &str, params: Value) -> Value {
        self.post(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()).answer()
    }

    /// Sends a notification or an answer.
    pub fn tell(&self, message: Value) {
        let response = self.post(message.to_string());
        assert_eq!((response.status, response.text().as_str()), (202, ""));
    }

    /// Sends a request without a body.
    pub fn request(&self, method: &str, headers: &[(&str, &str)]) -> Connection {
        let mut connection = self.server.connect();
        let own = borrowed(&self.headers);
        connection.request(method, self.server.path(), &[&own, &JSON[1..], headers].concat(), b"");
        connection
    }

    /// Opens a standalone stream.
    pub fn listen(&self) -> Events {
        self.request("GET", &[]).events()
    }

    /// Resumes a stream after an event.
    pub fn resume(&self, last_event_id: &str) -> Events {
        self.request("GET", &[("Last-Event-ID", last_event_id)]).events()
    }

    /// Ends the session.
    pub fn delete(&self) -> Response {
        self.request("DELETE", &[]).response()
    }

    /// Returns the valid frames that the child has read, in order.
    pub fn child_read(&self) -> Vec<Value> {
        let frames = self.result("recall", json!({}))["frames"].clone();
        let frames = frames.as_array().expect("a list").iter().map(|frame| frame.as_str().expect("text"));
        frames.filter_map(|frame| serde_json::from_str(frame).ok()).collect()
    }
}

/// Returns a call of a tool of the scripted child.
pub fn tool_call(id: impl Into<Value>, tool: &str, arguments: &Value) -> String {
    let id: Value = id.into();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
