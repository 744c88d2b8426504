//! proxyrunner spawns a stdio MCP server as its child and serves it over HTTP.

pub mod framing;
pub mod jsonrpc;
pub mod mux;
pub mod sync;
pub mod trace_context;
