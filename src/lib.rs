//! proxyrunner spawns a stdio MCP server as its child and serves it over HTTP.

pub mod child;
pub mod config;
pub mod framing;
pub mod http;
pub mod jsonrpc;
pub mod mux;
pub mod session;
pub mod sync;
pub mod telemetry;
pub mod trace_context;
pub mod upstream;
