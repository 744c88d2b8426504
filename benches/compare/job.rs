//! What the load generator is told to do, and what it reports. Both travel as JSON between processes.

use serde_json::{Value, json};
use std::net::SocketAddr;

/// The protocol eras of client and child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2025-06-18 on both sides.
    Legacy,
    /// 2026-07-28 on both sides.
    Modern,
    /// A 2026-07-28 client with a 2025-06-18 child.
    Translated,
}

impl Era {
    /// Returns the era of this name.
    pub fn parse(name: &str) -> Option<Era> {
        [Era::Legacy, Era::Modern, Era::Translated].into_iter().find(|era| era.name() == name)
    }

    /// Returns the name in commands, tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
            Era::Translated => "translated",
        }
    }

    /// Returns whether clients are of 2026-07-28.
    pub fn has_modern_client(self) -> bool {
        self != Era::Legacy
    }
}

/// How much load of which kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub era: Era,
    pub sessions: usize,
    /// Connections per session; each has one request in flight.
    pub concurrency: usize,
    /// Bytes of text in each request, which come back in the response.
    pub size: usize,
    /// Progress notifications before each response; 0 for calls without a progress token.
    pub progress: usize,
}

impl Shape {
    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.sessions * self.concurrency
    }

    /// Returns the shape as people read it.
    pub fn name(&self) -> String {
        let size = match self.size {
            size if size >= 1 << 20 => format!("{} MiB", size >> 20),
            size if size >= 1024 => format!("{} KiB", size >> 10),
            size => format!("{size} B"),
        };
        let progress = if self.progress > 0 { ", progress" } else { "" };
        let era = if self.era == Era::Legacy { String::new() } else { format!(", {}", self.era.name()) };
        format!("{}×{}, {size}{progress}{era}", self.sessions, self.concurrency)
    }

    /// Returns the shape as JSON.
    pub fn to_json(self) -> Value {
        json!({
            "era": self.era.name(), "sessions": self.sessions, "concurrency": self.concurrency,
            "size": self.size, "progress": self.progress,
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(value: &Value) -> Shape {
        let number = |key: &str| value[key].as_u64().expect("a number") as usize;
        Shape {
            era: value["era"].as_str().and_then(Era::parse).expect("an era"),
            sessions: number("sessions"),
            concurrency: number("concurrency"),
            size: number("size"),
            progress: number("progress"),
        }
    }
}

/// Where the requests go.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub path: String,
    /// Text before the names of tools.
    pub prefix: String,
    /// The process whose CPU time and memory count, with its descendants.
    pub process: u32,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Job {
    /// `None` for a child without a bridge, which the load generator starts itself.
    pub target: Option<Target>,
    pub shape: Shape,
    pub warm_up: f64,
    pub seconds: f64,
    /// Requests per second in total; 0 for as many as possible.
    pub rate: f64,
    /// Sessions that are opened before and then not used.
    pub idle_sessions: usize,
    /// Event streams (GET) that are opened before and then not used, each in a session of its own.
    pub streams: usize,
    /// Seconds without any response after which the measurement fails.
    pub patience: f64,
}

impl Job {
    /// Returns a job of ordinary load for `seconds`.
    pub fn new(target: Option<Target>, shape: Shape, seconds: f64) -> Job {
        Job { target, shape, warm_up: 0.5, seconds, rate: 0.0, idle_sessions: 0, streams: 0, patience: 15.0 }
    }

    /// Returns the job as JSON.
    pub fn to_json(&self) -> Value {
        let target = self.target.as_ref().map(|target| {
            json!({
                "address": target.address.to_string(), "path": target.path, "prefix": target.prefix,
                "process": target.process,
            })
        });
        json!({
            "target": target, "shape": self.shape.to_json(), "warm_up": self.warm_up, "seconds": self.seconds,
            "rate": self.rate, "idle_sessions": self.idle_sessions, "streams": self.streams,
            "patience": self.patience,
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(value: &Value) -> Job {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let number = |key: &str| value[key].as_f64().expect("a number");
        let target = value["target"].as_object().map(|target| Target {
            address: text(&target["address"]).parse().expect("an address"),
            path: text(&target["path"]),
            prefix: text(&target["prefix"]),
            process: target["process"].as_u64().expect("a process") as u32,
        });
        Job {
            target,
            shape: Shape::from_json(&value["shape"]),
            warm_up: number("warm_up"),
            seconds: number("seconds"),
            rate: number("rate"),
            idle_sessions: number("idle_sessions") as usize,
            streams: number("streams") as usize,
            patience: number("patience"),
        }
    }
}

/// What one measurement found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Requests per second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
    /// Microseconds of CPU time per request.
    pub cpu: f64,
    /// Peak of resident memory since the start, in KiB.
    pub peak: f64,
    /// Resident memory in KiB before idle sessions and streams were opened.
    pub before: f64,
    /// Resident memory in KiB after they were opened.
    pub after: f64,
}

impl Sample {
    const KEYS: [&str; 7] = ["rate", "p50", "p99", "cpu", "peak", "before", "after"];

    fn values(&mut self) -> [&mut f64; 7] {
        let Sample { rate, p50, p99, cpu, peak, before, after } = self;
        [rate, p50, p99, cpu, peak, before, after]
    }

    /// Returns the sample as JSON.
    pub fn to_json(mut self) -> Value {
        let values = self.values().map(|value| json!(*value));
        Self::KEYS.iter().map(|key| (*key).to_owned()).zip(values).collect::<serde_json::Map<_, _>>().into()
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(value: &Value) -> Sample {
        let mut sample = Sample::default();
        for (place, key) in sample.values().into_iter().zip(Self::KEYS) {
            *place = value[key].as_f64().expect("a number");
        }
        sample
    }

    /// Returns the medians of each value.
    pub fn median(samples: &[Sample]) -> Sample {
        let mut medians = Sample::default();
        for (index, place) in medians.values().into_iter().enumerate() {
            let column: Vec<f64> = samples.iter().map(|sample| *sample.clone().values()[index]).collect();
            *place = median(column);
        }
        medians
    }
}

/// Returns the median, or NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}
