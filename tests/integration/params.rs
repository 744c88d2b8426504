//! `Mcp-Param-*`: the headers in which a modern client repeats parameters of a tool. They are compared with the body
//! according to the child's `tools/list`.

use crate::support::modern::Modern;
use crate::support::{Journal, Response, Server};
use serde_json::{Value, json};

/// Starts a server in front of a child of this era; returns the child's journal, too.
fn server(era: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let with = Server::with().asked_nothing().flags("--principal-header x-user");
    let with = match era {
        "modern" => with.modern_child(&journal.flag()),
        _ => with.child(&journal.flag()),
    };
    (with.start(), journal)
}

/// Returns tools with three parameters that have headers, one of them nested.
fn marked(names: &[&str]) -> Value {
    let marked = |kind: &str, header: &str| json!({"type": kind, "x-mcp-header": header});
    let deep = json!({"type": "object", "properties": {"on": marked("boolean", "On")}});
    let properties =
        json!({"region": marked("string", "Region"), "count": marked("integer", "Count"), "deep": deep});
    names
        .iter()
        .map(|name| json!({"name": name, "inputSchema": {"type": "object", "properties": properties}}))
        .collect()
}

fn relist(client: &Modern<'_>, pages: Value) {
    client.result("relist", json!({"method": "tools/list", "pages": pages}));
}

/// Returns how many pages of the tool list the child was asked for.
fn asked(journal: &Journal) -> usize {
    journal.frames().iter().filter(|read| read.message["method"] == "tools/list").count()
}

fn is_mismatch(response: &Response) -> bool {
    response.status == 400 && response.code() == -32020 && response.json()["id"] == 1
}

const REGION: &str = "Mcp-Param-Region";
const COUNT: &str = "Mcp-Param-Count";
const ON: &str = "Mcp-Param-On";

#[test]
fn parameter_headers_must_match_the_body() {
    let good: &[(&[(&str, &str)], Value)] = &[
        (&[], json!({})),
        (&[], json!({"region": null, "count": null, "deep": null})),
        (&[], json!({"deep": {"on": null}, "region": null})),
        (&[(REGION, "eu")], json!({"region": "eu"})),
        (&[("mcp-param-REGION", "  eu ")], json!({"region": "eu"})),
        (&[(REGION, "=?base64?w6l0w6k=?=")], json!({"region": "été"})),
        (&[(REGION, "=?BASE64?ZXU=?=")], json!({"region": "=?BASE64?ZXU=?="})),
        (&[(COUNT, "42")], json!({"count": 42})),
        (&[(COUNT, "42")], json!({"count": 42.0})),
        (&[(COUNT, "42.0")], json!({"count": 42})),
        (&[(COUNT, "-0")], json!({"count": 0})),
        (
            &[(ON, "true"), (REGION, "eu"), (COUNT, "1")],
            json!({"deep": {"on": true}, "region": "eu", "count": 1}),
        ),
        (&[(REGION, "eu")], json!({"Region": "eu"})),
        (&[(REGION, "eu"), (ON, "true")], json!({"region": "eu", "REGION": "eu", "DEEP": {"On": true}})),
        (&[("Mcp-Param-Unheard", "x"), ("Mcp-Param-Unheard", "y")], json!({})),
    ];
    let bad: &[(&[(&str, &str)], Value)] = &[
        (&[], json!({"region": "eu"})),
        (&[], json!({"deep": {"on": false}})),
        (&[(REGION, "us")], json!({"region": "eu"})),
        (&[(REGION, "EU")], json!({"region": "eu"})),
        (&[(REGION, "eu"), (REGION, "eu")], json!({"region": "eu"})),
        (&[(REGION, "eu, eu")], json!({"region": "eu"})),
        (&[(REGION, "")], json!({"region": "eu"})),
        (&[(REGION, "eu")], json!({})),
        (&[(REGION, "null")], json!({"region": null})),
        (&[(REGION, "=?base64?ZXU?=")], json!({"region": "eu"})),
        (&[(REGION, "=?base64?Z*U=?=")], json!({"region": "eu"})),
        (&[(REGION, "=?base64?/w==?=")], json!({"region": "eu"})),
        (&[(REGION, "=?BASE64?ZXU=?=")], json!({"region": "eu"})),
        (&[(COUNT, "43")], json!({"count": 42})),
        // Some servers ignore the case of parameter names.
        (&[], json!({"Region": "eu"})),
        (&[(REGION, "us")], json!({"REGION": "eu"})),
        (&[(REGION, "eu")], json!({"region": "eu", "Region": "us"})),
        (&[(REGION, "eu")], json!({"region": null, "Region": "us"})),
        (&[(ON, "true")], json!({"Deep": {"ON": false}})),
        (&[(ON, "true")], json!({"deep": {"on": true}, "Deep": {"on": false}})),
        (&[(COUNT, "forty-two")], json!({"count": 42})),
        (&[(COUNT, "42"), (ON, "True")], json!({"count": 42, "deep": {"on": true}})),
    ];
    for era in ["legacy", "modern"] {
        let (server, journal) = server(era);
        relist(&server.modern().of("ann"), json!([marked(&["release"])]));
        let call = |headers: &[(&str, &str)], arguments: &Value| {
            let client = server.modern().of("ann");
            let client = headers.iter().fold(client, |client, (name, value)| client.header(name, value));
            let mut arguments = arguments.clone();
            arguments["name"] = "gate".into();
            client.call("release", arguments)
        };
        for (headers, arguments) in good {
            let response = call(headers, arguments);
            assert_eq!(response.status, 200, "{era} {headers:?} {arguments}: {}", response.text());
        }
        let runs = journal.runs("release");
        assert_eq!(runs, good.len());
        for (headers, arguments) in bad {
            let response = call(headers, arguments);
            assert!(is_mismatch(&response), "{era} {headers:?} {arguments}: {}", response.text());
        }
        let same_tool =
            server.modern().of("ann").header(REGION, "us").call("Release", json!({"region": "eu"}));
        assert!(is_mismatch(&same_tool), "{era}: {}", same_tool.text());
        assert_eq!(journal.runs("release"), runs, "the child sees none of them");
        twice_in_one_body(&server);
        let unmarked = server.modern().of("ann").header(REGION, "x").call("facts", json!({"region": "eu"}));
        assert_eq!(unmarked.status, 200, "the other tool has no parameter headers");
    }
}

/// Checks that duplicate parameters are refused: some parsers take the first value, some the last.
fn twice_in_one_body(server: &Server) {
    let client = server.modern().of("ann");
    let body = client.body(1, "tools/call", json!({"name": "release", "arguments": {"region": "eu"}}));
    let body = body.to_string().replace(r#"{"region":"eu"}"#, r#"{"region":"eu","region":"us"}"#);
    assert!(body.contains(r#""region":"us""#), "{body}");
    for region in ["eu", "us"] {
        let headers = [
            ("X-User", "ann"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "release"),
            (REGION, region),
        ];
        assert!(is_mismatch(&server.post(&headers, &body)), "{region}");
    }
}

#[test]
fn tools_are_read_once_and_again_after_list_changed() {
    for era in ["legacy", "modern"] {
        let (server, journal) = server(era);
        let client = server.modern().of("ann");
        assert_eq!(asked(&journal), 0, "{era}: the list is not fetched in advance");
        relist(&client, json!([marked(&["a"]), [], marked(&["facts"])]));
        assert_eq!(asked(&journal), 1);
        for _ in 0..3 {
            assert!(
                is_mismatch(&client.call("facts", json!({"region": "eu"}))),
                "{era}: the tool is on the last page"
            );
        }
        assert_eq!(asked(&journal), 4);
        let pages: Vec<Value> = (0..100).map(|_| json!([])).collect();
        client.result("relist", json!({"method": "tools/list", "pages": pages, "told": false}));
        assert!(
            is_mismatch(&client.call("facts", json!({"region": "eu"}))),
            "{era}: the change was not announced"
        );
        relist(&client, pages.into());
        assert_eq!(client.call("facts", json!({"region": "eu"})).status, 200);
        assert_eq!(asked(&journal), 4 + 64, "{era}: the number of pages is limited");
    }
}

#[test]
fn a_pending_tool_list_does_not_block_calls_and_is_fetched_once() {
    for era in ["legacy", "modern"] {
        let (server, journal) = server(era);
        let client = server.modern().of("ann");
        client.result("hold", json!({"method": "tools/list", "name": "lists"}));
        relist(&client, json!([marked(&["facts"])]));
        let mut calls: Vec<_> =
            (0..8).map(|id| client.begin_call(id, "facts", json!({"region": "eu"}))).collect();
        for call in &mut calls {
            assert_eq!(call.response().status, 200, "{era}: an unknown tool is not checked");
        }
        assert_eq!(client.call("facts", json!({"region": "eu"})).status, 200);
        // A router may rely on the header, so it must not be forwarded unchecked.
        let routed = client.clone().header(REGION, "us").call("facts", json!({"region": "eu"}));
        assert_eq!(
            (routed.status, routed.header("retry-after")),
            (503, Some("1")),
            "{era}: {}",
            routed.text()
        );
        assert_eq!(asked(&journal), 2, "{era}: all calls wait for the same list");
        client.result("release", json!({"name": "lists"}));
        crate::support::until("the list is known", || {
            is_mismatch(&client.call("facts", json!({"region": "eu"})))
        });
    }
}

#[test]
fn parameter_headers_are_checked_on_retries() {
    let (server, journal) = server("legacy");
    let client = server.asked().of("ann");
    relist(&client, json!([marked(&["interview"])]));
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    let arguments = json!({"region": "eu", "rounds": [[{"method": "elicitation/create", "params": params}]]});
    let good = client.clone().header(REGION, "eu");
    let asked = crate::support::modern::Asked::of(&good.call("interview", arguments.clone()));
    let answers = asked.all(&json!({"action": "decline"}));
    for bad in [client.clone(), client.header(REGION, "us")] {
        let refused = bad.retry("interview", arguments.clone(), &asked, answers.clone());
        assert_eq!((refused.status, refused.code()), (400, -32020));
    }
    let heard = good.retry("interview", arguments, &asked, answers);
    assert_eq!(
        crate::support::modern::result(&heard)["heard"],
        json!([{"action": "decline"}]),
        "the call is still parked"
    );
    assert_eq!(journal.runs("interview"), 1);
}
