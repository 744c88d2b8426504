//! Resumes sessions at the next process of their child (`--resume-sessions`). The operator declares with it that the
//! server keeps no state per session. The next process gets the client's own handshake, and the log level and
//! subscriptions that were set since.

use super::Children;
use super::greet::StopOnDrop;
use super::initialize::MOST_REMEMBERED;
use super::places::ChildPlace;
use super::subscriptions::WATCHES_ENOUGH;
use crate::audience::{Audience, Own};
use crate::budget::Charged;
use crate::clock::now;
use crate::era::envelope::log_level;
use crate::era::{Era, discover};
use crate::exchange::{Answer, Failure, Link};
use crate::ingress::{Incoming, Refusal};
use crate::inquiry;
use crate::jsonrpc::{Span, Spliced, rewrite, text};
use crate::lifecycle::Restarts;
use crate::session::Session;
use std::sync::{Arc, Once, Weak};

/// A session's handshake, in its own memory: messages are charged to `--max-buffered`, but the handshake lasts as
/// long as the session.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The client's `initialize`.
    initialize: Incoming,
    /// The child's `InitializeResult`.
    words: Charged,
    /// The child's place among `--max-children`.
    place: ChildPlace,
}

impl Children {
    /// Returns the handshake of a session that may be resumed; `None` if it is too long.
    pub(super) fn remember(
        &self,
        initialize: &Incoming,
        answer: &Answer,
        place: &ChildPlace,
    ) -> Option<Handshake> {
        static WARNED: Once = Once::new();
        if !self.settings.resume_sessions {
            return None;
        }
        let words = answer.frame.slice(answer.result.clone()?);
        let length = initialize.frame.len() + words.len();
        if length > MOST_REMEMBERED {
            WARNED.call_once(|| {
                tracing::warn!(
                    length,
                    "a session's handshake exceeds {MOST_REMEMBERED} bytes; such sessions cannot be resumed on another process"
                );
            });
            return None;
        }
        Some(Handshake { initialize: initialize.unseen(), words, place: Arc::clone(place) })
    }

    /// Notes the log level and the subscriptions for the next child.
    ///
    /// # Errors
    /// When the limit of one session is exceeded: a subscription would be lost with the child.
    pub fn note_told(&self, own: &Own, incoming: &Incoming) -> Result<(), Refusal> {
        if !self.settings.resume_sessions {
            return Ok(());
        }
        let params = incoming.message.params.as_ref();
        let read = |span: Option<&Span>| span.map(|span| text(&incoming.frame, span));
        let uri = read(params.and_then(|params| params.uri.as_ref()));
        let level = read(params.and_then(|params| params.level.as_ref()));
        let mut told = own.told();
        match (&*incoming.method(), uri) {
            ("logging/setLevel", _) => told.level = level.and_then(|level| log_level(&level)).or(told.level),
            ("resources/subscribe", Some(uri)) => {
                return if told.watched.insert(&uri) { Ok(()) } else { Err(WATCHES_ENOUGH) };
            }
            ("resources/unsubscribe", Some(uri)) => told.watched.remove(&uri),
            _ => {}
        }
        Ok(())
    }

    /// Keeps a session's exclusive child running; resolves with the reason why the session ends.
    pub(super) async fn keep_own(
        self: &Arc<Self>,
        session: &Weak<Session>,
        own: &Own,
        mut link: Arc<Link>,
        mut renewal: u64,
        handshake: Option<Handshake>,
    ) -> Failure {
        let mut restarts = Restarts::new(self.settings.restarts);
        loop {
            restarts.note_serving(now());
            let waits = || session.upgrade().is_some_and(|session| session.has_open_question());
            let accompanied = self.accompany(&link, Era::Legacy, waits);
            let ended = match &handshake {
                Some(_) => self.unless_renewed(accompanied, self.stop_when_quiet(own, &link, renewal)).await,
                None => self.unless_renewed(accompanied, self.end_when_quiet(session, renewal)).await,
            };
            let ended = Failure::Ended(ended);
            let lives = session.upgrade().filter(|session| !session.is_ended());
            let (Some(session), Some(handshake)) = (lives, &handshake) else { return ended };
            own.post.vacate();
            session.forget_child_questions();
            renewal = self.renewals.current();
            let next = tokio::select! {
                next = self.next_own(&session, own, handshake, ended, &mut restarts) => next,
                () = session.ended() => Err(session.why_ended()),
            };
            match next {
                Ok(next) => link = next,
                Err(failure) => return failure,
            }
            own.post.fill(&link, None);
            tracing::info!(child = link.number(), session = %session.id(), "session resumed on another process");
        }
    }

    async fn next_own(
        &self,
        session: &Arc<Session>,
        own: &Own,
        handshake: &Handshake,
        mut failure: Failure,
        restarts: &mut Restarts,
    ) -> Result<Arc<Link>, Failure> {
        loop {
            if self.pause(restarts, &failure).await.is_none() {
                return Err(failure);
            }
            match self.revive(session, own, handshake).await {
                Ok(link) => return Ok(link),
                // The child runs, but differs from the server that the client knows.
                Err(failure @ Failure::Changed) => return Err(failure),
                Err(other) => failure = other,
            }
        }
    }

    /// Starts the next child in the same place, and restores the session there.
    async fn revive(
        &self,
        session: &Arc<Session>,
        own: &Own,
        handshake: &Handshake,
    ) -> Result<Arc<Link>, Failure> {
        let audience = Audience::exclusive(session, self.settings.forward_roots);
        let slots = self.settings.slots_for_one();
        let variables = self.variables_for(&handshake.initialize.identity);
        let link = self.want(audience, slots, variables, Arc::clone(&handshake.place)).await?;
        let unseated = StopOnDrop::new(&link);
        let initialize = handshake.initialize.clone();
        let answer = match self.forward_initialize(&link, session, initialize, self.start_timeout).await {
            Ok((answer, Some(_))) => answer,
            Ok((_, None)) => {
                return Err(Failure::NotStarted("the server refused to initialize again".into()));
            }
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(_) => return Err(Failure::Lost),
        };
        let words = answer.result.clone().map(|result| answer.frame.slice(result));
        if !words.is_some_and(|words| discover::same_words(&handshake.words, &words)) {
            tracing::warn!(session = %session.id(), "the restarted server reports a different version, different capabilities or instructions");
            return Err(Failure::Changed);
        }
        let initialized = rewrite::notification("notifications/initialized", None);
        link.notify(Spliced::from(initialized), None).await;
        // A late notification of the client is not meant for this child.
        own.initialized().send(std::future::ready(())).await;
        let told = own.told().clone();
        if let Some(level) = told.level {
            inquiry::ask_level(&link, level, self.settings.request_timeout).await;
        }
        for uri in told.watched.uris() {
            self.tell_subscription(&link, "resources/subscribe", uri).await;
        }
        unseated.keep();
        Ok(link)
    }
}
