//! Tests how a task follows its child's answers.

use super::*;
use crate::era::fixtures::response;

fn answer(result: &str) -> Answer {
    let (frame, message, result) = response(result);
    let id = message.id.clone().unwrap();
    Answer { object: message.object, id, result: Some(result), error: None, is_error: false, frame }
}

fn created(now: Instant, poll: &str) -> Task {
    let mut task = Task::default();
    let told = answer(&format!(r#"{{"task":{{"taskId":"a\"b","status":"working"{poll}}}}}"#));
    assert!(task.hear(told, now).is_none());
    task
}

#[test]
fn the_childs_poll_interval_is_used_within_bounds() {
    let now = Instant::now();
    for (poll, expected) in [
        ("", 500),
        (r#","pollInterval":null"#, 500),
        (r#","pollInterval":"1""#, 500),
        (r#","pollInterval":-1"#, 500),
        (r#","pollInterval":0"#, 50),
        (r#","pollInterval":51"#, 51),
        (r#","pollInterval":9007199254740991"#, 5000),
    ] {
        let task = created(now, poll);
        assert_eq!(task.stage, Stage::Waiting(now + Duration::from_millis(expected)), "{poll}");
    }
}

#[test]
fn the_tasks_id_is_sent_back_unchanged() {
    let task = created(Instant::now(), "");
    let request = task.request(WireId::new(7).unwrap(), "tasks/get").to_vec();
    let expected = br#"{"jsonrpc":"2.0","id":7,"method":"tasks/get","params":{"taskId":"a\"b"}}"#;
    assert_eq!(&request[..], expected);
}

#[test]
fn a_task_ends_with_any_state_but_working() {
    let now = Instant::now();
    for (state, expected) in [
        (r#"{"status":"working"}"#, Stage::Waiting(now + DEFAULT_POLL)),
        (r#"{"taskId":"another"}"#, Stage::Waiting(now + DEFAULT_POLL)),
        (r#"{"status":"input_required"}"#, Stage::Over),
        (r#"{"status":"completed"}"#, Stage::Over),
        (r#"{"status":"failed"}"#, Stage::Over),
        (r#"{"status":"cancelled"}"#, Stage::Over),
    ] {
        let mut task = created(now, "");
        task.stage = Stage::Asking;
        assert!(task.hear(answer(state), now).is_none());
        assert_eq!(task.stage, expected, "{state}");
        assert_eq!(task.id.as_deref(), Some(&br#""a\"b""#[..]), "the id of the first answer");
    }
}

#[test]
fn an_answer_that_names_no_task_is_the_calls_answer() {
    let now = Instant::now();
    let plain = r#"{"content":[]}"#;
    let heard = Task::default().hear(answer(plain), now).unwrap();
    assert_eq!(&heard.frame[heard.result.unwrap()], plain.as_bytes(), "the tool ran at once");
    for stage in [Stage::Creating, Stage::Asking, Stage::Fetching] {
        let mut task = created(now, "");
        task.stage = stage;
        let failed = Answer { result: None, error: Some(0..1), ..answer(plain) };
        assert!(task.hear(failed, now).is_some(), "{stage:?}");
    }
}

#[test]
fn a_result_does_not_mention_its_task() {
    for (told, expected) in [
        (
            r#"{"content":[],"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"},"a":1}}"#,
            r#"{"content":[],"_meta":{"a":1}}"#,
        ),
        (
            r#"{"content":[],"_meta":{"io.modelcontextprotocol/related-task":{}}}"#,
            r#"{"content":[],"_meta":{}}"#,
        ),
        (r#"{"content":[],"_meta":7}"#, r#"{"content":[],"_meta":7}"#),
        (r#"{ "content" : [] }"#, r#"{ "content" : [] }"#),
    ] {
        let mut task = created(Instant::now(), "");
        task.stage = Stage::Fetching;
        let heard = task.hear(answer(told), Instant::now()).unwrap();
        assert_eq!(&heard.frame[heard.result.unwrap()], expected.as_bytes());
    }
}
