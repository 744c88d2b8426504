//! A modern child's questions within a legacy session's request: the client receives them as requests of its own
//! revision, on the stream of that request, and the answers are sent to the child together (basic/patterns/mrtr).

use super::LegacyCall;
use crate::clock::now;
use crate::era::capabilities::Capabilities;
use crate::era::input::{Answers, InputRequired, unanswerable};
use crate::era::question::Question;
use crate::exchange::{Class, Failure, Interim, Topic};
use crate::ingress::Lingering;
use crate::jsonrpc::{self, ClientId, Spliced, codes, rewrite};
use crate::session::{Session, Version};
use crate::telemetry::Verdict;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// The client's open questions. Dropping this forgets them.
#[derive(Debug)]
pub(super) struct Asking {
    session: Arc<Session>,
    answers: Answers,
    /// The ids of the questions at the client, in the child's order; `None` for those that are answered.
    our_ids: Vec<Option<u64>>,
    /// The end of the client's time to answer.
    pub(super) until: Instant,
    /// Makes a drain wait for the request, which has no place in flight meanwhile.
    _lingering: Lingering,
}

impl LegacyCall {
    /// Sends the child's questions to the client, or answers in its place if it cannot be asked.
    pub(super) fn put_questions(&mut self, required: &InputRequired) {
        let Some(translation) = self.translation.as_mut() else { return };
        let seat = &translation.seat;
        let declared = Capabilities::read(&seat.capabilities, &(0..seat.capabilities.len()));
        let now = now();
        let mut asking = Asking {
            session: Arc::clone(&self.session),
            answers: Answers::new(required),
            our_ids: Vec::new(),
            until: now + self.calls.children.settings().park_timeout,
            _lingering: self.calls.entrance.linger(),
        };
        self.deadline.stop(now);
        let mut outbox = Vec::new();
        for question in &required.questions {
            let asked = match self.session.ask_for(&translation.desk) {
                Ok(our_id) => {
                    asking.our_ids.push(Some(our_id));
                    in_session(question, our_id, &self.session.version(), declared)
                }
                Err(_) => Err("the client leaves too many questions unanswered".to_owned()),
            };
            match asked {
                Ok(frame) => outbox.push(said(frame)),
                Err(why) => {
                    translation.ending = Some(unanswered(&self.client_id, &translation.method, why));
                    return;
                }
            }
        }
        translation.outbox.extend(outbox);
        translation.asking = Some(asking);
    }

    /// Takes the client's answer to one question; the last answer begins the next round.
    pub(super) fn take_answer(&mut self, our_id: u64, frame: Spliced) {
        let Some(translation) = self.translation.as_mut() else { return };
        let Some(asking) = translation.asking.as_mut() else { return };
        let Some(index) = asking.our_ids.iter().position(|id| *id == Some(our_id)) else { return };
        let Ok(frame) = frame.flatten() else {
            let ending = unanswered(&self.client_id, &translation.method, Failure::NoRoom.to_string());
            return self.withdraw_questions(ending);
        };
        let Ok(message) = jsonrpc::scan(&frame) else { return };
        asking.our_ids[index] = None;
        if let Err(refused) = asking.answers.put(index, &frame, &message) {
            let ending = unanswered(&self.client_id, &translation.method, refused.to_string());
            return self.withdraw_questions(ending);
        }
        if asking.answers.is_complete() {
            self.deadline.resume(now());
            translation.again = Some((now(), asking.answers.members()));
            translation.asking = None;
        }
    }

    /// Notifies the client that the questions are void, and ends the request with this answer.
    pub(super) fn withdraw_questions(&mut self, ending: (Spliced, Verdict)) {
        let Some(translation) = self.translation.as_mut() else { return };
        if let Some(asking) = translation.asking.take() {
            for our_id in asking.our_ids.iter().flatten() {
                let params = json!({"requestId": our_id, "reason": "the request that asked has ended"});
                let params = params.to_string();
                let frame = rewrite::notification("notifications/cancelled", Some(params.as_bytes()));
                translation.outbox.push_back(said(frame));
            }
        }
        translation.ending = Some(ending);
    }
}

/// Returns the answer and the verdict of a request whose client cannot be asked or gave an unusable answer.
fn unanswered(client_id: &ClientId, method: &str, why: String) -> (Spliced, Verdict) {
    let message = unanswerable(client_id.raw(), method, &why);
    let verdict = match method {
        "tools/call" => Verdict::ToolError,
        _ => Verdict::Error { code: codes::INTERNAL_ERROR, message: why.into() },
    };
    (Spliced::from(message), verdict)
}

/// Translates a question to the session's revision.
fn in_session(
    question: &Question,
    our_id: u64,
    version: &Version,
    declared: Capabilities,
) -> Result<Spliced, String> {
    let missing = question.required().and_then(|required| declared.missing(required));
    if let Some(missing) = missing {
        return Err(format!("the server asks for a capability that the client did not declare: {missing}"));
    }
    let elicitation_id = format!("elicitation-{our_id}");
    let frame = question.for_client(version, our_id.to_string().as_bytes(), &elicitation_id);
    frame.map_err(|untranslatable| untranslatable.to_string())
}

fn said(frame: impl Into<Spliced>) -> Interim {
    Interim { frame: frame.into(), class: Class::Dear, topic: Topic::Other }
}

impl Drop for Asking {
    fn drop(&mut self) {
        for our_id in self.our_ids.iter().flatten() {
            self.session.forget_question(*our_id);
        }
    }
}
