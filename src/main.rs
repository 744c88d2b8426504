//! Parse, run, exit code; nothing else. Or, executed by itself under another name, a guardian.

use proxyrunner::child::guardian;
use proxyrunner::{app, config, memory, proc};
use std::process::ExitCode;

fn main() -> ExitCode {
    // The environment has secrets that are not for the server, such as the headers for collectors.
    proc::forbid_inspection();
    let mut words = std::env::args_os();
    if guardian::is_meant(words.next()) {
        return guardian::run(words);
    }
    let config = match config::load(std::env::args_os(), std::env::vars_os(), memory::limit()) {
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
