//! Black-box tests of the binary: each test starts proxyrunner and talks to it over HTTP. All tests are one program,
//! with a module per subject, so that shared code is compiled once.

mod admission;
mod architecture;
mod audit;
mod callers;
mod cards;
mod chaos;
mod child_identity;
mod cli;
mod clients;
mod commands;
#[cfg(feature = "gateway")]
mod connect;
mod connections;
mod cursors;
mod drain;
mod eras;
mod expiry;
mod faults;
#[cfg(feature = "gateway")]
mod forwarding;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod gateway_callers;
#[cfg(feature = "gateway")]
mod gateway_combined;
#[cfg(feature = "gateway")]
mod gateway_control;
#[cfg(feature = "gateway")]
mod gateway_lines;
#[cfg(feature = "gateway")]
mod gateway_passing;
mod gateway_policy;
#[cfg(feature = "gateway")]
mod gateway_registration;
mod guards;
mod habits;
mod http2;
mod inject;
mod isolation;
mod leases;
mod limits;
mod list_changes;
mod listen;
mod lists;
mod load;
mod many;
mod memory;
mod modern;
mod old_sse;
mod params;
mod passing;
mod policy;
mod processes;
mod questions;
mod questions_modern;
#[cfg(feature = "gateway")]
mod redis;
mod restarts;
mod rolling;
mod rotation;
mod sessions;
mod shutdown;
mod streams;
mod support;
#[cfg(feature = "gateway")]
mod takeover;
mod tasks;
mod terminal;
mod tls;
mod translated;
mod translated_listen;
mod translated_questions;
mod wire;
