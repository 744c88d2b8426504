//! Drives the lifecycle of children: starts a child on request, watches it, and ends it.

use crate::audit;
use crate::budget::{Account, Budget};
use crate::child::{self, Heard, Process, Signaller, Spawned, Spawner, StartError, Tail};
use crate::client::Client;
use crate::exchange::{End, Ends, Failure, Intake, LastWords, Link};
use crate::lifecycle::{Action, Event, Graces, Lifecycle};
use crate::router::Router;
use crate::tasks::{self, Task};
use crate::telemetry::counters;
use crate::telemetry::metrics::labels::{Revision, Side};
use crate::telemetry::metrics::{self, usage};
use crate::upstream::Want;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
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

/// Timeout for reading the pipes of a dead child. Its last bytes have arrived already, and a grandchild that holds
/// the pipes open must not delay the end.
const LAST_READ: Duration = Duration::from_millis(250);

/// Starts and ends all children of one server.
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
    /// Creates a supervisor without children.
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

    /// Starts the requested children, until all requesters are dropped.
    pub async fn serve(self, mut wanted: mpsc::Receiver<Want>) {
        while let Some(want) = wanted.recv().await {
            let supervisor = self.clone();
            tasks::spawn(self.0.running.track_future(async move { supervisor.raise(want).await }));
        }
    }

    /// Ends every child, and waits for all of them.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// Sends SIGKILL to every child and its descendants.
    pub fn kill(&self) {
        self.servers().values().for_each(|server| server.group(Signal::SIGKILL));
    }

    /// Forwards a signal to every child, but not to its descendants.
    pub fn forward(&self, signal: Signal) {
        self.servers().values().for_each(|server| server.server(signal));
    }

    /// Runs one child from its start to its end.
    async fn raise(self, want: Want) {
        let Want { audience, slots, variables, place, reply } = want;
        if self.0.stopping.is_cancelled() {
            return;
        }
        let spawned = tokio::select! {
            // Shutdown does not wait for a program that cannot be loaded.
            () = self.0.stopping.cancelled() => return,
            spawned = self.0.spawner.spawn(variables) => spawned,
        };
        let Spawned { process, stdin, stdout, stderr } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return refuse(reply, error),
        };
        let number = self.0.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        counters::STARTED_CHILDREN.increment();
        let pid = process.pid();
        tracing::info!(child = number, pid = pid, "server started");
        audit::child_started(number, pid.cast_unsigned());
        self.servers().insert(number, process.signaller());
        usage::track_child(number, pid);
        let started = Instant::now();
        let (link, ends) = Link::new(number, slots);
        let grace = self.0.cancel_grace.as_secs().max(1);
        let Ends { answering, intake, noise, stop, hung, mute, end } = ends;
        let account = self.0.budget.account(Client::child(number));
        let router = Router::new(number, answering, audience, link.inbox().clone(), grace)
            .with_noise(noise, self.0.settings.log_rate);
        let tokens = EndTokens { stop, hung, mute };
        let pipes = Pipes::start(
            &self.0.settings,
            &link,
            (stdin, stdout, stderr),
            intake,
            (router, account),
            tokens.mute.clone(),
        );
        if reply.send(Ok(Arc::clone(&link))).is_err() {
            link.stop();
        }
        let ended = self.accompany(process, &tokens, pipes).await;
        drop(place);
        // The order matters: publish the error, close the intake, then fail the waiting requests
        // (docs/architecture.md#one-answer).
        let (ended, mut router) = ended;
        end.send_replace(Some(ended.clone()));
        if let Some(router) = &mut router {
            router.close(&Failure::Ended(ended.clone()));
        }
        self.servers().remove(&number);
        usage::forget_child(number);
        if link.revision() != Revision::default() {
            metrics::session(Side::Client, link.revision(), started.elapsed());
        }
        counters::ENDED_CHILDREN.increment();
        audit::child_exited(number, pid.cast_unsigned(), &ended.how);
        tracing::info!(child = number, pid = pid, code = ended.code, "{}", ended.for_log());
    }

    /// Waits for the child's exit, and ends the child when its callers or the supervisor request it.
    async fn accompany(&self, process: Process, tokens: &EndTokens, pipes: Pipes) -> (End, Option<Router>) {
        let settings = &self.0.settings;
        let graces = Graces { close: settings.close_grace, terminate: settings.terminate_grace };
        let mut lifecycle = Lifecycle::new(graces);
        let server = process.signaller();
        let stopping = &self.0.stopping;
        let mut run =
            Run { process, pipes, tokens, stopping, router: None, running: true, hung: false, closed: None };
        let status = loop {
            let event = match run.next(lifecycle.deadline()).await {
                Ok(event) => event,
                Err(status) => break status,
            };
            run.running &= event != Event::Stop;
            match lifecycle.handle(event, Instant::now()) {
                Some(Action::Close) => run.pipes.close_stdin.cancel(),
                Some(Action::Terminate) => server.group(Signal::SIGTERM),
                Some(Action::Kill) => server.group(Signal::SIGKILL),
                Some(Action::Abandon) => break Err(io::Error::other("still running after SIGKILL")),
                None => {}
            }
        };
        // The child's own processes end with it. Its guardian has ended them already, unless it was killed itself.
        server.group(Signal::SIGKILL);
        if status.is_err()
            && let Some(lineage) = run.process.lineage()
        {
            self.0.spawner.clear_after(lineage).await;
        }
        let lines = run.pipes.finish(&mut run.router).await;
        let last_words = LastWords::new(lines, settings.expose_stderr);
        let (how, code) = describe_end(status, run.closed);
        (End { how: how.into(), code, last_words }, run.router)
    }

    fn servers(&self) -> parking_lot::MutexGuard<'_, HashMap<u64, Signaller>> {
        self.0.servers.lock()
    }
}

/// The tokens that request a child's end, and the token that announces it.
struct EndTokens {
    stop: CancellationToken,
    hung: CancellationToken,
    mute: CancellationToken,
}

/// A running child, as the supervisor watches it.
struct Run<'a> {
    process: Process,
    pipes: Pipes,
    tokens: &'a EndTokens,
    stopping: &'a CancellationToken,
    /// The router, once the child's stdout is closed.
    router: Option<Router>,
    /// Whether no end of the child has been requested yet.
    running: bool,
    hung: bool,
    /// The pipe that the child closed, if that is the reason for its end.
    closed: Option<&'static str>,
}

impl Run<'_> {
    /// Waits for the next event of the child's lifecycle.
    ///
    /// # Errors
    /// When the child has exited, with its status.
    async fn next(&mut self, deadline: Option<Instant>) -> Result<Event, io::Result<ExitStatus>> {
        loop {
            let at = deadline.unwrap_or_else(Instant::now).into();
            return tokio::select! {
                status = self.process.wait() => Err(status),
                () = self.tokens.hung.cancelled(), if !self.hung => {
                    self.hung = true;
                    Ok(Event::Hang)
                }
                () = self.tokens.stop.cancelled(), if self.running => Ok(Event::Stop),
                () = self.stopping.cancelled(), if self.running => Ok(Event::Stop),
                ended = &mut self.pipes.stdout, if self.router.is_none() => {
                    self.router = ended.ok();
                    self.handle_closed_stdout().await
                }
                written = &mut self.pipes.stdin, if !self.pipes.stdin_over => {
                    self.pipes.stdin_over = true;
                    match written {
                        Ok(Err(error)) => self.handle_closed_stdin(&error).await,
                        _ => continue,
                    }
                }
                () = sleep_until(at), if deadline.is_some() => Ok(Event::Deadline),
            };
        }
    }

    async fn handle_closed_stdout(&mut self) -> Result<Event, io::Result<ExitStatus>> {
        self.tokens.mute.cancel();
        // A child may close its stdout right before it exits. The exit status is more informative.
        if let Ok(status) = timeout(LAST_READ, self.process.wait()).await {
            return Err(status);
        }
        if let Some(router) = &mut self.router {
            router.close(&Failure::ClosedStdout);
        }
        self.closed = self.closed.or(Some("closed its stdout").filter(|_| self.running));
        Ok(Event::Stop)
    }

    async fn handle_closed_stdin(&mut self, error: &io::Error) -> Result<Event, io::Result<ExitStatus>> {
        // A closed stdin may only mean that the child is exiting.
        if let Ok(status) = timeout(LAST_READ, self.process.wait()).await {
            return Err(status);
        }
        // The child can receive no more requests. Until it has ended, it may still answer those that it has read.
        tracing::warn!(%error, "the server closed its stdin; stopping it");
        self.closed = self.closed.or(Some("closed its stdin").filter(|_| self.running));
        Ok(Event::Stop)
    }
}

fn refuse(reply: tokio::sync::oneshot::Sender<Result<Arc<Link>, StartError>>, error: StartError) {
    tracing::error!("{error}");
    audit::child_not_started(&error);
    let _ = reply.send(Err(error));
}

/// The three tasks on a child's pipes.
struct Pipes {
    stdin: Task<io::Result<()>>,
    stdin_over: bool,
    stdout: Task<Router>,
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
            tasks::run(child::write_stdin(stdin, intake, link.mux().clone(), close_stdin.clone(), mute));
        let (stdout_cut, max_frame) = (cut.clone(), settings.max_frame);
        let heard_by = Arc::clone(link);
        let reading = tasks::run(async move {
            let lines = child::StdoutLines::of(account);
            child::read_stdout(stdout, max_frame, lines, stdout_cut, |heard| match heard {
                Heard::Frame(framed, charge) => {
                    router.deliver(framed, charge);
                    heard_by.note_frame();
                }
                Heard::Rest(framed, charge) => router.deliver_rest(framed, charge),
                Heard::Tick => router.tick(),
            })
            .await;
            router
        });
        let lines = child::Lines::new(link.number(), tail.clone(), settings.log_rate);
        let following = tasks::spawn(child::follow_stderr(stderr, lines, cut.clone()));
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

    /// Reads the remaining output of a dead child; returns its last lines on stderr.
    async fn finish(mut self, router: &mut Option<Router>) -> Arc<[String]> {
        self.close_stdin.cancel();
        let rest = async {
            if !self.stdin_over {
                // Its result tells whether the child has read all bytes written to it.
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

/// Describes a child's end, and returns the exit code that a shell would report.
fn describe_end(status: io::Result<ExitStatus>, closed: Option<&str>) -> (String, i32) {
    match (status, closed) {
        (Err(error), _) => (format!("was lost: {error}"), 1),
        // The signal was proxyrunner's own, and is not informative.
        (Ok(status), Some(closed)) if status.code().is_none() => (format!("{closed} and was stopped"), 1),
        (Ok(status), Some(closed)) => {
            let (how, code) = child::describe(status);
            (format!("{closed} and {how}"), code)
        }
        (Ok(status), None) => child::describe(status),
    }
}
