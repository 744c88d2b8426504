//! Where a collector is, and how it is spoken to.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use std::fmt;
use std::time::Duration;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// What of it is lost, in words.
    pub fn things(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "metrics",
            Signal::Logs => "log records",
        }
    }

    /// The path below an HTTP endpoint for all signals (OTLP §OTLP/HTTP Request).
    pub fn path(self) -> &'static str {
        match self {
            Signal::Traces => "v1/traces",
            Signal::Metrics => "v1/metrics",
            Signal::Logs => "v1/logs",
        }
    }

    /// The gRPC method.
    pub(super) fn rpc(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`
    Http,
    /// `grpc`
    Grpc,
}

/// A header of every request. Its value may be a secret, and is never shown.
#[derive(Clone)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

/// Certificates, in PEM, besides those that are known; and what proxyrunner shows of itself.
#[derive(Clone, Default)]
pub struct Tls {
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`: whom to trust instead.
    pub authorities: Option<Vec<u8>>,
    /// `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY`
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (authorities, identity) = (self.authorities.is_some(), self.identity.is_some());
        f.debug_struct("Tls").field("authorities", &authorities).field("identity", &identity).finish()
    }
}

/// A collector.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is: of HTTP the whole URL, of gRPC without a path.
    pub uri: Uri,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// `OTEL_EXPORTER_OTLP_HEADERS`
    pub headers: Vec<Header>,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`: how long it may take for one request.
    pub timeout: Duration,
    /// How long a delivery is tried (`OTEL_BSP_EXPORT_TIMEOUT` and its like).
    pub patience: Duration,
    /// `OTEL_EXPORTER_OTLP_COMPRESSION`
    pub gzip: bool,
    /// For https.
    pub tls: Tls,
}

impl Endpoint {
    /// Where it is, without what may be a secret.
    pub fn shown(&self) -> String {
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        format!("{}://{authority}{}", self.uri.scheme_str().unwrap_or("http"), self.uri.path())
    }
}
