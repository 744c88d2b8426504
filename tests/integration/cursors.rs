//! Cursors: each is sealed for its caller and its list where callers are identified, and passes unchanged elsewhere.

use crate::support::http2::Http2;
use crate::support::modern;
use crate::support::{Journal, Response, Server, scratch, until};
use serde_json::{Value, json};
use std::fs;

const PAGED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/children/paged.py");
const IDENTIFIES: &str = "--principal-header x-user";

/// The methods of lists, their members, and the key of an item.
const LISTS: [(&str, &str, &str); 4] = [
    ("tools/list", "tools", "name"),
    ("prompts/list", "prompts", "name"),
    ("resources/list", "resources", "uri"),
    ("resources/templates/list", "resourceTemplates", "uriTemplate"),
];

fn paged(flags: &str, child: &str) -> Server {
    Server::with().asked_nothing().flags(flags).program(&["python3", PAGED]).child(child).start()
}

/// Sends the same requests as a legacy client and as a modern one.
fn with_both(server: &Server, who: &str, each: impl Fn(&dyn Fn(&str, Value) -> Response)) {
    let legacy = server.opening().header("X-User", who).open();
    each(&|method, params| {
        legacy.post(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
    });
    let modern = server.modern().of(who);
    each(&|method, params| modern.send(method, params));
}

fn cursor(response: &Response) -> String {
    let answer = response.answer();
    answer["result"]["nextCursor"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Checks that a cursor is refused, without a reason.
fn is_unknown(response: &Response) {
    let why = "Invalid params: the cursor is unknown; begin the list again without one";
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.answer()["error"], json!({"code": -32602, "message": why}));
}

#[test]
fn each_caller_reads_all_pages_by_its_own_cursors() {
    for child in ["", "--modern"] {
        let journal = Journal::new();
        let server = paged(IDENTIFIES, &format!("{child} {}", journal.flag()));
        for who in ["ann", "bob"] {
            with_both(&server, who, |send| {
                for (method, list, key) in LISTS {
                    let (mut params, mut found) = (json!({}), Vec::new());
                    for _ in 0..3 {
                        let page = send(method, params).answer();
                        found.push(page["result"][list][0][key].as_str().expect("an item").to_owned());
                        let next = page["result"]["nextCursor"].as_str().expect("a cursor");
                        assert!(!next.contains("page"), "the server's own: {next}");
                        assert!(page["result"]["cacheScope"] != "public" || next.is_empty(), "{page}");
                        params = json!({"cursor": next});
                    }
                    assert_eq!(params, json!({"cursor": ""}), "the end of a list stays its end");
                    let own = |name: &&str| found.iter().any(|found| found.contains(*name));
                    assert!(["one", "two", "three"].iter().all(own), "{method}: {found:?}");
                }
            });
        }
        let cursors =
            journal.frames().into_iter().filter_map(|read| read.message["params"].get("cursor").cloned());
        let cursors: Vec<_> = cursors.collect();
        let own = |cursor: &Value| ["page 1", "page 2"].contains(&cursor.as_str().unwrap_or_default());
        assert!(
            !cursors.is_empty() && cursors.iter().all(own),
            "the server sees its own cursors: {cursors:?}"
        );
    }
}

#[test]
fn another_callers_cursor_is_as_unknown_as_a_forged_one() {
    for child in ["", "--modern"] {
        let journal = Journal::new();
        let server = paged(IDENTIFIES, &format!("{child} {}", journal.flag()));
        let anns = cursor(&server.modern().of("ann").send("tools/list", json!({})));
        let anns_prompts = cursor(&server.modern().of("ann").send("prompts/list", json!({})));
        let changed = format!("A{}", &anns[1..]);
        let changed = if changed == anns { format!("B{}", &anns[1..]) } else { changed };
        with_both(&server, "bob", |send| {
            is_unknown(&send("tools/list", json!({"cursor": anns})));
        });
        with_both(&server, "ann", |send| {
            assert_eq!(
                send("tools/list", json!({"cursor": anns})).answer()["result"]["tools"][0]["name"],
                "two"
            );
            let truncated = &anns[..anns.len() - 4];
            let forged = [&*anns_prompts, &*changed, truncated, "page 1", "x", &"A".repeat(40_000)];
            for cursor in forged.map(Value::from).into_iter().chain([json!(1), json!(["x"]), json!(true)]) {
                is_unknown(&send("tools/list", json!({"cursor": cursor})));
            }
        });
        let frames = journal.frames();
        let seen = frames.iter().filter_map(|read| read.message["params"]["cursor"].as_str());
        assert!(seen.clone().all(|cursor| cursor == "page 1"), "{:?}", seen.collect::<Vec<_>>());
    }
}

#[test]
fn a_cursor_that_could_be_read_as_another_one_does_not_reach_the_server() {
    let journal = Journal::new();
    let server = paged(IDENTIFIES, &journal.flag());
    let session = server.opening().header("X-User", "ann").open();
    for params in [
        r#"{"Cursor":"page 1"}"#,
        r#"{"cursor":"","CURSOR":"page 1"}"#,
        r#"{"cursor":null,"cursor":"page 1"}"#,
        r#"{"cur\u017for":"page 1"}"#,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{params}}}"#);
        let refused = session.post(body);
        assert_eq!((refused.status, refused.code()), (400, -32600), "{params}");
    }
    assert!(journal.frames().iter().all(|read| read.message["method"] != "tools/list"));
    for first in [json!({}), json!({"cursor": null}), json!({"cursor": ""})] {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": first});
        assert_eq!(session.post(body.to_string()).answer()["result"]["tools"][0]["name"], "one", "{first}");
    }
}

#[test]
fn only_the_cursor_changes_in_a_list() {
    for child in ["", "--modern"] {
        let page = |flags: &str| {
            let server = paged(flags, child);
            server.modern().of("ann").send("prompts/list", json!({})).text()
        };
        let (plain, sealed) = (page(""), page(IDENTIFIES));
        let (before, after) = plain.split_once(r#""page\u00201""#).expect("the server's own cursor");
        // The page has a cursor of one caller, so no cache may give it to another one.
        let before = before.replace(r#""public""#, r#""private""#);
        let after = after.replace(r#""public""#, r#""private""#);
        let cursor = sealed.strip_prefix(&*before).and_then(|rest| rest.strip_suffix(&*after));
        let cursor = cursor.unwrap_or_else(|| panic!("{plain}\n{sealed}"));
        assert!(cursor.len() < 100 && !cursor.contains("page"), "{cursor}");
    }
}

#[test]
fn cursors_pass_unchanged_where_nobody_is_identified() {
    for child in ["", "--modern"] {
        let server = paged("", child);
        with_both(&server, "ann", |send| {
            assert_eq!(cursor(&send("tools/list", json!({}))), "page 1");
            assert_eq!(
                send("tools/list", json!({"cursor": "page 1"})).answer()["result"]["tools"][0]["name"],
                "two"
            );
            let refused = send("tools/list", json!({"cursor": "x"})).answer();
            assert_eq!(refused["error"]["message"], "the server knows no such cursor");
        });
    }
}

#[test]
fn tasks_have_sealed_cursors_too() {
    let server = paged(&format!("{IDENTIFIES} --isolation session"), "");
    let open = |who| server.opening().header("X-User", who).open();
    let (ann, bob) = (open("ann"), open("bob"));
    let list = |params: Value| {
        json!({"jsonrpc": "2.0", "id": 7, "method": "tasks/list", "params": params}).to_string()
    };
    let next = cursor(&ann.post(list(json!({}))));
    assert_eq!(ann.post(list(json!({"cursor": next}))).answer()["result"]["tasks"][0]["taskId"], "two");
    is_unknown(&bob.post(list(json!({"cursor": next}))));
}

#[test]
fn filtered_pages_and_cached_pages_have_sealed_cursors() {
    let path = scratch("policies").with_extension("cedar");
    let policies = r#"permit(principal, action, resource) unless { resource == Tool::"two" };"#;
    fs::write(&path, policies).expect("a file");
    for child in ["", "--modern"] {
        let flags = format!("{IDENTIFIES} --policy {}", path.display());
        let server = Server::with().flags(&flags).program(&["python3", PAGED]).child(child).start();
        for who in ["ann", "bob"] {
            with_both(&server, who, |send| {
                let second = send("tools/list", json!({"cursor": cursor(&send("tools/list", json!({})))}));
                assert_eq!(second.answer()["result"]["tools"], json!([]));
                let third = send("tools/list", json!({"cursor": cursor(&second)})).answer();
                assert_eq!(third["result"]["tools"][0]["name"], "three");
            });
        }
        assert!(server.metric("proxyrunner_cached_lists_total") > 0, "all callers share the pages");
    }
}

#[test]
fn a_batch_and_the_old_transport_have_sealed_cursors() {
    let server = paged(&format!("{IDENTIFIES} --sse"), "");
    let session = server.opening().version("2025-03-26").header("X-User", "ann").open();
    let list =
        |id, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": params});
    let answers =
        session.post(json!([list(1, json!({})), list(2, json!({"cursor": "page 1"}))]).to_string()).json();
    let of =
        |id: u64| answers.as_array().expect("answers").iter().find(|answer| answer["id"] == id).expect("one");
    assert_eq!(of(2)["error"]["code"], -32602);
    let next = of(1)["result"]["nextCursor"].as_str().expect("a cursor");
    let next = session.post(list(3, json!({"cursor": next})).to_string()).answer();
    assert_eq!(next["result"]["tools"][0]["name"], "two");

    let mut connection = server.connect();
    connection.request("GET", "/sse", &[("Accept", "text/event-stream"), ("X-User", "ann")], b"");
    let mut events = connection.events();
    let path = format!("/{}", events.next().expect("an event").data);
    let headers = [("Content-Type", "application/json"), ("X-User", "ann")];
    let mut send = |body: String| {
        assert_eq!(server.request("POST", &path, &headers, body.as_bytes()).status, 202);
        events.message()
    };
    send(server.opening().version("2024-11-05").body());
    let first = send(list(1, json!({})).to_string());
    let next = send(list(2, json!({"cursor": first["result"]["nextCursor"]})).to_string());
    assert_eq!(next["result"]["tools"][0]["name"], "two");
    assert_eq!(send(list(3, json!({"cursor": "page 1"})).to_string())["error"]["code"], -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_sealed_on_http2() {
    let server = paged(IDENTIFIES, "");
    let mut client = Http2::open(&server).await;
    let mut list = async |params: Value| {
        let body = server.modern().body(1, "tools/list", params).to_string();
        let headers =
            [("mcp-protocol-version", modern::VERSION), ("mcp-method", "tools/list"), ("x-user", "ann")];
        client.post(&headers, body).await.whole().await
    };
    let first = list(json!({})).await.json();
    let second = list(json!({"cursor": first["result"]["nextCursor"]})).await.json();
    assert_eq!(second["result"]["tools"][0]["name"], "two");
    let forged = list(json!({"cursor": "page 1"})).await;
    assert_eq!((forged.status, &forged.json()["error"]["code"]), (200, &json!(-32602)));
}

#[test]
fn replicas_with_one_key_open_each_others_cursors_until_it_is_gone() {
    let (old, new) = ("o".repeat(64), "n".repeat(64));
    let key = scratch("key");
    fs::write(&key, &old).expect("a file");
    let flags = format!("{IDENTIFIES} --reload-interval 50ms --state-key-file {}", key.display());
    let (first, second, stranger) = (paged(&flags, ""), paged(&flags, "--modern"), paged(IDENTIFIES, ""));
    let session = first.opening().header("X-User", "ann").open();
    let next = cursor(&session.post(r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#));
    let page = || second.modern().of("ann").send("tools/list", json!({"cursor": next}));
    assert_eq!(page().answer()["result"]["tools"][0]["name"], "two");
    is_unknown(&stranger.modern().of("ann").send("tools/list", json!({"cursor": next})));
    let changes = |count| {
        until("the keys to be read", || {
            second.logged().matches("the state key has changed").count() == count
        });
    };
    fs::write(&key, format!("{new}\n{old}\n")).expect("a file");
    changes(1);
    assert_eq!(page().answer()["result"]["tools"][0]["name"], "two", "the former key still opens");
    fs::write(&key, &new).expect("a file");
    changes(2);
    is_unknown(&page());
}

#[test]
fn a_cursor_of_16_kib_passes_and_a_longer_one_is_an_error() {
    let answer = |length: usize| {
        let server = paged(IDENTIFIES, &format!("--cursor {}", "c".repeat(length)));
        let modern = server.modern().of("ann");
        let first = modern.send("tools/list", json!({})).answer();
        match first["result"]["nextCursor"].as_str() {
            Some(next) => modern.send("tools/list", json!({"cursor": next})).answer(),
            None => first,
        }
    };
    let longest = 16 * 1024 - "\"1\"".len();
    assert_eq!(answer(longest)["result"]["tools"][0]["name"], "two");
    let why = "the server's cursor is longer than 16 KiB";
    assert_eq!(answer(longest + 1)["error"], json!({"code": -32603, "message": why}));
}
