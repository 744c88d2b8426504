//! Sends OTLP requests over HTTP or gRPC, through proxyrunner's own client: names are resolved in the process, and
//! certificates and timeouts are the operator's. The exporters of `opentelemetry-otlp` use it as their HTTP client.
//! They encode, and retry by the returned status, into which a status of gRPC is translated.

use super::delivery::Delivery;
use super::endpoint::{Endpoint, Protocol, Signal};
use super::rpc::{Raw, retry_delay};
use super::unusable::Unusable;
use crate::outbound::Sender;
use crate::tasks;
use crate::telemetry::cut;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::fmt;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

/// Maximum number of response bytes read; no useful response is longer.
const MOST_ANSWER: usize = 64 * 1024;
/// Timeout for the body of a response after its status.
const REST: Duration = Duration::from_secs(2);
/// The User-Agent header.
const AGENT: &str = concat!("proxyrunner/", env!("CARGO_PKG_VERSION"));

/// Completes the requests of an exporter with what the exporter cannot provide.
pub(super) trait Complete: fmt::Debug + Send + Sync {
    /// Returns the completed body of a request.
    fn complete(&self, body: &Bytes) -> Bytes;
}

/// The HTTP client of one signal's exporter.
#[derive(Clone, Debug)]
pub(super) struct Transport(Arc<Collector>);

/// The collector of one signal.
#[derive(Debug)]
struct Collector {
    endpoint: Endpoint,
    signal: Signal,
    sender: Sender,
    runtime: Handle,
    ending: CancellationToken,
    delivery: Arc<Delivery>,
    /// Completes each request.
    completion: Option<Arc<dyn Complete>>,
}

/// A failed delivery.
#[derive(Debug, PartialEq, Eq)]
struct Undelivered {
    /// The reason.
    why: String,
    /// Whether to retry.
    again: Again,
}

/// Whether a failed delivery is worth retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// A retry would fail again.
    Never,
    /// A retry may succeed.
    Later,
    /// A retry may succeed after this delay, which the collector asked for.
    After(Duration),
}

impl Transport {
    /// Creates the client of a signal's exporter. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the certificates of the endpoint are unusable.
    pub(super) fn new(
        endpoint: &Endpoint,
        signal: Signal,
        delivery: Arc<Delivery>,
        completion: Option<Arc<dyn Complete>>,
        ending: CancellationToken,
    ) -> Result<Self, Unusable> {
        let (sender, endpoint) = (endpoint.sender()?, endpoint.clone());
        let runtime = Handle::current();
        Ok(Transport(Arc::new(Collector { endpoint, signal, sender, runtime, ending, delivery, completion })))
    }
}

impl Transport {
    /// Sends a request once.
    ///
    /// # Errors
    /// In words, when the collector does not accept it.
    pub(super) async fn attempt(&self, body: Bytes) -> Result<(), String> {
        let Collector { endpoint, .. } = &*self.0;
        let late = || format!("no response within {} s", endpoint.timeout.as_secs_f64());
        let sent = timeout(endpoint.timeout, self.0.send(body)).await.map_err(|_| late());
        let answer = sent.and_then(|sent| sent.map_err(|undelivered| undelivered.why));
        let refused = |why: String| format!("{}: {why}", endpoint.shown());
        match rejected(self.0.signal, &answer.map_err(refused)?) {
            (0, _) => Ok(()),
            (_, why) => Err(refused(why)),
        }
    }

    /// Delivers a request for one record, with retries. Returns whether the collector accepted it.
    pub(super) async fn deliver(&self, body: Bytes) -> bool {
        let delivery = &self.0.delivery;
        delivery.begin();
        let is_delivered = loop {
            let status = self.0.attempt(body.clone()).await.status();
            if status != StatusCode::SERVICE_UNAVAILABLE {
                break status.is_success();
            }
        };
        // The reason of the failure was noted.
        let error = std::io::Error::from(std::io::ErrorKind::NotConnected);
        delivery.end(usize::from(!is_delivered), (!is_delivered).then_some(&error as _));
        is_delivered
    }
}

impl HttpClient for Transport {
    /// Sends a request from the runtime, since exporters have their own thread outside of it.
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let collector = Arc::clone(&self.0);
        let attempt =
            self.0.runtime.spawn(tasks::boxed(async move { collector.attempt(request.into_body()).await }));
        let delivery = Arc::clone(&self.0.delivery);
        Box::pin(async move {
            Ok(attempt.await.unwrap_or_else(|_| {
                delivery.note_failure("proxyrunner ended before a response".to_owned());
                status(StatusCode::BAD_REQUEST)
            }))
        })
    }
}

impl Collector {
    /// Sends a request once. The response tells by its status whether to retry; its body is empty.
    async fn attempt(&self, body: Bytes) -> Response<Bytes> {
        let last = self.ending.is_cancelled();
        let body = self.completion.as_ref().map_or(body.clone(), |completion| completion.complete(&body));
        let patience = self.endpoint.timeout;
        let sent = timeout(patience, self.send(body)).await.unwrap_or_else(|_| {
            Err(Undelivered {
                why: format!("no response within {} s", patience.as_secs_f64()),
                again: Again::Later,
            })
        });
        match sent {
            Ok(answer) => {
                let (rejected, why) = rejected(self.signal, &answer);
                self.delivery.note_accepted(rejected, why);
                Response::new(answer)
            }
            Err(Undelivered { why, again }) => {
                self.delivery.note_failure(why);
                self.retry(if last { Again::Never } else { again }).await
            }
        }
    }

    /// Returns the response that makes the exporter give up, or retry after a delay, which a shutdown cuts short.
    async fn retry(&self, again: Again) -> Response<Bytes> {
        let delay = match again {
            Again::Never => None,
            Again::Later => self.delivery.delay(None, fastrand::f64()),
            Again::After(asked) => self.delivery.delay(Some(asked), fastrand::f64()),
        };
        let Some(delay) = delay else { return status(StatusCode::BAD_REQUEST) };
        tokio::select! {
            () = sleep(delay) => {}
            () = self.ending.cancelled() => {}
        }
        status(StatusCode::SERVICE_UNAVAILABLE)
    }

    async fn send(&self, request: Bytes) -> Result<Bytes, Undelivered> {
        match self.endpoint.protocol {
            Protocol::Http => self.post(request).await,
            Protocol::Grpc => self.call(request).await,
        }
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

/// Returns an empty response.
fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Returns the URI's origin, since the paths of gRPC are below the root.
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

/// Joins the messages of an error and its causes, since the outermost explains least.
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
    // A status with a cause is not a response of the collector but a failure to reach it.
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
    Undelivered { why: format!("{:?}: {}", status.code(), cut(status.message(), 256)), again }
}

/// Returns the number of records that the collector rejected and its reason; zero and empty if it accepted all.
pub fn rejected(signal: Signal, answer: &[u8]) -> (usize, String) {
    let partial = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_spans, partial.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_log_records, partial.error_message)),
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
    };
    let (rejected, why) = partial.unwrap_or_default();
    (usize::try_from(rejected).unwrap_or_default(), cut(&why, 256).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::rpc::tests::details;
    use super::*;

    #[test]
    fn a_status_tells_whether_and_when_to_retry() {
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

    #[test]
    fn a_response_tells_the_rejected_records() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
        let of = |answer: &[u8]| rejected(Signal::Traces, answer);
        assert_eq!(of(&[]), (0, String::new()));
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        assert_eq!(of(&answer.encode_to_vec()), (3, "too old".to_owned()));
        assert_eq!(of(b"<html>not found</html>"), (0, String::new()));
    }
}
