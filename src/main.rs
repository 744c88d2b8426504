//! Parses the arguments, runs proxyrunner, and returns the exit code. Under another name it runs as a guardian.

use proxyrunner::child::guardian;
use proxyrunner::{app, config, memory, proc};
use std::process::ExitCode;

fn main() -> ExitCode {
    // The environment holds secrets that the server must not read, such as headers for collectors.
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
