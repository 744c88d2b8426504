//! Which era a child is of, found out in place (C0, A7): no second copy is started, and a slow starter is not
//! misjudged. A pure machine: what the child does goes in, what to do next comes out.
//!
//! A child is asked `server/discover` first. An answer to that is a modern child's. An error, or silence for the
//! probe's time, sends `initialize` down the same pipe, and whatever is answered then decides. Exit means that
//! it cannot bear the question: it is started again and initialised.

use super::{Era, MODERN_VERSION, discover::versions};
use crate::jsonrpc::{Span, codes, member};
use std::fmt;

/// What the operator says of the child: `--child-era`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// To be found out.
    #[default]
    Auto,
    /// Never asked `server/discover`.
    Legacy,
    /// Never sent `initialize`.
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

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send `server/discover`, with an envelope.
    SendDiscover,
    /// Send `initialize`; `server/discover` stays open if it is not answered.
    SendInitialize,
    /// Start the child again, the one that ended being gone, and then send `initialize`.
    RestartAndInitialize,
    /// Start the child again, and then send `server/discover`: it is modern, and ended over `initialize`.
    RestartAndDiscover,
    /// Nothing yet.
    Wait,
    /// The child is of this era, and ready but for a legacy one's `notifications/initialized`.
    Decided(Decision),
    /// The child serves neither era.
    Failed(Reason),
}

/// What was found out; it holds for the life of this process and of those started in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It speaks [`MODERN_VERSION`].
    Modern,
    /// It is initialised.
    Legacy {
        /// It answered `server/discover` too, only late: a process started without `initialize` would be modern.
        modern_too: bool,
    },
}

/// Why a child serves neither era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It ended before it answered.
    Exited,
    /// It is modern, but of no revision that proxyrunner speaks.
    NoCommonVersion(Vec<String>),
    /// It refused `initialize` with this code.
    InitializeRefused(i64),
    /// It is not modern, as the operator says it is; the code is its answer to `server/discover`, if it was an error.
    NotModern(Option<i64>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Exited => f.write_str("the server ended before it answered the handshake"),
            Reason::NoCommonVersion(versions) => write!(
                f,
                "the server speaks only {}, and proxyrunner of these revisions only {MODERN_VERSION}",
                versions.join(", ")
            ),
            Reason::InitializeRefused(code) => {
                write!(f, "the server refused initialize with the error {code}")
            }
            Reason::NotModern(Some(code)) => write!(
                f,
                "the server refused server/discover with the error {code}; is --child-era modern right?"
            ),
            Reason::NotModern(None) => {
                f.write_str("the server's answer to server/discover is none; is --child-era modern right?")
            }
        }
    }
}

impl std::error::Error for Reason {}

/// What a child answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A result; of `server/discover`, the revisions in it if it is a `DiscoverResult`.
    Result(Option<Vec<String>>),
    /// An error of this code; of -32022, the revisions in its `data`.
    Error(i64, Option<Vec<String>>),
}

impl Answer {
    /// Reads a response's `result` or `error`.
    pub fn read(frame: &[u8], result: Option<&Span>, error: Option<&Span>) -> Self {
        match (result, error) {
            (Some(result), _) => Answer::Result(versions(frame, result, "supportedVersions")),
            (None, Some(error)) => {
                // A malformed error is an error like any other.
                let code = super::errors::code(frame, error).map_or(codes::INTERNAL_ERROR, |(code, _)| code);
                let data = member(frame, error, "data");
                Answer::Error(code, data.and_then(|data| versions(frame, &data, "supported")))
            }
            (None, None) => Answer::Error(codes::INTERNAL_ERROR, None),
        }
    }
}

/// The machine. Start with [`Probe::start`]; feed it until it says [`Step::Decided`] or [`Step::Failed`].
#[derive(Debug, Clone)]
pub struct Probe {
    choice: Choice,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `server/discover` is open.
    Discovering,
    /// `initialize` is open; was `server/discover` sent to this process?
    Initializing { discovered: bool },
    /// Modern as it says, but `initialize` is open too, and its answer may pin the process legacy.
    Confirming,
    /// Over.
    Done,
}

impl Probe {
    /// The machine and its first step.
    pub fn start(choice: Choice) -> (Self, Step) {
        let (stage, step) = match choice {
            Choice::Legacy => (Stage::Initializing { discovered: false }, Step::SendInitialize),
            Choice::Auto | Choice::Modern => (Stage::Discovering, Step::SendDiscover),
        };
        (Probe { choice, stage }, step)
    }

    /// `server/discover` was answered, early or late.
    pub fn on_discover(&mut self, answer: Answer) -> Step {
        let supported = match (self.stage, answer) {
            (Stage::Confirming | Stage::Done | Stage::Initializing { discovered: false }, _) => {
                return Step::Wait;
            }
            (_, Answer::Result(Some(versions))) => versions,
            // Known as modern by this code alone; one that names no revisions is taken at its word.
            (_, Answer::Error(codes::UNSUPPORTED_VERSION, versions)) => {
                versions.unwrap_or_else(|| vec![MODERN_VERSION.to_owned()])
            }
            (stage, other) => return self.not_modern(stage, &other),
        };
        if !supported.iter().any(|version| version == MODERN_VERSION) {
            return self.fail(Reason::NoCommonVersion(supported));
        }
        match self.stage {
            Stage::Discovering => self.decide(Decision::Modern),
            _ => {
                self.stage = Stage::Confirming;
                Step::Wait
            }
        }
    }

    /// `initialize` was answered.
    pub fn on_initialize(&mut self, answer: Answer) -> Step {
        match (self.stage, answer) {
            (Stage::Discovering | Stage::Done, _) => Step::Wait,
            (stage, Answer::Result(_)) => {
                self.decide(Decision::Legacy { modern_too: stage == Stage::Confirming })
            }
            (Stage::Confirming, Answer::Error(..)) => self.decide(Decision::Modern),
            // Modern and slow to start: the answer to the first question is lost or still to come.
            (
                Stage::Initializing { discovered: true },
                Answer::Error(codes::UNSUPPORTED_VERSION, versions),
            ) => match versions {
                Some(versions) if !versions.iter().any(|version| version == MODERN_VERSION) => {
                    self.fail(Reason::NoCommonVersion(versions))
                }
                _ => self.decide(Decision::Modern),
            },
            (Stage::Initializing { .. }, Answer::Error(code, _)) => {
                self.fail(Reason::InitializeRefused(code))
            }
        }
    }

    /// Nothing came for the probe's time since the last step. How long a start may take in all is the supervisor's
    /// to say.
    pub fn on_silence(&mut self) -> Step {
        match self.stage {
            Stage::Discovering if self.choice == Choice::Auto => {
                self.stage = Stage::Initializing { discovered: true };
                Step::SendInitialize
            }
            // It said that it is modern, and ignores what is not.
            Stage::Confirming => self.decide(Decision::Modern),
            _ => Step::Wait,
        }
    }

    /// The child ended.
    pub fn on_exit(&mut self) -> Step {
        match self.stage {
            Stage::Done => Step::Wait,
            Stage::Discovering | Stage::Initializing { discovered: true } if self.choice == Choice::Auto => {
                self.stage = Stage::Initializing { discovered: false };
                Step::RestartAndInitialize
            }
            Stage::Confirming => {
                // From now on as if the operator had said so: it is not sent what ended it again.
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
            // A legacy child's late refusal: the answer to `initialize` follows.
            _ => Step::Wait,
        }
    }

    fn decide(&mut self, decision: Decision) -> Step {
        self.stage = Stage::Done;
        Step::Decided(decision)
    }

    fn fail(&mut self, reason: Reason) -> Step {
        self.stage = Stage::Done;
        Step::Failed(reason)
    }
}
