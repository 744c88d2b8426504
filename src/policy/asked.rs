//! What a message asks for: nothing to decide on, a thing that the server offers, a list, or a task.

use super::Feature;
use crate::jsonrpc::{Kind, LONGEST_URI, Message, Span, items, member, members, unescaped};
use std::ops::Range;

/// Maximum number of resources, and of tasks, that one subscription may name.
const MOST_WATCHED: usize = 256;

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing that policies decide on.
    Free,
    /// Something that is never allowed, for this reason.
    Never(&'static str),
    /// To use a thing. Its arguments are a span of the message.
    Use(Feature, String, Option<Range<usize>>),
    /// To hear of changes of resources, by their URIs, and of tasks, by their ids.
    Watch(Vec<String>, Vec<String>),
    /// A list of things, which is filtered.
    List(Feature),
    /// A task, by its id.
    Task(String),
    /// The list of tasks, which is filtered.
    Tasks,
}

/// Returns what a message asks for.
pub(crate) fn asked(frame: &[u8], message: &Message) -> Asked {
    if message.kind == Kind::Response {
        return Asked::Free;
    }
    let Some(method) = message.method.as_ref().and_then(|method| string(frame, method)) else {
        return Asked::Never("the method is not readable");
    };
    if message.kind == Kind::Notification {
        // A server that only looks at the method would serve it as a request.
        return match method.starts_with("notifications/") {
            true => Asked::Free,
            false => Asked::Never("it has no id, but its method is not that of a notification"),
        };
    }
    let params = message.params.as_ref();
    let named = |span: Option<&Span>| span.and_then(|span| string(frame, span));
    let used = |feature, name: Option<&Span>, arguments: Option<Span>| match named(name) {
        Some(name) => Asked::Use(feature, name, arguments),
        None => Asked::Never("its name is missing or not readable"),
    };
    let name = params.and_then(|params| params.name.as_ref());
    let uri = params.and_then(|params| params.uri.as_ref());
    match method.as_str() {
        "initialize" | "ping" | "server/discover" | "logging/setLevel" | "roots/list" | "features/list" => {
            Asked::Free
        }
        "tools/call" => match arguments(frame, message) {
            Ok(arguments) => used(Feature::Tool, name, arguments),
            Err(why) => Asked::Never(why),
        },
        "prompts/get" => match arguments(frame, message) {
            Ok(arguments) => used(Feature::Prompt, name, arguments),
            Err(why) => Asked::Never(why),
        },
        "resources/read" => match arguments(frame, message) {
            Ok(arguments) => used(Feature::Resource, uri, arguments),
            Err(why) => Asked::Never(why),
        },
        "resources/subscribe" | "resources/unsubscribe" => used(Feature::Resource, uri, None),
        "completion/complete" => completion(frame, message),
        "subscriptions/listen" => subscription(frame, message),
        "tools/list" => Asked::List(Feature::Tool),
        "prompts/list" => Asked::List(Feature::Prompt),
        "resources/list" | "resources/templates/list" => Asked::List(Feature::Resource),
        "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
            match named(params.and_then(|params| params.task_id.as_ref())) {
                Some(id) => Asked::Task(id),
                None => Asked::Never("its task is missing or not readable"),
            }
        }
        "tasks/list" => Asked::Tasks,
        _ => Asked::Never("policies do not know its method"),
    }
}

/// Returns a string; `None` for any other value, and for a text that is no Unicode.
fn string(frame: &[u8], span: &Span) -> Option<String> {
    let raw = frame.get(span.clone()).filter(|raw| raw.first() == Some(&b'"') && raw.len() <= LONGEST_URI)?;
    String::from_utf8(unescaped(raw).into_owned()).ok()
}

/// Returns the arguments, an object.
fn arguments(frame: &[u8], message: &Message) -> Result<Option<Span>, &'static str> {
    let arguments = message.params.as_ref().and_then(|params| member(frame, &params.span, "arguments"));
    match arguments {
        Some(arguments) if frame[arguments.start] == b'{' => Ok(Some(arguments)),
        Some(arguments) if &frame[arguments.clone()] == b"null" => Ok(None),
        Some(_) => Err("its arguments are not an object"),
        None => Ok(None),
    }
}

/// Returns the prompt or resource whose argument is completed.
fn completion(frame: &[u8], message: &Message) -> Asked {
    let reference = message.params.as_ref().and_then(|params| member(frame, &params.span, "ref"));
    let part = |name| string(frame, &member(frame, reference.as_ref()?, name)?);
    let has = |name| reference.as_ref().is_some_and(|reference| member(frame, reference, name).is_some());
    match part("type").as_deref() {
        Some("ref/prompt") if has("uri") => Asked::Never("it refers to a prompt and to a resource"),
        Some("ref/resource") if has("name") => Asked::Never("it refers to a prompt and to a resource"),
        Some("ref/prompt") => match part("name") {
            Some(name) => Asked::Use(Feature::Prompt, name, None),
            None => Asked::Never("its name is missing or not readable"),
        },
        Some("ref/resource") => match part("uri") {
            Some(uri) => Asked::Use(Feature::Resource, uri, None),
            None => Asked::Never("its URI is missing or not readable"),
        },
        _ => Asked::Never("it refers to neither a prompt nor a resource"),
    }
}

/// The parameters of a subscription, and the members of its filter. Another one could name what policies protect.
const SUBSCRIPTION: [&str; 2] = ["notifications", "_meta"];
const FILTER: [&str; 5] =
    ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"];

/// Returns the resources and tasks of a subscription. Changes of lists concern everyone.
fn subscription(frame: &[u8], message: &Message) -> Asked {
    let has_only = |object: Span, known: &[&str]| {
        members(frame, object).all(|(key, _)| {
            let key = unescaped(&frame[key]);
            known.iter().any(|known| *key == *known.as_bytes())
        })
    };
    if message.params.as_ref().is_some_and(|params| !has_only(params.span.clone(), &SUBSCRIPTION)) {
        return Asked::Never("it has a parameter that policies do not know");
    }
    let filter = message.params.as_ref().and_then(|params| member(frame, &params.span, "notifications"));
    if filter.as_ref().is_some_and(|filter| !matches!(frame[filter.start], b'{' | b'n')) {
        return Asked::Never("its filter is not an object");
    }
    if filter.as_ref().is_some_and(|filter| !has_only(filter.clone(), &FILTER)) {
        return Asked::Never("its filter has a member that policies do not know");
    }
    let listed = |name| -> Result<Vec<String>, &'static str> {
        let list = filter.as_ref().and_then(|filter| member(frame, filter, name));
        if list.as_ref().is_some_and(|list| !matches!(frame[list.start], b'[' | b'n')) {
            return Err("what it names is not a list");
        }
        let mut listed = Vec::new();
        for item in list.into_iter().flat_map(|list| items(frame, list)) {
            if listed.len() >= MOST_WATCHED {
                return Err("it names too many resources or tasks");
            }
            listed.push(string(frame, &item).ok_or("a name in it is not readable")?);
        }
        Ok(listed)
    };
    match (listed("resourceSubscriptions"), listed("taskIds")) {
        (Ok(uris), Ok(tasks)) if uris.is_empty() && tasks.is_empty() => Asked::Free,
        (Ok(uris), Ok(tasks)) => Asked::Watch(uris, tasks),
        (Err(why), _) | (_, Err(why)) => Asked::Never(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;

    fn found(method: &str, params: &str) -> Asked {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        asked(text.as_bytes(), &scan(text.as_bytes()).expect("a message"))
    }

    fn uses(feature: Feature, name: &str) -> Asked {
        Asked::Use(feature, name.to_owned(), None)
    }

    #[test]
    fn every_method_has_its_check() {
        for (method, params, expected) in [
            ("ping", "{}", Asked::Free),
            ("initialize", "{}", Asked::Free),
            ("server/discover", "{}", Asked::Free),
            ("logging/setLevel", "{}", Asked::Free),
            ("tools/call", r#"{"name":"a"}"#, uses(Feature::Tool, "a")),
            ("tools/call", r#"{"name":"\u0061"}"#, uses(Feature::Tool, "a")),
            ("tools/call", r#"{"name":"a","arguments":null}"#, uses(Feature::Tool, "a")),
            ("prompts/get", r#"{"name":"a"}"#, uses(Feature::Prompt, "a")),
            ("resources/read", r#"{"uri":"file:///a"}"#, uses(Feature::Resource, "file:///a")),
            ("resources/subscribe", r#"{"uri":"u"}"#, uses(Feature::Resource, "u")),
            ("resources/unsubscribe", r#"{"uri":"u"}"#, uses(Feature::Resource, "u")),
            (
                "completion/complete",
                r#"{"ref":{"type":"ref/prompt","name":"p"}}"#,
                uses(Feature::Prompt, "p"),
            ),
            (
                "completion/complete",
                r#"{"ref":{"type":"ref/resource","uri":"u"}}"#,
                uses(Feature::Resource, "u"),
            ),
            ("tools/list", "{}", Asked::List(Feature::Tool)),
            ("prompts/list", "{}", Asked::List(Feature::Prompt)),
            ("resources/list", "{}", Asked::List(Feature::Resource)),
            ("resources/templates/list", "{}", Asked::List(Feature::Resource)),
            ("subscriptions/listen", r#"{"notifications":{"toolsListChanged":true}}"#, Asked::Free),
            (
                "subscriptions/listen",
                r#"{"notifications":{"resourceSubscriptions":["u","v"]}}"#,
                Asked::Watch(vec!["u".into(), "v".into()], Vec::new()),
            ),
            (
                "subscriptions/listen",
                r#"{"notifications":{"taskIds":["t"]}}"#,
                Asked::Watch(Vec::new(), vec!["t".into()]),
            ),
            ("tasks/get", r#"{"taskId":"t"}"#, Asked::Task("t".into())),
            ("tasks/list", "{}", Asked::Tasks),
        ] {
            assert_eq!(found(method, params), expected, "{method} {params}");
        }
        let arguments = found("tools/call", r#"{"name":"a","arguments":{"x":1}}"#);
        assert!(matches!(arguments, Asked::Use(Feature::Tool, _, Some(_))), "{arguments:?}");
    }

    #[test]
    fn unreadable_and_unknown_requests_are_never_allowed() {
        for (method, params) in [
            ("tools/call", "{}"),
            ("tools/call", r#"{"name":1}"#),
            ("tools/call", r#"{"name":"\ud800"}"#),
            ("tools/call", r#"{"name":"a","arguments":[]}"#),
            ("resources/read", r#"{"uri":null}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/tool","name":"p"}}"#),
            ("completion/complete", "{}"),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p","uri":"u"}}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/resource","name":"p","uri":"u"}}"#),
            ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":[1]}}"#),
            ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":"u"}}"#),
            ("subscriptions/listen", r#"{"notifications":{"taskIds":{"0":"t"}}}"#),
            ("subscriptions/listen", r#"{"notifications":["u"]}"#),
            ("subscriptions/listen", r#"{"resourceSubscriptions":["u"]}"#),
            ("subscriptions/listen", r#"{"notifications":{"resources":["u"]}}"#),
            ("tasks/get", "{}"),
            ("sampling/createMessage", "{}"),
            ("elicitation/create", "{}"),
            ("Tools/call", r#"{"name":"a"}"#),
            ("notifications/x", "{}"),
        ] {
            assert!(matches!(found(method, params), Asked::Never(_)), "{method} {params}");
        }
    }

    #[test]
    fn notifications_and_responses_are_free() {
        for text in
            [r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]
        {
            assert_eq!(asked(text.as_bytes(), &scan(text.as_bytes()).unwrap()), Asked::Free);
        }
    }

    #[test]
    fn requests_without_an_id_are_never_allowed() {
        for method in ["tools/call", "ping", "x", "", "Notifications/x"] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
            let found = asked(text.as_bytes(), &scan(text.as_bytes()).unwrap());
            assert!(matches!(found, Asked::Never(_)), "{method}");
        }
    }
}
