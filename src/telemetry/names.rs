//! The names of spans and attributes, by the conventions of OpenTelemetry where they have one (semantic-conventions-genai,
//! docs/gen-ai/mcp.md; semantic-conventions, docs/http). `docs/observability.md` tells of each.

macro_rules! attributes {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub const $ident: &str = $name;)*
        /// Every attribute: its name, and what it says.
        pub const ATTRIBUTES: &[(&str, &str)] = &[$(($name, $help)),*];
    };
}

attributes! {
    METHOD "mcp.method.name" "The message's method."
    TOOL "gen_ai.tool.name" "The tool that is called."
    PROMPT "gen_ai.prompt.name" "The prompt that is asked for."
    OPERATION "gen_ai.operation.name" "`execute_tool`, for a tool's call."
    RESOURCE "mcp.resource.uri" "The resource that the message is about, without user, parameters, query and fragment."
    PROTOCOL "mcp.protocol.version" "The revision that is spoken."
    SESSION "mcp.session.id" "The beginning of the legacy session's id, which as a whole is a secret."
    REQUEST "jsonrpc.request.id" "The request's id, as its receiver knows it."
    ARGUMENTS "gen_ai.tool.call.arguments" "A tool's arguments, redacted; only with `--trace-arguments`."
    RESULT "gen_ai.tool.call.result" "A tool's result, redacted; only with `--trace-results`."
    ERROR "error.type" "The code of the JSON-RPC error, `tool_error`, or why there was no answer."
    STATUS "rpc.response.status_code" "The code of the JSON-RPC error."
    TRANSPORT "network.transport" "`tcp` towards clients, `pipe` towards the child."
    NETWORK "network.protocol.name" "`http`."
    NETWORK_VERSION "network.protocol.version" "The version of HTTP."
    CLIENT "client.address" "The peer's address."
    CLIENT_PORT "client.port" "The peer's port."
    HTTP_METHOD "http.request.method" "The HTTP method."
    HTTP_ROUTE "http.route" "The path that is served."
    HTTP_STATUS "http.response.status_code" "The HTTP status."
    URL_PATH "url.path" "The path that was asked for."
    URL_SCHEME "url.scheme" "`http`."
    USER_AGENT "user_agent.original" "What the client calls itself."
    CHILD "proxyrunner.child.number" "The child's number, as in the log."
    ERA "proxyrunner.child.era" "The protocol era that the child speaks."
    ATTEMPT "proxyrunner.restart.attempt" "Restarts in a row so far."
    QUESTIONS "proxyrunner.questions" "Questions that the client is asked."
    QUEUED "proxyrunner.queue.duration" "How long the request waited for its turn or for a child, in seconds."
}

macro_rules! spans {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub const $ident: &str = $name;)*
        /// Every span that is not named after a message: its name, and what it covers.
        pub const SPANS: &[(&str, &str)] = &[$(($name, $help)),*];
    };
}

spans! {
    CHILD_START "child.start" "From the wish for a child to its process, and to the end of its handshake where that is proxyrunner's own."
    CHILD_HANDSHAKE "child.handshake" "That handshake."
    CHILD_RESTART "child.restart" "From a child's end to the moment when the next one serves in its place."
    PARK "park" "From a question to a modern client to its retry, or to the end of `--park-timeout`."
    RESUME "resume" "From a retry to the moment when the call has its answers."
}

/// Two words as one name; as many spans have it.
pub fn two_words(one: &str, two: &str) -> String {
    let mut name = String::with_capacity(one.len() + 1 + two.len());
    name.push_str(one);
    name.push(' ');
    name.push_str(two);
    name
}
