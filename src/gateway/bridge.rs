//! A sidecar beside this process, which translates between the protocol eras for one client. Only the holder of a key that
//! exists nowhere else can use it, so that no other user of this host can.

use super::children::{self, DRAIN, INHERITED};
use super::published::Published;
use crate::auth::NewKey;
use crate::child::Spawner;
use crate::child::guardian::HANDED;
use crate::era::Era;
use crate::tasks;
use hyper::Uri;
use hyper::header::HeaderValue;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a bridge translates to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// The name of the server in log lines.
    pub server: String,
    /// The server's era.
    pub era: Era,
    /// The words of proxyrunner's command that stands for the server.
    pub words: Vec<OsString>,
    /// `--log-level`
    pub log_level: String,
    /// `--request-timeout`
    pub patience: Duration,
}

/// A running bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// The URL of its endpoint.
    pub url: Uri,
    /// The credentials that it demands.
    pub authorization: HeaderValue,
    ended: CancellationToken,
    running: JoinHandle<()>,
}

impl Bridge {
    /// Starts a bridge. It serves as soon as its server does; requests before that wait.
    ///
    /// # Errors
    /// In words, when the system refuses a port, a file or random bytes.
    pub(crate) fn start(spawner: Spawner, command: Command) -> Result<Self, String> {
        let NewKey { key, entry } = NewKey::create("connect", &[], None)?;
        let (listener, endpoint) = children::listen().map_err(|error| error.to_string())?;
        let listener = Arc::new(OwnedFd::from(listener));
        let keys = Published::new(&entry).map_err(|error| error.to_string())?.file();
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {key}")).map_err(|error| error.to_string())?;
        authorization.set_sensitive(true);
        let (url, ended) = (endpoint.url().clone(), CancellationToken::new());
        let ending = ended.clone();
        let running = tasks::spawn(async move {
            let make = || (settings(&command), vec![Arc::clone(&listener), Arc::clone(&keys)]);
            children::keep(&spawner, &command.server, &endpoint, make, &ending, |_| {}).await;
        });
        Ok(Bridge { url, authorization, ended, running })
    }

    /// Ends the bridge.
    pub(crate) async fn stop(self) {
        self.ended.cancel();
        let _ = self.running.await;
    }
}

fn settings(command: &Command) -> crate::child::Settings {
    let mut args: Vec<OsString> = [
        format!("--listen=fd:{HANDED}"),
        format!("--api-keys=/proc/self/fd/{}", HANDED + 1),
        format!("--child-era={}", command.era),
        format!("--log-level={}", command.log_level),
        format!("--request-timeout={}ms", command.patience.as_millis()),
        // The server is asked only what the client asks.
        "--ping-interval=0s".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--drain-timeout={DRAIN}"),
    ]
    .map(OsString::from)
    .into();
    args.extend(["--".into(), children::own_program()]);
    args.extend(command.words.iter().cloned());
    let inherited = INHERITED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
    children::sidecar(args, inherited.collect())
}
