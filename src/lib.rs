//! proxyrunner spawns a stdio MCP server as its child and serves it over HTTP.
//!
//! Each module imports only from those below it; `tests/integration/architecture.rs` holds the table of layers.

pub mod admission;
pub mod app;
pub mod budget;
mod calls;
mod catalogue;
pub mod child;
mod children;
pub mod client;
mod clock;
pub mod config;
pub mod era;
pub mod exchange;
pub mod export;
pub mod framing;
pub mod http;
mod ingress;
mod inquiry;
pub mod jsonrpc;
pub mod lifecycle;
pub mod memory;
pub mod mux;
pub mod phase;
pub mod proc;
pub mod pulse;
pub mod router;
pub mod session;
pub mod shutdown;
pub mod signals;
pub mod supervisor;
pub mod sync;
pub mod telemetry;
pub mod trace_context;
pub mod upstream;
