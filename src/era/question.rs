//! A question of a server to a client: elicitation, sampling or roots. Both eras use nearly the same parameters, so
//! they pass unchanged, except for those that only one era has.

use super::{capabilities::Capabilities, keys, raw};
use crate::budget::Charged;
use crate::jsonrpc::{
    Amendment, Edits, Message, NoRoom, Span, Spliced, amend, distinct_members, items, member, members,
    retain, rewrite, splice, string_member, text,
};
use crate::session::Version;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;

/// Maximum length of a form that is translated for an older revision, in bytes.
const LONGEST_FORM: usize = 1024 * 1024;

/// A question, on its way from a child of one era to a client of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its key in `inputRequests`, a raw JSON string: the child's own, or a generated one for a legacy child.
    pub key: Charged,
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    /// The raw parameters, an object.
    pub params: Option<Charged>,
}

/// The reason why a question cannot be sent to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untranslatable {
    /// It is not one of the three kinds of questions, or lacks its parameters.
    Malformed,
    /// The client's revision does not have this kind of question.
    Unknown(&'static str),
    /// There is no memory for its translation at the moment.
    TooLong(NoRoom),
    /// A required field of a form is of a type that the client's revision does not have.
    Field(String),
}

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Untranslatable::Malformed => f.write_str("the server's question to the client is malformed"),
            Untranslatable::Unknown(what) => {
                write!(f, "the server asks for {what}, which the client's protocol revision does not have")
            }
            Untranslatable::TooLong(no_room) => write!(f, "the server's question: {no_room}"),
            Untranslatable::Field(name) => write!(
                f,
                "the server's form needs {name:?}, a choice of several values, which the client's protocol revision does not have"
            ),
        }
    }
}

impl std::error::Error for Untranslatable {}

impl From<NoRoom> for Untranslatable {
    fn from(no_room: NoRoom) -> Self {
        Untranslatable::TooLong(no_room)
    }
}

impl Question {
    /// Translates a legacy child's request into an entry of `inputRequests` under `key`. Removes `task`, the related
    /// task, the progress token, which would be useless, and `elicitationId`, which the modern schema does not have.
    ///
    /// # Errors
    /// If it is not a question that clients answer.
    pub fn of_child(key: &str, frame: &Charged, message: &Message) -> Result<Self, Untranslatable> {
        let method = message.method.as_ref().map(|method| text(frame, method)).unwrap_or_default();
        let params = message.params.as_ref();
        let known = match &*method {
            "elicitation/create" | "sampling/createMessage" => params.is_some(),
            "roots/list" => true,
            _ => false,
        };
        if !known {
            return Err(Untranslatable::Malformed);
        }
        let params = params.map(|params| of_legacy(frame, &params.span, &method)).transpose()?;
        Ok(Question { key: raw_string(key), method: method.into_owned(), params })
    }

    /// Reads an entry of -32042's `data.elicitations`; `None` if it is malformed. Its id becomes its key.
    pub fn of_url(frame: &Charged, elicitation: &Span, index: usize) -> Option<Self> {
        string_member(frame, elicitation, "url")?;
        string_member(frame, elicitation, "message")?;
        let key = match string_member(frame, elicitation, "elicitationId") {
            Some(id) => raw_string(&id),
            None => raw_string(&format!("url-{index}")),
        };
        let method = "elicitation/create";
        let params = of_legacy(frame, elicitation, method).ok()?;
        Some(Question { key, method: method.to_owned(), params: Some(params) })
    }

    /// Returns the capabilities that the client must have declared; `None` if it is not a question to clients.
    pub fn required(&self) -> Option<Capabilities> {
        let params = self.params.as_ref();
        let whole = params.map(|params| 0..params.len());
        Capabilities::required(&self.method, params.map_or(&[], |params| &params[..]), whole.as_ref())
    }

    /// Returns the request for a legacy client of `version`, with the raw `id`. An elicitation by URL needs an id:
    /// `elicitation_id`, unless the child set one.
    ///
    /// # Errors
    /// If the client's revision cannot express the question.
    pub fn for_client(
        &self,
        version: &Version,
        id: &[u8],
        elicitation_id: &str,
    ) -> Result<Spliced, Untranslatable> {
        let params = match self.method.as_str() {
            "elicitation/create" => Some(self.elicitation(version, elicitation_id)?),
            "sampling/createMessage" => Some(self.sampling(version)?),
            "roots/list" => self.params.clone().map(Spliced::from),
            _ => return Err(Untranslatable::Malformed),
        };
        Ok(match params {
            Some(params) => rewrite::request_of(id, &self.method, &params),
            None => Spliced::from(rewrite::request(id, &self.method, None)),
        })
    }

    fn elicitation(&self, version: &Version, id: &str) -> Result<Spliced, Untranslatable> {
        let params = self.params.as_ref().ok_or(Untranslatable::Malformed)?;
        let whole = 0..params.len();
        let url = string_member(params, &whole, "mode").as_deref() == Some("url");
        match version.as_str() {
            older if older < "2025-06-18" => Err(Untranslatable::Unknown("elicitation")),
            older if older < "2025-11-25" && url => Err(Untranslatable::Unknown("elicitation by URL")),
            older if older < "2025-11-25" => plain_form(params),
            _ if url && member(params, &whole, "elicitationId").is_none() => {
                let add = format!("\"elicitationId\":{}", Value::from(id));
                let mut edits = Edits::new();
                amend(params, &whole, Amendment { drop: &[], add: add.as_bytes() }, &mut edits);
                Ok(splice(params, &whole, edits))
            }
            _ => Ok(Spliced::from(params.clone())),
        }
    }

    fn sampling(&self, version: &Version) -> Result<Spliced, Untranslatable> {
        let params = self.params.as_ref().ok_or(Untranslatable::Malformed)?;
        if version.as_str() >= "2025-11-25" {
            return Ok(Spliced::from(params.clone()));
        }
        let whole = 0..params.len();
        if member(params, &whole, "tools").is_some() || member(params, &whole, "toolChoice").is_some() {
            return Err(Untranslatable::Unknown("sampling with tools"));
        }
        let mut edits = Edits::new();
        for message in member(params, &whole, "messages").into_iter().flat_map(|list| items(params, list)) {
            if let Some(content) = member(params, &message, "content") {
                one_block_each(params, &message, content, version, &mut edits)?;
            }
        }
        Ok(splice(params, &whole, edits))
    }
}

/// Returns a legacy child's parameters, without those that a modern client does not know.
fn of_legacy(frame: &Charged, params: &Span, method: &str) -> Result<Charged, NoRoom> {
    let mut edits = Edits::new();
    let mut drop = vec!["task"];
    if method == "elicitation/create" {
        drop.push("elicitationId");
    }
    if let Some(meta) = member(frame, params, "_meta").filter(|meta| frame[meta.start] == b'{') {
        let unknown = [keys::RELATED_TASK, "progressToken"];
        if members(frame, meta.clone()).all(|(key, _)| unknown.contains(&&*text(frame, &key))) {
            drop.push("_meta");
        } else {
            amend(frame, &meta, Amendment { drop: &unknown, add: b"" }, &mut edits);
        }
    }
    amend(frame, params, Amendment { drop: &drop, add: b"" }, &mut edits);
    splice(frame, params, edits).flatten()
}

/// Returns a form as in 2025-06-18: without `mode`, with the titles of choices in `enumNames`, and without multiple
/// choices, which are omitted unless they are required.
fn plain_form(params: &Charged) -> Result<Spliced, Untranslatable> {
    if params.len() > LONGEST_FORM {
        return Err(Untranslatable::Unknown("a form of more than 1 MiB"));
    }
    let whole = 0..params.len();
    let mut edits = Edits::new();
    if let Some(schema) = member(params, &whole, "requestedSchema")
        && let Some(properties) = member(params, &schema, "properties")
    {
        let required: Vec<_> = member(params, &schema, "required")
            .into_iter()
            .flat_map(|list| items(params, list))
            .map(|name| text(params, &name))
            .collect();
        let mut kept = HashSet::new();
        for (key, property) in distinct_members(params, &properties) {
            if string_member(params, &property, "type").as_deref() != Some("array") {
                plain_choice(params, &property, &mut edits);
                kept.insert(property.start);
            } else if required.contains(&text(params, &key)) {
                return Err(Untranslatable::Field(text(params, &key).into_owned()));
            }
        }
        retain(params, &properties, &mut edits, |_, property| kept.contains(&property.start));
    }
    amend(params, &whole, Amendment { drop: &["mode"], add: b"" }, &mut edits);
    Ok(splice(params, &whole, edits))
}

/// Turns a titled `oneOf` into `enum` and `enumNames`.
fn plain_choice(params: &[u8], property: &Span, edits: &mut Edits) {
    let Some(choices) = member(params, property, "oneOf") else { return };
    let column = |name, otherwise: Option<&str>| {
        let cells = items(params, choices.clone()).filter_map(|choice| {
            let cell = member(params, &choice, name).or_else(|| member(params, &choice, otherwise?));
            cell.map(|cell| raw(params, &cell))
        });
        cells.collect::<Vec<_>>().join(",")
    };
    let add =
        format!("\"enum\":[{}],\"enumNames\":[{}]", column("const", None), column("title", Some("const")));
    amend(params, property, Amendment { drop: &["oneOf", "enum", "enumNames"], add: add.as_bytes() }, edits);
}

/// Splits messages with several blocks: revisions before 2025-11-25 allow one block in a message.
fn one_block_each(
    params: &Charged,
    message: &Span,
    content: Span,
    version: &Version,
    edits: &mut Edits,
) -> Result<(), Untranslatable> {
    let several = params[content.start] == b'[';
    let blocks: Vec<Span> = if several { items(params, content).collect() } else { vec![content] };
    for block in &blocks {
        match string_member(params, block, "type").as_deref() {
            Some("text" | "image") => {}
            Some("audio") if version.as_str() >= "2025-03-26" => {}
            Some("audio") => return Err(Untranslatable::Unknown("sampling with audio")),
            Some("tool_use" | "tool_result") => return Err(Untranslatable::Unknown("sampling with tools")),
            _ => return Err(Untranslatable::Malformed),
        }
    }
    if !several {
        return Ok(());
    }
    let role = member(params, message, "role").ok_or(Untranslatable::Malformed)?;
    if blocks.is_empty() {
        return Err(Untranslatable::Malformed);
    }
    let mut pieces = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        pieces.push(Charged::fixed(if index == 0 { b"{\"role\":" } else { b",{\"role\":" }));
        pieces.push(params.slice(role.clone()));
        pieces.push(Charged::fixed(b",\"content\":"));
        pieces.push(params.slice(block));
        pieces.push(Charged::fixed(b"}"));
    }
    edits.replace_with(message, &Spliced::of(pieces));
    Ok(())
}

fn raw_string(text: &str) -> Charged {
    Charged::own(Value::from(text).to_string())
}
