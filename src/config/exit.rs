//! The exit of proxyrunner without running, and its output.

use std::io::Write as _;
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
        match text.strip_prefix("error: ") {
            Some(usage) if error.use_stderr() => Exit::usage(format!("proxyrunner: {usage}")),
            _ if error.use_stderr() => Exit::usage(text),
            _ => Exit::done(text),
        }
    }

    /// Prints the text, on stdout if it was requested and else on stderr.
    pub fn report(&self) -> ExitCode {
        let text = self.text.trim_end();
        // An error is ignored: a closed pipe has no reader.
        let _ = if self.code == 0 {
            writeln!(std::io::stdout(), "{text}")
        } else {
            writeln!(std::io::stderr(), "{text}")
        };
        ExitCode::from(self.code)
    }
}
