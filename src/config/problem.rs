//! A bad setting: its source, and the accepted values.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

/// The source of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The command line.
    Flag,
    /// This environment variable.
    Variable(String),
    /// A line of the configuration file.
    File(FileLine),
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileLine {
    pub(super) path: Rc<str>,
    /// The number of the line, from 1.
    pub(super) line: u64,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("the command line"),
            Source::Variable(name) => f.write_str(name),
            Source::File(FileLine { path, line }) => write!(f, "{}, line {line}", path.escape_debug()),
        }
    }
}

/// The reason why a value was refused, and the accepted values: `is not a duration`, `give e.g. 30s, 5m, 1h`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidValue {
    pub(super) reason: Cow<'static, str>,
    pub(super) accepts: Cow<'static, str>,
}

impl InvalidValue {
    pub(super) fn new(
        reason: impl Into<Cow<'static, str>>,
        accepts: impl Into<Cow<'static, str>>,
    ) -> InvalidValue {
        InvalidValue { reason: reason.into(), accepts: accepts.into() }
    }
}

/// One line of the report on bad settings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The bad setting: `--session-idle`, `COMMAND`, or a key in a file.
    pub(super) subject: String,
    /// The given value, unless it may be a secret.
    pub(super) value: Option<String>,
    pub(super) source: Option<Source>,
    pub(super) refusal: InvalidValue,
}

impl Problem {
    /// Creates a problem that does not concern one value.
    pub(super) fn general(subject: impl Into<String>, refusal: InvalidValue) -> Problem {
        Problem { subject: subject.into(), value: None, source: None, refusal }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxyrunner: {}:", self.subject)?;
        if let Some(value) = &self.value {
            write!(f, " {value:?}")?;
        }
        if let Some(source) = self.source.as_ref().filter(|source| **source != Source::Flag) {
            write!(f, " (from {source})")?;
        }
        write!(f, " {}; {}", self.refusal.reason, self.refusal.accepts)
    }
}
