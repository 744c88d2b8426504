//! The endpoint of a collector: its address, protocol and credentials.

use super::unusable::Unusable;
use crate::outbound::{self, BadTls, Reach, Sender, Tls};
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
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`, `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY`
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

    /// Creates a client for the endpoint: HTTP/1.1, or HTTP/2 for gRPC.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(super) fn sender(&self) -> Result<Sender, Unusable> {
        outbound::sender(&self.tls, self.protocol == Protocol::Grpc, Reach::Anywhere).map_err(|bad| {
            let what = match &bad {
                BadTls::Authorities(_) => "OTEL_EXPORTER_OTLP_CERTIFICATE",
                BadTls::Identity(_) => "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_KEY",
                BadTls::Protocol(_) => "TLS",
            };
            Unusable(format!("{what}: {bad}"))
        })
    }
}
