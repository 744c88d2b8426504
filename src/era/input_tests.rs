//! Tests questions in both directions, and their answers.

use super::fixtures::{json as parsed, response, scanned, string};
use super::input::*;
use super::question::*;
use crate::budget::Charged;
use crate::session::Version;
use serde_json::{Value, json};

const INFO: Charged = Charged::fixed(br#"{"name":"S","version":"1"}"#);

fn of_child(text: &str) -> Result<Question, Untranslatable> {
    let (frame, message) = scanned(text);
    Question::of_child("q1", &frame, &message)
}

fn asked(requests: Value) -> Question {
    let (frame, _, span) =
        response(&json!({"resultType": "input_required", "inputRequests": {"k": requests}}).to_string());
    InputRequired::read(&frame, &span, 8).unwrap().questions.remove(0)
}

fn put(question: Value, version: &str) -> Result<Value, Untranslatable> {
    asked(question).for_client(&Version::new(version), b"7", "minted").map(|frame| {
        let sent = parsed(frame.to_vec());
        assert_eq!((&sent["jsonrpc"], &sent["id"]), (&json!("2.0"), &json!(7)));
        sent["params"].clone()
    })
}

#[test]
fn a_childs_questions_become_a_result() {
    let elicitation = of_child(r#"{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"task":{"ttl":1},"mode":"url","url":"https://x","elicitationId":"e","message":"m\u0021","_meta":{"progressToken":1,"io.modelcontextprotocol/related-task":{}}}}"#).unwrap();
    let sampling = of_child(r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":9007199254740993,"_meta":{"progressToken":1,"k":1}}}"#).unwrap();
    let mut roots = of_child(r#"{"jsonrpc":"2.0","id":2,"method":"roots/list"}"#).unwrap();
    assert!(elicitation.required().unwrap().url && sampling.required().unwrap().sampling);
    roots.key = Charged::fixed(b"\"q2\"");
    let result = input_required(&[elicitation, roots], Some("se\"al"), Some(&INFO));
    assert_eq!(
        string(&result.to_vec()),
        r#"{"resultType":"input_required","inputRequests":{"q1":{"method":"elicitation/create","params":{"mode":"url","url":"https://x","message":"m\u0021"}},"q2":{"method":"roots/list"}},"requestState":"se\"al","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"S","version":"1"}}}"#
    );
    assert_eq!(sampling.params.unwrap(), r#"{"messages":[],"maxTokens":9007199254740993,"_meta":{"k":1}}"#);
    assert_eq!(
        string(&input_required(&[], Some("s"), None).to_vec()),
        r#"{"resultType":"input_required","requestState":"s"}"#
    );
}

#[test]
fn no_other_request_is_a_question() {
    for method in ["ping", "elicitation/create", "sampling/createMessage", "tools/call"] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}"}}"#);
        assert_eq!(of_child(&text), Err(Untranslatable::Malformed), "{method}");
    }
}

#[test]
fn a_url_error_becomes_questions() {
    let read = |data: Value, most| {
        let (frame, message) = scanned(
            &json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32042, "message": "m", "data": data}})
                .to_string(),
        );
        from_url_required(&frame, message.error.as_ref().unwrap(), most)
    };
    let one = json!({"mode": "url", "elicitationId": "e1", "url": "https://a", "message": "go"});
    let other = json!({"mode": "url", "url": "https://b", "message": "go"});
    let questions = read(json!({"elicitations": [one, one, other]}), 8).unwrap();
    let result = parsed(input_required(&questions, None, None).to_vec());
    let params =
        |url| json!({"method": "elicitation/create", "params": {"mode": "url", "url": url, "message": "go"}});
    assert_eq!(
        result,
        json!({"resultType": "input_required", "inputRequests": {"e1": params("https://a"), "url-2": params("https://b")}})
    );
    assert_eq!(read(json!({"elicitations": [one, other]}), 1).unwrap().len(), 1);
    for none in [
        json!({}),
        json!([]),
        json!({"elicitations": []}),
        json!({"elicitations": [{"url": 1}]}),
        json!({"elicitations": [7]}),
    ] {
        assert_eq!(read(none.clone(), 8), None, "{none}");
    }
}

#[test]
fn a_retry_is_read_and_answers_the_child() {
    let read = |params: &str| {
        let (frame, message) =
            scanned(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#));
        Retry::read(&frame, &message, 2)
    };
    let retry = read(r#","params":{"inputResponses":{"q\u0031":{"action":"accept","content":{"n":1e400}},"x":{}},"requestState":"s\"t"}"#).unwrap();
    assert_eq!(retry.state.as_deref(), Some("s\"t"));
    assert_eq!(retry.response("q1").unwrap(), r#"{"action":"accept","content":{"n":1e400}}"#);
    assert_eq!(retry.response("q2"), None);
    assert_eq!(read("").unwrap(), Retry::default());
    assert_eq!(read(r#","params":{}"#).unwrap(), Retry::default());
    for bad in [
        r#"{"requestState":7}"#,
        r#"{"requestState":null}"#,
        r#"{"inputResponses":[]}"#,
        r#"{"inputResponses":{"a":7}}"#,
        r#"{"inputResponses":{"a":{},"\u0061":{}}}"#,
        r#"{"inputResponses":{"a":{},"b":{},"c":{}}}"#,
    ] {
        assert!(read(&format!(",\"params\":{bad}")).is_err(), "{bad}");
    }
}

#[test]
fn a_call_without_an_answer_is_refused() {
    assert_eq!(
        parsed(unanswerable(b"1", "prompts/get", "why"))["error"],
        json!({"code": -32603, "message": "why"})
    );
    assert_eq!(
        parsed(unanswerable(b"1", "tools/call", "why"))["result"],
        json!({"content": [{"type": "text", "text": "why"}], "isError": true})
    );
}

#[test]
fn a_modern_childs_questions_are_read() {
    let read = |result: Value, most| {
        let (frame, _, span) = response(&result.to_string());
        InputRequired::read(&frame, &span, most)
    };
    let roots = json!({"method": "roots/list"});
    let good = read(json!({"inputRequests": {"a": roots, "b": roots}, "requestState": "s"}), 2).unwrap();
    assert_eq!(good.questions.len(), 2);
    assert_eq!(good.state.unwrap(), "\"s\"");
    assert!(read(json!({"requestState": "s"}), 0).unwrap().questions.is_empty());
    assert_eq!(read(json!({"inputRequests": {"a": roots, "b": roots}}), 1), Err(BadQuestions::TooMany));
    for bad in [
        json!({}),
        json!({"inputRequests": {}}),
        json!({"inputRequests": []}),
        json!({"requestState": 7, "inputRequests": {"a": roots}}),
        json!({"inputRequests": {"a": 7}}),
        json!({"inputRequests": {"a": {"method": "ping"}}}),
        json!({"inputRequests": {"a": {"method": "roots/list", "params": []}}}),
    ] {
        assert_eq!(read(bad.clone(), 8), Err(BadQuestions::Malformed), "{bad}");
    }
    let (frame, _, span) =
        response(r#"{"inputRequests":{"a":{"method":"roots/list"},"\u0061":{"method":"roots/list"}}}"#);
    assert_eq!(InputRequired::read(&frame, &span, 8), Err(BadQuestions::Repeated));
}

#[test]
fn answers_are_gathered_for_the_childs_retry() {
    let (frame, _, span) = response(
        r#"{"resultType":"input_required","inputRequests":{"k\u0031":{"method":"roots/list"},"k2":{"method":"roots/list"}},"requestState":"\u0073 t"}"#,
    );
    let asked = InputRequired::read(&frame, &span, 8).unwrap();
    let mut answers = Answers::new(&asked);
    let (second, message, _) = response("{\"roots\":[\n]}");
    answers.put(1, &second, &message).unwrap();
    assert!(!answers.is_complete());
    let (first, message, _) = response(r#"{"roots":[{"uri":"file:///\u00e9"}]}"#);
    answers.put(0, &first, &message).unwrap();
    // A second answer to one question, or an answer to no question, changes nothing.
    answers.put(0, &second, &message).unwrap();
    answers.put(9, &second, &message).unwrap();
    assert!(answers.is_complete());
    assert_eq!(
        string(&answers.members().to_vec()),
        r#""inputResponses":{"k\u0031":{"roots":[{"uri":"file:///\u00e9"}]},"k2":{"roots":[ ]}},"requestState":"\u0073 t""#
    );
    let only_state = InputRequired { questions: vec![], state: asked.state.clone() };
    assert!(Answers::new(&only_state).is_complete());
    assert_eq!(string(&Answers::new(&only_state).members().to_vec()), r#""requestState":"\u0073 t""#);
}

#[test]
fn a_clients_error_fails_the_call() {
    let asked = InputRequired { questions: vec![asked(json!({"method": "roots/list"}))], state: None };
    for (response, words) in [
        (r#""error":{"code":-1,"message":"User rejected"}"#, "User rejected"),
        (r#""error":7"#, "malformed"),
        (r#""result":7"#, "malformed"),
    ] {
        let (frame, message) = scanned(&format!(r#"{{"jsonrpc":"2.0","id":1,{response}}}"#));
        let refused = Answers::new(&asked).put(0, &frame, &message).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn questions_are_translated_to_the_clients_revision() {
    let url = json!({"method": "elicitation/create", "params": {"mode": "url", "url": "https://a", "message": "m"}});
    let mut with_id = url["params"].clone();
    with_id["elicitationId"] = "minted".into();
    assert_eq!(put(url.clone(), "2025-11-25"), Ok(with_id.clone()));
    let again = json!({"method": "elicitation/create", "params": with_id});
    assert_eq!(put(again.clone(), "2025-11-25"), Ok(again["params"].clone()));
    assert!(matches!(put(url.clone(), "2025-06-18"), Err(Untranslatable::Unknown(_))));
    assert!(matches!(put(url, "2025-03-26"), Err(Untranslatable::Unknown(_))));
    let form = json!({"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {"type": "object"}}});
    assert_eq!(put(form.clone(), "2025-03-26"), Err(Untranslatable::Unknown("elicitation")));
    assert!(put(form, "2025-06-18").is_ok());
    let roots = json!({"method": "roots/list"});
    assert_eq!(put(roots, "2024-11-05"), Ok(json!(null)));
    assert!(put(json!({"method": "elicitation/create"}), "2025-11-25").is_err());
}

#[test]
fn forms_are_reduced_for_2025_06_18() {
    let form = |required: &[&str]| {
        json!({"method": "elicitation/create", "params": {
            "mode": "form", "message": "m",
            "requestedSchema": {"type": "object", "required": required, "properties": {
                "colours": {"type": "array", "items": {"type": "string", "enum": ["r", "g"]}},
                "colour": {"type": "string", "title": "Colour", "oneOf": [{"const": "#f00", "title": "Red"}, {"const": "#0f0"}], "default": "#f00"},
                "name": {"type": "string"},
            }},
        }})
    };
    let whole = form(&["colour", "colours"]);
    assert_eq!(put(whole.clone(), "2025-11-25"), Ok(whole["params"].clone()));
    assert_eq!(put(whole, "2025-06-18"), Err(Untranslatable::Field("colours".into())));
    assert_eq!(
        put(form(&["colour"]), "2025-06-18"),
        Ok(json!({
            "message": "m",
            "requestedSchema": {"type": "object", "required": ["colour"], "properties": {
                "colour": {"type": "string", "title": "Colour", "enum": ["#f00", "#0f0"], "enumNames": ["Red", "#0f0"], "default": "#f00"},
                "name": {"type": "string"},
            }},
        }))
    );
}

#[test]
fn messages_of_several_blocks_become_several_messages() {
    let text = |text| json!({"type": "text", "text": text});
    let sampling = |content: Value| {
        json!({"method": "sampling/createMessage", "params": {
            "maxTokens": 1, "messages": [{"role": "user", "content": text("a")}, {"role": "assistant", "content": content}],
        }})
    };
    let two = sampling(json!([text("b"), text("c")]));
    assert_eq!(put(two.clone(), "2025-11-25"), Ok(two["params"].clone()));
    assert_eq!(
        put(two, "2025-06-18").unwrap()["messages"],
        json!([
            {"role": "user", "content": text("a")},
            {"role": "assistant", "content": text("b")},
            {"role": "assistant", "content": text("c")},
        ])
    );
    let audio = sampling(json!({"type": "audio", "data": "", "mimeType": "audio/wav"}));
    assert!(put(audio.clone(), "2025-03-26").is_ok());
    assert!(matches!(put(audio, "2024-11-05"), Err(Untranslatable::Unknown(_))));
    let tool = sampling(json!([{"type": "tool_use"}]));
    assert!(matches!(put(tool, "2025-06-18"), Err(Untranslatable::Unknown(_))));
    assert!(put(sampling(json!([])), "2025-06-18").is_err());
    let mut tools = sampling(text("b"));
    tools["params"]["tools"] = json!([]);
    assert!(put(tools.clone(), "2025-11-25").is_ok());
    assert!(matches!(put(tools, "2025-06-18"), Err(Untranslatable::Unknown(_))));
}

#[test]
fn questions_survive_translation_in_both_directions() {
    let params = r#"{"message":"m","requestedSchema":{ "type":"object","properties":{"n":{"type":"number","maximum":1e400}}}}"#;
    let question =
        of_child(&format!(r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{params}}}"#))
            .unwrap();
    let result = input_required(&[question], Some("s"), None);
    let (frame, _, span) = response(&string(&result.to_vec()));
    let asked = InputRequired::read(&frame, &span, 8).unwrap();
    let sent = asked.questions[0].for_client(&Version::new("2025-06-18"), b"9", "").unwrap();
    assert_eq!(
        string(&sent.to_vec()),
        format!(r#"{{"jsonrpc":"2.0","id":9,"method":"elicitation/create","params":{params}}}"#)
    );
}

#[test]
fn errors_name_the_party_at_fault() {
    for bad in [BadQuestions::Malformed, BadQuestions::Repeated, BadQuestions::TooMany] {
        assert!(bad.to_string().starts_with("the server"), "{bad}");
    }
    for (why, word) in [
        (Untranslatable::Malformed, "malformed"),
        (Untranslatable::Unknown("sampling"), "sampling"),
        (Untranslatable::Field("colour".into()), "colour"),
    ] {
        let said = why.to_string();
        assert!(said.starts_with("the server") && said.contains(word), "{said}");
    }
    let (frame, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"requestState":7}}"#);
    let bad = Retry::read(&frame, &message, 9).unwrap_err();
    assert!(bad.to_string().contains("requestState"), "{bad}");
}
