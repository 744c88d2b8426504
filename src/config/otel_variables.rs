//! Reads environment variables of OpenTelemetry, and collects warnings about invalid values.

use crate::export::Signal;
use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// A practically unlimited duration.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The environment, and the warnings about its values.
pub(super) struct Variables<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Variables { env, warnings: Vec::new() }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Returns the value of a variable. An empty value counts as unset.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = (self.env)(name)?;
        match value.into_string() {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(_) => {
                self.warn(name, "is not UTF-8", "ignoring it");
                None
            }
        }
    }

    pub(super) fn warn(&mut self, name: &str, what: impl Display, instead: impl Display) {
        self.warnings.push(format!("{name} {what}; {instead}"));
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.warn(name, format!("{text:?} is not a {what}"), "ignoring it");
        }
        parsed
    }

    pub(super) fn number(&mut self, name: &str) -> Option<usize> {
        self.parsed(name, "whole number")
    }

    pub(super) fn millis(&mut self, name: &str) -> Option<Duration> {
        let millis = self.parsed(name, "number of milliseconds")?;
        // Some values mean "unlimited" but would overflow the clock.
        Some(Duration::from_millis(millis).min(FOR_EVER))
    }

    /// Returns a timeout; zero disables it (specification/configuration/common.md §Timeout).
    pub(super) fn limit(&mut self, name: &str) -> Option<Duration> {
        self.millis(name).map(|limit| if limit.is_zero() { FOR_EVER } else { limit })
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let text = self.text(name)?.to_ascii_lowercase();
        if !matches!(text.as_str(), "true" | "false") {
            self.warn(name, format!("{text:?} is neither true nor false"), "using false");
        }
        Some(text == "true")
    }

    /// Returns a variable of one signal, such as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or else the variable for all
    /// signals; with its name.
    pub(super) fn of_signal(&mut self, signal: Signal, what: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", infix(signal));
        let all = format!("OTEL_EXPORTER_OTLP_{what}");
        let found = self.text(&own).map(|text| (own, text));
        found.or_else(|| Some((all.clone(), self.text(&all)?)))
    }
}

/// Returns the part of a variable's name that stands for a signal.
pub(super) fn infix(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "TRACES",
        Signal::Metrics => "METRICS",
        Signal::Logs => "LOGS",
    }
}
