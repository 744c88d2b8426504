//! Metrics at one moment, as families of samples: what is written to Prometheus and to OTLP alike.

use super::histogram::Distribution;
use std::borrow::Cow;

/// What kind of a metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Values by how large they are.
    Histogram,
}

/// A metric's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name for Prometheus, with the unit in it; a counter's ends in `_total`.
    pub name: &'static str,
    /// Its name in OTLP, where that is another.
    pub convention: Option<&'static str>,
    /// Its unit, as UCUM has it.
    pub unit: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it says, in one line.
    pub help: &'static str,
}

/// A metric with its values.
#[derive(Clone, Debug)]
pub struct Family {
    /// What it is.
    pub definition: Definition,
    /// One for each combination of labels.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug)]
pub struct Sample {
    /// By what it is told from the others: attributes' names, as OpenTelemetry writes them, and values.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The value.
    pub value: Value,
}

/// A sample's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// Any number.
    Number(f64),
    /// A histogram's.
    Distribution(Box<Distribution>),
}

impl Definition {
    /// It with one value, which needs no labels.
    pub fn alone(self, value: Value) -> Family {
        Family { definition: self, samples: vec![Sample { labels: Vec::new(), value }] }
    }

    /// It with these values.
    pub fn family(self, samples: Vec<Sample>) -> Family {
        Family { definition: self, samples }
    }
}
