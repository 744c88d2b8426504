//! The frames of a client. Requests run side by side; everything else, and handshakes, keep their order.

use super::Settings;
use super::fault::{Fault, Kind as FaultKind};
use super::shared::{LISTEN, Shared, is_modern, raw_id};
use super::{requests, stream};
use crate::budget::Charged;
use crate::framing::Framed;
use crate::jsonrpc::{self, Kind, Message, codes, rewrite, text};
use crate::outbound::BadTls;
use crate::tasks;
use hyper::Method;
use hyper::header::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Maximum number of requests in flight.
const MOST: usize = 1_024;
/// Maximum number of notifications and answers that wait for their turn.
const WAITING: usize = 256;
/// Time for the server to accept a notification or an answer.
const ACCEPTING: Duration = Duration::from_secs(30);
/// Time for the answer to a request that was cancelled.
const CANCELLED: Duration = Duration::from_secs(10);
/// Time for the answer to `server/discover`.
const DISCOVERING: Duration = Duration::from_secs(10);
/// Time to end the session.
const ENDING: Duration = Duration::from_secs(1);

/// A client's frames on their way to a server, and the server's answers. It ends when the server turns out to be another
/// one than the client knows.
pub(crate) struct Pipe {
    shared: Arc<Shared>,
    /// Whether the server's stream is heard.
    hears: AtomicBool,
    in_flight: Mutex<HashMap<Vec<u8>, InFlight>>,
    is_idle: Notify,
    oneway: mpsc::Sender<Charged>,
}

/// A request in flight.
struct InFlight {
    task: Option<AbortHandle>,
    is_modern: bool,
    is_listen: bool,
    is_cancelled: Arc<AtomicBool>,
}

/// How a server answers `initialize`, the first request of a legacy client.
pub(crate) enum Opened {
    /// It has opened a session. The answer has been passed on.
    Accepted,
    /// It refuses, perhaps because it speaks the other era only. The answer, not passed on.
    Refused(Charged),
    /// It cannot be asked, for this reason. Nothing was passed on.
    Failed(String),
}

/// The era that a server speaks, as far as `server/discover` tells.
pub(crate) enum Discovered {
    /// It speaks the modern revision.
    Modern,
    /// It does not.
    Not,
    /// It cannot be asked, for this reason.
    Failed(String),
}

impl Pipe {
    /// Creates a pipe. What the server says goes to `out`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub fn new(settings: Settings, out: mpsc::Sender<Charged>) -> Result<Arc<Self>, BadTls> {
        let (oneway, waiting) = mpsc::channel(WAITING);
        let pipe = Arc::new(Pipe {
            shared: Arc::new(Shared::new(settings, out)?),
            hears: AtomicBool::new(false),
            in_flight: Mutex::default(),
            is_idle: Notify::new(),
            oneway,
        });
        tasks::spawn(tell_all(Arc::downgrade(&pipe), waiting));
        Ok(pipe)
    }

    /// Takes the next frame of the client. Waits for handshakes only.
    pub async fn take(self: &Arc<Self>, framed: Framed) {
        if let Some((frame, message)) = self.read(framed).await {
            self.pass(frame, message).await;
        }
    }

    /// Takes a frame that was read before.
    pub fn pass<'a>(
        self: &'a Arc<Self>,
        frame: Charged,
        message: Message,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.pass_on(frame, message))
    }

    async fn pass_on(self: &Arc<Self>, frame: Charged, message: Message) {
        let method = message.method.as_ref().map(|method| text(&frame, method).into_owned());
        match (message.kind, method.as_deref()) {
            (Kind::Request, Some("initialize")) if !is_modern(&message) => {
                let answer = requests::initialize(&self.shared, &frame, &message).await;
                let answer = answer.map(|answer| answer.frame);
                self.say(answer.unwrap_or_else(|fault| fault.answer(&raw_id(&frame, &message)))).await;
            }
            (Kind::Request, Some(method)) => self.begin(frame, message, method).await,
            (Kind::Notification, Some("notifications/initialized")) => {
                self.tell(&frame).await;
                self.shared.session.note_ready();
                if !self.hears.swap(true, Ordering::Relaxed) {
                    stream::hear(&self.shared);
                }
            }
            (Kind::Notification, Some("notifications/cancelled")) => self.cancel(frame, &message).await,
            _ => self.queue(frame).await,
        }
    }

    /// Opens a session in the name of a client, by its first request, which is `initialize`.
    pub async fn open(self: &Arc<Self>, frame: &Charged, message: &Message) -> Opened {
        match requests::initialize(&self.shared, frame, message).await {
            Ok(answer) if answer.told.is_some() => {
                self.say(answer.frame).await;
                Opened::Accepted
            }
            Ok(answer) => Opened::Refused(answer.frame),
            Err(fault) if is_refusal(&fault) => Opened::Refused(fault.answer(&raw_id(frame, message))),
            Err(fault) => Opened::Failed(fault.to_string()),
        }
    }

    /// Asks the server whether it speaks the modern revision.
    pub async fn discover(self: &Arc<Self>) -> Discovered {
        match timeout(DISCOVERING, requests::discover(&self.shared)).await {
            Ok(Ok(true)) => Discovered::Modern,
            // Some legacy servers do not answer what they do not know.
            Ok(Ok(false)) | Err(_) => Discovered::Not,
            Ok(Err(fault)) if is_refusal(&fault) => Discovered::Not,
            Ok(Err(fault)) => Discovered::Failed(fault.to_string()),
        }
    }

    /// Reads a frame; answers one that is no message.
    pub async fn read(&self, framed: Framed) -> Option<(Charged, Message)> {
        let bytes = match framed {
            Framed::Frame { bytes, .. } => bytes,
            Framed::Oversized { length, .. } => {
                let longest = self.shared.longest;
                tracing::error!(
                    length,
                    longest,
                    "a message of the client is too long, and was discarded (--max-frame)"
                );
                let text = format!("the message is longer than {longest} bytes (--max-frame)");
                self.say(rewrite::error(None, codes::INVALID_REQUEST, &text, None)).await;
                return None;
            }
        };
        match jsonrpc::scan(&bytes) {
            Ok(message) => Some((self.shared.account.hold(bytes), message)),
            Err(fault) => {
                let id = fault.id.clone().map(|id| &bytes[id]);
                self.say(rewrite::error(id, fault.code, fault.reason, None)).await;
                None
            }
        }
    }

    /// Says something to the client.
    pub async fn say(&self, message: Charged) {
        self.shared.say(message).await;
    }

    /// Ends the pipe: waits so long for the answers of requests, and ends the session.
    pub async fn finish(&self, patience: Duration) {
        let quiet = async {
            loop {
                let changed = self.is_idle.notified();
                let is_busy = self.in_flight.lock().values().any(|request| !request.is_listen);
                if !is_busy && self.oneway.capacity() == WAITING {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    () = sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        if timeout(patience, quiet).await.is_err() {
            tracing::warn!("requests were in flight when the client ended; their answers are lost");
        }
        for (_, request) in self.in_flight.lock().drain() {
            if let Some(task) = request.task {
                task.abort();
            }
        }
        if let Some(headers) = self.shared.session.close() {
            let _ = timeout(ENDING, self.shared.client.send(Method::DELETE, &headers, None)).await;
        }
    }

    async fn begin(self: &Arc<Self>, frame: Charged, message: Message, method: &str) {
        let id = raw_id(&frame, &message);
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let refusal = {
            let mut in_flight = self.in_flight.lock();
            if in_flight.len() >= MOST {
                Some("too many requests are in flight; try again")
            } else if in_flight.contains_key(&id) {
                Some("a request with this id is in flight; give each request an id of its own")
            } else {
                let request = InFlight {
                    task: None,
                    is_modern: is_modern(&message),
                    is_listen: method == LISTEN,
                    is_cancelled: Arc::clone(&is_cancelled),
                };
                in_flight.insert(id.clone(), request);
                None
            }
        };
        if let Some(refusal) = refusal {
            return self.say(Fault::own(refusal).answer(&id)).await;
        }
        let (pipe, method, key) = (Arc::clone(self), method.to_owned(), id.clone());
        let task = tasks::spawn(async move {
            let answer = requests::exchange(&pipe.shared, &frame, &message, &method, &is_cancelled).await;
            // First, since the client may use the id again once it has the answer.
            pipe.in_flight.lock().remove(&key);
            match answer {
                Ok((answer, _)) => pipe.say(answer).await,
                Err(fault) if !is_cancelled.load(Ordering::Relaxed) => pipe.say(fault.answer(&key)).await,
                Err(_) => {}
            }
            pipe.is_idle.notify_waiters();
        });
        if let Some(request) = self.in_flight.lock().get_mut(&id) {
            request.task = Some(task.abort_handle());
        }
    }

    /// Cancels a request: a modern one by ending it, a legacy one by telling the server.
    async fn cancel(self: &Arc<Self>, frame: Charged, message: &Message) {
        let id = message.params.as_ref().and_then(|params| params.request_id.clone());
        let Some(id) = id.map(|id| frame[id].to_vec()) else { return };
        let task = {
            let mut in_flight = self.in_flight.lock();
            let Some(request) = in_flight.get(&id) else { return };
            request.is_cancelled.store(true, Ordering::Relaxed);
            let task = request.task.clone();
            if request.is_modern {
                in_flight.remove(&id);
                if let Some(task) = task {
                    task.abort();
                }
                return;
            }
            task
        };
        let pipe = Arc::clone(self);
        tasks::spawn(async move {
            sleep(CANCELLED).await;
            if let Some(task) = task.filter(|task| !task.is_finished()) {
                task.abort();
                pipe.in_flight.lock().remove(&id);
            }
        });
        self.queue(frame).await;
    }

    /// Queues a notification or an answer.
    async fn queue(&self, frame: Charged) {
        let _ = self.oneway.send(frame).await;
    }

    /// Sends a notification or an answer to the server.
    async fn tell(&self, frame: &Charged) {
        let headers = match jsonrpc::scan(frame) {
            Ok(message) if is_modern(&message) => self.shared.learned.of(frame, &message),
            _ => self.shared.session.headers().0,
        };
        if let Err(why) = self.accepted(&headers, frame).await {
            tracing::warn!("a notification or an answer of the client is lost: {why}");
        }
    }

    async fn accepted(&self, headers: &HeaderMap, frame: &Charged) -> Result<(), String> {
        let sent = timeout(ACCEPTING, self.shared.client.send(Method::POST, headers, Some(frame))).await;
        let response = sent.map_err(|_| "the remote server does not answer".to_owned())?;
        let response = response.map_err(|fault| fault.to_string())?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("the remote server answered {status}")) }
    }
}

/// Sends the queued notifications and answers in their order.
async fn tell_all(pipe: std::sync::Weak<Pipe>, mut waiting: mpsc::Receiver<Charged>) {
    while let Some(frame) = waiting.recv().await {
        let Some(pipe) = pipe.upgrade() else { return };
        pipe.tell(&frame).await;
    }
}

/// Returns whether a server may have refused a request because it does not know it: servers do that in many ways, some
/// without a message.
fn is_refusal(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Status(400 | 404 | 405 | 406 | 415 | 422 | 501))
}
