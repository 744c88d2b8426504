//! The greeting of one process, from the first message to the decision about its era.

use super::revisions::Revisions;
use crate::budget::Charged;
use crate::clock::now;
use crate::era::probe::{self, DetectedEra, Probe, Reason, Step as Next};
use crate::exchange::{Answer, Exchange, Failure, Hint, Link, Outcome};
use crate::inquiry::{self, begin, outcome};
use crate::jsonrpc::{Spliced, codes, rewrite};
use crate::mux::WireId;
use crate::tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep_until, timeout};

/// The first request to a child of an unknown era.
pub(super) const DISCOVER: &str = "server/discover";
/// The first request to a legacy child.
pub(super) const INITIALIZE: &str = "initialize";

/// Time an initialized legacy child has to answer `server/discover`.
const LATE_ANSWER: Duration = Duration::from_secs(60);

/// Maximum number of bytes of a server's refusal that are quoted.
pub(super) const LONGEST_QUOTE: usize = 2048;

/// Writes `initialize` for a revision.
pub(super) type Initialize = fn(WireId, &str) -> Spliced;

/// Writes `server/discover`.
pub(super) fn discover(wire_id: WireId) -> Spliced {
    inquiry::modern_request(wire_id, DISCOVER, "")
}

/// The result of a greeting.
pub(super) enum Met {
    /// The era of the process is known.
    Decided(DetectedEra, Option<Charged>),
    /// The process exited after a message, and has to be started again.
    Again(Next),
}

/// The progress of a handshake, for the error message of a timeout.
#[derive(Debug)]
pub(super) struct Stage {
    pub link: Option<Arc<Link>>,
    /// The method of the last request.
    pub asked: &'static str,
}

impl Stage {
    /// Returns the failure of a handshake that took longer than `after`.
    pub fn timed_out(&self, after: Duration) -> Failure {
        let hint = self.link.as_ref().map_or(Hint::Quiet, |link| link.hint());
        Failure::SlowStart { after, asked: self.asked, hint }
    }
}

/// The greeting of one process.
pub(super) struct Greeting<'a> {
    pub link: &'a Arc<Link>,
    initialize: Initialize,
    revisions: &'a mut Revisions,
    stage: &'a mut Stage,
    silence: Duration,
    discovering: Option<Exchange>,
    initializing: Option<Exchange>,
    /// Its `DiscoverResult`.
    discovered: Option<Charged>,
    /// Its `InitializeResult`.
    initialized: Option<Charged>,
    /// The error response to `initialize`, in full.
    refusal: Option<Charged>,
    /// The reason why no valid answer to `initialize` came.
    no_answer: Option<Failure>,
}

impl<'a> Greeting<'a> {
    /// Creates a greeting before the first message.
    pub fn new(
        link: &'a Arc<Link>,
        initialize: Initialize,
        silence: Duration,
        stage: &'a mut Stage,
        revisions: &'a mut Revisions,
    ) -> Self {
        Greeting {
            link,
            initialize,
            revisions,
            stage,
            silence,
            discovering: None,
            initializing: None,
            discovered: None,
            initialized: None,
            refusal: None,
            no_answer: None,
        }
    }

    /// Runs the greeting from its first message to the decision.
    pub async fn run(&mut self, probe: &mut Probe, mut next: Next) -> Result<Met, Failure> {
        loop {
            let said = match next {
                Next::SendDiscover => {
                    self.stage.asked = DISCOVER;
                    begin(self.link, DISCOVER, discover).map(|it| self.discovering = Some(it))
                }
                Next::SendInitialize => {
                    self.stage.asked = INITIALIZE;
                    let (write, revision) = (self.initialize, self.revisions.asked());
                    let begun = begin(self.link, INITIALIZE, |wire_id| write(wire_id, revision));
                    begun.map(|it| self.initializing = Some(it))
                }
                Next::RestartAndInitialize => return Ok(Met::Again(Next::SendInitialize)),
                Next::RestartAndDiscover => return Ok(Met::Again(Next::SendDiscover)),
                Next::Wait => Ok(()),
                Next::Decided(decision) => return Ok(self.decided(decision).await),
                Next::Failed(reason) => return Err(self.failed(&reason).await),
            };
            next = match said {
                Ok(()) => self.hear(probe).await,
                Err(_) => self.exited(probe).await,
            };
            if self.link.is_echo() {
                return Err(Failure::NotStarted(
                    format!("the server does not respond: {}", Hint::Echoes).into(),
                ));
            }
        }
    }

    /// Waits for the child's next answer, its exit, or silence.
    async fn hear(&mut self, probe: &mut Probe) -> Next {
        let silent_at = now() + self.silence;
        let (discovered, heard) = tokio::select! {
            // If both answers are there, the answer to `server/discover` is read first, since it describes the child.
            biased;
            heard = answered(&mut self.discovering) => (true, heard),
            heard = answered(&mut self.initializing) => (false, heard),
            () = sleep_until(silent_at.into()) => return probe.on_silence(),
        };
        let open = if discovered { &mut self.discovering } else { &mut self.initializing };
        *open = None;
        let read = match heard {
            Ok(answer) if !discovered && self.revisions.step_down(&answer) => return Next::SendInitialize,
            Ok(answer) => self.read(&answer, discovered),
            Err(Failure::ClosedStdout | Failure::ClosedStdin | Failure::Ended(_)) => {
                return self.exited(probe).await;
            }
            // An invalid message is an answer of neither era.
            Err(failure) => {
                self.no_answer = Some(failure).filter(|_| !discovered);
                probe::Answer::Error(codes::INTERNAL_ERROR, None)
            }
        };
        if discovered { probe.on_discover(read) } else { probe.on_initialize(read) }
    }

    fn read(&mut self, answer: &Answer, discovered: bool) -> probe::Answer {
        let read = probe::Answer::read(&answer.frame, answer.result.as_ref(), answer.error.as_ref());
        match (&answer.result, &read) {
            (Some(result), probe::Answer::Result(Some(_))) if discovered => {
                self.discovered = Some(answer.frame.slice(result.clone()));
            }
            (Some(result), _) if !discovered => self.initialized = Some(answer.frame.slice(result.clone())),
            _ if !discovered => self.refusal = Some(answer.frame.clone()),
            _ => {}
        }
        read
    }

    /// Waits for the exit before the next process starts, since both would compete for the same resources.
    async fn exited(&mut self, probe: &mut Probe) -> Next {
        self.link.ended().await;
        let before = probe.clone();
        let next = probe.on_exit();
        let read_initialize = self.stage.asked == INITIALIZE && self.link.uptake().has_read_all();
        if next == Next::Failed(Reason::Exited) && read_initialize && self.revisions.step_down_after_exit() {
            *probe = before;
            return Next::RestartAndInitialize;
        }
        next
    }

    async fn decided(&mut self, decision: DetectedEra) -> Met {
        let words = match decision {
            DetectedEra::Modern => self.discovered.take(),
            DetectedEra::Legacy { .. } => {
                let notification = rewrite::notification("notifications/initialized", None);
                self.link.notify(Spliced::from(notification), None).await;
                // The child is not sent a cancellation, which it may not expect now. It may still answer.
                if let Some(mut discovering) = self.discovering.take() {
                    tasks::spawn(async move {
                        let _ = timeout(LATE_ANSWER, outcome(&mut discovering)).await;
                    });
                }
                self.initialized.take()
            }
        };
        Met::Decided(decision, words)
    }

    async fn failed(&self, reason: &Reason) -> Failure {
        match (reason, &self.refusal, &self.no_answer) {
            // An exit is reported with its status and stderr.
            (Reason::Exited, ..) => Failure::Ended(self.link.ended().await),
            (Reason::InitializeRefused(_), _, Some(failure)) => {
                Failure::NotStarted(format!("the handshake failed at initialize: {failure}").into())
            }
            (Reason::InitializeRefused(_), Some(error), _) => {
                let error = String::from_utf8_lossy(&error[..error.len().min(LONGEST_QUOTE)]);
                Failure::NotStarted(format!("the server refused to initialize: {error}").into())
            }
            _ => Failure::NotStarted(reason.to_string().into()),
        }
    }
}

/// Returns the outcome of an open request; pending forever if none is open.
async fn answered(open: &mut Option<Exchange>) -> Outcome {
    match open {
        Some(exchange) => outcome(exchange).await,
        None => std::future::pending().await,
    }
}
