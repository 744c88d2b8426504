//! The exit of proxyrunner without running, and its output.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// The reason why proxyrunner exits without running: help was requested, or settings are bad.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Exit {
    /// `EX_USAGE` of sysexits.h.
    pub const USAGE: u8 = 64;

    /// Returns the exit after a text that was asked for.
    pub(crate) fn done(text: String) -> Exit {
        Exit { code: 0, text }
    }

    /// Returns the exit for bad words or settings.
    pub(crate) fn usage(text: String) -> Exit {
        Exit { code: Self::USAGE, text }
    }

    /// Returns the exit of a command that has failed.
    pub(crate) fn failed(text: String) -> Exit {
        Exit { code: 1, text }
    }

    /// Returns the exit that clap asks for: help, the version, or bad words.
    pub(crate) fn of_clap(error: &clap::Error) -> Exit {
        let text = error.render().to_string();
        if !error.use_stderr() {
            return Exit::done(text);
        }
        // clap spreads an error over several lines: the mistake, tips, and the usage.
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let parts = text.split("\n\n").filter(|part| {
            let part = part.trim_start();
            !part.starts_with("Usage:") && !part.starts_with("For more information")
        });
        let mut line = String::new();
        for part in parts.flat_map(str::lines).map(str::trim).filter(|part| !part.is_empty()) {
            // An option that is misspelt was not meant as a value.
            if part.starts_with("tip: to pass ") {
                continue;
            }
            let joint = if part.starts_with("tip:") { "; " } else { " " };
            line.push_str(if line.is_empty() { "" } else { joint });
            line.push_str(part);
        }
        Exit::usage(format!("proxyrunner: {line}; see --help"))
    }

    /// Prints the text, on stdout if it was requested and else on stderr.
    pub fn report(&self) -> ExitCode {
        let text = self.text.trim_end();
        if self.code == 0 {
            return print(format!("{text}\n").as_bytes());
        }
        // Without stderr, the exit code has to do.
        let _ = writeln!(std::io::stderr(), "{text}");
        ExitCode::from(self.code)
    }
}

/// Prints a text that was asked for. A reader that closes the pipe early, such as `head`, has what it wants.
pub(crate) fn print(text: &[u8]) -> ExitCode {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Exit::failed(format!("proxyrunner: cannot write to stdout: {error}")).report()
        }
        _ => ExitCode::SUCCESS,
    }
}
