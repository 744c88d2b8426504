//! proxyrunner spawns a stdio MCP server as its child and serves it over HTTP.
//!
//! `docs/architecture.md` describes the rooms, the way of a request, and the decisions behind both. Each module imports
//! only from the modules below it; `tests/integration/architecture.rs` holds the table of layers.

mod admission;
pub mod app;
pub mod audience;
mod backoff;
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
mod export;
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
mod pulse;
pub mod router;
pub mod session;
mod shutdown;
mod signals;
mod supervisor;
mod sync;
pub mod telemetry;
pub mod trace_context;
pub mod upstream;
