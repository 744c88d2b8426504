//! Answers for modern clients: translates the child's answer to the modern revision.

use super::{Happening, MOST_ANSWERS, ModernCall, Reply};
use crate::calls::seal::State;
use crate::catalogue::lists::FreshList;
use crate::era::capabilities::Capabilities;
use crate::era::results::Hint;
use crate::era::{Era, MODERN_VERSION, errors, input, results};
use crate::exchange::{Answer, Failure, Outcome};
use crate::jsonrpc::{Edits, Span, Spliced, codes, member, rewrite, splice, string_member};
use crate::telemetry::{Verdict, counters};
use serde_json::Value;

/// Maximum number of URLs that a client is asked to open for one call.
const MOST_URLS: u8 = 8;

impl ModernCall {
    pub(super) fn time_out(&mut self) -> Reply {
        counters::TIMED_OUT_REQUESTS.increment();
        let failure = self.deadline.failure();
        self.fail(&failure);
        self.reply_failure(&failure)
    }

    pub(super) fn reply(&mut self, outcome: Outcome) -> Reply {
        self.exchange = None;
        match outcome {
            Ok(answer) => {
                if let Some(asked) = self.listed.take() {
                    self.calls.keep(&asked, &answer);
                }
                self.translated(&answer, None)
            }
            Err(failure) => self.reply_failure(&failure),
        }
    }

    /// Ends the call with an error of proxyrunner's own.
    pub(super) fn fail_with(&self, code: i64, why: &'static str, data: Option<Value>) -> Reply {
        let error = rewrite::error(Some(self.client_id.raw()), code, why, data);
        let status = if code == codes::MISSING_CAPABILITY { 400 } else { 200 };
        self.finish(Spliced::from(error), status, &Verdict::Error { code, message: why.into() })
    }

    /// Ends the call with a cached answer.
    pub(super) fn reply_from_memory(&self, fresh: &FreshList) -> Happening {
        Happening::Answered(self.translated(&fresh.answer, fresh.left))
    }

    pub(super) fn reply_failure(&self, failure: &Failure) -> Reply {
        let message = Spliced::from(failure.response(self.client_id.raw()));
        self.finish(message, 200, &failure.verdict())
    }

    /// Translates the child's answer; a modern child's passes unchanged. `left` is the remaining lifetime of a cached
    /// list, in milliseconds.
    fn translated(&self, answer: &Answer, left: Option<u64>) -> Reply {
        let mut edits = Edits::new();
        edits.replace(&answer.id, self.client_id.raw());
        let mut status = 200;
        let mut verdict = answer.verdict();
        if self.shared.era == Era::Modern {
            self.pass_result(answer, left, &mut edits);
            let code = answer.error.as_ref().and_then(|error| errors::code(&answer.frame, error));
            status = code.map_or(status, |(code, _)| errors::http_status(code, Era::Modern));
        } else if let Some(result) = &answer.result {
            let signature = &self.shared.signature;
            results::complete(&answer.frame, result, &self.method, signature, Hint::default(), &mut edits);
        } else if let Some(error) = &answer.error {
            match errors::to_modern(&answer.frame, error, &self.method, self.uri.as_deref(), &mut edits) {
                errors::ForModern::Error(told) => {
                    status = errors::http_status(told, Era::Modern);
                    verdict = verdict.with_code(Some(told));
                }
                errors::ForModern::UrlElicitation => return self.open_url(answer, error),
            }
        }
        let message = splice(&answer.frame, &answer.object, edits);
        self.finish(message, status, &verdict)
    }

    /// Corrects two members of a modern child's result: the remaining lifetime of a cached list, and the supported
    /// revisions.
    fn pass_result(&self, answer: &Answer, left: Option<u64>, edits: &mut Edits) {
        let Some(result) = &answer.result else { return };
        if !self.caller.principal.is_anonymous()
            && string_member(&answer.frame, result, "resultType").is_some_and(|kind| kind == "task")
            && let Some(id) = string_member(&answer.frame, result, "taskId")
        {
            self.calls.task_owners.note(&id, &self.caller.principal);
        }
        let mut replace = |name, text: String| {
            if let Some(value) = member(&answer.frame, result, name) {
                edits.replace(&value, text.as_bytes());
            }
        };
        if let Some(left) = left {
            replace("ttlMs", left.to_string());
        }
        if self.method == "server/discover" {
            replace("supportedVersions", format!("[\"{MODERN_VERSION}\"]"));
        }
    }

    /// Asks the client to open the child's URL. Nothing is parked: the retry is a new call.
    fn open_url(&self, answer: &Answer, error: &Span) -> Reply {
        let questions = input::from_url_required(&answer.frame, error, MOST_ANSWERS);
        let (code, why, data) = match questions {
            Some(_) if self.urls >= MOST_URLS => {
                (codes::INTERNAL_ERROR, "the server asks the user to open a URL too many times", None)
            }
            Some(questions) if self.caller.capabilities.url => {
                let seal = &self.calls.seal;
                let state =
                    self.purpose.as_ref().map(|purpose| seal.seal(State::Urls(self.urls + 1), purpose));
                let state = state.and_then(Result::ok);
                let info = self.shared.server_info();
                let required = input::input_required(&questions, state.as_deref(), info);
                let message = rewrite::result_of(self.client_id.raw(), &required);
                return self.finish(message, 200, &Verdict::Success);
            }
            Some(_) => {
                let url = Capabilities { url: true, ..Capabilities::default() };
                let data = serde_json::json!({"requiredCapabilities": url.declaration()});
                let why =
                    "the server asks the user to open a URL, a capability that the request did not declare";
                (codes::MISSING_CAPABILITY, why, Some(data))
            }
            None => (codes::INTERNAL_ERROR, "the server's request to open a URL is malformed", None),
        };
        self.fail_with(code, why, data)
    }
}
