//! The frames of one relay: answers requests side by side, and ends those that are cancelled.

use super::kind::Kind;
use super::request::{Caller, Refused, Request, Separated, separate};
use super::state::State;
use super::{calls, discover, listen, lists, search};
use crate::budget::{Budget, Charged};
use crate::identity::Identity;
use crate::jsonrpc::{self, Kind as MessageKind, Spliced, codes, rewrite, text};
use crate::tasks;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Number of messages that wait to be written.
const WAITING: usize = 64;
/// Maximum length of messages that are copied together.
const TOGETHER: usize = 16 << 10;

/// The requests in progress, by raw id.
type InProgress = Arc<Mutex<HashMap<Vec<u8>, AbortHandle>>>;

/// Serves a relay until it ends.
pub(super) async fn serve(state: Arc<State>, socket: std::os::unix::net::UnixStream, budget: Budget) {
    let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "cannot serve /mcp"),
    };
    let (reading, writing) = socket.into_split();
    let (out, said) = mpsc::channel(WAITING);
    let mut running = JoinSet::new();
    running.spawn(tasks::boxed(write(writing, said)));
    let mut reader = BufReader::new(reading);
    let requests = InProgress::default();
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 => {}
            _ => return,
        }
        while running.try_join_next().is_some() {}
        let frame = budget.account(crate::client::Client::child(0)).hold(line);
        let Ok(message) = jsonrpc::scan(&frame) else { continue };
        match message.kind {
            MessageKind::Request => {
                let Some(separated) = separate(frame, message) else { continue };
                let caller = Who::new(&state, &separated, &budget);
                let request = separated.request;
                let (id, out) = (request.id().to_vec(), out.clone());
                let (done, key) = (Arc::clone(&requests), id.clone());
                // Locked until the request is known, since its answer removes it.
                let mut known = requests.lock();
                let begun = running.spawn(tasks::boxed(async move {
                    let answer = caller.answer(&request, &out).await;
                    done.lock().remove(&key);
                    let answer = answer.unwrap_or_else(|refused| refused.answer(&key));
                    let _ = out.send(answer).await;
                }));
                known.insert(id, begun);
            }
            MessageKind::Notification => cancel(&frame, &message, &requests, &out).await,
            MessageKind::Response => {}
        }
    }
}

/// Ends a request that its client has cancelled. The answer only frees its place.
async fn cancel(
    frame: &Charged,
    message: &jsonrpc::Message,
    requests: &InProgress,
    out: &mpsc::Sender<Spliced>,
) {
    let method = message.method.as_ref().map(|method| text(frame, method));
    let id = message.params.as_ref().and_then(|params| params.request_id.clone());
    let Some(id) = id.filter(|_| method.as_deref() == Some("notifications/cancelled")) else { return };
    let ended = requests.lock().remove(&frame[id.clone()]);
    if let Some(ended) = ended {
        ended.abort();
        let answer = rewrite::error(Some(&frame[id]), codes::REQUEST_CANCELLED, "cancelled", None);
        let _ = out.send(Spliced::from(answer)).await;
    }
}

/// Writes messages as lines until the relay ends.
async fn write(mut socket: OwnedWriteHalf, mut said: mpsc::Receiver<Spliced>) {
    while let Some(message) = said.recv().await {
        if line(&mut socket, &message).await.is_err() {
            return;
        }
    }
}

async fn line(socket: &mut OwnedWriteHalf, message: &Spliced) -> io::Result<()> {
    if message.len() <= TOGETHER {
        let mut whole = message.to_vec();
        whole.push(b'\n');
        return socket.write_all(&whole).await;
    }
    for segment in message.segments() {
        socket.write_all(segment).await?;
    }
    socket.write_all(b"\n").await
}

/// Who sends a request.
enum Who {
    /// A client.
    Client(Caller),
    /// This process itself, for all clients.
    Own(Caller),
    /// Nobody that is known.
    Unknown,
}

impl Who {
    fn new(state: &Arc<State>, separated: &Separated, budget: &Budget) -> Self {
        let Separated { request, whole, claims, passed } = separated;
        let meta = request.message.params.as_ref().and_then(|params| params.meta.as_ref());
        let meta = meta.map(|meta| request.frame.slice(meta.span.clone()));
        let passed = passed.clone();
        let caller = |identity| Caller { meta, passed, ..Caller::new(state, identity, budget) };
        match whole.as_deref().map(Identity::of_whole) {
            None => Who::Own(caller(Identity::anonymous())),
            Some(None) => Who::Unknown,
            Some(Some(mut identity)) => {
                let claims = claims.as_deref().and_then(|claims| serde_json::from_slice(claims).ok());
                identity.claims = claims.unwrap_or_default();
                let guard = state.policies.clone();
                Who::Client(Caller { guard, ..caller(Arc::new(identity)) })
            }
        }
    }

    async fn answer(&self, request: &Request, out: &mpsc::Sender<Spliced>) -> Result<Spliced, Refused> {
        let caller = match self {
            // The first request of a relay comes before the servers have started.
            Who::Own(_) if request.method == "server/discover" => return Ok(discover::usual(request.id())),
            Who::Own(caller) | Who::Client(caller) => caller,
            Who::Unknown => return Err(Refused::failed("the caller is not known")),
        };
        let is_early = matches!(self, Who::Own(_)) && !caller.state.is_used();
        let servers = if is_early { Arc::default() } else { caller.state.servers() };
        if request.method == "subscriptions/listen" {
            return listen::serve(caller, request, out).await;
        }
        let is_only = servers.len() == 1;
        if caller.state.core.settings.searches {
            match &*request.method {
                "tools/list" => return search::list(request, &servers),
                "tools/call" => match &*request.param("name")?.1 {
                    search::SEARCH => return search::search(caller, &servers, request).await,
                    // Others were replaced by the calls that they stand for.
                    search::CALL => return Err(search::uncalled(request)),
                    _ => {}
                },
                _ => {}
            }
        }
        if let Some(kind) = Kind::of(&request.method) {
            let is_changed = servers.values().any(|server| server.about.tools != Default::default());
            if !is_only || caller.guard.is_some() || (kind == Kind::Tools && is_changed) {
                return lists::answer(caller, &servers, kind, request).await;
            }
        }
        if request.method == "server/discover" && !is_only {
            return Ok(discover::answer(caller, &servers, request).await?);
        }
        calls::pass(caller, &servers, request, out).await
    }
}
