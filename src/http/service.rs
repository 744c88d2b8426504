//! Serves one connection: hyper parses its requests, [`routes`] answers them.

use super::again::Again;
use super::ending::Ending;
use super::marked::Marked;
use super::peers::{Connection, Mark, Persistence, Persistent, Places, Rewound, Wire};
use super::reject::Rejection;
use super::response::Body;
use super::routes::{self, Allowed, Entry, Full, Route};
use super::source::Source;
use super::unread::Explained;
use super::visit::Visit;
use super::{Server, auth, body, endpoint, old_sse, paths};
#[cfg(feature = "gateway")]
use super::{forwarding::Forwarding, servers, siblings};
use crate::aside::Aside;
use crate::budget::Account;
use crate::client::Client;
use crate::identity::Identity;
use crate::shutdown::DRAINING;
use crate::telemetry::Peer;
use crate::telemetry::scope::{Scoped, scoped, within};
use crate::tls;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Time for a request head to complete after its first byte.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// Time that a request of a client that holds little memory waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that a request takes at its connection besides its messages: its task, its head and the buffers.
const REQUEST: usize = 32 * 1024;
/// Bytes of a request's body that a client may send by HTTP/2 before they are read. Each request is charged for them.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes of a request's head that are included in [`REQUEST`].
const USUAL_HEAD: usize = 4 * 1024;
/// Bytes that a stream to a client takes besides its messages.
const STREAM: usize = 8 * 1024;
/// Length above which a refused body is not skipped: its connection is closed instead, as for an unknown length.
const LONG: u64 = 16 * 1024;
/// Bytes that one connection may buffer of a head, or to write.
const BUFFER: usize = 64 * 1024;

/// The clients of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// MCP clients and probes (`--listen`).
    Clients,
    /// Probes and scrapers only (`--admin-listen`).
    Admin,
}

/// The service of one connection.
pub struct Service {
    pub(super) server: Arc<Server>,
    pub(super) role: Role,
    pub(super) places: Arc<Places>,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Peer,
    /// The first Host that was allowed.
    pub(super) usual_host: OnceLock<Box<[u8]>>,
    /// The identity of the client, if it presented a certificate.
    pub(super) certificate: Option<Box<tls::Peer>>,
    /// The account that messages are charged to.
    pub(super) account: Account,
    /// The account that requests themselves are charged to, so that small messages keep their own share.
    pub(super) requests: Account,
}

/// The client that a trusted proxy names, with accounts as those of [`Service`].
struct Origin {
    peer: Peer,
    account: Account,
    requests: Account,
}

impl Service {
    /// Serves the connection to its end. An idle connection has no buffers: hyper's are dropped, and created again
    /// when the peer sends something.
    pub async fn serve(self: Arc<Self>, mut stream: Wire, mut first: Bytes, ending: Ending) {
        loop {
            match Box::pin(self.serve_until_idle(Rewound { first, stream }, &ending)).await {
                Ok(Some(idle)) => Rewound { first, stream } = idle,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    return;
                }
            }
            if first.is_empty() {
                tokio::select! {
                    biased;
                    // Boxed: a busy connection does not need it.
                    readable = Box::pin(stream.readable()) => match readable {
                        Ok(read) => first = read,
                        Err(_) => return,
                    },
                    () = ending.comes() => return,
                }
            }
        }
    }

    /// Serves requests until the connection ends, or is idle and should release its buffers.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for each argument twice"
    )]
    fn serve_until_idle(
        self: &Arc<Self>,
        stream: Rewound<Wire>,
        ending: &Ending,
    ) -> impl Future<Output = hyper::Result<Option<Rewound<Wire>>>> {
        async move {
            let marker = stream.stream.watched().marker();
            let service = Arc::clone(self);
            let mut http = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.head_timeout())
                .max_buf_size(BUFFER)
                .serve_connection(
                    TokioIo::new(Explained::new(stream)),
                    service_fn(move |request: Request<Incoming>| {
                        let service = Arc::clone(&service);
                        let mark =
                            marker.mark(request.method() == Method::GET, !request.body().is_end_stream());
                        let persistence = Persistence::of(request.method());
                        let (head, body) = request.into_parts();
                        Persistent::new(persistence.clone(), service.answer(head, body, mark, persistence))
                    }),
                );
            let mut closes = pin!(ending.comes());
            let mut closes = Aside::new(|cx| closes.as_mut().poll(cx));
            let (mut again, mut is_closing) = (Again::default(), false);
            let is_idle = std::future::poll_fn(|cx| {
                if !is_closing && closes.poll(cx).is_ready() {
                    is_closing = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                if let Poll::Ready(ended) = again.poll(cx, |cx| http.poll_without_shutdown(cx)) {
                    return Poll::Ready(ended.map(|()| false));
                }
                if is_closing || !self.connection.take_rest() {
                    return Poll::Pending;
                }
                // Only an idle connection ends at once; any other is closed once its response is written.
                is_closing = true;
                Pin::new(&mut http).graceful_shutdown();
                http.poll_without_shutdown(cx).map_ok(|()| true)
            })
            .await?;
            let mut rest = unread(http.into_parts());
            if is_idle {
                return Ok(Some(rest));
            }
            let _ = rest.stream.shutdown().await;
            Ok(None)
        }
    }

    /// Returns hyper's timeout for heads, which hyper counts from the last response on. For clients there is none,
    /// since each request would set a timer: slow heads and idle connections are closed by a sweep.
    fn head_timeout(&self) -> Option<Duration> {
        (self.role == Role::Admin).then_some(HEAD_PATIENCE)
    }

    /// Returns the client that a request came from, if a sibling or a trusted proxy names another address than the
    /// connection's.
    /// Boxed, since few requests have one.
    fn origin(&self, head: &Parts, told: Option<IpAddr>) -> Option<Box<Origin>> {
        let said = || auth::origin(&self.server.settings.auth, self.peer.socket.ip(), &head.headers);
        let address = told.or_else(said)?;
        let client = Client::at(Some(address));
        Some(Box::new(Origin {
            peer: SocketAddr::new(address, 0).into(),
            account: self.account.sibling(client),
            requests: self.requests.sibling(client),
        }))
    }

    /// Returns the caller of a request if that is known without waiting. Where addresses are limited, that is checked
    /// first, so that a flood cannot keep the verifier of tokens busy.
    fn known(&self, head: &Parts, source: &Source) -> Option<Result<Arc<Identity>, Rejection>> {
        #[cfg(feature = "gateway")]
        if let Some(ticket) = &source.ticket {
            return Some(Ok(Arc::clone(&ticket.told.identity)));
        }
        let _ = source;
        if self.server.limits.is_some() { None } else { auth::known(&self.server, self.asking(head)) }
    }

    /// Returns the caller of a request, and waits for that if necessary.
    ///
    /// # Errors
    /// 429 beyond the limit of the request's address, and as [`auth::identify`].
    async fn identify(&self, head: &Parts, source: &Source) -> Result<Arc<Identity>, Rejection> {
        if let Some(limits) = &self.server.limits {
            let admitted = limits.admit_address(source.peer.socket.ip());
            admitted.map_err(|refused| Rejection::limited(&refused))?;
        }
        match auth::known(&self.server, self.asking(head)) {
            Some(known) => known,
            None => auth::identify(&self.server, self.asking(head)).await,
        }
    }

    fn asking<'a>(&'a self, head: &'a Parts) -> auth::Asking<'a> {
        auth::Asking { head, peer: self.peer.socket.ip(), certificate: self.certificate.as_deref() }
    }

    /// Routes the request of a caller, or refuses the caller.
    fn route(
        &self,
        identified: Result<Arc<Identity>, Rejection>,
        (visit, source): (&mut Option<Box<Visit>>, &mut Source),
        head: &Parts,
        (body, allowed): (Incoming, Allowed),
    ) -> Route {
        match identified {
            Ok(identity) => {
                if let Some(visit) = visit {
                    visit.set_identity(&identity);
                }
                source.identity = identity;
                within(source.span, || routes::route(&self.server, source, head, body, allowed))
            }
            Err(rejection) => {
                if let Some(visit) = visit {
                    visit.set_reason(rejection.reason());
                }
                Route::Answered(Box::new(allowed.complete(Err(body::refuse(body, rejection)))))
            }
        }
    }

    fn enter(&self, source: &Source, head: &Parts, body: Incoming, full: Option<Full>) -> Entry {
        match full {
            Some(full) => Entry::Answered(Box::new(routes::refuse(body, full))),
            None => within(source.span, || routes::enter(&self.server, &self.usual_host, head, body)),
        }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for each argument twice"
    )]
    pub(super) fn answer(
        self: Arc<Self>,
        head: Parts,
        body: Incoming,
        mark: Mark,
        persistence: Persistence,
    ) -> impl Future<Output = Result<Response<Marked<Body>>, Infallible>> {
        async move {
            let Service { server, places, connection, .. } = &*self;
            if self.role == Role::Admin {
                connection.set_may_rest(body.is_end_stream());
                let response = routes::serve_admin(server, &head);
                return Ok(response.map(|body| Marked::new(body, mark, None, None)));
            }
            let has_body = !body.is_end_stream();
            let is_long = body.size_hint().upper().is_none_or(|length| length > LONG);
            let is_monitoring = paths::is_monitoring(&server.settings, head.uri.path());
            let is_http2 = head.version == Version::HTTP_2;
            let memory = memory_of(&head) + if is_http2 && has_body { STREAM_WINDOW as usize } else { 0 };
            #[cfg(feature = "gateway")]
            let (ticket, forged) = siblings::ticket(server, &head)
                .transpose()
                .map_or_else(|no| (None, Some(no)), |ticket| (ticket, None));
            #[cfg(feature = "gateway")]
            let told = ticket.as_ref().map(|ticket| ticket.told.address);
            #[cfg(not(feature = "gateway"))]
            let told = None;
            let origin = self.origin(&head, told);
            let requests = origin.as_ref().map_or(&self.requests, |origin| &origin.requests);
            let charge = match is_monitoring {
                true => None,
                false => match requests.try_charge(memory) {
                    Some(charge) => Some(charge),
                    // Boxed, like everything that few requests wait for.
                    None => {
                        let charging = requests.charge_soon(memory, ROOM_PATIENCE);
                        Box::pin(persistence.while_connected(charging)).await
                    }
                },
            };
            let (peer, account) = match &origin {
                Some(origin) => (origin.peer.clone(), origin.account.clone()),
                None => (self.peer.clone(), self.account.clone()),
            };
            let (mut visit, mut source) = match is_monitoring {
                true => (None, Source::unseen(peer, account)),
                false => Visit::begin(&server.settings, &head, peer, account),
            };
            let is_placed = is_monitoring
                || !connection.is_spare()
                || Box::pin(persistence.while_connected(places.settle(connection))).await;
            source.persistence = persistence;
            #[cfg(feature = "gateway")]
            {
                source.ticket = ticket;
            }
            let full = match (is_placed, is_monitoring || charge.is_some()) {
                (false, _) => Some(Full::Connections),
                (true, false) => Some(Full::Memory),
                (true, true) => None,
            };
            let mut response = 'answered: {
                #[cfg(feature = "gateway")]
                if let Some(forged) = forged {
                    break 'answered body::refuse(body, *forged).response();
                }
                let opened = match self.enter(&source, &head, body, full) {
                    Entry::Answered(response) => break 'answered *response,
                    Entry::Open(body, allowed) => (body, allowed),
                };
                let (body, allowed, is_old) = {
                    let route = if let Some(known) = self.known(&head, &source) {
                        self.route(known, (&mut visit, &mut source), &head, opened)
                    } else {
                        // Boxed: most callers are known.
                        let identified = Box::pin(scoped(source.span, self.identify(&head, &source))).await;
                        self.route(identified, (&mut visit, &mut source), &head, opened)
                    };
                    match route {
                        Route::Answered(response) => break 'answered *response,
                        Route::Endpoint(body, allowed) => {
                            #[cfg(feature = "gateway")]
                            servers::note_gateways(server, &mut source, &head);
                            (body, allowed, false)
                        }
                        Route::OldSse(body, allowed) => (body, allowed, true),
                        #[cfg(feature = "gateway")]
                        Route::Sibling(owner, allowed) => {
                            let forwarding = Forwarding {
                                server,
                                source: &source,
                                headers: &head.headers,
                                owner,
                                is_retry: false,
                            };
                            let passing = forwarding.stream(head.method.clone());
                            break 'answered allowed.complete(Box::pin(scoped(source.span, passing)).await);
                        }
                        #[cfg(feature = "gateway")]
                        Route::Session(allowed) => {
                            let serving = endpoint::serve_anywhere(server, &source, &head);
                            break 'answered allowed.complete(Box::pin(scoped(source.span, serving)).await);
                        }
                        #[cfg(feature = "gateway")]
                        Route::Server(body, allowed) => {
                            let passing = servers::serve(server, &source, &head, body);
                            break 'answered allowed.complete(Box::pin(scoped(source.span, passing)).await);
                        }
                    }
                };
                allowed.complete(if is_old {
                    let posting = old_sse::post(server, &source, &head, body);
                    Box::pin(scoped(source.span, posting)).await
                } else {
                    // Boxed, since the allocator is slower for futures of more than 1 KiB.
                    let posting = Box::pin(endpoint::post(server, &source, &head.headers, body));
                    Scoped::new(source.span, posting).await
                })
            };
            #[cfg(feature = "gateway")]
            if let Some(ticket) = &source.ticket {
                siblings::prove(&mut response, ticket);
            }
            // Hyper may still be reading the body of a refused request; such a connection keeps its buffers.
            let is_error = response.status().is_client_error() || response.status().is_server_error();
            let leaves_body = has_body && is_error && is_long;
            if !is_http2 {
                connection.set_may_rest(!has_body || !is_error);
                connection.set_leaves_body(leaves_body);
            }
            if let Some(visit) = &mut visit {
                visit.set_status(response.status());
            }
            // A client that reuses connections should not send its next request when this one closes.
            let is_ending = server.shutdown.has_begun();
            if !is_http2 && (connection.is_spare() || leaves_body || is_ending) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // On a 503 it would say that the request was not begun.
            if is_ending && response.status() != StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(DRAINING, HeaderValue::from_static("1"));
            }
            Ok(response.map(|body| Marked::new(body, mark, visit, charge)))
        }
    }
}

/// Returns a connection's stream, and the bytes that hyper has read of the next request.
fn unread<S>(parts: http1::Parts<TokioIo<Explained<Rewound<Wire>>>, S>) -> Rewound<Wire> {
    Rewound { first: parts.read_buf, stream: parts.io.into_inner().into_inner().stream }
}

/// Returns the bytes that a request takes while it is in progress, besides its messages.
fn memory_of(head: &Parts) -> usize {
    let usual = if head.method == Method::GET { STREAM } else { REQUEST };
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let length = fields.sum::<usize>() + head.uri.path().len();
    usual + length.saturating_sub(USUAL_HEAD)
}
