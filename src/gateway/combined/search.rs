//! `search_tools` and `call_tool`, which clients see in place of the tools of all servers with `--search-tools`: a client
//! learns the schemas that it needs, instead of a thousand.

use super::super::directory::Snapshot;
use super::collect::{Part, all};
use super::kind::Kind;
use super::lists::{allowed, server_info};
use super::request::{Caller, Refused, Request};
use crate::budget::Charged;
use crate::era::results;
use crate::jsonrpc::{
    self, Edits, Kind as MessageKind, Message, Span, Spliced, member, rewrite, splice, string_member, text,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The name of the tool that finds tools.
pub(super) const SEARCH: &str = "search_tools";
/// The name of the tool that calls them.
pub(crate) const CALL: &str = "call_tool";
/// Number of tools that are found if the client does not say how many, and at most.
const USUAL: usize = 10;
const MOST: usize = 50;
/// Maximum number of bytes of the tools that are found. Others that fit are left out, and counted.
const MOST_BYTES: usize = 128 << 10;
/// Maximum number of bytes, and of words, of a query.
const LONGEST: usize = 1024;
const MOST_WORDS: usize = 32;
/// What a word counts in the name, in the title, and elsewhere.
const WEIGHTS: [f64; 3] = [4.0, 3.0, 1.0];
/// What the beginning of a word counts, compared to a whole word.
const BEGINNING: f64 = 0.5;
/// Time for which the two tools stay the same, in milliseconds.
const TTL_MS: u64 = 60 * 60 * 1000;

/// Answers `tools/list` with the two tools.
///
/// # Errors
/// When there is a cursor, since there is no second page.
pub(super) fn list(request: &Request, servers: &Snapshot) -> Result<Spliced, Refused> {
    let params = request.message.params.as_ref();
    let cursor = params.and_then(|params| member(&request.frame, &params.span, "cursor"));
    if cursor.is_some_and(|cursor| &request.frame[cursor] != b"null") {
        return Err(Refused::params("the cursor is unknown; begin the list again without one"));
    }
    let names: Vec<&str> = servers.keys().map(|segment| &**segment).take(100).collect();
    let about = format!(
        "Finds tools by words in their names and descriptions, and returns their schemas. Call a tool that is found by \
         {CALL}. An empty query returns the first tools. Servers: {}",
        names.join(", ")
    );
    let tools = json!([
        {
            "name": SEARCH,
            "title": "Search tools",
            "description": about,
            "inputSchema": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "Words that describe what the tool should do"},
                    "limit": {
                        "type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL,
                        "description": "Maximum number of tools"
                    }
                },
                "required": ["query"]
            },
            "annotations": {"readOnlyHint": true}
        },
        {
            "name": CALL,
            "title": "Call a tool",
            "description": format!("Calls a tool that {SEARCH} has found, and returns its result."),
            "inputSchema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": format!("The name of the tool, from {SEARCH}")},
                    "arguments": {"type": "object", "description": "What the tool's inputSchema asks for"}
                },
                "required": ["name"]
            }
        }
    ]);
    let hint = results::Hint { ttl_ms: TTL_MS, scope: results::Scope::Private };
    let result = format!(
        "{{\"resultType\":\"complete\",\"tools\":{tools},{},\"_meta\":{{{}}}}}",
        hint.members(),
        server_info()
    );
    Ok(Spliced::from(rewrite::result(request.id(), result.as_bytes())))
}

/// Answers a call of `search_tools`: the tools of the caller that fit best, as their servers describe them.
///
/// # Errors
/// When the arguments are not those of the tool, or there is no room for the answer.
pub(super) async fn search(
    caller: &Caller,
    servers: &Snapshot,
    request: &Request,
) -> Result<Spliced, Refused> {
    let wanted = Wanted::read(request)?;
    let mut parts = all(caller, servers, Kind::Tools).await;
    let mut decided = Vec::with_capacity(parts.len());
    for (server, part) in &mut parts {
        decided.push(match part {
            Ok(part) => allowed(caller, &server.about.segment, Kind::Tools, part).await,
            Err(_) => None,
        });
    }
    let missing: Vec<&str> =
        parts.iter().filter(|(_, part)| part.is_err()).map(|(server, _)| &*server.about.segment).collect();
    if let Some(fault) = parts.iter().find_map(|(server, part)| {
        part.as_ref().err().filter(|fault| fault.is_own || server.about.is_required)
    }) {
        return Err(fault.clone().into());
    }
    let mut tools: Vec<&[u8]> = Vec::new();
    for ((_, part), allowed) in parts.iter().zip(&decided) {
        let is_allowed = |at| allowed.as_ref().is_none_or(|allowed| allowed.get(at) == Some(&true));
        let items = part.iter().flat_map(Part::items).enumerate();
        tools.extend(items.filter(|(at, _)| is_allowed(*at)).map(|(_, item)| item));
    }
    let found = best(&tools, &wanted);
    let written = written(request.id(), tools.len(), &found, &missing);
    let full = || Refused::failed("--max-buffered is used up by messages in transit; try again");
    caller.account.try_hold(written).map(Spliced::from).ok_or_else(full)
}

/// Returns the call that a call of `call_tool` stands for; `None` for any other message, and for a malformed call.
pub(crate) fn called(frame: &Charged, message: &Message) -> Option<(Charged, Message)> {
    let is_call = message.method.as_ref().is_some_and(|method| text(frame, method) == "tools/call");
    let name = message.params.as_ref()?.name.as_ref()?;
    let is_outer = is_call && message.kind == MessageKind::Request && text(frame, name) == CALL;
    is_outer.then(|| inner(frame, message).ok()).flatten()
}

/// Returns why a call of `call_tool` stands for none.
pub(super) fn uncalled(request: &Request) -> Refused {
    let inner = inner(&request.frame, &request.message);
    inner.err().unwrap_or_else(|| Refused::params(format_args!("{CALL} cannot call itself")))
}

fn inner(frame: &Charged, message: &Message) -> Result<(Charged, Message), Refused> {
    let outer = message.params.as_ref().and_then(|params| params.name.clone());
    let outer = outer.ok_or_else(|| Refused::params("name must be one text"))?;
    let arguments = arguments(frame, message)?;
    let name = member(frame, &arguments, "name").filter(|name| frame[name.start] == b'"');
    let name = name.ok_or_else(|| Refused::params("arguments.name must be one text, the name of a tool"))?;
    let mut edits = Edits::new();
    edits.replace(&outer, &frame[name]);
    match member(frame, &arguments, "arguments").filter(|own| &frame[own.clone()] != b"null") {
        Some(own) if frame[own.start] == b'{' => edits.replace(&arguments, &frame[own]),
        Some(_) => return Err(Refused::params("arguments.arguments must be an object")),
        None => edits.replace(&arguments, b"{}"),
    }
    let frame = splice(frame, &message.object, edits).flatten()?;
    let message = jsonrpc::scan(&frame).map_err(|fault| Refused::params(fault.reason))?;
    Ok((frame, message))
}

fn arguments(frame: &Charged, message: &Message) -> Result<Span, Refused> {
    let params = message.params.as_ref();
    params
        .and_then(|params| member(frame, &params.span, "arguments"))
        .filter(|arguments| frame[arguments.start] == b'{')
        .ok_or_else(|| Refused::params("arguments must be an object"))
}

/// What a client looks for.
struct Wanted {
    words: Vec<String>,
    limit: usize,
}

impl Wanted {
    fn read(request: &Request) -> Result<Self, Refused> {
        let (frame, arguments) = (&request.frame, arguments(&request.frame, &request.message)?);
        let query = member(frame, &arguments, "query").filter(|query| frame[query.start] == b'"');
        let query = query.ok_or_else(|| Refused::params("arguments.query must be one text"))?;
        let query = text(frame, &query);
        if query.len() > LONGEST {
            return Err(Refused::params(format_args!("arguments.query has more than {LONGEST} bytes")));
        }
        let limit = match member(frame, &arguments, "limit") {
            Some(limit) if &frame[limit.clone()] != b"null" => {
                let count = serde_json::from_slice::<f64>(&frame[limit]).ok();
                let count = count.filter(|count| count.fract() == 0.0 && (1.0..=MOST as f64).contains(count));
                let wrong = || {
                    Refused::params(format_args!("arguments.limit must be a whole number from 1 to {MOST}"))
                };
                count.ok_or_else(wrong)? as usize
            }
            _ => USUAL,
        };
        let mut words: Vec<String> = words(&query).take(MOST_WORDS).collect();
        words.sort();
        words.dedup();
        Ok(Wanted { words, limit })
    }
}

/// Returns the words of a text in lower case. `listOpenIssues` and `list_open_issues` have the same.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|char: char| !char.is_alphanumeric()).flat_map(|word| {
        let humps = word.char_indices().zip(word.chars().skip(1));
        let mut cuts: Vec<usize> = humps
            .filter(|((_, one), other)| (one.is_lowercase() || one.is_numeric()) && other.is_uppercase())
            .map(|((at, one), _)| at + one.len_utf8())
            .collect();
        cuts.push(word.len());
        let mut from = 0;
        let parts =
            cuts.into_iter().map(move |end| word[std::mem::replace(&mut from, end)..end].to_lowercase());
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
    })
}

/// Returns the tools that fit best, the best first. Without words, these are the first ones.
fn best<'a>(tools: &[&'a [u8]], wanted: &Wanted) -> Vec<&'a [u8]> {
    if wanted.words.is_empty() {
        return tools.iter().take(wanted.limit).copied().collect();
    }
    // For each tool, what each word counts in it.
    let counts: Vec<Vec<f64>> = tools.iter().map(|tool| counts(tool, &wanted.words)).collect();
    // A word that few tools have says more.
    let weights: Vec<f64> = (0..wanted.words.len())
        .map(|word| {
            let having = counts.iter().filter(|counts| counts[word] > 0.0).count();
            (1.0 + tools.len() as f64 / (1.0 + having as f64)).ln()
        })
        .collect();
    let score =
        |counts: &[f64]| counts.iter().zip(&weights).map(|(count, weight)| count * weight).sum::<f64>();
    let mut scored: Vec<(f64, usize)> =
        counts.iter().map(|counts| score(counts)).zip(0..).filter(|(score, _)| *score > 0.0).collect();
    scored.sort_by(|(one, at), (other, behind)| other.total_cmp(one).then(at.cmp(behind)));
    scored.into_iter().take(wanted.limit).map(|(_, at)| tools[at]).collect()
}

/// Returns what each wanted word counts in a tool: in the place where it counts most.
fn counts(tool: &[u8], wanted: &[String]) -> Vec<f64> {
    let whole = 0..tool.len();
    let mut found: HashMap<String, f64> = HashMap::new();
    for (name, weight) in ["name", "title", "description"].into_iter().zip(WEIGHTS) {
        for word in string_member(tool, &whole, name).iter().flat_map(|text| words(text)) {
            let known = found.entry(word).or_insert(weight);
            *known = known.max(weight);
        }
    }
    let count = |word: &String| {
        if let Some(weight) = found.get(word) {
            return *weight;
        }
        let begun = found.iter().filter(|(known, _)| known.starts_with(word.as_str()));
        begun.map(|(_, weight)| weight * BEGINNING).fold(0.0, f64::max)
    };
    wanted.iter().map(count).collect()
}

fn written(id: &[u8], count: usize, found: &[&[u8]], missing: &[&str]) -> Vec<u8> {
    let (mut shown, mut left_out) = (Vec::new(), 0);
    for tool in found {
        if shown.len() + tool.len() > MOST_BYTES {
            left_out += 1;
            continue;
        }
        if !shown.is_empty() {
            shown.push(b',');
        }
        shown.extend_from_slice(tool);
    }
    let mut result = format!("{{\"of\":{count},\"tools\":[").into_bytes();
    result.extend_from_slice(&shown);
    result.push(b']');
    if left_out > 0 {
        result.extend_from_slice(format!(",\"tooLong\":{left_out}").as_bytes());
    }
    if !missing.is_empty() {
        result.extend_from_slice(format!(",\"missingServers\":{}", json!(missing)).as_bytes());
    }
    result.push(b'}');
    let said = Value::from(String::from_utf8_lossy(&result));
    let mut whole = Vec::with_capacity(2 * result.len() + 512);
    whole.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    whole.extend_from_slice(id);
    whole.extend_from_slice(
        b",\"result\":{\"resultType\":\"complete\",\"content\":[{\"type\":\"text\",\"text\":",
    );
    whole.extend_from_slice(said.to_string().as_bytes());
    whole.extend_from_slice(b"}],\"structuredContent\":");
    whole.extend_from_slice(&result);
    whole.extend_from_slice(format!(",\"_meta\":{{{}}}}}}}", server_info()).as_bytes());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tools: &[Value], query: &str) -> Vec<String> {
        let tools: Vec<Vec<u8>> = tools.iter().map(|tool| tool.to_string().into_bytes()).collect();
        let tools: Vec<&[u8]> = tools.iter().map(Vec::as_slice).collect();
        let wanted = Wanted { words: words(query).collect(), limit: 3 };
        let name = |tool: &&[u8]| string_member(tool, &(0..tool.len()), "name").expect("a name").into_owned();
        best(&tools, &wanted).iter().map(name).collect()
    }

    #[test]
    fn names_are_cut_into_words() {
        let of = |text| words(text).collect::<Vec<_>>().join(" ");
        assert_eq!(of("github__listOpenIssues"), "github list open issues");
        assert_eq!(of("HTTPServer v2Api, É-世界"), "httpserver v2 api é 世界");
        assert_eq!(of(" __ "), "");
    }

    #[test]
    fn the_tools_that_fit_best_come_first() {
        let tools = [
            json!({"name": "git__log", "description": "Shows commits of a repository"}),
            json!({"name": "github__createIssue", "description": "Opens an issue in a repository"}),
            json!({"name": "github__list_issues", "title": "List issues"}),
            json!({"name": "time__now"}),
            json!({"description": 7}),
        ];
        assert_eq!(
            found(&tools, "issue repository"),
            ["github__createIssue", "github__list_issues", "git__log"]
        );
        assert_eq!(found(&tools, "LIST Issues"), ["github__list_issues"]);
        assert_eq!(found(&tools, "commit"), ["git__log"], "a beginning");
        assert_eq!(found(&tools[..4], ""), ["git__log", "github__createIssue", "github__list_issues"]);
        assert!(found(&tools, "weather").is_empty());
    }

    #[test]
    fn an_answer_is_bounded_and_a_long_tool_hides_no_other() {
        let long = format!("{{\"name\":\"{}\"}}", "x".repeat(MOST_BYTES));
        let answer = written(b"1", 2, &[long.as_bytes(), b"{}"], &["down"]);
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let result = &answer["result"]["structuredContent"];
        assert_eq!((&result["tools"], &result["tooLong"]), (&json!([{}]), &json!(1)));
        assert_eq!((&result["of"], &result["missingServers"]), (&json!(2), &json!(["down"])));
        let said = answer["result"]["content"][0]["text"].as_str().expect("a text");
        assert_eq!(serde_json::from_str::<Value>(said).expect("JSON"), *result);
    }
}
