//! Questions of legacy children to clients of 2026-07-28: parked calls, their retries, and leased children.

use crate::support::modern::{Asked, Modern, result};
use crate::support::{Journal, Response, Server, scratch, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;

const MISSING: i64 = -32021;

fn elicit(message: &str) -> Value {
    let params = json!({"message": message, "requestedSchema": {"type": "object", "properties": {}}});
    json!({"method": "elicitation/create", "params": params})
}

fn sample() -> Value {
    json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})
}

fn rounds(rounds: Value) -> Value {
    json!({"rounds": rounds})
}

fn yes() -> Value {
    json!({"action": "accept", "content": {"n": 9_007_199_254_740_993_u64}})
}

/// Checks that a retry is refused with an error because its state is invalid.
fn refused(response: &Response) {
    assert_eq!((response.status, response.code()), (200, -32602), "{}", response.text());
    assert_eq!(response.json()["id"], "again");
}

/// Starts a server whose scripted children keep a journal.
fn journalled(flags: &str) -> (Server, Journal) {
    let journal = Journal::new();
    (Server::with().flags(flags).child(&journal.flag()).start(), journal)
}

/// Returns arguments for a call that asks a question, ignores the answer, and writes lines once a file exists.
fn impatient(question: &Value, after: &[&str], file: &Path) -> Value {
    let mut asked = question.clone();
    asked["jsonrpc"] = json!("2.0");
    asked["id"] = json!("theirs");
    json!({"lines": [asked.to_string()], "answer": false, "after": after, "file": file})
}

#[test]
fn a_question_becomes_the_result_and_the_retry_continues_the_call() {
    let (server, journal) = journalled("");
    for question in [elicit("name?"), sample()] {
        let arguments = rounds(json!([[question]]));
        let asked = Asked::of(&server.asked().call("interview", arguments.clone()));
        assert_eq!(asked.questions.len(), 1);
        assert_eq!(asked.questions[0].1, question, "without jsonrpc and id");
        let answers = json!({asked.questions[0].0.clone(): yes(), "never asked": yes()});
        let response = server.asked().retry("interview", arguments, &asked, answers);
        assert_eq!(response.answer()["id"], "again");
        let result = result(&response);
        assert_eq!((&result["heard"], &result["resultType"]), (&json!([yes()]), &json!("complete")));
    }
    assert_eq!(journal.runs("interview"), 2);
    assert_eq!(journal.answers().len(), 2, "unknown answers are not forwarded");
    let read = journal.call("interview").message.to_string();
    assert!(!read.contains("requestState") && !read.contains("inputResponses"));
}

#[test]
fn questions_of_a_round_are_asked_together_and_rounds_in_sequence() {
    let (server, journal) = journalled("");
    let client = server.asked();
    let arguments = rounds(json!([[elicit("a"), sample(), elicit("b")], [elicit("c")], [elicit("d")]]));
    let mut response = client.call("interview", arguments.clone());
    let mut states = Vec::new();
    for count in [3, 1, 1] {
        let asked = Asked::of(&response);
        assert_eq!(asked.questions.len(), count);
        response = client.retry("interview", arguments.clone(), &asked, asked.all(&yes()));
        states.push(asked.state);
    }
    assert_eq!(result(&response)["heard"], json!([yes(), yes(), yes(), yes(), yes()]));
    assert_eq!(journal.runs("interview"), 1);
    for state in states {
        refused(&client.begin_retry("interview", arguments.clone(), &state, json!({})).response());
    }
}

#[test]
fn unanswered_questions_are_asked_again_under_the_same_key() {
    let (server, journal) = journalled("");
    let (client, arguments) = (server.asked(), rounds(json!([[elicit("a"), elicit("b")]])));
    let first = Asked::of(&client.call("interview", arguments.clone()));
    let (key, question) = first.questions[1].clone();
    let answers = json!({first.questions[0].0.clone(): yes()});
    let second = Asked::of(&client.retry("interview", arguments.clone(), &first, answers));
    assert_eq!(second.questions, [(key, question)]);
    let third = Asked::of(&client.retry("interview", arguments.clone(), &second, json!({})));
    assert_eq!(third.questions, second.questions);
    let heard = result(&client.retry("interview", arguments, &third, third.all(&sample())));
    assert_eq!(heard["heard"], json!([yes(), sample()]));
    assert_eq!(journal.answers().len(), 2, "no question is answered twice");
}

#[test]
fn a_question_is_delivered_while_the_child_keeps_writing() {
    let (server, journal) = journalled("");
    let arguments = json!({"chatter": 500, "rounds": [[elicit("m")]]});
    let client = server.asked().meta("progressToken", "t");
    let mut messages = client.begin_call(1, "interview", arguments.clone()).response().messages();
    let asked = Asked::read(&messages.pop().expect("an answer")["result"]);
    assert!(messages.iter().all(|said| said["params"]["progressToken"] == "t"), "{messages:?}");
    assert!(messages.len() < 500, "the question was delayed until the child was silent");
    let heard = client.retry("interview", arguments, &asked, asked.all(&yes()));
    assert_eq!(result(&heard)["heard"], json!([yes()]));
    assert_eq!(journal.runs("interview"), 1);
}

#[test]
fn progress_uses_the_retrys_token_and_is_dropped_without_one() {
    let server = Server::start("");
    for (token, told) in [(Some("second"), 1), (None, 0)] {
        let file = scratch("go-on");
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$ID,"progress":1}}"#;
        let arguments =
            impatient(&elicit("m"), &[progress, r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#], &file);
        let first = server.asked().meta("progressToken", "first");
        let asked = Asked::of(&first.call("emit", arguments.clone()));
        let client =
            token.map_or_else(|| server.asked(), |token| server.asked().meta("progressToken", token));
        let mut again = client.begin_retry("emit", arguments, &asked.state, asked.all(&yes()));
        std::fs::write(&file, "").expect("a scratch file");
        let messages = again.response().messages();
        assert_eq!(messages.len(), told + 1, "{messages:?}");
        assert!(messages[..told].iter().all(|said| said["params"]["progressToken"] == "second"));
    }
}

#[test]
fn questions_without_the_declared_capability_fail_the_call() {
    let (server, journal) = journalled("");
    let url = json!({"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "https://a.example"}});
    let tools =
        json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1, "tools": []}});
    for (declared, question, required) in [
        (json!({"sampling": {}}), elicit("m"), json!({"elicitation": {"form": {}}})),
        (json!({"elicitation": {}}), sample(), json!({"sampling": {}})),
        (json!({"elicitation": {}}), url, json!({"elicitation": {"url": {}}})),
        (json!({"sampling": {}}), tools, json!({"sampling": {"tools": {}}})),
    ] {
        let before = journal.runs("interview");
        let client = server.modern().capabilities(declared);
        let response = client.call("interview", rounds(json!([[question]])));
        assert_eq!((response.status, response.code()), (400, MISSING), "{}", response.text());
        assert_eq!(response.json()["error"]["data"], json!({"requiredCapabilities": required}));
        assert_eq!(journal.runs("interview"), before + 1);
        journal.until_cancelled("interview");
    }
    let nothing = server.modern().call("interview", rounds(json!([[elicit("m")]])));
    assert_eq!(
        (nothing.status, nothing.code()),
        (400, MISSING),
        "the question belongs to the only call in flight"
    );
    journal.until_cancelled("interview");
}

#[test]
fn a_shared_childs_ambiguous_question_is_refused() {
    let (server, journal) = journalled("");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| server.modern().call("wait", json!({"name": "gate"})));
        journal.until_called("wait");
        let asking = server.modern().call("interview", rounds(json!([[elicit("m")]])));
        assert_eq!(result(&asking)["heard"], json!([null]), "the child gets an error and continues");
        server.modern().call("release", json!({"name": "gate"})).json();
        assert_eq!(other.join().expect("no panic").status, 200);
    });
}

#[test]
fn a_request_state_is_valid_once_and_only_for_its_own_call() {
    let (server, journal) = journalled("--principal-header x-user");
    let (ann, bob) = (server.asked().of("ann"), server.asked().of("bob"));
    let arguments = rounds(json!([[elicit("m")]]));
    let asked = Asked::of(&ann.call("interview", arguments.clone()));
    let answers = asked.all(&yes());
    let flipped = |at: usize| {
        let mut state = asked.state.clone().into_bytes();
        state[at] = if state[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(state).expect("ASCII")
    };
    for state in [
        flipped(0),
        flipped(asked.state.len() / 2),
        flipped(asked.state.len() - 2),
        String::new(),
        "x".into(),
    ] {
        refused(&ann.begin_retry("interview", arguments.clone(), &state, answers.clone()).response());
    }
    refused(&bob.retry("interview", arguments.clone(), &asked, answers.clone()));
    refused(&server.asked().of("carl").retry("interview", arguments.clone(), &asked, answers.clone()));
    refused(&ann.retry("facts", arguments.clone(), &asked, answers.clone()));
    refused(&ann.retry("interview", rounds(json!([])), &asked, answers.clone()));
    for bad in [json!([]), json!({"q1": "yes"})] {
        refused(&ann.retry("interview", arguments.clone(), &asked, bad));
    }
    assert_eq!(
        result(&ann.retry("interview", arguments.clone(), &asked, answers.clone()))["heard"],
        json!([yes()])
    );
    refused(&ann.retry("interview", arguments.clone(), &asked, answers));
    assert_eq!((journal.runs("interview"), journal.runs("facts")), (1, 0));
    let other = Server::start("");
    refused(&other.asked().retry("interview", arguments.clone(), &asked, json!({})));
    let fresh = json!({"name": "interview", "arguments": arguments, "inputResponses": {"q1": yes()}});
    Asked::of(&ann.send("tools/call", fresh));
    assert_eq!(journal.runs("interview"), 2, "a request with answers but without a state is a new call");
}

#[test]
fn a_call_that_is_never_retried_expires_after_park_timeout() {
    let (server, journal) = journalled("--park-timeout 100ms");
    let arguments = rounds(json!([[elicit("m"), sample()]]));
    let asked = Asked::of(&server.asked().call("interview", arguments.clone()));
    journal.until_cancelled("interview");
    server.until_metric("proxyrunner_expired_parked_total", 1);
    let answers = journal.answers();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().any(|answer| answer["result"] == json!({"action": "cancel"})));
    assert!(answers.iter().any(|answer| answer["error"]["code"] == -32603));
    refused(&server.asked().retry("interview", arguments, &asked, asked.all(&yes())));
    assert_eq!(journal.runs("interview"), 1);
}

#[test]
fn request_timeout_is_paused_while_a_call_is_parked() {
    let (server, journal) = journalled("--request-timeout 1s --park-timeout 1m");
    let arguments = rounds(json!([[elicit("m")], [elicit("n")]]));
    let first = Asked::of(&server.asked().call("interview", arguments.clone()));
    let other = server.modern().call("hang", json!({})).answer();
    assert_eq!(other["error"]["data"]["reason"], "timed_out", "the parked call has exceeded its timeout");
    let second = server.asked().retry("interview", arguments, &first, first.all(&yes()));
    Asked::of(&second);
    assert!(!journal.is_cancelled("interview"));
}

#[test]
fn a_child_exit_while_parked_fails_the_retry() {
    for partial in [false, true] {
        let (server, journal) = journalled("");
        let neighbor = server.asked().begin_call(1, "wait", json!({"name": "n"}));
        journal.until_called("wait");
        let arguments = rounds(json!([[elicit("m")]]));
        let asked = Asked::of(&server.asked().call("interview", arguments.clone()));
        let pid = i32::try_from(journal.call("interview").pid).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("a process");
        server.until_metric("proxyrunner_ended_children_total", 1);
        let answers = if partial { json!({}) } else { asked.all(&yes()) };
        let answer = server.asked().retry("interview", arguments, &asked, answers).answer();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("again"), &json!(-32603)));
        assert_eq!(journal.runs("interview"), 1);
        let pid = i32::try_from(journal.call("wait").pid).expect("a pid");
        assert!(crate::support::lives(pid), "the other call has another child");
        drop(neighbor);
        journal.until_cancelled("wait");
    }
}

#[test]
fn a_retry_gets_the_result_of_a_child_that_stopped_waiting() {
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"theirs"}}"#;
    let outcome = r#"{"jsonrpc":"2.0","id":$ID,"result":{"gave":"up"}}"#;
    for after in [&[outcome][..], &[cancelled, outcome]] {
        for answered in [true, false] {
            let (server, file) = (Server::start(""), scratch("gives-up"));
            let arguments = impatient(&elicit("m"), after, &file);
            let asked = Asked::of(&server.asked().call("emit", arguments.clone()));
            std::fs::write(&file, "").expect("a scratch file");
            until("the child has had time to see the file", || {
                server.modern().call("facts", json!({})).status == 200
            });
            let answers = if answered { asked.all(&yes()) } else { json!({}) };
            let mut response = server.asked().retry("emit", arguments.clone(), &asked, answers);
            // If the child has not seen the file yet, the question is correctly asked again.
            while response.answer()["result"]["resultType"] == "input_required" {
                let again = Asked::of(&response);
                response = server.asked().retry("emit", arguments.clone(), &again, json!({}));
            }
            assert_eq!(result(&response)["gave"], "up", "after {after:?}, answered: {answered}");
        }
    }
}

#[test]
fn a_question_beyond_max_parked_is_refused_and_its_call_cancelled() {
    let (server, journal) = journalled("--max-parked 1");
    let arguments = rounds(json!([[elicit("m")]]));
    let asked = Asked::of(&server.asked().call("interview", arguments.clone()));
    let first = journal.call("interview").pid;
    let refused = server.asked().call("interview", arguments.clone()).answer();
    assert_eq!(refused["error"]["code"], -32603);
    assert!(
        refused["error"]["message"].as_str().is_some_and(|why| why.contains("--max-parked")),
        "{refused}"
    );
    journal.until_cancelled("interview");
    assert_ne!(journal.call("interview").pid, first, "the second call has another child");
    until("an answer", || {
        journal.answers().iter().any(|answer| answer["result"] == json!({"action": "cancel"}))
    });
    let heard = server.asked().retry("interview", arguments, &asked, asked.all(&yes()));
    assert_eq!(result(&heard)["heard"], json!([yes()]), "the parked call is not affected");
}

#[test]
fn parked_calls_do_not_count_in_flight_and_their_retries_queue() {
    let (server, journal) = journalled("--max-in-flight 1 --principal-header x-user");
    let (noisy, quiet) = (server.asked().of("noisy"), server.modern().of("quiet"));
    let arguments = rounds(json!([[elicit("m")]]));
    let asked: Vec<Asked> = (0..3).map(|_| Asked::of(&noisy.call("interview", arguments.clone()))).collect();
    assert_eq!(server.metric("proxyrunner_in_flight"), 0);
    assert_eq!(server.metric("proxyrunner_parked"), 3);
    assert_eq!(quiet.call("facts", json!({})).status, 200);
    let neighbor = quiet.begin_call(1, "late", json!({}));
    journal.until_called("late");
    let retry =
        |asked: &Asked| noisy.begin_retry("interview", arguments.clone(), &asked.state, asked.all(&yes()));
    let mut waiting = retry(&asked[0]);
    server.until_metric("proxyrunner_queued", 1);
    assert!(journal.answers().is_empty(), "the retry waits for a place");
    // A client that disconnects during the wait cancels its call.
    let left = retry(&asked[1]);
    server.until_metric("proxyrunner_queued", 2);
    left.cut();
    server.until_metric("proxyrunner_queued", 1);
    until("a refusal", || journal.answers().iter().any(|answer| answer["result"]["action"] == "cancel"));
    neighbor.cut();
    assert_eq!(result(&waiting.response())["heard"], json!([yes()]));
    assert_eq!(result(&retry(&asked[2]).response())["heard"], json!([yes()]));
    server.until_metric("proxyrunner_in_flight", 0);
    assert_eq!((journal.runs("interview"), server.metric("proxyrunner_parked")), (3, 0));
}

#[test]
fn a_client_parks_at_most_a_quarter_of_max_parked() {
    let (server, journal) = journalled("--max-parked 4 --principal-header x-user");
    let (noisy, quiet) = (server.asked().of("noisy"), server.asked().of("quiet"));
    let arguments = rounds(json!([[elicit("m")]]));
    let first = Asked::of(&noisy.call("interview", arguments.clone()));
    let refused = noisy.call("interview", arguments.clone()).answer();
    assert!(
        refused["error"]["message"].as_str().is_some_and(|why| why.contains("a quarter of --max-parked"))
    );
    journal.until_cancelled("interview");
    let other = Asked::of(&quiet.call("interview", arguments.clone()));
    for (client, asked) in [(noisy, first), (quiet, other)] {
        let heard = client.retry("interview", arguments.clone(), &asked, asked.all(&yes()));
        assert_eq!(result(&heard)["heard"], json!([yes()]));
    }
}

#[test]
fn a_drain_accepts_retries_and_finally_cancels_parked_calls() {
    let (server, journal) = journalled("--drain-delay 0s --drain-timeout 30s");
    let arguments = rounds(json!([[elicit("m")]]));
    let asked = Asked::of(&server.asked().call("interview", arguments.clone()));
    server.signal(Signal::SIGTERM);
    let shed = |client: Modern<'_>| client.call("facts", json!({}));
    until("new calls are refused", || shed(server.modern()).status == 503);
    let heard = server.asked().retry("interview", arguments.clone(), &asked, asked.all(&yes()));
    assert_eq!(result(&heard)["heard"], json!([yes()]));
    assert_eq!((server.exit_code(), journal.runs("interview")), (0, 1));
    let (server, journal) = journalled("--drain-delay 0s --drain-timeout 300ms");
    // The call asks a second question, so it does not end when its first question is declined.
    let rounds = rounds(json!([[elicit("m")], [elicit("n")]]));
    Asked::of(&server.asked().call("interview", rounds));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    assert!(journal.is_cancelled("interview"));
    assert_eq!(journal.answers()[0]["result"], json!({"action": "cancel"}));
}

#[test]
fn url_elicitation_errors_become_a_limited_number_of_questions() {
    let (server, journal) = journalled("");
    let elicitation =
        json!({"mode": "url", "elicitationId": "e1", "url": "https://a.example", "message": "m"});
    let error = json!({"code": -32042, "message": "first", "data": {"elicitations": [elicitation]}});
    let line = json!({"jsonrpc": "2.0", "id": "ID", "error": error}).to_string().replace("\"ID\"", "$ID");
    let arguments = json!({"lines": [line], "answer": false});
    for client in [server.modern(), server.modern().capabilities(json!({"elicitation": {}}))] {
        let response = client.call("emit", arguments.clone());
        assert_eq!((response.status, response.code()), (400, MISSING));
        let required = json!({"requiredCapabilities": {"elicitation": {"url": {}}}});
        assert_eq!(response.json()["error"]["data"], required);
    }
    let asked = result(&server.asked().call("emit", arguments.clone()));
    let params = json!({"mode": "url", "url": "https://a.example", "message": "m"});
    assert_eq!(asked["inputRequests"], json!({"e1": {"method": "elicitation/create", "params": params}}));
    let mut asked = Asked::read(&asked);
    for _ in 0..7 {
        let answers = asked.all(&json!({"action": "accept"}));
        asked = Asked::of(&server.asked().retry("emit", arguments.clone(), &asked, answers));
    }
    assert_eq!(journal.runs("emit"), 10, "each retry is a new call");
    let once_more = server.asked().retry("emit", arguments, &asked, json!({}));
    assert_eq!((once_more.status, once_more.code()), (200, -32603), "{}", once_more.text());
}
