//! The messages of an answer, which is JSON or an event stream.

use super::client::Boxed;
use super::events::Events;
use super::fault::Fault;
use crate::budget::{Account, Charge, Charged};
use crate::jsonrpc::{self, Kind, Message, break_no_lines};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use memchr::memchr2;
use std::time::Duration;
use tokio::time::timeout;

/// A message of an answer.
#[derive(Debug)]
pub(super) enum Said {
    /// A notification or a request.
    Before(Charged, Message),
    /// A response.
    Answer(Charged, Message),
    /// An event stream has ended.
    End,
}

/// An answer that is being received. Dropping it ends the request.
pub(super) struct Reply {
    status: StatusCode,
    body: Incoming,
    events: Option<Events>,
    longest: usize,
    charge: Charge,
    account: Account,
    has_ended: bool,
}

/// Returns whether an answer is an event stream; `None` if it contains no message.
fn is_stream(response: &Response<Incoming>) -> Option<bool> {
    let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match kind {
        _ if kind.eq_ignore_ascii_case(b"application/json") => Some(false),
        _ if kind.eq_ignore_ascii_case(b"text/event-stream") => Some(true),
        _ => None,
    }
}

impl Reply {
    /// Begins to read an answer. A message has at most `longest` bytes.
    ///
    /// # Errors
    /// When it contains no message.
    pub fn new(response: Response<Incoming>, longest: usize, account: &Account) -> Result<Self, Fault> {
        let status = response.status();
        let Some(is_stream) = is_stream(&response) else {
            let hint = match status {
                status if status.is_server_error() => {
                    "it or a proxy in front of it is unavailable; try again"
                }
                StatusCode::FORBIDDEN => "check the credentials in --header-file",
                StatusCode::TOO_MANY_REQUESTS => "it has got too many requests; try again later",
                _ => "check that the URL is that of an MCP endpoint",
            };
            let text = format!("the remote server answered {status} without a message; {hint}");
            return Err(Fault::status(status.as_u16(), text));
        };
        Ok(Reply {
            status,
            body: response.into_body(),
            events: is_stream.then(Events::default),
            longest,
            charge: account.charge(),
            account: account.clone(),
            has_ended: false,
        })
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns whether it is an event stream.
    pub fn is_stream(&self) -> bool {
        self.events.is_some()
    }

    /// Returns the id by which the stream can be resumed.
    pub fn last_id(&self) -> Option<HeaderValue> {
        self.events.as_ref()?.last_id().and_then(|id| HeaderValue::from_bytes(id).ok())
    }

    /// Returns the time after which the server wants the stream to be resumed.
    pub fn retry(&self) -> Option<Duration> {
        self.events.as_ref()?.retry().map(Duration::from_millis)
    }

    /// Returns the next message, unless nothing is received for so long.
    ///
    /// # Errors
    /// When the server breaks off or is silent, or sends something else than messages.
    pub fn next(&mut self, patience: Option<Duration>) -> Boxed<'_, Said> {
        Box::pin(self.receive(patience))
    }

    async fn receive(&mut self, patience: Option<Duration>) -> Result<Said, Fault> {
        let mut whole = Vec::new();
        loop {
            while let Some(event) = self.events.as_mut().and_then(Events::next) {
                if event.kind.is_empty() || event.kind == b"message" {
                    return self.read(event.data);
                }
            }
            if self.has_ended {
                return Ok(Said::End);
            }
            let frame = match patience {
                Some(patience) => timeout(patience, self.body.frame()).await.map_err(|_| {
                    let limit = patience.as_secs_f64();
                    Fault::broken(format!(
                        "the remote server has sent nothing for {limit} s (--request-timeout); the request may have been carried out"
                    ))
                })?,
                None => self.body.frame().await,
            };
            let Some(frame) = frame else {
                self.has_ended = true;
                match self.events {
                    Some(_) => continue,
                    None => return self.read(whole),
                }
            };
            let frame = frame.map_err(|_| {
                Fault::broken(
                    "the remote server broke off in the middle of its answer; the request may have been carried out".to_owned(),
                )
            })?;
            let Ok(bytes) = frame.into_data() else { continue };
            let held = bytes.len() + self.events.as_ref().map_or(whole.len(), Events::held);
            if held > self.longest {
                let longest = self.longest;
                return Err(Fault::refused(format!(
                    "the remote server answered with a message of more than {longest} bytes (--max-frame)"
                )));
            }
            if !self.charge.try_cover(held) {
                return Err(Fault::own("too many bytes of messages are in transit; try again"));
            }
            match &mut self.events {
                Some(events) => events.push(&bytes),
                None => whole.extend_from_slice(&bytes),
            }
        }
    }

    fn read(&mut self, mut bytes: Vec<u8>) -> Result<Said, Fault> {
        if memchr2(b'\n', b'\r', &bytes).is_some() {
            break_no_lines(&mut bytes);
        }
        let message = jsonrpc::scan(&bytes).map_err(|fault| {
            let status =
                if self.status.is_success() { String::new() } else { format!("{} and ", self.status) };
            let text =
                format!("the remote server answered {status}something else than JSON-RPC: {}", fault.reason);
            Fault::status(self.status.as_u16(), text)
        })?;
        let charge = std::mem::replace(&mut self.charge, self.account.charge());
        let frame = charge.hold(bytes);
        Ok(match message.kind {
            Kind::Response => Said::Answer(frame, message),
            Kind::Request | Kind::Notification => Said::Before(frame, message),
        })
    }
}
