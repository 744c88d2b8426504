//! Detects a child's era, without starting a second process and without misjudging a slow one (2026-07-28,
//! basic/versioning). A pure state machine: the child's behavior is the input, the next step is the output.
//!
//! The child is sent `server/discover` first; a result shows that it is modern. After an error, or silence for the
//! probe timeout, it is sent `initialize` on the same pipe, and the next answer decides. If it exits, it cannot
//! handle `server/discover`: it is restarted and initialized.

use super::{Era, MODERN_VERSION, discover::versions};
use crate::jsonrpc::{Span, codes, member};
use std::fmt;

/// The child's era as the operator sets it (`--child-era`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Detect the era.
    #[default]
    Auto,
    /// Legacy: never send `server/discover`.
    Legacy,
    /// Modern: never send `initialize`.
    Modern,
}

impl From<Era> for Choice {
    fn from(era: Era) -> Self {
        match era {
            Era::Legacy => Choice::Legacy,
            Era::Modern => Choice::Modern,
        }
    }
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send `server/discover`, with an envelope.
    SendDiscover,
    /// Send `initialize`. An unanswered `server/discover` stays open.
    SendInitialize,
    /// Restart the child, which has ended, and send `initialize`.
    RestartAndInitialize,
    /// Restart the child, and send `server/discover`: it is modern, and ended because of `initialize`.
    RestartAndDiscover,
    /// Wait.
    Wait,
    /// The era is known. A legacy child still needs `notifications/initialized`.
    Decided(DetectedEra),
    /// The child supports neither era.
    Failed(Reason),
}

/// The detected era, valid for this process and all processes that are started in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectedEra {
    /// The child supports [`MODERN_VERSION`].
    Modern,
    /// The child is initialized.
    Legacy {
        /// Whether the child answered `server/discover` too late: a process that is not sent `initialize` would be
        /// modern.
        modern_too: bool,
    },
}

/// The reason why a child supports neither era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The child exited before it answered.
    Exited,
    /// The child is modern, but supports no revision that proxyrunner does.
    NoCommonVersion(Vec<String>),
    /// The child refused `initialize` with this code.
    InitializeRefused(i64),
    /// The child is not modern, although `--child-era` says so. The code is that of its error for `server/discover`,
    /// if it was one.
    NotModern(Option<i64>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Exited => f.write_str("the server exited before it answered the handshake"),
            Reason::NoCommonVersion(versions) => write!(
                f,
                "the server supports only {}, and proxyrunner supports none of these revisions",
                versions.join(", ")
            ),
            Reason::InitializeRefused(code) => {
                write!(f, "the server refused initialize with the error {code}")
            }
            Reason::NotModern(Some(code)) => write!(
                f,
                "the server refused server/discover with the error {code}; is --child-era modern right?"
            ),
            Reason::NotModern(None) => f.write_str(
                "the server's answer to server/discover is malformed; is --child-era modern right?",
            ),
        }
    }
}

impl std::error::Error for Reason {}

/// A child's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A result; for `server/discover`, with the revisions in it if it is a `DiscoverResult`.
    Result(Option<Vec<String>>),
    /// An error with this code; for -32022, with the revisions in its `data`.
    Error(i64, Option<Vec<String>>),
}

impl Answer {
    /// Reads a response's `result` or `error`.
    pub fn read(frame: &[u8], result: Option<&Span>, error: Option<&Span>) -> Self {
        match (result, error) {
            (Some(result), _) => Answer::Result(versions(frame, result, "supportedVersions")),
            (None, Some(error)) => {
                // A malformed error counts as any other error.
                let code = super::errors::code(frame, error).map_or(codes::INTERNAL_ERROR, |(code, _)| code);
                let data = member(frame, error, "data");
                Answer::Error(code, data.and_then(|data| versions(frame, &data, "supported")))
            }
            (None, None) => Answer::Error(codes::INTERNAL_ERROR, None),
        }
    }
}

/// The state machine. Begin with [`Probe::start`], and continue until [`Step::Decided`] or [`Step::Failed`].
#[derive(Debug, Clone)]
pub struct Probe {
    choice: Choice,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `server/discover` is open.
    Discovering,
    /// `initialize` is open; `discovered` says whether this process was sent `server/discover`.
    Initializing { discovered: bool },
    /// The child answered that it is modern, but `initialize` is open, and its answer may make the process legacy.
    Confirming,
    /// The era is decided, or the detection failed.
    Done,
}

impl Probe {
    /// Returns the state machine, and its first step.
    pub fn start(choice: Choice) -> (Self, Step) {
        let (stage, step) = match choice {
            Choice::Legacy => (Stage::Initializing { discovered: false }, Step::SendInitialize),
            Choice::Auto | Choice::Modern => (Stage::Discovering, Step::SendDiscover),
        };
        (Probe { choice, stage }, step)
    }

    /// Handles an answer to `server/discover`, in time or late.
    pub fn on_discover(&mut self, answer: Answer) -> Step {
        let supported = match (self.stage, answer) {
            (Stage::Confirming | Stage::Done | Stage::Initializing { discovered: false }, _) => {
                return Step::Wait;
            }
            (_, Answer::Result(Some(versions))) => versions,
            // This code alone shows that the child is modern. Without a list of revisions, it is assumed to support
            // ours.
            (_, Answer::Error(codes::UNSUPPORTED_VERSION, versions)) => {
                versions.unwrap_or_else(|| vec![MODERN_VERSION.to_owned()])
            }
            (stage, other) => return self.not_modern(stage, &other),
        };
        if !supported.iter().any(|version| version == MODERN_VERSION) {
            return self.fail(Reason::NoCommonVersion(supported));
        }
        match self.stage {
            Stage::Discovering => self.decide(DetectedEra::Modern),
            _ => {
                self.stage = Stage::Confirming;
                Step::Wait
            }
        }
    }

    /// Handles an answer to `initialize`.
    pub fn on_initialize(&mut self, answer: Answer) -> Step {
        match (self.stage, answer) {
            (Stage::Discovering | Stage::Done, _) => Step::Wait,
            (stage, Answer::Result(_)) => {
                self.decide(DetectedEra::Legacy { modern_too: stage == Stage::Confirming })
            }
            (Stage::Confirming, Answer::Error(..)) => self.decide(DetectedEra::Modern),
            // The child is modern and slow to start: the answer to `server/discover` is lost, or still to come.
            (
                Stage::Initializing { discovered: true },
                Answer::Error(codes::UNSUPPORTED_VERSION, versions),
            ) => match versions {
                Some(versions) if !versions.iter().any(|version| version == MODERN_VERSION) => {
                    self.fail(Reason::NoCommonVersion(versions))
                }
                _ => self.decide(DetectedEra::Modern),
            },
            (Stage::Initializing { .. }, Answer::Error(code, _)) => {
                self.fail(Reason::InitializeRefused(code))
            }
        }
    }

    /// Handles silence for the probe timeout since the last step. The supervisor bounds the whole start.
    pub fn on_silence(&mut self) -> Step {
        match self.stage {
            Stage::Discovering if self.choice == Choice::Auto => {
                self.stage = Stage::Initializing { discovered: true };
                Step::SendInitialize
            }
            // The child answered that it is modern, and ignores `initialize`.
            Stage::Confirming => self.decide(DetectedEra::Modern),
            _ => Step::Wait,
        }
    }

    /// Handles the child's exit.
    pub fn on_exit(&mut self) -> Step {
        match self.stage {
            Stage::Done => Step::Wait,
            Stage::Discovering | Stage::Initializing { discovered: true } if self.choice == Choice::Auto => {
                self.stage = Stage::Initializing { discovered: false };
                Step::RestartAndInitialize
            }
            Stage::Confirming => {
                // From now on the child is not sent `initialize`, as with `--child-era modern`.
                self.choice = Choice::Modern;
                self.stage = Stage::Discovering;
                Step::RestartAndDiscover
            }
            _ => self.fail(Reason::Exited),
        }
    }

    fn not_modern(&mut self, stage: Stage, answer: &Answer) -> Step {
        match (stage, self.choice) {
            (Stage::Discovering, Choice::Auto) => {
                self.stage = Stage::Initializing { discovered: true };
                Step::SendInitialize
            }
            (Stage::Discovering, _) => self.fail(Reason::NotModern(match answer {
                Answer::Error(code, _) => Some(*code),
                Answer::Result(_) => None,
            })),
            // A legacy child's late error. The answer to `initialize` follows.
            _ => Step::Wait,
        }
    }

    fn decide(&mut self, decision: DetectedEra) -> Step {
        self.stage = Stage::Done;
        Step::Decided(decision)
    }

    fn fail(&mut self, reason: Reason) -> Step {
        self.stage = Stage::Done;
        Step::Failed(reason)
    }
}
