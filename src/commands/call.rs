//! `probe call TOOL [JSON]`: calls one tool through the endpoint, as a synthetic check of a golden path. The exit code
//! says whether the task succeeded; metrics say so, too, with its duration.

use super::request::{Answer, Place, ask};
use super::words::{listens, parse, timeout, variable};
use crate::config::{self, Exit};
use crate::export;
use crate::telemetry::metrics::{Definition, Family, Format, MetricKind, Sample, Value, write};
use bytes::Bytes;
use clap::{Arg, Command};
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The revision that is spoken: it needs no handshake.
const REVISION: &str = "2026-07-28";

const SUCCESS: Definition = Definition {
    name: "mcp_golden_path_success",
    convention: Some("mcp.golden_path.success"),
    // Without one, since "1" would make its name end in `_ratio`.
    unit: "",
    kind: MetricKind::Gauge,
    help: "Whether the last call of a golden path succeeded.",
};
const DURATION: Definition = Definition {
    name: "mcp_golden_path_duration_seconds",
    convention: Some("mcp.golden_path.duration"),
    unit: "s",
    kind: MetricKind::Gauge,
    help: "Duration of the last call of a golden path.",
};

pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("call")
        .about("Call one tool through the endpoint: exit code 0 if it succeeds, else 1 with the reason")
        .after_help(
            "With OTEL_EXPORTER_OTLP_ENDPOINT set, success and duration are exported as mcp.golden_path.success and \
             mcp.golden_path.duration.",
        )
        .arg(Arg::new("tool").value_name("TOOL").required(true).help("Name of the tool"))
        .arg(Arg::new("arguments").value_name("JSON").default_value("{}").help("Its arguments, a JSON object"))
        .arg(option("url", "URL").help(
            "Endpoint, http://HOST:PORT/PATH\n[default: the path of PROXYRUNNER_PATH at the address of PROXYRUNNER_LISTEN]",
        ))
        .arg(
            option("header-file", "FILE")
                .help("File with request headers, one NAME: VALUE per line, e.g. a token")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(
            option("metrics-file", "FILE")
                .help("Also write success and duration to this file, in Prometheus' text format")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(timeout().default_value("30s"))
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = parse("probe call", command(), words)?;
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let tool = text("tool").unwrap_or_default();
    let arguments: Json =
        text("arguments").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    if !arguments.is_object() {
        return Err(Exit::usage("proxyrunner: the arguments are not a JSON object".to_owned()));
    }
    let url = Endpoint::parse(text("url"))?;
    let patience = matches.get_one("timeout").copied().unwrap_or_default();
    let mut request = url.request(&tool, &arguments)?;
    if let Some(path) = matches.get_one::<PathBuf>("header-file") {
        headers_of(path, request.headers_mut())?;
    }
    let begun = Instant::now();
    let outcome = ask(&url.place, request, patience).and_then(|answer| judge(&answer));
    let took = begun.elapsed();
    let families = families(&tool, outcome.is_ok(), took);
    if let Some(path) = matches.get_one::<PathBuf>("metrics-file") {
        store(path, &write(&families, Format::Text))?;
    }
    // The exit code tells about the tool.
    if let Err(why) = report(families) {
        eprintln!("proxyrunner: the metrics are not exported: {why}");
    }
    match outcome {
        Ok(()) => {
            println!("{tool} succeeded in {} ms", took.as_millis());
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            Err(Exit::failed(format!("proxyrunner: {tool} failed after {} ms: {why}", took.as_millis())))
        }
    }
}

/// The endpoint to call.
struct Endpoint {
    place: Place,
    host: String,
    path: String,
}

impl Endpoint {
    fn parse(url: Option<String>) -> Result<Self, Exit> {
        let Some(url) = url else { return Self::usual() };
        let unusable = |why: &str| {
            Exit::usage(format!("proxyrunner: --url: {url:?} {why}; give e.g. http://mcp:8080/mcp"))
        };
        let uri: Uri = url.parse().map_err(|_| unusable("is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(unusable("is not an http URL"));
        }
        let authority = uri.authority().ok_or_else(|| unusable("names no host"))?;
        let place = Place::Named(authority.host().to_owned(), authority.port_u16().unwrap_or(80));
        Ok(Endpoint { place, host: authority.to_string(), path: uri.path().to_owned() })
    }

    /// Returns the endpoint of the proxyrunner whose settings are in the environment.
    fn usual() -> Result<Self, Exit> {
        let address = config::listen(&listens(&["PROXYRUNNER_LISTEN"]))
            .map_err(|error| Exit::usage(format!("proxyrunner: PROXYRUNNER_LISTEN: {error}")))?;
        let path =
            variable("PROXYRUNNER_PATH").map_or("/mcp".into(), |path| path.to_string_lossy().into_owned());
        Ok(Endpoint { place: Place::At(address), host: format!("localhost:{}", address.port()), path })
    }

    fn request(&self, tool: &str, arguments: &Json) -> Result<Request<Full<Bytes>>, Exit> {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": REVISION,
                "io.modelcontextprotocol/clientInfo": {"name": "proxyrunner probe", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        }});
        let request = Request::post(&self.path)
            .header("host", &self.host)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(Full::new(message.to_string().into()));
        request.map_err(|error| Exit::usage(format!("proxyrunner: cannot call {tool:?}: {error}")))
    }
}

fn headers_of(path: &PathBuf, headers: &mut hyper::HeaderMap) -> Result<(), Exit> {
    let unusable = |why: String| Exit::usage(format!("proxyrunner: --header-file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    for (at, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        // The value may be a secret, so no error shows it.
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        let (name, value) = header.ok_or_else(|| unusable(format!("line {at} is not NAME: VALUE")))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// Returns whether the answer is a successful result, or in words why not.
fn judge(answer: &Answer) -> Result<(), String> {
    let body = String::from_utf8_lossy(&answer.body);
    let is_stream = answer
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let message = if is_stream { last_message(&body) } else { serde_json::from_str(&body).ok() };
    let Some(message) = message else {
        return Err(format!("the endpoint answered {} without a message", answer.status));
    };
    if let Some(error) = message.get("error") {
        return Err(format!("error {}: {}", error["code"], shown(&error["message"])));
    }
    let result = &message["result"];
    if !result.is_object() {
        return Err(format!("the endpoint answered {} without a result", answer.status));
    }
    if result["isError"] == true {
        return Err(format!("the tool reports an error: {}", shown(&result["content"][0]["text"])));
    }
    match result["resultType"].as_str() {
        None | Some("complete") => Ok(()),
        Some(kind) => Err(format!("the tool did not finish: its result is {kind:?}")),
    }
}

/// Returns the response in an event stream.
fn last_message(body: &str) -> Option<Json> {
    let messages =
        body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok());
    messages.rev().find(|message: &Json| message.get("id").is_some() && message.get("method").is_none())
}

fn shown(text: &Json) -> String {
    crate::telemetry::cut(text.as_str().unwrap_or("(no text)"), 512).to_owned()
}

fn families(tool: &str, succeeded: bool, took: Duration) -> Vec<Family> {
    let family = |definition, value| Family {
        definition,
        samples: vec![Sample { labels: vec![("tool", tool.to_owned().into())], value }],
    };
    vec![family(SUCCESS, Value::Count(succeeded.into())), family(DURATION, Value::Number(took.as_secs_f64()))]
}

/// Writes the file beside `path` and moves it there, since a collector may read at any time.
fn store(path: &PathBuf, text: &str) -> Result<(), Exit> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let stored = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
    stored.map_err(|error| {
        Exit::failed(format!("proxyrunner: cannot write {} (--metrics-file): {error}", path.display()))
    })
}

/// Exports the metrics to the collector that the environment names, if any.
fn report(families: Vec<Family>) -> Result<(), String> {
    let export = config::collectors(std::env::vars_os());
    let Some(metrics) = export.metrics else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(export::deliver(&metrics.endpoint, &export.resource, &families))
}
