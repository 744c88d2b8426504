//! Drives the children's lifecycle: starts one when it is wanted, watches it, and brings it to its end.

use crate::budget::{Account, Budget};
use crate::child::{self, Heard, Process, Signaller, Spawned, Spawner, StartError, Tail};
use crate::client::Client;
use crate::exchange::{End, Ends, Failure, Intake, LastWords, Link};
use crate::lifecycle::{Action, Event, Graces, Lifecycle};
use crate::router::Router;
use crate::telemetry::counters;
use crate::telemetry::metrics::labels::{Revision, Side};
use crate::telemetry::metrics::{self, usage};
use crate::upstream::Want;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the pipes of a dead child are still read: what it wrote last is there already, and a grandchild that
/// holds them open must not delay the end.
const LAST_READ: Duration = Duration::from_millis(250);

/// Starts and ends all children of one kind.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: child::Settings,
    cancel_grace: Duration,
    budget: Budget,
    spawner: Spawner,
    stopping: CancellationToken,
    running: TaskTracker,
    servers: Mutex<HashMap<u64, Signaller>>,
    numbered: AtomicU64,
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new(settings: child::Settings, cancel_grace: Duration, budget: Budget, spawner: Spawner) -> Self {
        Supervisor(Arc::new(Shared {
            settings,
            cancel_grace,
            budget,
            spawner,
            stopping: CancellationToken::new(),
            running: TaskTracker::new(),
            servers: Mutex::default(),
            numbered: AtomicU64::new(0),
        }))
    }

    /// Starts what is wanted, until nobody is left who could want anything.
    pub async fn serve(self, mut wanted: mpsc::Receiver<Want>) {
        while let Some(want) = wanted.recv().await {
            let supervisor = self.clone();
            self.0.running.spawn(async move { supervisor.raise(want).await });
        }
    }

    /// Brings every child to its end, and waits for it.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// SIGKILL to every child and all that it started, now.
    pub fn kill(&self) {
        self.servers().values().for_each(|server| server.group(Signal::SIGKILL));
    }

    /// Passes a signal on to every child, though not to what it started.
    pub fn forward(&self, signal: Signal) {
        self.servers().values().for_each(|server| server.server(signal));
    }

    /// One child from its start to its end.
    async fn raise(self, want: Want) {
        let Want { audience, slots, place, reply } = want;
        if self.0.stopping.is_cancelled() {
            return;
        }
        let spawned = tokio::select! {
            // The end need not wait for a program that cannot be loaded.
            () = self.0.stopping.cancelled() => return,
            spawned = self.0.spawner.spawn() => spawned,
        };
        let Spawned { process, stdin, stdout, stderr } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return refuse(reply, error),
        };
        let number = self.0.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        counters::STARTED_CHILDREN.increment();
        let pid = process.pid();
        tracing::info!(child = number, pid = pid, "server started");
        self.servers().insert(number, process.signaller());
        usage::server_started(number, pid);
        let started = Instant::now();
        let (link, ends) = Link::new(number, slots);
        let grace = self.0.cancel_grace.as_secs().max(1);
        let Ends { answering, intake, noise, stop, hung, mute, end } = ends;
        let account = self.0.budget.account(Client::child(number));
        let router = Router::new(number, answering, audience, link.inbox().clone(), grace)
            .with_noise(noise, self.0.settings.log_rate);
        let asked = Asked { stop, hung, mute };
        let pipes = Pipes::start(
            &self.0.settings,
            &link,
            (stdin, stdout, stderr),
            intake,
            (router, account),
            asked.mute.clone(),
        );
        if reply.send(Ok(Arc::clone(&link))).is_err() {
            link.stop();
        }
        let ended = self.accompany(process, &asked, pipes).await;
        drop(place);
        // In this order: the error is published, the intake is closed, then everyone who waits fails (D9).
        let (ended, mut router) = ended;
        end.send_replace(Some(ended.clone()));
        if let Some(router) = &mut router {
            router.close(&Failure::Ended(ended.clone()));
        }
        self.servers().remove(&number);
        usage::server_ended(number);
        if link.revision() != Revision::default() {
            metrics::session(Side::Client, link.revision(), started.elapsed());
        }
        counters::ENDED_CHILDREN.increment();
        tracing::info!(child = number, pid = pid, code = ended.code, "{}", ended.for_log());
    }

    /// Waits for the child's end, bringing it about when it is asked for.
    async fn accompany(
        &self,
        mut process: Process,
        asked: &Asked,
        mut pipes: Pipes,
    ) -> (End, Option<Router>) {
        let settings = &self.0.settings;
        let graces = Graces { close: settings.close_grace, terminate: settings.terminate_grace };
        let mut lifecycle = Lifecycle::new(graces);
        let server = process.signaller();
        let mut router = None;
        let (mut running, mut hangs) = (true, false);
        // Why it was ended, if that was its own doing.
        let mut closed = None;
        let status = loop {
            let deadline = lifecycle.deadline();
            let event = tokio::select! {
                status = process.wait() => break status,
                () = asked.hung.cancelled(), if !hangs => {
                    hangs = true;
                    Event::Hang
                }
                () = asked.stop.cancelled(), if running => Event::Stop,
                () = self.0.stopping.cancelled(), if running => Event::Stop,
                ended = &mut pipes.stdout, if router.is_none() => {
                    router = ended.ok();
                    asked.mute.cancel();
                    // A child may close its stdout right before it exits: then the exit says more.
                    if let Ok(status) = timeout(LAST_READ, process.wait()).await {
                        break status;
                    }
                    if let Some(router) = &mut router {
                        router.close(&Failure::ClosedStdout);
                    }
                    closed = closed.or(Some("closed its stdout").filter(|_| running));
                    Event::Stop
                }
                written = &mut pipes.stdin, if !pipes.stdin_over => {
                    pipes.stdin_over = true;
                    let Ok(Err(error)) = written else { continue };
                    // Or it is just its exit.
                    if let Ok(status) = timeout(LAST_READ, process.wait()).await {
                        break status;
                    }
                    // Nothing can be asked of it any more. It may still answer what it has read, until it is ended.
                    tracing::warn!(%error, "the server no longer reads its stdin; it is ended");
                    closed = closed.or(Some("closed its stdin").filter(|_| running));
                    Event::Stop
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => Event::Deadline,
            };
            running &= event != Event::Stop;
            match lifecycle.on(event, Instant::now()) {
                Some(Action::Close) => pipes.close_stdin.cancel(),
                Some(Action::Terminate) => server.group(Signal::SIGTERM),
                Some(Action::Kill) => server.group(Signal::SIGKILL),
                Some(Action::Abandon) => break Err(io::Error::other("it is still there after SIGKILL")),
                None => {}
            }
        };
        // What the child started ends with it. A guardian has seen to that already, unless it was ended itself.
        server.group(Signal::SIGKILL);
        if status.is_err()
            && let Some(lineage) = process.lineage()
        {
            self.0.spawner.clear_after(lineage).await;
        }
        let lines = pipes.finish(&mut router).await;
        let last_words = LastWords::new(lines, settings.expose_stderr);
        let (how, code) = match (status, closed) {
            (Err(error), _) => (format!("was lost: {error}"), 1),
            // The signal is proxyrunner's, and says nothing.
            (Ok(status), Some(closed)) if status.code().is_none() => {
                (format!("{closed}, and was ended for it"), 1)
            }
            (Ok(status), Some(closed)) => {
                let (how, code) = describe(status);
                (format!("{closed}, and {how}"), code)
            }
            (Ok(status), None) => describe(status),
        };
        (End { how: how.into(), code, last_words }, router)
    }

    fn servers(&self) -> parking_lot::MutexGuard<'_, HashMap<u64, Signaller>> {
        self.0.servers.lock()
    }
}

/// What is asked of a child's end, and what is told of it.
struct Asked {
    stop: CancellationToken,
    hung: CancellationToken,
    mute: CancellationToken,
}

fn refuse(reply: tokio::sync::oneshot::Sender<Result<Arc<Link>, StartError>>, error: StartError) {
    tracing::error!("{error}");
    let _ = reply.send(Err(error));
}

/// The three tasks on a child's pipes.
struct Pipes {
    stdin: JoinHandle<io::Result<()>>,
    stdin_over: bool,
    stdout: JoinHandle<Router>,
    stderr: JoinHandle<()>,
    tail: Tail,
    close_stdin: CancellationToken,
    cut: CancellationToken,
}

impl Pipes {
    fn start(
        settings: &child::Settings,
        link: &Arc<Link>,
        (stdin, stdout, stderr): (ChildStdin, ChildStdout, ChildStderr),
        intake: Intake,
        (mut router, account): (Router, Account),
        mute: CancellationToken,
    ) -> Self {
        let (close_stdin, cut, tail) = (CancellationToken::new(), CancellationToken::new(), Tail::default());
        let writing =
            tokio::spawn(child::write_stdin(stdin, intake, link.mux().clone(), close_stdin.clone(), mute));
        let (stdout_cut, max_frame) = (cut.clone(), settings.max_frame);
        let heard_by = Arc::clone(link);
        let reading = tokio::spawn(async move {
            let lines = child::StdoutLines::of(account);
            child::read_stdout(stdout, max_frame, lines, stdout_cut, |heard| match heard {
                Heard::Frame(framed, charge) => {
                    heard_by.hear();
                    router.deliver(framed, charge);
                }
                Heard::Rest(framed, charge) => router.deliver_rest(framed, charge),
                Heard::Tick => router.tick(),
            })
            .await;
            router
        });
        let lines = child::Lines::new(link.number(), tail.clone(), settings.log_rate);
        let following = tokio::spawn(child::follow_stderr(stderr, lines, cut.clone()));
        Pipes {
            stdin: writing,
            stdin_over: false,
            stdout: reading,
            stderr: following,
            tail,
            close_stdin,
            cut,
        }
    }

    /// Reads what a dead child still had to say; its last lines on stderr.
    async fn finish(mut self, router: &mut Option<Router>) -> Arc<[String]> {
        self.close_stdin.cancel();
        let rest = async {
            if !self.stdin_over {
                // It says whether the child has read all that was written to it.
                let _ = (&mut self.stdin).await;
            }
            if router.is_none() {
                *router = (&mut self.stdout).await.ok();
            }
            let _ = (&mut self.stderr).await;
        };
        if timeout(LAST_READ, rest).await.is_err() {
            self.cut.cancel();
            if router.is_none() {
                *router = self.stdout.await.ok();
            }
            let _ = self.stderr.await;
        }
        self.tail.lines()
    }
}

fn describe(status: ExitStatus) -> (String, i32) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (format!("exited with code {code}"), code),
        (None, Some(signal)) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| "unknown".into(), |signal| signal.to_string());
            (format!("was ended by signal {signal} ({name})"), 128 + signal)
        }
        (None, None) => ("ended".into(), 1),
    }
}
