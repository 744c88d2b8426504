//! What a server asks the client in its answer (basic/patterns/mrtr): the asking server is named, and the state is sealed
//! together with it, so that the retry reaches the same server.

use super::super::directory::Server;
use super::request::Refused;
use crate::budget::Charged;
use crate::calls::Seal;
use crate::era::results::{ResultType, result_type};
use crate::identity::Principal;
use crate::jsonrpc::{
    Amendment, Edits, Message, NoRoom, Spliced, amend, member, members, splice, string_member, text,
};
use serde_json::Value;

/// Distinguishes these states from everything else that the same keys seal.
const KIND: &[u8] = b"proxyrunner gateway state\0";
/// The key by which the asking server is named to the client's program.
const SERVER: &str = "io.proxyrunner/server";

fn purpose(principal: &Principal) -> Vec<u8> {
    [KIND, principal.name().as_bytes()].concat()
}

/// Returns the server and its own state in the state that a client sends back.
pub(super) fn opened(seal: &Seal, principal: &Principal, state: &str) -> Result<(String, String), Refused> {
    let opened = seal.open_bytes(state, &purpose(principal));
    let opened = opened.and_then(|bytes| String::from_utf8(bytes).ok());
    opened
        .as_deref()
        .and_then(|text| text.split_once('\0'))
        .map(|(segment, inner)| (segment.to_owned(), inner.to_owned()))
        .ok_or_else(|| Refused::params("requestState was not issued for this call"))
}

/// Returns an answer as the client gets it: unchanged, unless the server asks something.
///
/// # Errors
/// When there is no room for the change.
pub(super) fn named(
    seal: &Seal,
    principal: &Principal,
    server: &Server,
    frame: Charged,
    message: &Message,
) -> Result<Spliced, NoRoom> {
    let Some(result) = message.result.clone() else { return Ok(Spliced::from(frame)) };
    if result_type(&frame, &result) != ResultType::InputRequired {
        return Ok(Spliced::from(frame));
    }
    let segment = &server.about.segment;
    let mut edits = Edits::new();
    if let Some(state) = member(&frame, &result, "requestState") {
        let content = format!("{segment}\0{}", text(&frame, &state));
        let sealed = seal.seal_bytes(content.as_bytes(), &purpose(principal)).map_err(|_| NoRoom)?;
        edits.replace(&state, Value::from(sealed).to_string().as_bytes());
    }
    let questions = member(&frame, &result, "inputRequests");
    for (_, question) in questions.into_iter().flat_map(|all| members(&frame, all)) {
        let Some(params) = member(&frame, &question, "params").filter(|params| frame[params.start] == b'{')
        else {
            continue;
        };
        match string_member(&frame, &question, "method").as_deref() {
            Some("elicitation/create") => {
                let said = member(&frame, &params, "message");
                if let Some(at) = said.filter(|said| frame[said.start] == b'"') {
                    let said = format!("[{segment}] {}", text(&frame, &at));
                    edits.replace(&at, Value::from(said).to_string().as_bytes());
                }
            }
            Some(_) => {
                let add = format!("\"{SERVER}\":{}", Value::from(&**segment));
                match member(&frame, &params, "_meta") {
                    Some(meta) if frame[meta.start] == b'{' => {
                        amend(&frame, &meta, Amendment { drop: &[SERVER], add: add.as_bytes() }, &mut edits);
                    }
                    Some(_) => {}
                    None => {
                        let add = format!("\"_meta\":{{{add}}}");
                        amend(&frame, &params, Amendment { drop: &[], add: add.as_bytes() }, &mut edits);
                    }
                }
            }
            None => {}
        }
    }
    Ok(splice(&frame, &message.object, edits))
}
