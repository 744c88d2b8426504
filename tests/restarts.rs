//! Children that end or hang, and those that follow them: what is told, who stays, what is restored.

mod support;

use serde_json::{Value, json};
use support::modern::{Client, call_of};
use support::{Journal, Server, tool_call, until};

/// Restarts without a pause worth waiting for.
const SOON: &str = "--restart-backoff 10ms";

fn pid(answer: &Value) -> i64 {
    answer["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {answer}"))
}

#[test]
fn a_session_stays_when_its_shared_child_is_followed_by_another() {
    let server = Server::start(SOON);
    let session = server.session();
    let first = pid(&session.result("facts", json!({})));
    let lost = session.call("leave", json!({"code": 3, "stderr": "out of memory"}));
    assert_eq!(lost["error"]["data"]["exitCode"], 3);
    assert_eq!(lost["error"]["data"]["stderr"], json!(["out of memory"]));
    let second = pid(&session.result("facts", json!({})));
    assert_ne!(first, second);
    assert_eq!(server.metric("proxyrunner_restarted_children_total"), 1);
    server.until_metric("proxyrunner_in_flight", 0);
}
