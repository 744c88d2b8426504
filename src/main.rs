//! Parse, run, exit code; nothing else.

use proxyrunner::config;
use std::process::ExitCode;

fn main() -> ExitCode {
    match config::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(_config) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}
