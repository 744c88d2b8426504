//! The standard environment variables of OpenTelemetry (specification/configuration/sdk-environment-variables.md,
//! protocol/exporter.md): whether spans, metrics and log records are exported, where, and how.
//!
//! They may be set for every program of a cluster, so no value prevents the start: invalid ones are reported as
//! warnings and ignored, as the specification asks. Nothing is exported unless a collector or an exporter is
//! configured.

use super::otel_variables::{Variables, infix};
use crate::export::{self, Endpoint, Header, MetricSettings, Protocol, Signal};
use crate::outbound::Tls;
use crate::telemetry::metrics::Temporality;
use crate::telemetry::{Bounds, Sampler, SpanSettings};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use std::ffi::OsString;
use std::time::Duration;

/// Default maximum length of a string in bytes: clients and children send strings of any length.
const LONGEST: usize = 4_096;

/// Minimum interval between exports: without one, they would use all CPU time.
const SOONEST: Duration = Duration::from_millis(10);

/// The settings that the variables specify.
pub(super) struct Meant {
    pub spans: Option<SpanSettings>,
    pub records: Option<Bounds>,
    pub longest: usize,
    pub exemplars: bool,
    pub propagates: Propagates,
    pub export: export::Settings,
    /// Warnings about invalid values.
    pub warnings: Vec<String>,
}

/// The kinds of context that are passed from clients to children (`OTEL_PROPAGATORS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Propagates {
    pub context: bool,
    pub baggage: bool,
}

/// Reads the variables.
pub(super) fn read(env: impl Fn(&str) -> Option<OsString>) -> Meant {
    let mut variables = Variables::new(&env);
    let disabled = variables.flag("OTEL_SDK_DISABLED").unwrap_or(false);
    let mut export = export::Settings { resource: resource(&mut variables), ..export::Settings::default() };
    if !disabled {
        export.traces = endpoint(&mut variables, Signal::Traces, "OTEL_BSP_EXPORT_TIMEOUT");
        export.logs = endpoint(&mut variables, Signal::Logs, "OTEL_BLRP_EXPORT_TIMEOUT");
        let metrics = endpoint(&mut variables, Signal::Metrics, "OTEL_METRIC_EXPORT_TIMEOUT");
        export.metrics = metrics.map(|endpoint| metric_settings(&mut variables, endpoint));
    }
    let propagates = propagates(&mut variables);
    let spans = export.traces.is_some().then(|| SpanSettings {
        sampler: sampler(&mut variables),
        propagates: propagates.context,
        bounds: bounds(&mut variables, "OTEL_BSP", Duration::from_secs(5)),
    });
    let records = export.logs.is_some().then(|| bounds(&mut variables, "OTEL_BLRP", Duration::from_secs(1)));
    let longest = variables
        .number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
        .or_else(|| variables.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
        .unwrap_or(LONGEST);
    let exemplars = !disabled && exemplars(&mut variables);
    for unknown in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
        if variables.text(unknown).is_some() {
            variables.warn(unknown, "is not supported", "using the other variables");
        }
    }
    Meant { spans, records, longest, exemplars, propagates, export, warnings: variables.into_warnings() }
}

/// Returns the endpoint of a signal, if it is exported.
fn endpoint(variables: &mut Variables<'_>, signal: Signal, patience: &str) -> Option<Endpoint> {
    let named = variables.of_signal(signal, "ENDPOINT");
    if !is_wanted(variables, signal, named.as_ref()) {
        return None;
    }
    let protocol = protocol(variables, signal);
    let for_all = named.as_ref().is_none_or(|(name, _)| name == "OTEL_EXPORTER_OTLP_ENDPOINT");
    let (name, text) = named.unwrap_or_else(|| {
        let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://localhost:{port}"))
    });
    let Some(uri) = url(variables, signal, protocol, for_all, &text) else {
        let instead = format!("{} are not exported", signal.things());
        variables.warn(&name, "is not an http or https URL with a host", instead);
        return None;
    };
    let tls = if uri.scheme_str() == Some("https") { tls(variables, signal) } else { Tls::default() };
    let timeout = variables.of_signal(signal, "TIMEOUT").and_then(|(name, _)| variables.limit(&name));
    let gzip = match variables.of_signal(signal, "COMPRESSION") {
        Some((_, text)) if text == "gzip" => true,
        Some((name, text)) if text != "none" => {
            variables.warn(&name, format!("{text:?} is not supported"), "exporting uncompressed");
            false
        }
        _ => false,
    };
    Some(Endpoint {
        uri,
        protocol,
        headers: headers(variables, signal),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        patience: variables.limit(patience).unwrap_or(Duration::from_secs(30)),
        gzip,
        tls,
    })
}

/// Returns whether a signal is exported: if its exporter is chosen, by that, else if a collector is configured. Log
/// records are exported only on request, because stderr contains them already.
fn is_wanted(variables: &mut Variables<'_>, signal: Signal, named: Option<&(String, String)>) -> bool {
    let name = format!("OTEL_{}_EXPORTER", infix(signal));
    let chosen = variables.text(&name);
    let own = named.is_some_and(|(name, _)| name != "OTEL_EXPORTER_OTLP_ENDPOINT");
    let by_default = if signal == Signal::Logs { own } else { named.is_some() };
    let Some(chosen) = chosen else { return by_default };
    let mut wanted = false;
    for exporter in chosen.split(',').map(str::trim) {
        match exporter {
            "otlp" => wanted = true,
            "none" => {}
            // Prometheus metrics are always served, at /metrics.
            "prometheus" if signal == Signal::Metrics => {}
            other => variables.warn(&name, format!("{other:?} is not supported"), "ignoring it"),
        }
    }
    wanted
}

fn protocol(variables: &mut Variables<'_>, signal: Signal) -> Protocol {
    match variables.of_signal(signal, "PROTOCOL") {
        Some((_, text)) if text == "grpc" => Protocol::Grpc,
        Some((name, text)) if text != "http/protobuf" => {
            variables.warn(&name, format!("{text:?} is not supported"), "using http/protobuf");
            Protocol::Http
        }
        _ => Protocol::Http,
    }
}

/// Returns the URL of a collector. A URL for all signals gets a path per signal; a gRPC endpoint has no path and may
/// omit the scheme.
fn url(
    variables: &mut Variables<'_>,
    signal: Signal,
    protocol: Protocol,
    for_all: bool,
    text: &str,
) -> Option<Uri> {
    let text = if protocol == Protocol::Grpc && !text.contains("://") {
        let insecure = variables.of_signal(signal, "INSECURE");
        let insecure = insecure.and_then(|(name, _)| variables.flag(&name)).unwrap_or(false);
        format!("{}://{text}", if insecure { "http" } else { "https" })
    } else {
        text.to_owned()
    };
    let text = match (protocol, for_all) {
        (Protocol::Http, true) => format!("{}/{}", text.trim_end_matches('/'), signal.path()),
        _ => text,
    };
    let uri: Uri = text.parse().ok()?;
    let is_sound = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    is_sound.then_some(uri)
}

/// Parses comma-separated `key=value` pairs in the format of baggage. The values may be secrets and are never shown.
fn headers(variables: &mut Variables<'_>, signal: Signal) -> Vec<Header> {
    let Some((name, text)) = variables.of_signal(signal, "HEADERS") else { return Vec::new() };
    let mut headers = Vec::new();
    for (at, pair) in (1..).zip(text.split(',').filter(|pair| !pair.trim().is_empty())) {
        let header = pair.split_once('=').and_then(|(key, value)| {
            let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())).ok()?;
            value.set_sensitive(true);
            Some(Header { name: HeaderName::from_bytes(key.trim().as_bytes()).ok()?, value })
        });
        match header {
            Some(header) => headers.push(header),
            None => variables.warn(&name, format!("has an invalid header at position {at}"), "ignoring it"),
        }
    }
    headers
}

/// Decodes percent-encoding (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

fn tls(variables: &mut Variables<'_>, signal: Signal) -> Tls {
    let mut file = |what: &str| {
        let (name, path) = variables.of_signal(signal, what)?;
        match std::fs::read(&path) {
            Ok(pem) => Some(pem),
            Err(error) => {
                variables.warn(&name, format!("{path:?} cannot be read: {error}"), "ignoring it");
                None
            }
        }
    };
    let authorities = file("CERTIFICATE");
    Tls { authorities, identity: file("CLIENT_CERTIFICATE").zip(file("CLIENT_KEY")), name: None }
}

fn metric_settings(variables: &mut Variables<'_>, endpoint: Endpoint) -> MetricSettings {
    let interval = variables.millis("OTEL_METRIC_EXPORT_INTERVAL").map(|it| it.max(SOONEST));
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let preference = variables.text(name).map(|text| text.to_ascii_lowercase());
    let temporality = match preference.as_deref() {
        Some("delta" | "lowmemory") => Temporality::Delta,
        None | Some("cumulative") => Temporality::Cumulative,
        Some(other) => {
            variables.warn(name, format!("{other:?} is not supported"), "using cumulative");
            Temporality::Cumulative
        }
    };
    let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    if let Some(other) = variables.text(name).filter(|text| text != "explicit_bucket_histogram") {
        variables.warn(name, format!("{other:?} is not supported"), "using explicit_bucket_histogram");
    }
    MetricSettings { endpoint, interval: interval.unwrap_or(Duration::from_secs(60)), temporality }
}

fn sampler(variables: &mut Variables<'_>) -> Sampler {
    let argument: Option<f64> = variables.parsed("OTEL_TRACES_SAMPLER_ARG", "number");
    let argument = argument.filter(|argument| {
        let sound = (0.0..=1.0).contains(argument);
        if !sound {
            variables.warn("OTEL_TRACES_SAMPLER_ARG", "is not between 0 and 1", "using 1");
        }
        sound
    });
    let Some(name) = variables.text("OTEL_TRACES_SAMPLER") else { return Sampler::default() };
    Sampler::named(&name, argument).unwrap_or_else(|| {
        let what = format!("{name:?} is not supported");
        variables.warn("OTEL_TRACES_SAMPLER", what, "using parentbased_always_on");
        Sampler::default()
    })
}

fn bounds(variables: &mut Variables<'_>, prefix: &str, delay: Duration) -> Bounds {
    let queued = variables.number(&format!("{prefix}_MAX_QUEUE_SIZE")).filter(|size| *size > 0);
    let batch = variables.number(&format!("{prefix}_MAX_EXPORT_BATCH_SIZE")).filter(|size| *size > 0);
    let queued = queued.unwrap_or(2_048);
    Bounds {
        queued,
        batch: batch.unwrap_or(512).min(queued),
        delay: variables.millis(&format!("{prefix}_SCHEDULE_DELAY")).unwrap_or(delay).max(SOONEST),
    }
}

fn exemplars(variables: &mut Variables<'_>) -> bool {
    match variables.text("OTEL_METRICS_EXEMPLAR_FILTER").as_deref() {
        Some("always_off") => false,
        None | Some("trace_based") => true,
        Some(other) => {
            let what = format!("{other:?} is not supported");
            variables.warn("OTEL_METRICS_EXEMPLAR_FILTER", what, "using trace_based");
            true
        }
    }
}

fn propagates(variables: &mut Variables<'_>) -> Propagates {
    let Some(text) = variables.text("OTEL_PROPAGATORS") else {
        return Propagates { context: true, baggage: true };
    };
    let mut propagates = Propagates { context: false, baggage: false };
    for name in text.split(',').map(str::trim) {
        match name {
            "tracecontext" => propagates.context = true,
            "baggage" => propagates.baggage = true,
            "none" => {}
            other => variables.warn(
                "OTEL_PROPAGATORS",
                format!("{other:?} is not part of the Model Context Protocol"),
                "ignoring it",
            ),
        }
    }
    propagates
}

/// Returns the attributes of the resource. The operator's values take precedence over the detected ones.
fn resource(variables: &mut Variables<'_>) -> Vec<(String, String)> {
    let mut said: Vec<(String, String)> = Vec::new();
    let attributes = variables.text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    for pair in attributes.split(',').filter(|pair| !pair.trim().is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value = String::from_utf8_lossy(&percent_decoded(value.trim())).into_owned();
                said.push((key.trim().to_owned(), value));
            }
            _ => variables.warn(
                "OTEL_RESOURCE_ATTRIBUTES",
                format!("has {pair:?}, which is not key=value"),
                "ignoring it",
            ),
        }
    }
    if let Some(name) = variables.text("OTEL_SERVICE_NAME") {
        said.retain(|(key, _)| key != "service.name");
        said.push(("service.name".to_owned(), name));
    }
    let known = [
        ("service.name", "proxyrunner".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance()),
        ("process.pid", std::process::id().to_string()),
    ];
    for (key, value) in known {
        if !said.iter().any(|(said, _)| said == key) {
            said.push((key.to_owned(), value));
        }
    }
    said
}

/// Returns a random UUID that identifies this process (RFC 9562 §5.4).
fn instance() -> String {
    let mut bytes = getrandom::u64().map_or(0u128, |low| u128::from(low) << 64);
    bytes |= u128::from(getrandom::u64().unwrap_or_default());
    let bytes = bytes & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bytes:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
#[path = "otel_tests.rs"]
mod tests;
