//! The signals to proxyrunner: some end it, the others are forwarded to the server.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::{self, IsTerminal};
use tokio::signal::unix::{self, SignalKind, signal};

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Shut down.
    End(i32),
    /// Forward the signal to the server.
    Forward(Signal),
}

/// The signals that proxyrunner handles.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    quit: unix::Signal,
    user: [unix::Signal; 2],
    /// On a terminal a hang-up ends the user's session, and Ctrl-\ means the same as Ctrl-C.
    on_terminal: bool,
}

/// Lets a write beyond the limit on a file's size fail (`RLIMIT_FSIZE`), instead of ending the process.
pub fn survive_file_limits() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed, only the disposition to ignore. A server gets the default again.
    let _ = unsafe { sigaction(Signal::SIGXFSZ, &ignore) };
}

impl Signals {
    /// Registers the handlers.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
            on_terminal: io::stdin().is_terminal(),
        })
    }

    /// Returns the next signal.
    pub async fn next(&mut self) -> Meaning {
        let [user1, user2] = &mut self.user;
        let signal = tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.hangup.recv() => Signal::SIGHUP,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = user1.recv() => Signal::SIGUSR1,
            _ = user2.recv() => Signal::SIGUSR2,
        };
        match signal {
            Signal::SIGTERM | Signal::SIGINT => Meaning::End(signal as i32),
            Signal::SIGHUP | Signal::SIGQUIT if self.on_terminal => Meaning::End(signal as i32),
            signal => Meaning::Forward(signal),
        }
    }
}
