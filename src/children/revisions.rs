//! Chooses the legacy revision for a child's handshake: the newest first, then older ones if the child refuses.

use crate::era::MODERN_VERSION;
use crate::exchange::Answer;
use crate::jsonrpc::{Span, items, member, string_member, text};
use crate::session::LEGACY_VERSIONS;
use parking_lot::Mutex;

/// The revisions to request in one handshake, over all of its processes.
#[derive(Debug)]
pub(super) struct Revisions {
    asked: usize,
    /// Whether the child itself refused newer revisions.
    told: bool,
    /// Whether a child that exits after a revision is started again for an older one.
    may_restart: bool,
}

impl Revisions {
    /// Returns the current revision.
    pub fn asked(&self) -> &'static str {
        LEGACY_VERSIONS[self.asked]
    }

    /// Chooses the next revision after a refusal: the newest of the listed revisions that proxyrunner knows, or the
    /// next older one without a list. Returns false if there is none.
    pub fn step_down(&mut self, answer: &Answer) -> bool {
        let Some(error) = &answer.error else { return false };
        let listed = listed(&answer.frame, error);
        let next = match &listed {
            // The child is addressed in the other era.
            Some(listed) if listed.iter().any(|version| version == MODERN_VERSION) => None,
            Some(listed) => {
                self.older().find(|&at| listed.iter().any(|version| version == LEGACY_VERSIONS[at]))
            }
            None if is_about_version(&answer.frame, error) => self.older().next(),
            None => None,
        };
        self.told |= next.is_some();
        self.ask(next, "the server refused a protocol revision")
    }

    /// Chooses the next older revision after the child exited over the last one; returns false if there is none.
    pub fn step_down_after_exit(&mut self) -> bool {
        let next = self.older().next().filter(|_| self.may_restart);
        self.ask(next, "the server exited when asked for a protocol revision, perhaps because of it")
    }

    fn older(&self) -> std::ops::Range<usize> {
        self.asked + 1..LEGACY_VERSIONS.len()
    }

    fn ask(&mut self, next: Option<usize>, why: &str) -> bool {
        if let Some(next) = next {
            tracing::warn!(revision = self.asked(), "{why}; asking for {}", LEGACY_VERSIONS[next]);
            self.asked = next;
        }
        next.is_some()
    }
}

/// The known revisions of a server, over all of its processes.
#[derive(Debug, Default)]
pub(super) struct KnownRevisions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    newest: usize,
    /// Whether the server exited after every revision, so that the revision is not the reason.
    ends_anyway: bool,
    /// Whether a process accepted the newest revision. If a later process exits, the revision is not the reason.
    accepted: bool,
}

impl KnownRevisions {
    /// Starts with the newest revision that was not refused. While a process is `serving`, another one exits for
    /// other reasons.
    pub fn start(&self, serving: bool) -> Revisions {
        let state = self.0.lock();
        Revisions {
            asked: state.newest,
            told: false,
            may_restart: !state.ends_anyway && !state.accepted && !serving,
        }
    }

    /// Learns from a completed or failed handshake.
    pub fn learn(&self, revisions: &Revisions, completed: bool) {
        let mut state = self.0.lock();
        // An explicit refusal holds for the next process, even if this one exited.
        if completed || revisions.told {
            state.newest = revisions.asked;
            state.accepted |= completed;
        } else if revisions.older().is_empty() {
            state.ends_anyway = true;
        }
    }

    /// Returns the newest accepted revision, if a newer one was refused.
    pub fn ceiling(&self) -> Option<&'static str> {
        let newest = self.0.lock().newest;
        (newest > 0).then(|| LEGACY_VERSIONS[newest])
    }
}

/// Returns the revisions listed in the error's data, under the specification's name `supported` or the names that
/// other servers use.
fn listed(frame: &[u8], error: &Span) -> Option<Vec<String>> {
    let data = member(frame, error, "data")?;
    let names = ["supported", "supportedVersions", "supportedProtocolVersions", "supported_versions"];
    let array = names.into_iter().find_map(|name| member(frame, &data, name)).unwrap_or(data);
    let only = std::iter::once(array.clone());
    let strings: Vec<String> = items(frame, array)
        .chain(only)
        .filter(|item| frame[item.start] == b'"')
        .map(|item| text(frame, &item).into_owned())
        .collect();
    (!strings.is_empty()).then_some(strings)
}

fn is_about_version(frame: &[u8], error: &Span) -> bool {
    let message = string_member(frame, error, "message").unwrap_or_default().to_ascii_lowercase();
    message.contains("version") || message.contains("revision")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;
    use bytes::Bytes;

    fn refusal(error: &str) -> Answer {
        let frame = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#));
        let message = scan(&frame).expect("a message");
        Answer {
            object: message.object,
            id: message.id.expect("an id"),
            result: None,
            error: message.error,
            is_error: false,
            frame: frame.into(),
        }
    }

    #[test]
    fn an_older_revision_follows_a_refusal_of_the_revision() {
        for (error, next) in [
            (
                r#"{"code":-32602,"message":"x","data":{"supported":["1999-01-01","2024-11-05","2025-06-18"]}}"#,
                Some(1),
            ),
            (r#"{"code":-32602,"message":"x","data":{"supported":["2025-11-25","2025-03-26"]}}"#, Some(2)),
            (r#"{"code":-32000,"message":"x","data":{"supportedVersions":["2024-11-05"]}}"#, Some(3)),
            (r#"{"code":-32602,"message":"x","data":{"supported":"2025-06-18"}}"#, Some(1)),
            (r#"{"code":-32602,"message":"x","data":["2025-03-26"]}"#, Some(2)),
            (r#"{"code":-32602,"message":"Unsupported protocol version: 2025-11-25"}"#, Some(1)),
            (
                r#"{"code":-32602,"message":"Unsupported protocol version","data":{"supported":["1999-01-01"]}}"#,
                None,
            ),
            (r#"{"code":-32022,"message":"version","data":{"supported":["2026-07-28","2025-06-18"]}}"#, None),
            (r#"{"code":-32603,"message":"not today"}"#, None),
            (r#""version""#, None),
        ] {
            let mut revisions = KnownRevisions::default().start(false);
            assert_eq!(revisions.step_down(&refusal(error)), next.is_some(), "{error}");
            assert_eq!(revisions.asked, next.unwrap_or(0), "{error}");
        }
    }

    #[test]
    fn a_known_revision_holds_for_the_next_process() {
        let known = KnownRevisions::default();
        let mut revisions = known.start(false);
        assert!(
            !known.start(true).step_down_after_exit(),
            "the revision is not the reason while a process serves"
        );
        assert!(revisions.step_down_after_exit());
        known.learn(&revisions, true);
        assert_eq!((known.start(false).asked(), known.ceiling()), ("2025-06-18", Some("2025-06-18")));
        let mut revisions = known.start(false);
        assert!(!revisions.step_down_after_exit(), "a process accepted the revision before");
        known.learn(&revisions, false);
        assert_eq!(known.start(false).asked(), "2025-06-18");
    }

    #[test]
    fn a_server_that_exits_after_each_revision_is_not_started_for_each_again() {
        let known = KnownRevisions::default();
        let mut revisions = known.start(false);
        while revisions.step_down_after_exit() {}
        known.learn(&revisions, false);
        assert_eq!(known.start(false).asked(), "2025-11-25");
        assert!(!known.start(false).step_down_after_exit());
    }

    #[test]
    fn a_refusal_before_an_exit_holds_for_the_next_process() {
        let known = KnownRevisions::default();
        let mut revisions = known.start(false);
        let error = r#"{"code":-32602,"message":"x","data":{"supported":["2025-03-26"]}}"#;
        assert!(revisions.step_down(&refusal(error)));
        known.learn(&revisions, false);
        assert_eq!(known.start(false).asked(), "2025-03-26");
    }
}
