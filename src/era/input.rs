//! Questions within a request (basic/patterns/mrtr): `input_required` results, and the retries that answer them.
//!
//! A legacy child's questions become an [`input_required`] result for a modern client, whose [`Retry`] is read. A
//! modern child's questions are read as [`InputRequired`] and put to a legacy client one by one; the [`Answers`] are
//! collected for the child's retry.

use super::{keys, question::Question};
use crate::budget::Charged;
use crate::jsonrpc::{LONGEST_NAME, Message, Span, Spliced, codes, items, member, members, rewrite, text};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;

/// Maximum length of a state that proxyrunner issues, in bytes of raw JSON.
const LONGEST_STATE: usize = 8 * 1024;
/// Maximum length of the quoted part of a client's error, in bytes.
const LONGEST_QUOTE: usize = 512;

/// The methods that may be answered with questions (basic/patterns/mrtr §Supported Requests).
pub const ASKING: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// Returns the raw result that sends questions to a modern client. The protocol requires `questions`, `state` or
/// both. `server_info` is raw.
pub fn input_required(questions: &[Question], state: Option<&str>, server_info: Option<&Charged>) -> Spliced {
    debug_assert!(!questions.is_empty() || state.is_some(), "neither questions nor state");
    let mut result = vec![Charged::fixed(b"{\"resultType\":\"input_required\"")];
    for (index, question) in questions.iter().enumerate() {
        result.push(Charged::fixed(if index == 0 { b",\"inputRequests\":{" } else { b"," }));
        result.push(question.key.clone());
        result.push(Charged::own(format!(":{{\"method\":{}", Value::from(question.method.as_str()))));
        if let Some(params) = &question.params {
            result.push(Charged::fixed(b",\"params\":"));
            result.push(params.clone());
        }
        result.push(Charged::fixed(b"}"));
    }
    if !questions.is_empty() {
        result.push(Charged::fixed(b"}"));
    }
    if let Some(state) = state {
        result.push(Charged::own(format!(",\"requestState\":{}", Value::from(state))));
    }
    if let Some(info) = server_info {
        result.push(Charged::own(format!(",\"_meta\":{{\"{}\":", keys::SERVER_INFO)));
        result.push(info.clone());
        result.push(Charged::fixed(b"}"));
    }
    result.push(Charged::fixed(b"}"));
    Spliced::of(result)
}

/// Returns the questions in a legacy child's -32042 error: its URL elicitations, without state, since the retry is a
/// new call. `None` if there is none or one is malformed. At most `most` are taken.
pub fn from_url_required(frame: &Charged, error: &Span, most: usize) -> Option<Vec<Question>> {
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

/// The fault of a modern child's questions, for a -32603 that blames the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadQuestions {
    /// There are neither questions nor state, or one has the wrong type.
    Malformed,
    /// Two questions have the same key.
    Repeated,
    /// There are too many questions.
    TooMany,
}

impl fmt::Display for BadQuestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadQuestions::Malformed => "the server's input_required result is malformed",
            BadQuestions::Repeated => "the server asked two questions under one key",
            BadQuestions::TooMany => "the server asked too many questions at once",
        })
    }
}

impl std::error::Error for BadQuestions {}

/// A modern child's `input_required` result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequired {
    /// The questions, in order. Empty if the child only wants its state back.
    pub questions: Vec<Question>,
    /// `requestState`, the raw JSON string, to be returned unchanged.
    pub state: Option<Charged>,
}

impl InputRequired {
    /// Reads a result whose `resultType` is `input_required`.
    ///
    /// # Errors
    /// If the result violates the protocol, or has more than `most` questions.
    pub fn read(frame: &Charged, result: &Span, most: usize) -> Result<Self, BadQuestions> {
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
                if key.len() > LONGEST_NAME {
                    return Err(BadQuestions::Malformed);
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

fn read_question(frame: &Charged, key: Span, request: &Span) -> Option<Question> {
    let method = member(frame, request, "method").filter(|method| frame[method.start] == b'"')?;
    let params = member(frame, request, "params");
    if params.as_ref().is_some_and(|params| frame[params.start] != b'{') {
        return None;
    }
    let question = Question {
        key: frame.slice(key),
        method: text(frame, &method).into_owned(),
        params: params.map(|params| frame.slice(params)),
    };
    question.required().is_some().then_some(question)
}

/// The fault of a client's retry: always -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRetry(&'static str);

impl fmt::Display for BadRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadRetry {}

/// The members that make a modern client's request a retry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// The answers by key, each a raw object.
    pub responses: Vec<(String, Charged)>,
    /// `requestState` as the client returned it. It must not be trusted.
    pub state: Option<String>,
}

impl Retry {
    /// Reads `params.inputResponses` and `params.requestState`; both may be absent.
    ///
    /// # Errors
    /// If one has the wrong type, or there are more than `most` answers, or two have the same key.
    pub fn read(frame: &Charged, message: &Message, most: usize) -> Result<Self, BadRetry> {
        let Some(params) = &message.params else { return Ok(Retry::default()) };
        let state = match params.request_state.clone() {
            None => None,
            // No state issued here is this long.
            Some(state) if frame[state.start] == b'"' && state.len() > LONGEST_STATE => Some(String::new()),
            Some(state) if frame[state.start] == b'"' => Some(text(frame, &state).into_owned()),
            Some(_) => return Err(BadRetry("params.requestState is not a string")),
        };
        let mut responses: Vec<(String, Charged)> = Vec::new();
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
                if key.len() > LONGEST_NAME {
                    return Err(BadRetry(
                        "the name of a member of params.inputResponses is longer than 1 KiB",
                    ));
                }
                let key = text(frame, &key).into_owned();
                if !seen.insert(key.clone()) {
                    return Err(BadRetry("a member of params.inputResponses is repeated"));
                }
                responses.push((key, frame.slice(response)));
            }
        }
        Ok(Retry { responses, state })
    }

    /// Returns the raw answer under a key, which is the result for the child (basic/patterns/mrtr).
    pub fn response(&self, key: &str) -> Option<&Charged> {
        self.responses.iter().find(|(name, _)| name == key).map(|(_, response)| response)
    }
}

/// A legacy client's error in answer to a question. A retry cannot carry it, so the call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableAnswer(String);

impl fmt::Display for UnusableAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client did not answer the server's question: {}", self.0)
    }
}

impl std::error::Error for UnusableAnswer {}

/// A legacy client's answers, collected for a modern child's retry.
#[derive(Debug, Clone)]
pub struct Answers {
    keys: Vec<Charged>,
    responses: Vec<Option<Charged>>,
    state: Option<Charged>,
}

impl Answers {
    /// Creates a collection without answers.
    pub fn new(asked: &InputRequired) -> Self {
        Answers {
            keys: asked.questions.iter().map(|question| question.key.clone()).collect(),
            responses: vec![None; asked.questions.len()],
            state: asked.state.clone(),
        }
    }

    /// Adds the client's response to the question at `index`. Only the first one counts.
    ///
    /// # Errors
    /// If the client answered with an error, or with a result that is not an object.
    pub fn put(&mut self, index: usize, frame: &Charged, response: &Message) -> Result<(), UnusableAnswer> {
        let result = response.result.clone().filter(|result| frame[result.start] == b'{');
        let Some(result) = result else {
            let message = response.error.as_ref().and_then(|error| member(frame, error, "message"));
            let quoted = |message: Span| message.start..message.end.min(message.start + LONGEST_QUOTE);
            return Err(UnusableAnswer(message.map_or_else(
                || "its answer is malformed".to_owned(),
                |message| text(frame, &quoted(message)).into_owned(),
            )));
        };
        if let Some(slot) = self.responses.get_mut(index) {
            slot.get_or_insert_with(|| frame.slice(result));
        }
        Ok(())
    }

    /// Returns whether every question is answered; true if there are none.
    pub fn is_complete(&self) -> bool {
        self.responses.iter().all(Option::is_some)
    }

    /// Returns the raw members of the retry's `params`, for [`put_on`](super::envelope::put_on): the answers under
    /// the child's own keys, and its unchanged state.
    pub fn members(&self) -> Spliced {
        let mut members = Vec::new();
        for (key, response) in self.keys.iter().zip(&self.responses) {
            let Some(response) = response else { continue };
            members.push(Charged::fixed(if members.is_empty() { b"\"inputResponses\":{" } else { b"," }));
            members.extend([key.clone(), Charged::fixed(b":"), response.clone()]);
        }
        if !members.is_empty() {
            members.push(Charged::fixed(b"}"));
        }
        if let Some(state) = &self.state {
            if !members.is_empty() {
                members.push(Charged::fixed(b","));
            }
            members.extend([Charged::fixed(b"\"requestState\":"), state.clone()]);
        }
        Spliced::of(members)
    }
}

/// Returns the response for a legacy client that cannot be asked: a tool's result explains it to the model; other
/// methods fail.
pub fn unanswerable(id: &[u8], method: &str, why: &str) -> Charged {
    if method != "tools/call" {
        return rewrite::error(Some(id), codes::INTERNAL_ERROR, why, None);
    }
    let result = json!({"content": [{"type": "text", "text": why}], "isError": true});
    rewrite::result(id, result.to_string().as_bytes())
}
