//! The endpoint of a collector: its address, protocol and credentials.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use std::fmt;
use std::time::Duration;

/// A kind of telemetry.
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
    /// Returns the name of the signal's items for messages.
    pub fn things(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "metrics",
            Signal::Logs => "log records",
        }
    }

    /// Returns the path below an HTTP endpoint for all signals (OTLP §OTLP/HTTP Request).
    pub fn path(self) -> &'static str {
        match self {
            Signal::Traces => "v1/traces",
            Signal::Metrics => "v1/metrics",
            Signal::Logs => "v1/logs",
        }
    }

    /// Returns the path of the gRPC method.
    pub(super) fn rpc(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// The protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`
    Http,
    /// `grpc`
    Grpc,
}

/// A header of each request. Its value may be a secret, and is never shown.
#[derive(Clone)]
pub struct Header {
    /// The name.
    pub name: HeaderName,
    /// The value.
    pub value: HeaderValue,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

/// TLS certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`: trusted authorities instead of the built-in ones.
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

/// The endpoint of a collector.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The address: the whole URL for HTTP, without a path for gRPC.
    pub uri: Uri,
    /// The protocol.
    pub protocol: Protocol,
    /// `OTEL_EXPORTER_OTLP_HEADERS`
    pub headers: Vec<Header>,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`: timeout of one request.
    pub timeout: Duration,
    /// Timeout of a delivery with all its retries (`OTEL_BSP_EXPORT_TIMEOUT` and similar variables).
    pub patience: Duration,
    /// `OTEL_EXPORTER_OTLP_COMPRESSION`
    pub gzip: bool,
    /// Certificates for https.
    pub tls: Tls,
}

impl Endpoint {
    /// Returns the address without parts that may be secrets.
    pub fn shown(&self) -> String {
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        format!("{}://{authority}{}", self.uri.scheme_str().unwrap_or("http"), self.uri.path())
    }
}
