//! Sends a request to a collector over HTTP or gRPC, and classifies the response.

use super::Unusable;
use super::connect::{Sender, sender};
use super::endpoint::{Endpoint, Protocol, Signal};
use crate::telemetry::otlp::{Field, fields};
use bytes::{Buf, BufMut, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri};
use std::io::Write;
use std::time::Duration;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// Maximum number of response bytes read; no useful response is longer.
const MOST_ANSWER: usize = 64 * 1024;
/// Timeout for the body of a response after its status.
const REST: Duration = Duration::from_secs(2);
/// The User-Agent header.
const AGENT: &str = concat!("proxyrunner/", env!("CARGO_PKG_VERSION"));

/// The collector of one signal.
#[derive(Debug)]
pub struct Collector {
    endpoint: Endpoint,
    signal: Signal,
    sender: Sender,
}

/// A failed delivery.
#[derive(Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The reason.
    pub why: String,
    /// Whether to retry.
    pub again: Again,
}

/// Whether a failed delivery is worth retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// A retry would fail again.
    Never,
    /// A retry may succeed.
    Later,
    /// A retry may succeed after this delay, which the collector asked for.
    After(Duration),
}

impl Collector {
    /// Creates a collector at an endpoint.
    ///
    /// # Errors
    /// When its certificates are unusable.
    pub fn new(endpoint: &Endpoint, signal: Signal) -> Result<Self, Unusable> {
        Ok(Collector { endpoint: endpoint.clone(), signal, sender: sender(endpoint)? })
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request and returns the response.
    ///
    /// # Errors
    /// When the collector did not accept it.
    pub async fn send(&self, request: Bytes) -> Result<Bytes, Undelivered> {
        let patience = self.endpoint.timeout;
        let sending = async {
            match self.endpoint.protocol {
                Protocol::Http => self.post(request).await,
                Protocol::Grpc => self.call(request).await,
            }
        };
        timeout(patience, sending).await.unwrap_or_else(|_| {
            Err(Undelivered {
                why: format!("no response within {} s", patience.as_secs_f64()),
                again: Again::Later,
            })
        })
    }

    async fn post(&self, body: Bytes) -> Result<Bytes, Undelivered> {
        let body = if self.endpoint.gzip { compressed(&body) } else { body };
        let mut request = Request::new(Body::new(Full::new(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if self.endpoint.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.endpoint
            .headers
            .iter()
            .for_each(|header| drop(headers.insert(&header.name, header.value.clone())));
        let response = self.sender.request(request).await.map_err(|error| later(explained(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        // The status counts even if the body fails.
        let answer = timeout(REST, Limited::new(response.into_body(), MOST_ANSWER).collect()).await;
        match (status, answer) {
            (status, Ok(Ok(answer))) if status.is_success() => Ok(answer.to_bytes()),
            (status, _) if status.is_success() => Ok(Bytes::new()),
            (status, _) => Err(refused(status, &headers)),
        }
    }

    async fn call(&self, message: Bytes) -> Result<Bytes, Undelivered> {
        let mut grpc = Grpc::with_origin(self.sender.clone(), origin(&self.endpoint.uri));
        if self.endpoint.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        grpc = grpc.max_decoding_message_size(MOST_ANSWER);
        grpc.ready().await.map_err(|error| later(explained(&error)))?;
        let mut request = tonic::Request::new(message);
        let mut metadata = HeaderMap::new();
        metadata.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        self.endpoint
            .headers
            .iter()
            .for_each(|header| drop(metadata.insert(&header.name, header.value.clone())));
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(metadata);
        let path = PathAndQuery::from_static(self.signal.rpc());
        match grpc.unary(request, path, Raw).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(failed(&status)),
        }
    }
}

/// The paths of gRPC are below the root.
fn origin(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn compressed(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

fn later(why: String) -> Undelivered {
    Undelivered { why, again: Again::Later }
}

/// Joins the messages of an error and its causes: the outermost explains least.
fn explained(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Classifies an HTTP status (OTLP §OTLP/HTTP Response).
fn refused(status: StatusCode, headers: &HeaderMap) -> Undelivered {
    let asked = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let again = match (status.as_u16(), asked) {
        (429 | 502 | 503 | 504, Some(seconds)) => Again::After(Duration::from_secs(seconds)),
        (429 | 502 | 503 | 504, None) => Again::Later,
        _ => Again::Never,
    };
    Undelivered { why: format!("the collector answered {status}"), again }
}

/// Classifies a gRPC status (OTLP §Failures).
fn failed(status: &Status) -> Undelivered {
    // A status with a cause is no response of the collector but a failure to reach it.
    if let Some(cause) = std::error::Error::source(status) {
        return later(explained(cause));
    }
    let asked = retry_delay(status.details());
    let again = match status.code() {
        // Without a delay, the collector does not expect to recover.
        Code::ResourceExhausted => asked.map_or(Again::Never, Again::After),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => asked.map_or(Again::Later, Again::After),
        _ => Again::Never,
    };
    Undelivered {
        why: format!("{:?}: {}", status.code(), crate::telemetry::otlp::cut(status.message(), 256)),
        again,
    }
}

/// Returns the delay before a retry that the response's details ask for (OTLP §OTLP/gRPC Throttling):
/// `google.rpc.RetryInfo` in `google.rpc.Status`.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let inner = |message, number| {
        fields(message).find_map(move |(field, value)| match value {
            Field::Bytes(bytes) if field == number => Some(bytes),
            _ => None,
        })
    };
    let number = |message, number| {
        fields(message).find_map(move |(field, value)| match value {
            Field::Number(value) if field == number => Some(value),
            _ => None,
        })
    };
    let delay = fields(details).find_map(|(field, value)| match value {
        Field::Bytes(any) if field == 3 && inner(any, 1)?.ends_with(b"/google.rpc.RetryInfo") => {
            inner(inner(any, 2)?, 1)
        }
        _ => None,
    })?;
    let nanos = number(delay, 2).and_then(|nanos| u32::try_from(nanos).ok()).unwrap_or_default();
    Some(
        Duration::from_secs(number(delay, 1).unwrap_or_default())
            .saturating_add(Duration::from_nanos(nanos.into())),
    )
}

/// A codec for messages that are already encoded, and for responses that are decoded elsewhere.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::Fields;

    #[test]
    fn a_status_says_whether_and_when_to_come_back() {
        let details = |kind: &str| {
            let mut details = Vec::new();
            details.varint(1, 8);
            details.message(3, |any| {
                any.bytes(1, format!("type.googleapis.com/google.rpc.{kind}").as_bytes());
                any.message(2, |info| info.message(1, |delay| delay.varint(1, 7)));
            });
            Bytes::from(details)
        };
        let again = |code, details| failed(&Status::with_details(code, "", details)).again;
        let seven = Again::After(Duration::from_secs(7));
        for (code, plain, asked) in [
            (Code::Unavailable, Again::Later, seven),
            (Code::ResourceExhausted, Again::Never, seven),
            (Code::InvalidArgument, Again::Never, Again::Never),
        ] {
            assert_eq!(again(code, Bytes::new()), plain, "{code:?}");
            assert_eq!(again(code, details("ErrorInfo")), plain, "{code:?}");
            assert_eq!(again(code, details("RetryInfo")), asked, "{code:?}");
        }
    }
}
