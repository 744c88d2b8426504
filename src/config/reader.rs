//! Turns given settings into values: precedence, defaults, and the list of problems.
//!
//! Its functions are not inlined: there are two hundred settings, and each is read once.

use super::args::Typed;
use super::file::File;
use super::parse::{ValueKind, choose, name_of};
use super::problem::{InvalidValue, Problem, Source};
use super::table::{Arity, Fallback, NOT_IN_FILE, Setting, find, settings};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A given setting.
struct Given {
    items: Vec<OsString>,
    source: Source,
}

/// Reads settings one by one. A bad setting is recorded and replaced by its default until the end, so that the others
/// are checked, too.
pub(super) struct Reader {
    given: HashMap<&'static str, Given>,
    problems: Vec<Problem>,
    bad: HashSet<&'static str>,
    /// YAML for `--check`, which can be used as a configuration file.
    shown: String,
}

impl Reader {
    /// Creates a reader. Flags take precedence over the environment, and the environment over the file.
    pub(super) fn new(
        mut typed: Typed,
        mut file: File,
        env: impl Fn(&str) -> Option<OsString>,
        problems: Vec<Problem>,
    ) -> Reader {
        let mut given = HashMap::new();
        for setting in settings() {
            let flag = setting.flag;
            let from_flag = typed.values.remove(flag).map(|items| Given { items, source: Source::Flag });
            let from_file = file.values.remove(flag).map(|(items, source)| Given { items, source });
            if let Some(found) = from_flag.or_else(|| from_variable(setting, &env)).or(from_file) {
                given.insert(flag, found);
            }
        }
        Reader { given, problems, bad: HashSet::new(), shown: String::new() }
    }

    /// Reads a setting that has a default.
    pub(super) fn one<T>(&mut self, flag: &'static str, kind: ValueKind<T>) -> T {
        self.one_by(flag, kind.parse, kind.show)
    }

    /// Reads a setting with a few named values.
    #[inline(never)]
    pub(super) fn choice<T: Copy + PartialEq>(&mut self, flag: &'static str, names: &[(&str, T)]) -> T {
        self.one_by(flag, |text| choose(text, names), |value| name_of(value, names))
    }

    /// Reads an optional setting.
    #[inline(never)]
    pub(super) fn optional<T>(&mut self, flag: &'static str, kind: ValueKind<T>) -> Option<T> {
        let value = self.value(flag, kind.parse);
        self.show(flag, &value.as_ref().map(kind.show).unwrap_or_default());
        value
    }

    /// Reads a setting with a computed default.
    #[inline(never)]
    pub(super) fn one_or<T>(&mut self, flag: &'static str, kind: ValueKind<T>, fallback: T) -> T {
        let value = self.value(flag, kind.parse).unwrap_or(fallback);
        self.show(flag, &(kind.show)(&value));
        value
    }

    /// Reads a list.
    #[inline(never)]
    pub(super) fn list<T>(&mut self, flag: &'static str, kind: ValueKind<T>) -> Vec<T> {
        let Given { items, source } = self.given(flag);
        let values: Vec<T> =
            items.iter().filter_map(|item| self.parsed(flag, item, &source, kind.parse)).collect();
        self.show(flag, &values.iter().map(kind.show).collect::<Vec<_>>().into());
        values
    }

    /// Reads the child's variables. Their values are never shown, nor is a bad item, which may be a secret.
    pub(super) fn variables(&mut self, env: impl Fn(&str) -> Option<OsString>) -> Vec<(OsString, OsString)> {
        let Given { items, source } = self.given("env");
        let mut variables = Vec::with_capacity(items.len());
        for (at, item) in (1..).zip(&items) {
            match variable(item, &env) {
                Ok(variable) => variables.push(variable),
                Err(reason) => {
                    let refusal = InvalidValue::new(
                        format!("item {at} {reason}"),
                        "give NAME=VALUE, or the NAME of a variable that is set",
                    );
                    self.refuse("env", None, Some(source.clone()), refusal);
                }
            }
        }
        let redacted = |(name, _): &(OsString, OsString)| format!("{}=<redacted>", name.display()).into();
        self.show("env", &variables.iter().map(redacted).collect::<Vec<Value>>().into());
        variables
    }

    /// Returns whether a setting is given.
    #[inline(never)]
    pub(super) fn is_given(&self, flag: &str) -> bool {
        self.given.contains_key(flag)
    }

    /// Returns whether a setting is given, and not as its default.
    #[inline(never)]
    pub(super) fn deviates(&self, flag: &str) -> bool {
        let Some(given) = self.given.get(flag) else { return false };
        match find(flag).map(|setting| setting.fallback) {
            Some(Fallback::Value(default)) => given.items.last().is_some_and(|item| item != default),
            _ => !given.items.is_empty(),
        }
    }

    /// Records a problem that concerns several settings, unless one of them is bad already.
    #[inline(never)]
    pub(super) fn cross_check(&mut self, sound: bool, flags: &[&'static str], refusal: InvalidValue) {
        if !sound && !flags.iter().any(|flag| self.bad.contains(flag)) {
            let source = self.given.get(flags[0]).map(|given| given.source.clone());
            self.refuse(flags[0], None, source, refusal);
        }
    }

    /// Returns whether the setting has a value that was refused.
    pub(super) fn is_bad(&self, flag: &str) -> bool {
        self.bad.contains(flag)
    }

    /// Records a problem.
    #[inline(never)]
    pub(super) fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Adds a line to the output of `--check`.
    #[inline(never)]
    pub(super) fn show(&mut self, key: &str, value: &Value) {
        if NOT_IN_FILE.contains(&key) {
            return;
        }
        let words = find(key).and_then(Setting::default_words);
        // A file cannot say that a setting has no value.
        let is_unset = value.is_null() || (value.as_array().is_some_and(Vec::is_empty) && key != "command");
        let mark = if is_unset { "# " } else { "" };
        let _ = write!(self.shown, "{mark}{key}: {value}");
        match (self.given.get(key), words) {
            (Some(given), _) => drop(write!(self.shown, "  # from {}", given.source)),
            (None, Some(words)) if value.is_null() => drop(write!(self.shown, "  # default: {words}")),
            _ => {}
        }
        self.shown.push('\n');
    }

    /// Adds a comment to the output of `--check`.
    pub(super) fn comment(&mut self, text: &str) {
        let _ = writeln!(self.shown, "# {text}");
    }

    /// Returns the settings as YAML, or the problems.
    pub(super) fn finish(self) -> Result<String, Vec<Problem>> {
        if self.problems.is_empty() { Ok(self.shown) } else { Err(self.problems) }
    }

    #[inline(never)]
    fn one_by<T>(
        &mut self,
        flag: &'static str,
        parse: impl Fn(&str) -> Result<T, InvalidValue>,
        show: impl Fn(&T) -> Value,
    ) -> T {
        let value = self
            .value(flag, &parse)
            .unwrap_or_else(|| parse(fallback(flag)).expect("a default is a value that would be accepted"));
        self.show(flag, &show(&value));
        value
    }

    fn value<T>(&mut self, flag: &'static str, parse: impl Fn(&str) -> Result<T, InvalidValue>) -> Option<T> {
        let Given { items, source } = self.given(flag);
        items.last().and_then(|item| self.parsed(flag, item, &source, parse))
    }

    fn parsed<T>(
        &mut self,
        flag: &'static str,
        item: &OsStr,
        source: &Source,
        parse: impl Fn(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        match text_of(item).and_then(parse) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse_item(flag, item, source, refusal);
                None
            }
        }
    }

    #[inline(never)]
    fn refuse_item(&mut self, flag: &'static str, item: &OsStr, source: &Source, refusal: InvalidValue) {
        let value = Some(item.to_string_lossy().into_owned());
        self.refuse(flag, value, Some(source.clone()), refusal);
    }

    #[inline(never)]
    fn given(&self, flag: &str) -> Given {
        match self.given.get(flag) {
            Some(given) => Given { items: given.items.clone(), source: given.source.clone() },
            None => Given { items: Vec::new(), source: Source::Flag },
        }
    }

    #[inline(never)]
    fn refuse(
        &mut self,
        flag: &'static str,
        value: Option<String>,
        source: Option<Source>,
        refusal: InvalidValue,
    ) {
        self.bad.insert(flag);
        self.problems.push(Problem { subject: format!("--{flag}"), value, source, refusal });
    }
}

/// Returns the default of a setting that has one.
#[inline(never)]
fn fallback(flag: &str) -> &'static str {
    match find(flag).map(|setting| setting.fallback) {
        Some(Fallback::Value(default)) => default,
        _ => unreachable!("--{flag} has a default in the table"),
    }
}

#[inline(never)]
fn text_of(item: &OsStr) -> Result<&str, InvalidValue> {
    item.to_str().ok_or_else(|| InvalidValue::new("is not UTF-8", "give text"))
}

/// Reads a setting from its environment variable. An empty variable counts as unset, since deployments cannot always
/// unset variables.
fn from_variable(setting: &Setting, env: impl Fn(&str) -> Option<OsString>) -> Option<Given> {
    let name = setting.variable();
    let text = env(&name).filter(|text| !text.is_empty())?;
    let items = match setting.arity {
        Arity::One | Arity::Switch => vec![text],
        Arity::Many { commas } => text
            .as_bytes()
            .split(|byte| *byte == b'\n' || (commas && *byte == b','))
            .map(|item| if commas { item.trim_ascii() } else { item })
            .filter(|item| !item.trim_ascii().is_empty())
            .map(|item| OsString::from_vec(item.to_vec()))
            .collect(),
    };
    Some(Given { items, source: Source::Variable(name) })
}

/// Parses `NAME=VALUE`, or `NAME` for the value in proxyrunner's own environment.
fn variable(
    item: &OsStr,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<(OsString, OsString), &'static str> {
    let bytes = item.as_bytes();
    if bytes.contains(&0) {
        return Err("contains a NUL byte");
    }
    let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
        let value = item.to_str().filter(|name| !name.is_empty()).and_then(env);
        return value
            .map(|value| (item.to_owned(), value))
            .ok_or("is neither NAME=VALUE nor the name of a variable that is set");
    };
    if at == 0 {
        return Err("has no name");
    }
    Ok((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
}
