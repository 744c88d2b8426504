//! One request from its frame to its answer: resumed, repeated in a new session, or with further headers where that is
//! safe.

use super::answer::{code, cut_short, is_unknown_session, own_answer};
use super::client::Boxed;
use super::fault::{Fault, Kind};
use super::headers::{self, LAST_EVENT_ID, SESSION_ID};
use super::reply::{Reply, Said};
use super::session::Told;
use super::shared::{LISTEN, Shared, is_modern, raw_id};
use crate::backoff::{Backoff, chance, jittered};
use crate::budget::Charged;
use crate::era::MODERN_VERSION;
use crate::era::envelope::Envelope;
use crate::era::probe::Answer;
use crate::jsonrpc::{self, Message, codes, member, rewrite, text};
use crate::tasks;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Attempts to resume a stream that brings nothing new.
const RESUMPTIONS: usize = 5;
/// The least time that a server may ask for, and the shortest and the longest time before a stream is resumed or opened again.
const LEAST: Duration = Duration::from_millis(10);
const SOON: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);
/// Maximum number of pages of tools that are read for their headers.
const MOST_PAGES: usize = 20;
const DISCOVER: &str = "server/discover";
/// The id of proxyrunner's own requests.
const OWN_ID: &[u8] = b"\"proxyrunner\"";

/// An answer to `initialize`.
pub(super) struct Initialized {
    /// The answer.
    pub frame: Charged,
    /// What the server says of itself; `None` if it refuses.
    pub told: Option<Told>,
    /// What it said in the former session.
    pub before: Option<Told>,
}

/// Opens a session. The former one is forgotten.
///
/// # Errors
/// When there is no answer.
pub(super) fn initialize<'a>(
    shared: &'a Arc<Shared>,
    frame: &'a Charged,
    message: &'a Message,
) -> Boxed<'a, Initialized> {
    Box::pin(open(shared, frame, message))
}

async fn open(shared: &Arc<Shared>, frame: &Charged, message: &Message) -> Result<Initialized, Fault> {
    let response = shared.client.send(Method::POST, &headers::post(), Some(frame)).await?;
    let session = response.headers().get(SESSION_ID).cloned();
    let mut reply = Reply::new(response, shared.longest, &shared.account)?;
    let id = raw_id(frame, message);
    let (answer, read) = loop {
        match reply.next(Some(shared.client.patience())).await? {
            Said::Before(said, _) => shared.say(said).await,
            Said::Answer(answer, read) => break own_answer(answer, read, &id, reply.status())?,
            Said::End => return Err(cut_short()),
        }
    };
    let told = read.result.as_ref().map(|result| Told::read(&answer, result));
    let before = told.clone().and_then(|told| shared.session.open(frame, session, told));
    Ok(Initialized { frame: answer, told, before })
}

/// Opens the session again, unless that has happened since this generation.
///
/// # Errors
/// When that fails, or the server is not the one that the client knows.
pub(super) async fn renew(shared: &Arc<Shared>, generation: u64) -> Result<(), Fault> {
    // A task of its own: a request that is cancelled meanwhile must not leave half a session.
    let its = Arc::clone(shared);
    let renewing = tasks::run(async move { renew_now(&its, generation).await });
    renewing.await.unwrap_or_else(|_| Err(Fault::own("the session could not be opened again")))
}

async fn renew_now(shared: &Arc<Shared>, generation: u64) -> Result<(), Fault> {
    let _turn = shared.session.renewal.lock().await;
    if shared.session.generation() != generation {
        return Ok(());
    }
    let unknown = || Fault::refused("the remote server does not know this session".to_owned());
    let frame = shared.session.initialize().ok_or_else(unknown)?;
    let message = jsonrpc::scan(&frame).map_err(|_| unknown())?;
    let renewed = initialize(shared, &frame, &message).await?;
    let Some(told) = renewed.told else {
        return Err(Fault::refused(
            "the remote server has lost the session, and refuses to open a new one".to_owned(),
        ));
    };
    if renewed.before.is_some_and(|before| before != told) {
        shared.over.cancel();
        return Err(Fault::refused(
            "the remote server has restarted with another version, other capabilities or instructions; connect again".to_owned(),
        ));
    }
    tracing::info!("the remote server had lost the session; a new one was opened");
    let initialized = rewrite::notification("notifications/initialized", None);
    shared.client.send(Method::POST, &shared.session.headers().0, Some(&initialized)).await?;
    for (at, asked) in shared.session.remembered().into_iter().enumerate() {
        let Ok(message) = jsonrpc::scan(&asked) else { continue };
        let id = format!("\"proxyrunner-{at}\"");
        let Ok(asked) = rewrite::with_id(&asked, &message, id.as_bytes()).flatten() else { continue };
        let restored = async {
            let response =
                shared.client.send(Method::POST, &shared.session.headers().0, Some(&asked)).await?;
            let mut reply = Reply::new(response, shared.longest, &shared.account)?;
            loop {
                match reply.next(Some(shared.client.patience())).await? {
                    Said::Before(said, _) => shared.say(said).await,
                    Said::Answer(..) | Said::End => return Ok::<_, Fault>(()),
                }
            }
        };
        if let Err(fault) = restored.await {
            tracing::warn!("a subscription or log level is lost with the session: {fault}");
        }
    }
    for method in told.list_changes() {
        shared.say(rewrite::notification(method, None)).await;
    }
    shared.session.note_ready();
    Ok(())
}

/// Asks whether the server speaks the modern revision.
///
/// # Errors
/// When there is no answer.
pub(super) async fn discover(shared: &Arc<Shared>) -> Result<bool, Fault> {
    let params = format!("{{\"_meta\":{{{}}}}}", Envelope::own().members());
    let frame = rewrite::request(OWN_ID, DISCOVER, Some(params.as_bytes()));
    let message = jsonrpc::scan(&frame).map_err(|fault| Fault::own(fault.reason))?;
    let headers = shared.learned.of(&frame, &message);
    let response = shared.client.send(Method::POST, &headers, Some(&frame)).await?;
    // Some legacy servers open a session whatever they are asked.
    if let Some(session) = response.headers().get(SESSION_ID).cloned() {
        let headers = HeaderMap::from_iter([(SESSION_ID, session)]);
        let _ = shared.client.send(Method::DELETE, &headers, None).await;
    }
    let mut reply = Reply::new(response, shared.longest, &shared.account)?;
    let (answer, read) = loop {
        match reply.next(Some(shared.client.patience())).await? {
            Said::Before(..) => {}
            Said::Answer(answer, read) => break own_answer(answer, read, OWN_ID, reply.status())?,
            Said::End => return Err(cut_short()),
        }
    };
    Ok(match Answer::read(&answer, read.result.as_ref(), read.error.as_ref()) {
        Answer::Result(versions) | Answer::Error(codes::UNSUPPORTED_VERSION, versions) => {
            versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN_VERSION))
        }
        Answer::Error(..) => false,
    })
}

/// Carries out a request. What the server says before its answer is passed on.
///
/// # Errors
/// When there is no answer.
pub(super) async fn exchange(
    shared: &Arc<Shared>,
    frame: &Charged,
    message: &Message,
    method: &str,
    is_cancelled: &AtomicBool,
) -> Result<(Charged, Message), Fault> {
    let asked = Asked { shared, frame, message, method, id: raw_id(frame, message), is_cancelled };
    if !is_modern(message) {
        let uri = message.params.as_ref().and_then(|params| params.uri.as_ref());
        shared.session.remember(method, frame, uri);
        return asked.legacy().await;
    }
    if method == LISTEN { asked.listen().await } else { asked.modern().await }
}

struct Asked<'a> {
    shared: &'a Arc<Shared>,
    frame: &'a Charged,
    message: &'a Message,
    method: &'a str,
    id: Vec<u8>,
    is_cancelled: &'a AtomicBool,
}

impl Asked<'_> {
    async fn legacy(&self) -> Result<(Charged, Message), Fault> {
        let shared = self.shared;
        let mut is_renewed = false;
        loop {
            let (headers, generation) = shared.session.headers();
            let response = shared.client.send(Method::POST, &headers, Some(self.frame)).await?;
            let may_renew = headers.contains_key(SESSION_ID) && !is_renewed;
            if response.status() == StatusCode::NOT_FOUND && may_renew {
                is_renewed = true;
                renew(shared, generation).await?;
                continue;
            }
            let is_bad = response.status() == StatusCode::BAD_REQUEST;
            let answer = self.receive(Reply::new(response, shared.longest, &shared.account)?).await?;
            // Many servers answer 400 where the specification demands 404.
            if is_bad && may_renew && is_unknown_session(&answer.0, &answer.1) {
                is_renewed = true;
                renew(shared, generation).await?;
                continue;
            }
            return Ok(answer);
        }
    }

    /// Receives an answer of the legacy era, and resumes its stream where that is possible.
    async fn receive(&self, mut reply: Reply) -> Result<(Charged, Message), Fault> {
        let shared = self.shared;
        let (mut left, mut last) = (RESUMPTIONS, None);
        let mut pauses = Backoff::new(SOON, LATEST);
        loop {
            let broken = match reply.next(Some(shared.client.patience())).await {
                Ok(Said::Before(said, read)) => {
                    left = RESUMPTIONS;
                    // Some servers go on with a cancelled request, and some clients fail over what it brings.
                    let is_unwanted = self.is_cancelled.load(Ordering::Relaxed);
                    if !is_unwanted || read.kind != jsonrpc::Kind::Notification {
                        shared.say(said).await;
                    }
                    continue;
                }
                Ok(Said::Answer(answer, read)) => {
                    return own_answer(answer, read, &self.id, reply.status());
                }
                Ok(Said::End) => cut_short(),
                Err(fault) if fault.kind == Kind::Broken => fault,
                Err(fault) => return Err(fault),
            };
            last = reply.last_id().or(last);
            let mut retry = reply.retry();
            reply = loop {
                let Some(last) = &last else { return Err(broken) };
                if left == 0 {
                    return Err(broken);
                }
                left -= 1;
                let pause = pauses.advance();
                sleep(jittered(retry.take().map_or(pause, |retry| retry.clamp(LEAST, LATEST)), chance()))
                    .await;
                match self.resume(last).await {
                    Ok(resumed) => break resumed,
                    Err(fault)
                        if matches!(fault.kind, Kind::Unreached | Kind::Broken | Kind::Status(500..)) => {}
                    Err(_) => return Err(broken),
                }
            };
        }
    }

    async fn resume(&self, last: &HeaderValue) -> Result<Reply, Fault> {
        let shared = self.shared;
        let (mut headers, _) = shared.session.onto(headers::get());
        headers.insert(LAST_EVENT_ID, last.clone());
        let response = shared.client.send(Method::GET, &headers, None).await?;
        let reply = Reply::new(response, shared.longest, &shared.account)?;
        match reply.is_stream() && reply.status().is_success() {
            true => Ok(reply),
            false => Err(Fault::refused("the remote server does not resume the stream".to_owned())),
        }
    }

    async fn modern(&self) -> Result<(Charged, Message), Fault> {
        let mut has_learned = false;
        loop {
            let (answer, read) = self.ask().await?;
            if let Some(result) = &read.result {
                if self.method == "tools/list" {
                    self.shared.learned.learn(&answer, result);
                }
                return Ok((answer, read));
            }
            // It has not been carried out, since a header is missing that only the list of tools tells of.
            if self.method == "tools/call"
                && !has_learned
                && code(&answer, &read) == Some(codes::HEADER_MISMATCH)
            {
                has_learned = true;
                self.learn().await;
                continue;
            }
            return Ok((answer, read));
        }
    }

    fn ask(&self) -> Boxed<'_, (Charged, Message)> {
        Box::pin(self.ask_once())
    }

    async fn ask_once(&self) -> Result<(Charged, Message), Fault> {
        let mut reply = self.begin().await?;
        loop {
            match reply.next(Some(self.shared.client.patience())).await? {
                Said::Before(said, read) => self.pass(said, &read).await,
                Said::Answer(answer, read) => return own_answer(answer, read, &self.id, reply.status()),
                Said::End => return Err(cut_short()),
            }
        }
    }

    async fn begin(&self) -> Result<Reply, Fault> {
        let headers = self.shared.learned.of(self.frame, self.message);
        let response = self.shared.client.send(Method::POST, &headers, Some(self.frame)).await?;
        Reply::new(response, self.shared.longest, &self.shared.account)
    }

    /// Passes on a notification. A modern server sends no requests.
    async fn pass(&self, said: Charged, read: &Message) {
        if read.kind == jsonrpc::Kind::Notification {
            self.shared.say(said).await;
        }
    }

    /// Carries out a subscription. It is opened again when its stream breaks, as long as the client wants it.
    async fn listen(&self) -> Result<(Charged, Message), Fault> {
        let mut pauses = Backoff::new(SOON, LATEST);
        let mut is_acknowledged = false;
        loop {
            let mut fault = match self.begin().await {
                Ok(mut reply) => loop {
                    match reply.next(None).await {
                        Ok(Said::Before(said, read)) => {
                            let method = read.method.as_ref().map(|method| text(&said, method));
                            let is_first =
                                method.as_deref() == Some("notifications/subscriptions/acknowledged");
                            pauses.reset();
                            if !is_first || !is_acknowledged {
                                self.pass(said, &read).await;
                            }
                            is_acknowledged |= is_first;
                        }
                        Ok(Said::Answer(answer, read)) => {
                            return own_answer(answer, read, &self.id, reply.status());
                        }
                        Ok(Said::End) => break cut_short(),
                        Err(fault) => break fault,
                    }
                },
                Err(fault) => fault,
            };
            let is_transient = matches!(fault.kind, Kind::Unreached | Kind::Broken | Kind::Status(500..));
            if !is_acknowledged || !is_transient {
                return Err(fault);
            }
            fault.kind = Kind::Broken;
            tracing::warn!("the stream of a subscription broke, and is opened again: {fault}");
            sleep(jittered(pauses.advance(), chance())).await;
        }
    }

    /// Reads the list of tools, which tells what calls repeat in headers.
    async fn learn(&self) {
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            let cursor_member = cursor.take().map(|cursor: String| format!(",\"cursor\":{cursor}"));
            let params = format!(
                "{{\"_meta\":{{{}}}{}}}",
                Envelope::own().members(),
                cursor_member.unwrap_or_default()
            );
            let frame = rewrite::request(OWN_ID, "tools/list", Some(params.as_bytes()));
            let Ok(message) = jsonrpc::scan(&frame) else { return };
            let method = "tools/list";
            let own = Asked { frame: &frame, message: &message, method, id: OWN_ID.to_vec(), ..*self };
            let Ok((page, read)) = own.ask().await else { return };
            let Some(result) = &read.result else { return };
            self.shared.learned.learn(&page, result);
            let next = member(&page, result, "nextCursor").filter(|next| page[next.start] == b'"');
            let Some(next) = next else { return };
            cursor = Some(String::from_utf8_lossy(&page[next]).into_owned());
        }
    }
}
