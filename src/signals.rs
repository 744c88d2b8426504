//! Signals that proxyrunner gets: which of them end it, and which are the server's.

use nix::sys::signal::Signal;
use std::io::{self, IsTerminal};
use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// proxyrunner is to end.
    End(i32),
    /// The server is to get it.
    Forward(Signal),
}

/// The signals that are listened for.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    quit: unix::Signal,
    user: [unix::Signal; 2],
    /// Someone sits in front of it: then a hang-up is the end of their session, and Ctrl-\ is meant as Ctrl-C.
    on_terminal: bool,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system doesn't let it.
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

    /// The next one.
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
