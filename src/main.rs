//! The program: [`proxyrunner::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    proxyrunner::run()
}
