//! Questions within a request (basic/patterns/mrtr): `input_required` results, and the retries that answer them.
//!
//! For a modern client a legacy child's questions are put into [`input_required`], and its [`Retry`] is read.
//! A modern child's questions are read as [`InputRequired`], put to a legacy client one by one, and the [`Answers`]
//! gathered for the child's retry.

use super::{keys, one_line, question::Question};
use crate::jsonrpc::{Message, Span, codes, items, member, members, rewrite, text};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;

/// The methods whose answer may be questions (mrtr §Supported Requests).
pub const ASKING: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// The raw result that puts questions to a modern client. The protocol wants at least one of `questions` and
/// `state`; `server_info` is raw.
pub fn input_required(questions: &[Question], state: Option<&str>, server_info: Option<&[u8]>) -> Bytes {
    debug_assert!(!questions.is_empty() || state.is_some(), "neither questions nor state");
    let mut result = b"{\"resultType\":\"input_required\"".to_vec();
    for (index, question) in questions.iter().enumerate() {
        result.extend_from_slice(if index == 0 { b",\"inputRequests\":{" } else { b"," });
        result.extend_from_slice(&question.key);
        result
            .extend_from_slice(format!(":{{\"method\":{}", Value::from(question.method.as_str())).as_bytes());
        if let Some(params) = &question.params {
            result.extend_from_slice(b",\"params\":");
            result.extend_from_slice(params);
        }
        result.push(b'}');
    }
    if !questions.is_empty() {
        result.push(b'}');
    }
    if let Some(state) = state {
        result.extend_from_slice(format!(",\"requestState\":{}", Value::from(state)).as_bytes());
    }
    if let Some(info) = server_info {
        result.extend_from_slice(format!(",\"_meta\":{{\"{}\":", keys::SERVER_INFO).as_bytes());
        result.extend_from_slice(info);
        result.push(b'}');
    }
    result.push(b'}');
    one_line(&result)
}

/// The questions of a legacy child's -32042 error (C2): its URL elicitations, without stored state, since the
/// retry is a fresh call. `None` if there is none or one is malformed; at most `most` are taken.
pub fn from_url_required(frame: &Bytes, error: &Span, most: usize) -> Option<Vec<Question>> {
    let data = member(frame, error, "data")?;
    let list = member(frame, &data, "elicitations")?;
    let mut seen = HashSet::new();
    let mut questions = Vec::new();
    for (index, elicitation) in items(frame, list).take(most).enumerate() {
        let question = Question::of_url(frame, &elicitation, index)?;
        if seen.insert(question.key.clone()) {
            questions.push(question);
        }
    }
    (!questions.is_empty()).then_some(questions)
}

/// What is wrong with a modern child's questions, for a -32603 that blames it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadQuestions {
    /// Neither questions nor state, or one of the wrong type.
    Malformed,
    /// Two of one key.
    Repeated,
    /// More than are allowed.
    TooMany,
}

impl fmt::Display for BadQuestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadQuestions::Malformed => "the server's input_required result is malformed",
            BadQuestions::Repeated => "the server asks two questions under one key",
            BadQuestions::TooMany => "the server asks too many questions at once",
        })
    }
}

impl std::error::Error for BadQuestions {}

/// A modern child's `input_required` result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequired {
    /// What it asks, in its order. Empty in a round of state only.
    pub questions: Vec<Question>,
    /// `requestState`, the raw JSON string, to be given back as it is.
    pub state: Option<Bytes>,
}

impl InputRequired {
    /// Reads a result whose `resultType` is `input_required`.
    ///
    /// # Errors
    /// If it is not as the protocol has it, or has more than `most` questions.
    pub fn read(frame: &Bytes, result: &Span, most: usize) -> Result<Self, BadQuestions> {
        let state = member(frame, result, "requestState");
        if state.as_ref().is_some_and(|state| frame[state.start] != b'"') {
            return Err(BadQuestions::Malformed);
        }
        let mut questions = Vec::new();
        let mut seen = HashSet::new();
        if let Some(requests) = member(frame, result, "inputRequests") {
            if frame[requests.start] != b'{' {
                return Err(BadQuestions::Malformed);
            }
            for (key, request) in members(frame, requests) {
                if questions.len() == most {
                    return Err(BadQuestions::TooMany);
                }
                if !seen.insert(text(frame, &key)) {
                    return Err(BadQuestions::Repeated);
                }
                questions.push(read_question(frame, key, &request).ok_or(BadQuestions::Malformed)?);
            }
        }
        if questions.is_empty() && state.is_none() {
            return Err(BadQuestions::Malformed);
        }
        Ok(InputRequired { questions, state: state.map(|state| frame.slice(state)) })
    }
}

fn read_question(frame: &Bytes, key: Span, request: &Span) -> Option<Question> {
    let method = member(frame, request, "method").filter(|method| frame[method.start] == b'"')?;
    let params = member(frame, request, "params");
    if params.as_ref().is_some_and(|params| frame[params.start] != b'{') {
        return None;
    }
    let question = Question {
        key: frame.slice(key),
        method: text(frame, &method).into_owned(),
        params: params.map(|params| one_line(&frame[params])),
    };
    question.required().is_some().then_some(question)
}

/// What is wrong with a client's retry: always -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRetry(&'static str);

impl BadRetry {
    /// The JSON-RPC code.
    pub fn code(self) -> i64 {
        codes::INVALID_PARAMS
    }
}

impl fmt::Display for BadRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadRetry {}

/// What makes a modern client's request a retry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// The answers by their keys, each a raw object.
    pub responses: Vec<(String, Bytes)>,
    /// `requestState`, as the client gave it back: trust nothing in it.
    pub state: Option<String>,
}

impl Retry {
    /// Reads `params.inputResponses` and `params.requestState`; both may be absent.
    ///
    /// # Errors
    /// If one is of the wrong type, or there are more than `most` answers, or two under one key.
    pub fn read(frame: &Bytes, message: &Message, most: usize) -> Result<Self, BadRetry> {
        let Some(params) = &message.params else { return Ok(Retry::default()) };
        let state = match params.request_state.clone() {
            None => None,
            Some(state) if frame[state.start] == b'"' => Some(text(frame, &state).into_owned()),
            Some(_) => return Err(BadRetry("params.requestState is not a string")),
        };
        let mut responses: Vec<(String, Bytes)> = Vec::new();
        let mut seen = HashSet::new();
        if let Some(given) = params.input_responses.clone() {
            if frame[given.start] != b'{' {
                return Err(BadRetry("params.inputResponses is not an object"));
            }
            for (key, response) in members(frame, given) {
                if frame[response.start] != b'{' {
                    return Err(BadRetry("a member of params.inputResponses is not an object"));
                }
                if responses.len() == most {
                    return Err(BadRetry("params.inputResponses has too many members"));
                }
                let key = text(frame, &key).into_owned();
                if !seen.insert(key.clone()) {
                    return Err(BadRetry("a member of params.inputResponses comes twice"));
                }
                responses.push((key, frame.slice(response)));
            }
        }
        Ok(Retry { responses, state })
    }

    /// The answer under a key, raw: it is the child's result as it is (C2a).
    pub fn response(&self, key: &str) -> Option<&Bytes> {
        self.responses.iter().find(|(name, _)| name == key).map(|(_, response)| response)
    }
}

/// A legacy client answered a question with an error, which a retry cannot carry: the call fails with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client did not answer the server's question: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// A legacy client's answers, gathered until a modern child can be sent its retry.
#[derive(Debug, Clone)]
pub struct Answers {
    keys: Vec<Bytes>,
    responses: Vec<Option<Bytes>>,
    state: Option<Bytes>,
}

impl Answers {
    /// None yet.
    pub fn new(asked: &InputRequired) -> Self {
        Answers {
            keys: asked.questions.iter().map(|question| question.key.clone()).collect(),
            responses: vec![None; asked.questions.len()],
            state: asked.state.clone(),
        }
    }

    /// Takes the client's response to the question at `index`. The first one counts.
    ///
    /// # Errors
    /// If the client answered with an error, or with what is no object.
    pub fn put(&mut self, index: usize, frame: &Bytes, response: &Message) -> Result<(), Refused> {
        let result = response.result.clone().filter(|result| frame[result.start] == b'{');
        let Some(result) = result else {
            let message = response.error.as_ref().and_then(|error| member(frame, error, "message"));
            return Err(Refused(message.map_or_else(
                || "its answer is malformed".to_owned(),
                |message| text(frame, &message).into_owned(),
            )));
        };
        if let Some(slot) = self.responses.get_mut(index) {
            slot.get_or_insert_with(|| one_line(&frame[result]));
        }
        Ok(())
    }

    /// Whether every question is answered; so they are in a round of state only.
    pub fn is_complete(&self) -> bool {
        self.responses.iter().all(Option::is_some)
    }

    /// The raw members of the retry's `params`, for [`put_on`](super::envelope::put_on): the answers under the
    /// child's own keys, and its state as it gave it.
    pub fn members(&self) -> String {
        let mut answers = Vec::new();
        for (key, response) in self.keys.iter().zip(&self.responses) {
            if let Some(response) = response {
                answers.push(format!(
                    "{}:{}",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(response)
                ));
            }
        }
        let mut parts = Vec::new();
        if !answers.is_empty() {
            parts.push(format!("\"inputResponses\":{{{}}}", answers.join(",")));
        }
        if let Some(state) = &self.state {
            parts.push(format!("\"requestState\":{}", String::from_utf8_lossy(state)));
        }
        parts.join(",")
    }
}

/// The response for a legacy client that cannot be asked (C3): a tool says so in its result, where a model reads
/// it; the other methods fail.
pub fn unanswerable(id: &[u8], method: &str, why: &str) -> Bytes {
    if method != "tools/call" {
        return rewrite::error(Some(id), codes::INTERNAL_ERROR, why, None);
    }
    let result = json!({"content": [{"type": "text", "text": why}], "isError": true});
    rewrite::result(id, result.to_string().as_bytes())
}
