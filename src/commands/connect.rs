//! `connect URL`: serves a remote MCP server on stdin and stdout, for clients that only speak stdio.
//!
//! If the server speaks the client's protocol era, messages pass as they are ([`crate::remote`]). Otherwise a sidecar
//! beside this process translates: its server is this command again, with `--direct`.

use super::stdio::{read_stdin, write_stdout};
use super::{headers, words};
use crate::budget::Charged;
use crate::child::Spawner;
use crate::config::{self, Config, Exit};
use crate::era::Era;
use crate::framing::Framed;
use crate::gateway::{Bridge, BridgeCommand};
use crate::jsonrpc::{Kind, Message, codes, rewrite, text};
use crate::outbound::Tls;
use crate::remote::{Discovered, Opened, Pipe, Settings};
use crate::signals::{Meaning, Signals};
use crate::{memory, tasks, telemetry};
use clap::Command;
use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The settings that this command has besides its own options.
const SETTINGS: &[&str] = &["request-timeout", "max-frame", "max-buffered", "log-format", "log-level"];
/// Messages that wait to be written to stdout.
const WAITING: usize = 64;
/// Time for answers after the client has closed stdin.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Time for the last answers after the server has changed, and to write the last messages to stdout.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// Time to read the file of headers.
const READING: Duration = Duration::from_secs(5);

pub(super) fn command() -> Command {
    Command::new("connect")
        .about("Serve a remote MCP server on stdin and stdout, for clients that only speak stdio")
        .after_help(
            "Client and server may speak different protocol eras. Other settings of proxyrunner have no effect, neither as \
             options nor as variables.",
        )
        .next_line_help(true)
        .args_override_self(true)
        .args([
            words::required("url", "URL", "Endpoint of the server, such as https://tools.example.com/mcp"),
            words::file("header-file", "File with request headers, one NAME: VALUE per line, e.g. a token"),
            words::file("ca", "Authorities to trust instead of the built-in ones, in PEM format"),
            words::switch("insecure-http", "Allow sending the header file by plain http to other hosts"),
            words::switch("direct", "Never translate between protocol eras"),
        ])
        .args(config::options(SETTINGS))
}

/// The words of the command.
struct Typed {
    url: Uri,
    header_file: Option<PathBuf>,
    headers: HeaderMap,
    authorities: Option<Vec<u8>>,
    is_direct: bool,
    /// Those that the command repeats when it stands for the server of a sidecar.
    repeated: Vec<OsString>,
    config: Config,
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    memory::set_up();
    let typed = Typed::parse(words)?;
    let _log = telemetry::start(&typed.config.telemetry);
    let failed = |error: io::Error| Exit::failed(format!("proxyrunner: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (out, said) = mpsc::channel(WAITING);
    let written = write_stdout(said).map_err(failed)?;
    let code = runtime.block_on(tasks::boxed(serve(typed, out)));
    // With the last tasks the last senders end, and then the writer.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let _ = written.recv_timeout(LAST_BYTES);
    code
}

impl Typed {
    fn parse(words: &[OsString]) -> Result<Self, Exit> {
        let matches = words::parse("connect", command(), words)?;
        let url = matches.get_one::<String>("url").map(String::as_str).unwrap_or_default();
        let url = endpoint(url).map_err(|why| Exit::usage(format!("proxyrunner: connect: URL {why}")))?;
        let header_file = matches.get_one::<PathBuf>("header-file").cloned();
        let is_insecure = matches.get_flag("insecure-http");
        if header_file.is_some() && !is_insecure && is_exposed(&url) {
            return Err(Exit::usage(
                "proxyrunner: --header-file: a plain http URL would show these headers to anybody on the way; give an https URL, \
                 or set --insecure-http"
                    .to_owned(),
            ));
        }
        let headers = given(header_file.as_deref())?;
        let authorities = matches.get_one::<PathBuf>("ca").map(|path| {
            let read = std::fs::read(path);
            read.map_err(|error| Exit::usage(format!("proxyrunner: --ca {}: {error}", path.display())))
        });
        let mut repeated = Vec::new();
        for name in ["header-file", "ca"] {
            if let Some(path) = matches.get_one::<PathBuf>(name) {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                repeated.extend([format!("--{name}").into(), absolute.into()]);
            }
        }
        if is_insecure {
            repeated.push("--insecure-http".into());
        }
        let mut settings: Vec<OsString> = Vec::new();
        for name in SETTINGS {
            if let Some(value) = matches.get_one::<OsString>(name) {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                settings.push(word);
            }
        }
        Ok(Typed {
            url,
            header_file,
            headers,
            authorities: authorities.transpose()?,
            is_direct: matches.get_flag("direct"),
            config: configure(&settings)?,
            repeated: repeated.into_iter().chain(settings).collect(),
        })
    }

    /// Returns how the server is asked.
    fn settings(&self, over: &CancellationToken) -> Settings {
        let path = self.header_file.clone();
        Settings {
            url: self.url.clone(),
            tls: Tls { authorities: self.authorities.clone(), ..Tls::default() },
            headers: self.headers.clone(),
            reread: Box::new(move || given(path.as_deref()).ok()),
            patience: self.config.upstream.request_timeout,
            longest: self.config.child.max_frame,
            buffered: self.config.max_buffered,
            over: over.clone(),
        }
    }

    /// Returns the bridge to a server of this era.
    fn bridge(&self, era: Era) -> BridgeCommand {
        let mut words: Vec<OsString> = vec!["connect".into(), "--direct".into()];
        words.extend(self.repeated.iter().cloned());
        words.extend(["--".into(), self.url.to_string().into()]);
        BridgeCommand {
            server: self.url.authority().map(ToString::to_string).unwrap_or_default(),
            era,
            words,
            log_level: self.config.telemetry.level.to_string(),
            patience: self.config.upstream.request_timeout,
        }
    }
}

/// Reads the settings, of the command line and of the variables with their names.
fn configure(settings: &[OsString]) -> Result<Config, Exit> {
    let mut words: Vec<OsString> = vec!["proxyrunner".into()];
    words.extend(settings.iter().cloned());
    // None is started.
    words.extend(["--".into(), "connect".into()]);
    let names: Vec<_> = SETTINGS.iter().filter_map(|name| config::table::find(name)).collect();
    let variables = std::env::vars_os()
        .filter(|(name, _)| names.iter().any(|setting| *name == *setting.variable()))
        .collect();
    config::load(words, variables, memory::limit())
}

/// Returns the headers that the command sets itself.
fn own_headers() -> HeaderMap {
    let own = [
        "content-type",
        "accept",
        "accept-encoding",
        "mcp-session-id",
        "mcp-protocol-version",
        "last-event-id",
    ];
    let own = own.into_iter().chain(["mcp-method", "mcp-name"]);
    own.map(|name| {
        (hyper::header::HeaderName::from_static(name), hyper::header::HeaderValue::from_static(""))
    })
    .collect()
}

/// Returns the headers of the file.
fn given(path: Option<&Path>) -> Result<HeaderMap, Exit> {
    let mut all = own_headers();
    let own: Vec<_> = all.keys().cloned().collect();
    if let Some(path) = path {
        headers::add(path, READING, "connect", &mut all)?;
    }
    own.iter().for_each(|name| {
        all.remove(name);
    });
    Ok(all)
}

/// Reads the URL.
fn endpoint(url: &str) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is no URL; give e.g. https://tools.example.com/mcp")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("does not begin with http:// or https://");
    }
    if url.contains('#') {
        return Err("has a fragment; remove it");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("has a name or a password in it; give credentials by --header-file");
    }
    // The parser accepts ports that are no numbers.
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let behind = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    let has_bad_port = behind.contains(':') && uri.port_u16().is_none_or(|port| port == 0);
    if uri.host().is_none_or(str::is_empty) || has_bad_port {
        return Err("has no valid host and port");
    }
    Ok(uri)
}

/// Returns whether a URL leads through a network in plain text.
fn is_exposed(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() != Some("https") && !is_here
}

async fn serve(typed: Typed, out: mpsc::Sender<Charged>) -> Result<ExitCode, Exit> {
    let failed = |error: io::Error| Exit::failed(format!("proxyrunner: {error}"));
    let mut signals = Signals::listen().map_err(failed)?;
    let over = CancellationToken::new();
    let remote = Pipe::new(typed.settings(&over), out.clone())
        .map_err(|error| Exit::usage(format!("proxyrunner: --ca: {error}")))?;
    let spawner = match typed.is_direct {
        true => None,
        false => {
            let spawner = Spawner::start(typed.config.child.clone()).map_err(failed)?;
            spawner.clone().reap_on_sigchld().map_err(failed)?;
            Some(spawner)
        }
    };
    tracing::info!(
        server = typed.url.authority().map(tracing::field::display),
        "connecting stdin and stdout to the remote server"
    );
    let chosen = typed.is_direct.then(|| Arc::clone(&remote));
    let ended = CancellationToken::new();
    let mut frames = read_stdin(typed.config.child.max_frame, ended.clone()).map_err(failed)?;
    let mut front =
        Front { remote, chosen, spawner, bridge: None, over: over.clone(), typed, out: out.clone() };
    let (mut code, mut patience) = (ExitCode::SUCCESS, LAST_ANSWERS);
    {
        let mut intake = pin!(async {
            while let Some(framed) = frames.recv().await {
                front.take(framed).await;
            }
        });
        // The last frames may wait for a handshake.
        let mut is_late = pin!(async {
            ended.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        });
        loop {
            tokio::select! {
                () = &mut intake => break,
                () = &mut is_late => break,
                meaning = signals.next() => if let Meaning::End(signal) = meaning {
                    tracing::info!(signal, "shutting down");
                    patience = Duration::ZERO;
                    break;
                },
                () = over.cancelled() => {
                    tracing::error!("the remote server has changed; the client has to connect again");
                    (code, patience) = (ExitCode::FAILURE, LAST_BYTES);
                    break;
                }
                () = out.closed() => {
                    patience = Duration::ZERO;
                    break;
                }
            }
        }
    }
    front.finish(patience).await;
    Ok(code)
}

/// Chooses how the client's messages reach the server, by the first request.
struct Front {
    remote: Arc<Pipe>,
    chosen: Option<Arc<Pipe>>,
    spawner: Option<Spawner>,
    bridge: Option<Bridge>,
    over: CancellationToken,
    typed: Typed,
    out: mpsc::Sender<Charged>,
}

impl Front {
    async fn take(&mut self, framed: Framed) {
        if let Some(chosen) = &self.chosen {
            return chosen.take(framed).await;
        }
        let Some((frame, message)) = self.remote.read(framed).await else { return };
        let is_modern =
            message.params.as_ref().and_then(|params| params.meta.as_ref()?.era_version.as_ref()).is_some();
        let method = message.method.as_ref().map(|method| text(&frame, method).into_owned());
        match (message.kind, method.as_deref()) {
            (Kind::Request, _) if is_modern => self.take_modern(frame, message).await,
            (Kind::Request, Some("initialize")) => self.take_initialize(frame, message).await,
            // A server without sessions may answer it.
            (Kind::Request, _) => self.remote.pass(frame, message).await,
            // Nothing has been asked yet that it could concern.
            (Kind::Notification | Kind::Response, _) => {}
        }
    }

    async fn take_initialize(&mut self, frame: Charged, message: Message) {
        let answer = match self.remote.open(&frame, &message).await {
            Opened::Accepted => {
                self.chosen = Some(Arc::clone(&self.remote));
                return;
            }
            Opened::Failed(why) => return self.fail(&frame, &message, &why).await,
            Opened::Refused(answer) => answer,
        };
        match self.remote.discover().await {
            Discovered::Modern => self.translate(Era::Modern, frame, message).await,
            Discovered::Not | Discovered::Failed(_) => self.remote.say(answer).await,
        }
    }

    async fn take_modern(&mut self, frame: Charged, message: Message) {
        match self.remote.discover().await {
            Discovered::Modern => {
                self.chosen = Some(Arc::clone(&self.remote));
                self.remote.pass(frame, message).await;
            }
            Discovered::Not => self.translate(Era::Legacy, frame, message).await,
            Discovered::Failed(why) => self.fail(&frame, &message, &why).await,
        }
    }

    /// Starts a sidecar that translates to the server's era, and sends it the first request.
    async fn translate(&mut self, era: Era, frame: Charged, message: Message) {
        let Some(spawner) = self.spawner.clone() else { return };
        tracing::info!(%era, "the remote server speaks the other protocol era; messages are translated");
        let started = Bridge::start(spawner, self.typed.bridge(era)).and_then(|bridge| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, bridge.authorization.clone())]);
            let settings = Settings {
                url: bridge.url.clone(),
                tls: Tls::default(),
                headers,
                reread: Box::new(|| None),
                ..self.typed.settings(&self.over)
            };
            Ok((Pipe::new(settings, self.out.clone()).map_err(|error| error.to_string())?, bridge))
        });
        match started {
            Ok((pipe, bridge)) => {
                self.bridge = Some(bridge);
                self.chosen = Some(Arc::clone(&pipe));
                pipe.pass(frame, message).await;
            }
            Err(why) => {
                self.fail(&frame, &message, &format!("the translation cannot be started: {why}")).await
            }
        }
    }

    async fn fail(&self, frame: &Charged, message: &Message, why: &str) {
        tracing::error!("{why}");
        let id = message.id.clone().map(|id| &frame[id]);
        self.remote.say(rewrite::error(id, codes::INTERNAL_ERROR, why, None)).await;
    }

    async fn finish(self, patience: Duration) {
        let pipe = self.chosen.unwrap_or(self.remote);
        pipe.finish(patience).await;
        if let Some(bridge) = self.bridge {
            bridge.stop().await;
        }
    }
}
