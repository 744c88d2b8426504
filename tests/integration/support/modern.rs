//! A client of 2026-07-28: without a session; each request has an envelope and headers that repeat its method and name.

use super::connection::JSON;
use super::{Connection, Response, Server};
use serde_json::{Value, json};

/// The protocol revision of the client.
pub const VERSION: &str = "2026-07-28";
/// The keys of the envelope in `params._meta`.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// A modern client with the metadata and headers of its requests.
#[derive(Clone)]
pub struct Modern<'a> {
    server: &'a Server,
    meta: Value,
    headers: Vec<(String, String)>,
}

/// The questions of an `input_required` result, and the state for the retry.
#[derive(Debug)]
pub struct Asked {
    /// The questions by key, in the order of the keys.
    pub questions: Vec<(String, Value)>,
    /// The `requestState`.
    pub state: String,
}

impl Server {
    /// Returns a modern client without capabilities.
    pub fn modern(&self) -> Modern<'_> {
        let info = json!({"name": "test", "version": "1"});
        let meta = json!({
            PROTOCOL_VERSION: VERSION, CLIENT_CAPABILITIES: {}, "io.modelcontextprotocol/clientInfo": info,
        });
        Modern { server: self, meta, headers: Vec::new() }
    }

    /// Returns a modern client that answers all kinds of questions.
    pub fn asked(&self) -> Modern<'_> {
        self.modern().capabilities(json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}}))
    }
}

impl Modern<'_> {
    /// Returns the same client, which sends its requests to another replica.
    #[cfg(feature = "gateway")]
    pub fn through<'b>(&self, server: &'b Server) -> Modern<'b> {
        Modern { server, meta: self.meta.clone(), headers: self.headers.clone() }
    }

    /// Sets the declared capabilities.
    pub fn capabilities(self, capabilities: Value) -> Self {
        self.meta(CLIENT_CAPABILITIES, capabilities)
    }

    /// Sets a member of `_meta` in every request.
    pub fn meta(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.meta[key] = value.into();
        self
    }

    /// Removes a member of `_meta`.
    pub fn without(mut self, key: &str) -> Self {
        self.meta.as_object_mut().expect("an object").remove(key);
        self
    }

    /// Adds a header to every request, which replaces the client's own header of that name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the principal, for servers with `--principal-header x-user`.
    pub fn of(self, principal: &str) -> Self {
        self.header("X-User", principal)
    }

    /// Builds a request.
    pub fn body(&self, id: impl Into<Value>, method: &str, mut params: Value) -> Value {
        params["_meta"] = self.meta.clone();
        json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
    }

    /// Sends a body with the matching headers, without reading the response.
    pub fn begin_body(&self, body: &Value) -> Connection {
        let mut headers: Vec<(&str, &str)> = JSON.to_vec();
        let params = &body["params"];
        let name = match body["method"].as_str() {
            Some("tasks/get" | "tasks/update" | "tasks/cancel") => "taskId",
            Some("resources/read") => "uri",
            _ => "name",
        };
        let own = [
            ("MCP-Protocol-Version", &self.meta[PROTOCOL_VERSION]),
            ("Mcp-Method", &body["method"]),
            ("Mcp-Name", &params[name]),
        ];
        let replaced = |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        headers.extend(
            own.iter()
                .filter(|(name, _)| !replaced(name))
                .filter_map(|(name, value)| Some((*name, value.as_str()?))),
        );
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut connection = self.server.connect();
        connection.request("POST", self.server.path(), &headers, body.to_string().as_bytes());
        connection
    }

    /// Sends a body and reads the whole response.
    pub fn send_body(&self, body: &Value) -> Response {
        self.begin_body(body).response()
    }

    /// Sends a request and reads the whole response.
    pub fn send(&self, method: &str, params: Value) -> Response {
        self.send_body(&self.body(1, method, params))
    }

    /// Begins a call of a tool.
    pub fn begin_call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Connection {
        self.begin_body(&self.body(id, "tools/call", json!({"name": tool, "arguments": arguments})))
    }

    /// Calls a tool.
    pub fn call(&self, tool: &str, arguments: Value) -> Response {
        self.begin_call(1, tool, arguments).response()
    }

    /// Calls a tool and returns the result.
    pub fn result(&self, tool: &str, arguments: Value) -> Value {
        result(&self.call(tool, arguments))
    }

    /// Retries a call with the state and the answers.
    pub fn retry(&self, tool: &str, arguments: Value, asked: &Asked, answers: Value) -> Response {
        self.begin_retry(tool, arguments, &asked.state, answers).response()
    }

    /// Begins the retry of a call.
    pub fn begin_retry(&self, tool: &str, arguments: Value, state: &str, answers: Value) -> Connection {
        let params =
            json!({"name": tool, "arguments": arguments, "requestState": state, "inputResponses": answers});
        self.begin_body(&self.body("again", "tools/call", params))
    }

    /// Returns the process id of the child that serves this client now.
    pub fn child(&self) -> u64 {
        self.result("facts", json!({}))["pid"].as_u64().expect("a pid")
    }
}

/// Returns the result in a response.
pub fn result(response: &Response) -> Value {
    let answer = response.answer();
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

impl Asked {
    /// Reads the questions in a response.
    pub fn of(response: &Response) -> Asked {
        Asked::read(&result(response))
    }

    /// Reads the questions in a result.
    pub fn read(result: &Value) -> Asked {
        assert_eq!(result["resultType"], "input_required", "{result}");
        assert!(result["_meta"][SERVER_INFO].is_object() && result["ttlMs"].is_null(), "{result}");
        let questions = result["inputRequests"].as_object().expect("questions");
        let questions = questions.iter().map(|(key, question)| (key.clone(), question.clone())).collect();
        Asked { questions, state: result["requestState"].as_str().expect("a state").to_owned() }
    }

    /// Returns the same answer to every question.
    pub fn all(&self, answer: &Value) -> Value {
        self.questions.iter().map(|(key, _)| (key.clone(), answer.clone())).collect()
    }
}
