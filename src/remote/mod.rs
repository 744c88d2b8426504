//! An HTTP server as a stdio server: takes the frames of a client, and says what the server of a URL answers.
//!
//! Nothing is translated: the pipe speaks the revisions that the server speaks. In the legacy era it keeps the session,
//! hears the server's stream, resumes streams that break, and opens the session again when the server has lost it. In the
//! modern era it repeats in headers what the revision demands. Every fault of the server becomes the answer to a request.
//!
//! | files | subject |
//! | --- | --- |
//! | `pipe` | the frames of the client, in their order: which wait, which run side by side |
//! | `requests` | one request from its frame to its answer |
//! | `shared` | what requests share |
//! | `session`, `stream` | a legacy session, its renewal; what its server says outside of requests |
//! | `headers`, `client` | the headers of requests; connections |
//! | `reply`, `events`, `answer` | the messages of an answer, and what they say |
//! | `fault` | why there is none |

mod answer;
mod client;
mod events;
mod fault;
mod headers;
mod pipe;
mod reply;
mod requests;
mod session;
mod shared;
mod stream;

pub(crate) use client::Reread;
pub use events::events_in;
pub(crate) use pipe::{Discovered, Opened, Pipe};

use crate::outbound::Tls;
use hyper::Uri;
use hyper::header::HeaderMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The server, and how it is asked.
pub(crate) struct Settings {
    /// The URL of its endpoint.
    pub url: Uri,
    /// The authorities that are trusted.
    pub tls: Tls,
    /// The operator's headers.
    pub headers: HeaderMap,
    /// Reads them again.
    pub reread: Reread,
    /// Time without a sign of life after which a request fails.
    pub patience: Duration,
    /// Maximum length of a message.
    pub longest: usize,
    /// Maximum number of bytes of messages in transit.
    pub buffered: usize,
    /// Cancelled when the server turns out to be another one than the client knows.
    pub over: CancellationToken,
}
