//! The tables of `docs/performance.md`.

use super::cases::{CPU_QUOTA, SLOW_RATE};
use super::document::Measured;
use super::job::Sample;
use super::measure::Row;
use serde_json::Value;

/// Returns the tables of all shapes, one for each thing that was measured.
pub fn load(measured: &[Measured]) -> String {
    let mut text =
        "## Load\n\n![Throughput relative to the floor](performance/throughput.svg)\n\n".to_owned();
    text += &table("Requests per second, and relative to the floor", measured, |row, sample| {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"));
        format!("{}{ratio}", rate(sample.rate))
    });
    text += "![Latency](performance/latency.svg)\n\n";
    text += &table("Latency in milliseconds: median / 99th percentile", measured, |_, sample| {
        format!("{} / {}", digits(sample.p50 / 1e3), digits(sample.p99 / 1e3))
    });
    text += &table("CPU time per request in microseconds", measured, |_, sample| digits(sample.cpu));
    text += &table("Peak of resident memory in MiB", measured, |_, sample| digits(sample.peak / 1024.0));
    text += &failures(measured);
    text
}

fn table(title: &str, measured: &[Measured], cell: impl Fn(&Row, &Sample) -> String) -> String {
    let Some(first) = measured.first() else { return String::new() };
    let names: Vec<&str> = first.rows.iter().map(|row| &*row.subject).collect();
    let mut text =
        format!("### {title}\n\n| shape | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for measured in measured {
        let cells = measured.rows.iter().map(|row| match &row.outcome {
            Ok(sample) => cell(row, sample),
            Err(_) => "fails".to_owned(),
        });
        text += &format!("| {} | {} |\n", measured.shape.name(), cells.collect::<Vec<_>>().join(" | "));
    }
    text + "\n"
}

/// Lists the reasons of all failures.
fn failures(measured: &[Measured]) -> String {
    let mut lines = Vec::new();
    for measured in measured {
        for row in &measured.rows {
            if let Err(reason) = &row.outcome {
                let reason = reason.replace(['`', '|'], "'");
                lines.push(format!("| {} | {} | `{reason}` |\n", row.subject, measured.shape.name()));
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.sort();
    format!("### Failures\n\n| subject | shape | reason |\n|---|---|---|\n{}\n", lines.concat())
}

/// Returns the table of large messages.
pub fn large(points: &[Value]) -> String {
    let mut text = "## Large messages\n\nOne call at a time, with this much text each way. *Growth* is the peak of resident memory \
        above that before the calls.\n\n\
        | subject | MiB | ms | CPU, ms | growth, MiB | growth per MiB of text |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for point in points {
        let subject = point["subject"].as_str().unwrap_or_default();
        let size = point["count"].as_f64().unwrap_or(f64::NAN);
        text += &match point["failure"].as_str() {
            Some(failure) => format!("| {subject} | {size} | {failure} | | | |\n"),
            None => {
                let sample = Sample::from_json(&point["sample"]);
                let growth = (sample.peak - sample.before) / 1024.0;
                let (time, cpu) = (digits(sample.p50 / 1e3), digits(sample.cpu / 1e3));
                format!(
                    "| {subject} | {size} | {time} | {cpu} | {} | {} |\n",
                    digits(growth),
                    digits(growth / size)
                )
            }
        };
    }
    text
}

/// Returns the table of start and memory.
pub fn footprint(entries: &[Value]) -> String {
    let mut text = "## Start and memory\n\n![Memory at rest](performance/memory.svg)\n\n\
        *Ready* is the time from exec to the first accepted connection. Memory at rest is measured with one session, after some\n\
        calls: resident (RSS), and proportional (Pss), in which shared pages count in part. Bytes per idle session, and per session\n\
        with an open event stream, are the growth of resident memory over the number of sessions in the last column.\n\
        proxyrunner runs this part with `--max-sessions` and `--max-connections` raised.\n\n\
        | subject | ready, ms | RSS, MiB | Pss, MiB | Pss with child, MiB | bytes per idle session | bytes per stream | sessions |\n\
        |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for entry in entries {
        let mib = |key: &str| show(&entry[key], |kib| digits(kib / 1024.0));
        let bytes = |key: &str| show(&entry[key], thousands);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            entry["subject"].as_str().unwrap_or_default(),
            show(&entry["ready"], digits),
            mib("rss"),
            mib("pss"),
            mib("pss_with_child"),
            bytes("session"),
            bytes("stream"),
            show(&entry["many"], thousands)
        );
    }
    let own = entries.iter().find(|entry| entry["subject"] == "proxyrunner");
    if let Some(main) = own.and_then(|own| own["pss_main"].as_f64()) {
        text += &format!("\nproxyrunner's main process alone has a Pss of {} MiB.\n", digits(main / 1024.0));
    }
    text
}

/// Returns the table of the CPU quota.
pub fn quota(entries: &[Value]) -> String {
    let mut text = format!(
        "## With {CPU_QUOTA} of a CPU\n\nBridge and child together in a control group with this quota; one session, 8 connections, 200 B.\n\n\
         | subject | requests/s | p99 at {SLOW_RATE} requests/s, ms |\n|---|---|---|\n"
    );
    for entry in entries {
        let subject = entry["subject"].as_str().unwrap_or_default();
        text += &match entry["failure"].as_str() {
            Some(failure) => format!("| {subject} | {failure} | |\n"),
            None => format!(
                "| {subject} | {} | {} |\n",
                show(&entry["full"]["rate"], rate),
                show(&entry["slow"]["p99"], |us| digits(us / 1e3))
            ),
        };
    }
    text
}

/// Returns the tables of costs that must not grow.
pub fn flatness(by_sessions: &[Value], by_load: &[Value]) -> String {
    let mut text = "## Does the cost per request grow?\n\nCalls of 200 B. First: 64 connections in one session, while other \
        sessions are open. Second: more requests in flight, 64 per session.\n\n"
        .to_owned();
    for (title, points) in [("sessions", by_sessions), ("in flight", by_load)] {
        text += &format!(
            "| subject | {title} | requests/s | CPU µs per request | p99, ms |\n|---|---|---|---|---|\n"
        );
        for point in points {
            let subject = point["subject"].as_str().unwrap_or_default();
            let count = show(&point["count"], thousands);
            let sample = &point["sample"];
            text += &match point["failure"].as_str() {
                Some(failure) => format!("| {subject} | {count} | {failure} | | |\n"),
                None => format!(
                    "| {subject} | {count} | {} | {} | {} |\n",
                    show(&sample["rate"], rate),
                    show(&sample["cpu"], digits),
                    show(&sample["p99"], |us| digits(us / 1e3))
                ),
            };
        }
        text += "\n";
    }
    text
}

/// Returns a number as `number` writes it, a text as it is, and a dash for nothing.
fn show(value: &Value, number: impl Fn(f64) -> String) -> String {
    match value {
        Value::Number(value) => value.as_f64().map_or_else(String::new, number),
        Value::String(text) => text.replace('|', "/"),
        _ => "–".to_owned(),
    }
}

/// Returns a number of requests per second, with a fraction only if it is small.
fn rate(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { thousands(value) }
}

/// Returns a number without a fraction, with commas.
pub fn thousands(value: f64) -> String {
    let text = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns a number with about three digits.
fn digits(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 1000.0 => thousands(value),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
