//! The type of one setting in the table: its flag, value, default and help.

/// The number of values that a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one value; the last one given wins.
    One,
    /// No value, which means `true`; or `=true`, `=false`.
    Switch,
    /// A list: the flag repeats, a file holds a list, the environment holds one item per line.
    Many {
        /// Whether commas separate items in the environment, too.
        commas: bool,
    },
}

/// The value of a setting that is given nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A default, parsed as if it had been given.
    Value(&'static str),
    /// A default that depends on other settings or on the system, described in words.
    Computed(&'static str),
    /// No value.
    Absent,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, and the key in a configuration file.
    pub flag: &'static str,
    /// The placeholder for the value in `--help`.
    pub value: &'static str,
    /// The default.
    pub fallback: Fallback,
    /// The number of values.
    pub arity: Arity,
    /// One line of help, at most 70 characters.
    pub help: &'static str,
}

impl Setting {
    /// Returns the environment variable: `PROXYRUNNER_SESSION_IDLE` for `session-idle`.
    pub fn variable(&self) -> String {
        format!("PROXYRUNNER_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// Returns the default for display, unless there is none or the setting is a switch that is off.
    pub fn default_words(&self) -> Option<&'static str> {
        match self.fallback {
            Fallback::Value("false") if self.arity == Arity::Switch => None,
            Fallback::Value(words) | Fallback::Computed(words) => Some(words),
            Fallback::Absent => None,
        }
    }
}

pub(super) const fn one(
    flag: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { flag, value, fallback: Fallback::Value(default), arity: Arity::One, help }
}

pub(super) const fn computed(
    flag: &'static str,
    value: &'static str,
    words: &'static str,
    help: &'static str,
) -> Setting {
    Setting { flag, value, fallback: Fallback::Computed(words), arity: Arity::One, help }
}

pub(super) const fn absent(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::One, help }
}

/// Creates a switch that is off by default.
pub(super) const fn switch(flag: &'static str, help: &'static str) -> Setting {
    Setting { flag, value: "BOOL", fallback: Fallback::Value("false"), arity: Arity::Switch, help }
}

/// Creates a switch that is on by default.
pub(super) const fn on(flag: &'static str, help: &'static str) -> Setting {
    Setting { flag, value: "BOOL", fallback: Fallback::Value("true"), arity: Arity::Switch, help }
}

pub(super) const fn many(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::Many { commas: true }, help }
}

pub(super) const fn many_lines(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, value, fallback: Fallback::Absent, arity: Arity::Many { commas: false }, help }
}
