//! Writes metrics in Prometheus' text format 0.0.4 or in OpenMetrics 1.0, which includes exemplars.

use super::family::{Family, MetricKind, Sample, Value};
use super::histogram::{Distribution, Exemplar};
use std::fmt::Write;

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Text,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// Returns the format for an Accept header; the text format by default.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text }
    }

    /// Returns the media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes all families.
pub fn write(families: &[Family], format: Format) -> String {
    let mut out = String::with_capacity(16 * 1024);
    families.iter().for_each(|family| put_family(&mut out, family, format));
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

// Writing to a `String` cannot fail.

fn put_family(out: &mut String, Family { definition, samples }: &Family, format: Format) {
    let kind = match definition.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    // OpenMetrics names a counter's family without the `_total` suffix.
    let family = match (definition.kind, format) {
        (MetricKind::Counter, Format::OpenMetrics) => {
            definition.name.strip_suffix("_total").unwrap_or(definition.name)
        }
        _ => definition.name,
    };
    let _ = writeln!(out, "# HELP {family} {}\n# TYPE {family} {kind}", definition.help);
    for sample in samples {
        match &sample.value {
            Value::Count(value) => put(out, definition.name, sample, None, value),
            Value::Number(value) => put(out, definition.name, sample, None, value),
            Value::Distribution(values) => put_distribution(out, definition.name, sample, values, format),
        }
    }
}

fn put_distribution(out: &mut String, name: &str, sample: &Sample, values: &Distribution, format: Format) {
    let mut below = 0;
    for (at, count) in values.buckets.iter().enumerate() {
        below += count;
        let bound = values.bounds.seconds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
        put(out, &format!("{name}_bucket"), sample, Some(&bound), &below);
        if let (Some(exemplar), Format::OpenMetrics) = (&values.exemplars[at], format) {
            out.pop();
            put_exemplar(out, exemplar);
        }
    }
    put(out, &format!("{name}_count"), sample, None, &below);
    put(out, &format!("{name}_sum"), sample, None, &values.seconds());
}

fn put(out: &mut String, name: &str, sample: &Sample, bound: Option<&str>, value: &dyn std::fmt::Display) {
    out.push_str(name);
    let own = sample.labels.iter().map(|(key, value)| (*key, &**value));
    let mut open = false;
    for (key, value) in own.chain(bound.map(|bound| ("le", bound))) {
        out.push(if open { ',' } else { '{' });
        open = true;
        put_label(out, key, value);
    }
    if open {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn put_label(out: &mut String, key: &str, value: &str) {
    out.extend(key.chars().map(|c| if c == '.' { '_' } else { c }));
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn put_exemplar(out: &mut String, Exemplar { seconds, context, unix_nanos }: &Exemplar) {
    let _ = writeln!(
        out,
        " # {{trace_id=\"{}\",span_id=\"{}\"}} {seconds} {:.3}",
        context.trace_id(),
        context.span_id(),
        *unix_nanos as f64 / 1e9
    );
}

#[cfg(test)]
mod tests {
    use super::super::family::Definition;
    use super::super::histogram::CONVENTION;
    use super::*;
    use crate::trace_context::Context;

    const COUNTER: Definition = Definition {
        name: "things_total",
        convention: None,
        unit: "{thing}",
        kind: MetricKind::Counter,
        help: "Things.",
    };

    #[test]
    fn values_are_escaped_and_counters_named_by_the_rules_of_each_format() {
        let sample = |value: &str| Sample {
            labels: vec![("gen_ai.tool.name", value.to_owned().into()), ("x", "y".into())],
            value: Value::Count(2),
        };
        let families = [COUNTER.family(vec![sample("a\"b\\c\nd")])];
        let value = "things_total{gen_ai_tool_name=\"a\\\"b\\\\c\\nd\",x=\"y\"} 2\n";
        assert_eq!(
            write(&families, Format::Text),
            format!("# HELP things_total Things.\n# TYPE things_total counter\n{value}")
        );
        assert_eq!(
            write(&families, Format::OpenMetrics),
            format!("# HELP things Things.\n# TYPE things counter\n{value}# EOF\n")
        );
    }

    #[test]
    fn buckets_are_cumulative_and_only_openmetrics_has_exemplars() {
        let context = Context { trace: [0xab; 16], span: [1; 8], flags: 1 };
        let exemplar = Exemplar { seconds: 0.015, context, unix_nanos: 1_500_000_000 };
        let mut values = Distribution { nanos: 1_015_000_000, ..Distribution::empty(&CONVENTION) };
        (values.buckets[1], values.buckets[14], values.exemplars[1]) = (1, 1, Some(exemplar));
        let histogram = Definition {
            name: "seconds",
            kind: MetricKind::Histogram,
            unit: "s",
            help: "How long.",
            ..COUNTER
        };
        let families = [histogram.alone(Value::Distribution(Box::new(values)))];
        let text = write(&families, Format::Text);
        assert!(text.contains("seconds_bucket{le=\"0.01\"} 0\nseconds_bucket{le=\"0.02\"} 1\n"), "{text}");
        assert!(
            text.ends_with("seconds_bucket{le=\"+Inf\"} 2\nseconds_count 2\nseconds_sum 1.015\n"),
            "{text}"
        );
        let with = write(&families, Format::OpenMetrics);
        let trace = "ab".repeat(16);
        let expected = format!(
            "seconds_bucket{{le=\"0.02\"}} 1 # {{trace_id=\"{trace}\",span_id=\"0101010101010101\"}} 0.015 1.500\n"
        );
        assert!(with.contains(&expected), "{with}");
    }
}
