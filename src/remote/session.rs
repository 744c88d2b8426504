//! What is remembered of a legacy session, so that it can be opened again when the server has lost it.

use super::headers::{self, PROTOCOL_VERSION, SESSION_ID};
use crate::budget::Charged;
use crate::jsonrpc::{Span, member, text};
use hyper::header::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Maximum number of subscriptions that are remembered.
const MOST_WATCHED: usize = 1_000;
/// Maximum length of a request that is remembered.
const LONGEST: usize = 64 * 1024;

/// The session of a pipe. It has one at a time.
#[derive(Debug, Default)]
pub(super) struct Session {
    state: Mutex<State>,
    /// Held while the session is opened again.
    pub renewal: tokio::sync::Mutex<()>,
    /// The number of the session that the client, or this process in its name, has declared to be ready.
    ready: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// Counts sessions.
    generation: u64,
    initialize: Option<Charged>,
    told: Option<Told>,
    level: Option<Charged>,
    watched: BTreeMap<String, Charged>,
    listening: Option<AbortHandle>,
}

/// What a server says of itself in its answer to `initialize`: the raw parts that clients depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    version: Vec<u8>,
    capabilities: Vec<u8>,
    server: Vec<u8>,
    instructions: Vec<u8>,
}

impl Told {
    /// Reads a result of `initialize`.
    pub fn read(frame: &[u8], result: &Span) -> Self {
        let part = |name| member(frame, result, name).map(|span| frame[span].to_vec()).unwrap_or_default();
        Told {
            version: part("protocolVersion"),
            capabilities: part("capabilities"),
            server: part("serverInfo"),
            instructions: part("instructions"),
        }
    }

    /// Returns the methods by which the server tells that its lists have changed.
    pub fn list_changes(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("tools", "notifications/tools/list_changed"),
            ("prompts", "notifications/prompts/list_changed"),
            ("resources", "notifications/resources/list_changed"),
        ];
        let whole = 0..self.capabilities.len();
        all.into_iter()
            .filter(move |(name, _)| {
                let has = member(&self.capabilities, &whole, name);
                let tells = has.and_then(|has| member(&self.capabilities, &has, "listChanged"));
                tells.is_some_and(|tells| self.capabilities.get(tells) == Some(b"true"))
            })
            .map(|(_, method)| method)
    }
}

impl Session {
    /// Returns the headers of a POST in the session, and the number of the session.
    pub fn headers(&self) -> (HeaderMap, u64) {
        self.onto(headers::post())
    }

    /// Adds the session's headers to those of a request.
    pub fn onto(&self, mut headers: HeaderMap) -> (HeaderMap, u64) {
        let state = self.state.lock();
        if let Some(id) = &state.id {
            headers.insert(SESSION_ID, id.clone());
        }
        if let Some(version) = &state.version {
            headers.insert(PROTOCOL_VERSION, version.clone());
        }
        (headers, state.generation)
    }

    /// Returns the number of the session.
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Notes that the server has been told that the session is ready.
    pub fn note_ready(&self) {
        self.ready.send_replace(self.generation());
    }

    /// Returns the numbers of sessions that are ready.
    pub fn ready(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    /// Returns whether the server has given the session an id.
    pub fn has_id(&self) -> bool {
        self.state.lock().id.is_some()
    }

    /// Begins a session. Returns what the server said of itself in the former one.
    pub fn open(&self, initialize: &Charged, id: Option<HeaderValue>, told: Told) -> Option<Told> {
        let mut state = self.state.lock();
        let frame = [&b"x"[..], &told.version].concat();
        let version = text(&frame, &(1..frame.len()));
        state.id = id;
        state.version = HeaderValue::from_str(&version).ok().filter(|version| !version.is_empty());
        state.generation += 1;
        state.initialize = Some(initialize.clone());
        state.told.replace(told)
    }

    /// Forgets the session; returns its headers if the server has given it an id.
    pub fn close(&self) -> Option<HeaderMap> {
        self.listen(None);
        let has_id = self.has_id();
        let (headers, _) = self.onto(HeaderMap::new());
        let mut state = self.state.lock();
        (state.id, state.initialize) = (None, None);
        has_id.then_some(headers)
    }

    /// Remembers the task that hears the server outside of requests, and ends the former one.
    pub fn listen(&self, task: Option<AbortHandle>) {
        let former = std::mem::replace(&mut self.state.lock().listening, task);
        if let Some(former) = former {
            former.abort();
        }
    }

    /// Remembers a request whose effect is lost with the session.
    pub fn remember(&self, method: &str, frame: &Charged, uri: Option<&Span>) {
        if frame.len() > LONGEST {
            return;
        }
        let mut state = self.state.lock();
        let uri = || uri.map(|uri| text(frame, uri).into_owned()).unwrap_or_default();
        match method {
            "logging/setLevel" => state.level = Some(frame.clone()),
            "resources/subscribe" if state.watched.len() < MOST_WATCHED => {
                state.watched.insert(uri(), frame.clone());
            }
            "resources/unsubscribe" => {
                state.watched.remove(&uri());
            }
            _ => {}
        }
    }

    /// Returns the request that opened the session; `None` if there is none.
    pub fn initialize(&self) -> Option<Charged> {
        self.state.lock().initialize.clone()
    }

    /// Returns the requests that restore what the session was asked for.
    pub fn remembered(&self) -> Vec<Charged> {
        let state = self.state.lock();
        state.level.iter().chain(state.watched.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;

    fn told(result: &str) -> Told {
        let frame = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let result = scan(frame.as_bytes()).expect("a message").result.expect("a result");
        Told::read(frame.as_bytes(), &result)
    }

    #[test]
    fn a_session_has_the_headers_that_its_server_wants() {
        let session = Session::default();
        let told = told(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"prompts":{}}}"#,
        );
        assert_eq!(told.list_changes().collect::<Vec<_>>(), ["notifications/tools/list_changed"]);
        let id = HeaderValue::from_static("abc");
        assert_eq!(session.open(&Charged::own("{}"), Some(id), told.clone()), None);
        let (headers, generation) = session.headers();
        assert_eq!(
            (&headers[SESSION_ID], &headers[PROTOCOL_VERSION]),
            (&"abc".parse().expect("a value"), &"2025-06-18".parse().expect("a value"))
        );
        assert_eq!(generation, 1);
        assert_eq!(session.open(&Charged::own("{}"), None, told.clone()), Some(told));
        assert!(!session.has_id() && session.close().is_none());
    }

    #[test]
    fn what_a_session_was_asked_for_is_remembered() {
        let session = Session::default();
        let ask = |method: &str, uri: &str| {
            let frame = Charged::own(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"uri":"{uri}"}}}}"#
            ));
            let message = scan(&frame).expect("a message");
            session.remember(method, &frame, message.params.expect("params").uri.as_ref());
        };
        ask("resources/subscribe", "a:1");
        ask("resources/subscribe", "a:2");
        ask("resources/subscribe", "a:1");
        ask("resources/unsubscribe", "a:2");
        ask("logging/setLevel", "x");
        ask("tools/list", "x");
        assert_eq!(session.remembered().len(), 2);
    }
}
