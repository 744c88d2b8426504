//! `probe call TOOL [JSON]`: calls one tool through the endpoint, as a synthetic check of a golden path. The exit code
//! says whether the task succeeded; metrics say so, too, with its duration.

use super::files::replace;
use super::headers;
use super::request::{Answer, Place, ask};
use super::words::{certificate, file, listens, option, parse, required, set, timeout, tls_cert};
use crate::config::{self, Exit};
use crate::era::headers::encode;
use crate::export;
use crate::jsonrpc::scan;
use crate::telemetry::logs::escaped;
use crate::telemetry::metrics::{Definition, Family, Format, MetricKind, Sample, Value, write};
use bytes::Bytes;
use clap::{Arg, Command};
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use hyper::{Request, StatusCode, Uri};
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The revision that is spoken: it needs no handshake.
const REVISION: &str = "2026-07-28";

/// The id of the request.
const ID: u32 = 1;

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
    Command::new("call")
        .about("Call one tool through the endpoint: exit code 0 if it succeeds, else 1 with the reason")
        .after_help(
            "With OTEL_EXPORTER_OTLP_ENDPOINT set, success and duration are exported as mcp.golden_path.success and \
             mcp.golden_path.duration.",
        )
        .args([
            required("tool", "TOOL", "Name of the tool"),
            Arg::new("arguments").value_name("JSON").default_value("{}").help("Its arguments, a JSON object"),
            option(
                "url",
                "URL",
                "Endpoint, http://HOST:PORT/PATH, or https with --tls-cert\n[default: the path of PROXYRUNNER_PATH at the address of PROXYRUNNER_LISTEN]",
            ),
            file("header-file", "File with request headers, one NAME: VALUE per line, e.g. a token"),
            file("metrics-file", "Also write success and duration to this file, in Prometheus' text format"),
            tls_cert(),
            timeout().default_value("30s"),
        ])
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = parse("probe call", command(), words)?;
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let tool = text("tool").unwrap_or_default();
    if tool.is_empty() {
        return Err(Exit::usage("proxyrunner: TOOL is empty; give the name of a tool".to_owned()));
    }
    let arguments = text("arguments").unwrap_or_default();
    if !is_object(&arguments) {
        return Err(Exit::usage(
            "proxyrunner: the arguments are not a JSON object; give e.g. '{\"text\": \"hello\"}'".to_owned(),
        ));
    }
    let certificate = certificate(&matches, || text("url").is_none());
    let url = Endpoint::parse(text("url"), certificate.is_some())?;
    let patience = matches.get_one("timeout").copied().unwrap_or_default();
    let mut request = url.request(&tool, &arguments)?;
    if let Some(path) = matches.get_one::<PathBuf>("header-file") {
        headers::add(path, patience, "probe call", request.headers_mut())?;
    }
    let begun = Instant::now();
    let outcome =
        ask(&url.place, certificate.as_deref(), request, patience).and_then(|answer| judge(&answer));
    let took = begun.elapsed();
    let families = families(&tool, outcome.is_ok(), took);
    if let Some(path) = matches.get_one::<PathBuf>("metrics-file") {
        let text = write(&families, Format::Text);
        replace(path, 0o644, |file| file.write_all(text.as_bytes())).map_err(|why| {
            Exit::failed(format!("proxyrunner: cannot write {} (--metrics-file): {why}", path.display()))
        })?;
    }
    // The exit code tells about the tool.
    if let Err(why) = report(families) {
        eprintln!("proxyrunner: the metrics are not exported: {why}");
    }
    match outcome {
        Ok(()) => {
            println!("{} succeeded in {} ms", escaped(&tool), took.as_millis());
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            let text = format!("proxyrunner: {tool} failed after {} ms: {why}", took.as_millis());
            Err(Exit::failed(escaped(&text).into_owned()))
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
    fn parse(url: Option<String>, is_tls: bool) -> Result<Self, Exit> {
        let Some(url) = url else { return Self::usual() };
        let unusable = |why: &str| {
            Exit::usage(format!("proxyrunner: --url: {url:?} {why}; give e.g. http://mcp:8080/mcp"))
        };
        let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest));
        if authority.contains('@') {
            // It is not shown, since it may contain a password.
            return Err(Exit::usage(
                "proxyrunner: --url contains a user name or a password; send credentials by --header-file"
                    .to_owned(),
            ));
        }
        let uri: Uri = url.parse().map_err(|_| unusable("is not a URL"))?;
        match (uri.scheme_str(), is_tls) {
            (Some("http"), false) | (Some("https"), true) => {}
            (Some("https"), false) => return Err(unusable("needs the certificate to trust (--tls-cert)")),
            (Some("http"), true) => return Err(unusable("is not an https URL, which --tls-cert is for")),
            _ => return Err(unusable("is not an http URL")),
        }
        let authority = uri.authority().ok_or_else(|| unusable("names no host"))?;
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(unusable("has no valid port")),
        };
        let place = Place::Named(authority.host().to_owned(), port);
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Endpoint { place, host: authority.to_string(), path })
    }

    /// Returns the endpoint of the proxyrunner whose settings are in the environment.
    fn usual() -> Result<Self, Exit> {
        let address = listens(&["PROXYRUNNER_LISTEN"])?;
        let path = set("PROXYRUNNER_PATH", config::path)?.unwrap_or_else(|| "/mcp".to_owned());
        Ok(Endpoint { place: Place::At(address), host: format!("localhost:{}", address.port()), path })
    }

    fn request(&self, tool: &str, arguments: &str) -> Result<Request<Full<Bytes>>, Exit> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {"name": "proxyrunner probe", "version": env!("CARGO_PKG_VERSION")},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        // The arguments are sent as they were given: a number such as 1e400 has no other form.
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{ID},"method":"tools/call","params":{{"name":{},"arguments":{arguments},"_meta":{meta}}}}}"#,
            Json::from(tool),
        );
        let request = Request::post(&self.path)
            .header("host", &self.host)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", "tools/call")
            .header("mcp-name", &*encode(tool))
            .body(Full::new(message.into()));
        request.map_err(|error| Exit::usage(format!("proxyrunner: cannot call {tool:?}: {error}")))
    }
}

/// Returns whether the text is one JSON object.
fn is_object(text: &str) -> bool {
    let message = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{text}}}"#);
    let start = message.len() - text.len() - 1;
    let (before, object) = (text.len() - text.trim_start().len(), text.trim());
    scan(message.as_bytes()).is_ok_and(|message| {
        let span = message.params.map(|params| params.span).unwrap_or_default();
        (span.start, span.end) == (start + before, start + before + object.len())
    })
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
        let hint = match answer.status {
            status if status.is_redirection() => {
                let to = answer.headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
                format!(
                    "redirects to {}; give the URL of the endpoint itself",
                    to.unwrap_or("nowhere".into())
                )
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "give credentials by --header-file".to_owned()
            }
            status if status.is_server_error() => "the server or a proxy before it is unavailable".to_owned(),
            _ => "check that the URL is that of an MCP endpoint".to_owned(),
        };
        return Err(format!("the endpoint answered {} without a message; {hint}", answer.status));
    };
    if let Some(error) = message.get("error") {
        return Err(format!("error {}: {}", error["code"], shown(&error["message"])));
    }
    if message["id"] != ID {
        return Err("the endpoint answered another request; is a proxy mixing up responses?".to_owned());
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

/// Exports the metrics to the collector that the environment names, if any.
fn report(families: Vec<Family>) -> Result<(), String> {
    let export = config::collectors(std::env::vars_os());
    let Some(metrics) = export.metrics else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(export::deliver(&metrics.endpoint, &export.resource, &families))
}
