//! The names of spans and attributes. They follow the semantic conventions of OpenTelemetry where those define one
//! (semantic-conventions-genai, docs/gen-ai/mcp.md; semantic-conventions, docs/http). `docs/observability.md` lists
//! them.

macro_rules! attributes {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub const $ident: &str = $name;)*
        /// All attributes, as pairs of name and help text.
        #[cfg(test)]
        pub const ATTRIBUTES: &[(&str, &str)] = &[$(($name, $help)),*];
    };
}

attributes! {
    METHOD "mcp.method.name" "Method of the message."
    TOOL "gen_ai.tool.name" "Name of the called tool."
    PROMPT "gen_ai.prompt.name" "Name of the requested prompt."
    OPERATION "gen_ai.operation.name" "`execute_tool` for tool calls."
    RESOURCE "mcp.resource.uri" "URI of the resource, without user information, parameters, query and fragment."
    PROTOCOL "mcp.protocol.version" "Protocol revision."
    SESSION "mcp.session.id" "First six characters of the legacy session's id; the whole id is a secret."
    REQUEST "jsonrpc.request.id" "Request id as its receiver sees it."
    ARGUMENTS "gen_ai.tool.call.arguments" "Redacted arguments of a tool call; only with `--trace-arguments`."
    RESULT "gen_ai.tool.call.result" "Redacted result of a tool call; only with `--trace-results`."
    ERROR "error.type" "Code of the JSON-RPC error, `tool_error`, or the reason for a missing answer."
    STATUS "rpc.response.status_code" "Code of the JSON-RPC error."
    TRANSPORT "network.transport" "`tcp` for clients, `pipe` for the child."
    NETWORK "network.protocol.name" "`http` or `https`."
    NETWORK_VERSION "network.protocol.version" "HTTP version."
    CLIENT "client.address" "Address of the client."
    CLIENT_PORT "client.port" "Port of the client."
    HTTP_METHOD "http.request.method" "HTTP method."
    HTTP_ROUTE "http.route" "Path of the endpoint."
    HTTP_STATUS "http.response.status_code" "HTTP status."
    URL_PATH "url.path" "Requested path."
    URL_SCHEME "url.scheme" "`http`."
    USER_AGENT "user_agent.original" "User-Agent header of the client."
    POLICY_DECISION "proxyrunner.policy.decision" "Decision of the policies on the request: `allow`, `deny` or `error`."
    POLICY_IDS "proxyrunner.policy.ids" "Ids of the policies that determined the decision, separated by commas."
    CHILD "proxyrunner.child.number" "Number of the child, as in the log."
    ERA "proxyrunner.child.era" "Protocol era of the child."
    ATTEMPT "proxyrunner.restart.attempt" "Consecutive restarts so far."
    QUESTIONS "proxyrunner.questions" "Number of questions to the client."
    QUEUED "proxyrunner.queue.duration" "Time in seconds that the request waited for a permit or a child."
}

macro_rules! spans {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub const $ident: &str = $name;)*
        /// All spans whose name is fixed, as pairs of name and help text.
        #[cfg(test)]
        pub const SPANS: &[(&str, &str)] = &[$(($name, $help)),*];
    };
}

spans! {
    CHILD_START "child.start" "From the request for a child to its process being ready, and to the end of its handshake if proxyrunner performs it."
    CHILD_HANDSHAKE "child.handshake" "The handshake with the child."
    CHILD_RESTART "child.restart" "From a child's exit to its replacement being ready."
    PARK "park" "From a question to a modern client to its retry, or to the end of `--park-timeout`."
    RESUME "resume" "From a client's retry to the call receiving its answers."
}

/// Joins two words with a space in one allocation.
pub fn two_words(one: &str, two: &str) -> String {
    let mut name = String::with_capacity(one.len() + 1 + two.len());
    name.push_str(one);
    name.push(' ');
    name.push_str(two);
    name
}
