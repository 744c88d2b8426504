//! Runs the subjects in interleaved rounds, and compares them.

use super::job::{Job, Sample, Shape, median};
use super::paths;
use super::subjects::Subject;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// Seconds for which slow subjects are measured at least: they answer too little in less.
const LEAST_OF_SLOW: f64 = 2.0;

/// Seconds without any response after which a peer has failed.
const PATIENCE_WITH_PEERS: f64 = 5.0;

/// The result of a subject at one shape.
#[derive(Clone)]
pub struct Row {
    /// Name of the subject.
    pub subject: String,
    /// Medians over the rounds, or the reason of a failure.
    pub outcome: Result<Sample, String>,
    /// Median of the throughput relative to the floor in the same round.
    pub ratio: Option<f64>,
}

impl Row {
    /// Returns the row as JSON.
    pub fn to_json(&self) -> Value {
        match &self.outcome {
            Ok(sample) => {
                json!({"subject": self.subject, "sample": sample.to_json(), "ratio": self.ratio})
            }
            Err(error) => json!({"subject": self.subject, "failure": error}),
        }
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(value: &Value) -> Row {
        let outcome = match value["failure"].as_str() {
            Some(failure) => Err(failure.to_owned()),
            None => Ok(Sample::from_json(&value["sample"])),
        };
        let subject = value["subject"].as_str().expect("a subject").to_owned();
        Row { subject, outcome, ratio: value["ratio"].as_f64() }
    }

    /// Returns the row as a line for people.
    pub fn line(&self) -> String {
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        match &self.outcome {
            Ok(sample) => format!(
                "{:<22} {:>9.0}/s {ratio:>6} x floor, p50 {:>8.0} us, p99 {:>8.0} us, CPU {:>7.1} us, peak {:>6.1} MiB",
                self.subject,
                sample.rate,
                sample.p50,
                sample.p99,
                sample.cpu,
                sample.peak / 1024.0
            ),
            Err(error) => format!("{:<22} fails: {error}", self.subject),
        }
    }
}

/// Runs each subject once per round. A subject that failed is left out of later rounds.
pub fn compare(subjects: &[Subject], shape: Shape, rounds: usize, seconds: f64) -> Vec<Row> {
    let mut samples: Vec<Result<Vec<Sample>, String>> = vec![Ok(Vec::new()); subjects.len()];
    for round in 0..rounds {
        for offset in 0..subjects.len() {
            // Each round begins with another subject, so that none always follows the same one.
            let index = (round + offset) % subjects.len();
            let Ok(taken) = &mut samples[index] else { continue };
            if round > 0 && subjects[index].is_slow() {
                continue;
            }
            match once(subjects[index], shape, seconds) {
                Ok(sample) => taken.push(sample),
                Err(error) => samples[index] = Err(error),
            }
        }
    }
    let floor = subjects.iter().position(|subject| matches!(subject, Subject::Floor));
    let floor = floor.and_then(|index| samples[index].clone().ok());
    let row = |(subject, samples): (&Subject, &Result<Vec<Sample>, String>)| Row {
        subject: subject.name().to_owned(),
        outcome: samples.as_ref().map(|samples| Sample::median(samples)).map_err(Clone::clone),
        ratio: ratio(samples.as_ref().ok(), floor.as_ref()),
    };
    subjects.iter().zip(&samples).map(row).collect()
}

/// Ends the process with an error if one of these failed that must not: all but peers.
pub fn require_success(subjects: &[Subject], rows: &[Row]) {
    let must =
        |row: &&Row| subjects.iter().any(|subject| subject.name() == row.subject && !subject.may_fail());
    let failed: Vec<String> =
        rows.iter().filter(|row| row.outcome.is_err()).filter(must).map(Row::line).collect();
    if !failed.is_empty() {
        eprintln!("failures that are not results:\n{}", failed.join("\n"));
        std::process::exit(1);
    }
}

fn ratio(samples: Option<&Vec<Sample>>, floor: Option<&Vec<Sample>>) -> Option<f64> {
    Some(median(samples?.iter().zip(floor?).map(|(sample, floor)| sample.rate / floor.rate).collect()))
}

fn once(subject: Subject, shape: Shape, seconds: f64) -> Result<Sample, String> {
    if matches!(subject, Subject::Direct) {
        return generate(&Job::new(None, shape, seconds));
    }
    let running = subject.start(shape.era, &[])?;
    let seconds = if subject.is_slow() { seconds.max(LEAST_OF_SLOW) } else { seconds };
    let mut job = Job::new(Some(running.target.clone()), shape, seconds);
    if subject.may_fail() {
        job.patience = PATIENCE_WITH_PEERS;
    }
    generate(&job)
}

/// Does a job in a process of its own.
pub fn generate(job: &Job) -> Result<Sample, String> {
    let output = Command::new(paths::own())
        .args(["load", &job.to_json().to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(reason.lines().next().unwrap_or("the load generator died").to_owned());
    }
    serde_json::from_slice(&output.stdout)
        .map(|value| Sample::from_json(&value))
        .map_err(|error| format!("no sample: {error}"))
}
