//! proxyrunner spawns a stdio MCP server as its child and serves it over HTTP.
//!
//! `docs/architecture.md` describes the modules, the path of a request, and the decisions behind both. Each module
//! imports only from the modules below it; `tests/integration/architecture.rs` contains the table of layers.

#![warn(clippy::missing_docs_in_private_items)]

mod admission;
mod app;
mod aside;
mod audience;
mod audit;
mod auth;
mod backoff;
mod budget;
mod calls;
mod catalogue;
mod child;
mod children;
mod client;
mod clock;
mod commands;
mod config;
mod era;
mod exchange;
mod export;
mod framing;
#[cfg(feature = "gateway")]
mod gateway;
mod http;
mod identity;
mod ingress;
mod inject;
mod inquiry;
mod jsonrpc;
mod lifecycle;
mod limits;
mod memory;
mod mounted;
mod mux;
mod outbound;
mod phase;
mod policy;
mod proc;
mod pulse;
#[cfg(feature = "gateway")]
mod redis;
mod registration;
#[cfg(feature = "gateway")]
mod remote;
mod router;
mod session;
mod shutdown;
mod signals;
mod sorted;
mod supervisor;
mod sync;
mod tasks;
mod telemetry;
mod tls;
mod trace_context;
mod upstream;
mod yaml;

use std::process::ExitCode;

/// Parses the arguments, runs proxyrunner, and returns the exit code. Under another name it runs as a guardian.
pub fn run() -> ExitCode {
    // The environment contains secrets that the server must not read, such as headers for collectors.
    proc::forbid_inspection();
    let mut words = std::env::args_os();
    if child::guardian::is_meant(words.next()) {
        return child::guardian::run(words);
    }
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(code) = commands::run(&words) {
        return code;
    }
    let config = match config::load(words, std::env::vars_os().collect(), memory::limit()) {
        Ok(config) => config,
        Err(exit) => return exit.report(),
    };
    match app::run(config) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("proxyrunner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The items that benches, fuzz targets and black-box tests use. All others are private, so that the compiler reports
/// unused ones.
#[doc(hidden)]
pub mod internals {
    pub use crate::http::sse;

    pub mod audit {
        pub use crate::audit::Key;
        pub use crate::audit::verify;
    }

    pub mod auth {
        pub use crate::auth::{api_keys_in, introspection_in, key_set_in, token_in};
    }

    pub mod budget {
        pub use crate::budget::{Account, Budget, Charged};
    }

    pub mod client {
        pub use crate::client::Client;
    }

    pub mod config {
        pub use crate::config::table;
    }

    pub mod era {
        pub use crate::era::{Era, capabilities, envelope, probe};
    }

    pub mod exchange {
        pub use crate::exchange::{Class, End, Ends, Failure, Intake, LastWords, Link, Order, Urgent};
    }

    pub mod export {
        pub use crate::export::{Signal, rejected};
        pub use crate::outbound::records_in;
    }

    pub mod framing {
        pub use crate::framing::{Framed, Framer, IdSeeker};
    }

    #[cfg(feature = "gateway")]
    pub mod gateway {
        pub use crate::gateway::{records_in, servers_in, subscriptions_in};
        pub use crate::http::events_in;
    }

    pub mod identity {
        pub use crate::identity::Identity;
    }

    pub mod inject {
        pub use crate::inject::{Options, Value, documents, rewrite, written};
    }

    pub mod jsonrpc {
        pub use crate::jsonrpc::rewrite;
        pub use crate::jsonrpc::{
            ClientId, Edits, Fault, Kind, Message, Meta, Params, Span, Spliced, break_no_lines, codes,
            elements, integer, is_batch, members, scan, splice, text,
        };
    }

    pub mod lifecycle {
        pub use crate::lifecycle::Policy;
    }

    pub mod mux {
        pub use crate::mux::{Abandoned, Answering, Completed, Lost, Mux, Pending, Refused, WireId, table};
    }

    #[cfg(feature = "policy")]
    pub mod policy {
        pub use crate::policy::parses;
    }

    pub mod phase {
        pub use crate::phase::channel;
    }

    #[cfg(feature = "gateway")]
    pub mod redis {
        pub use crate::redis::{Reply, first_reply_in};
    }

    #[cfg(feature = "gateway")]
    pub mod remote {
        pub use crate::remote::events_in;
    }

    pub mod router {
        pub use crate::router::Router;
    }

    pub mod session {
        pub use crate::identity::Principal;
        pub use crate::session::{Directory, Reader, Session, Settings, StreamId};
    }

    pub mod tls {
        pub use crate::tls::names_in;
    }

    pub mod trace_context {
        pub use crate::trace_context::{
            AllowedBaggage, Context, OwnBaggage, Trace, is_baggage, is_traceparent, is_tracestate,
        };
    }

    pub mod upstream {
        pub use crate::upstream::{
            AtCap, Begun, Caller, ChildPlace, Happening, Incoming, Isolation, LegacyStep, Received, Refusal,
            Seal, Settings, Upstream, Want,
        };
    }
}
