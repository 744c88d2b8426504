//! All servers of `proxyrunner gateway` as one, at `/mcp`: names, lists, questions, subscriptions, and what servers and
//! callers do wrong.

use crate::support::modern::{Asked, Modern, result};
use crate::support::upstream::Upstream;
use crate::support::{Journal, Response, Server, scratch, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Servers behind a gateway.
struct Fleet {
    file: PathBuf,
    _servers: Vec<Server>,
    gateway: Server,
}

fn write(path: &Path, servers: &Value) {
    let next = path.with_extension("next");
    fs::write(&next, json!({"mcpServers": servers}).to_string()).expect("a file");
    fs::rename(next, path).expect("a file");
}

fn url(server: &Server) -> String {
    format!("http://{}/mcp", server.address())
}

/// Starts a sidecar of the modern test server, and waits until it is ready.
fn modern(flags: &str, child: &str) -> Server {
    ready(Server::with().flags(flags).modern_child(child).start())
}

fn ready(server: Server) -> Server {
    until("the sidecar is ready", || server.request("GET", "/readyz", &[], b"").status == 200);
    server
}

impl Fleet {
    fn of(servers: Vec<(&str, Server)>, flags: &str) -> Fleet {
        let entries = servers.iter().map(|(name, server)| ((*name).to_owned(), json!({"url": url(server)})));
        Fleet::written(
            &Value::Object(entries.collect()),
            servers.into_iter().map(|(_, server)| server).collect(),
            flags,
        )
    }

    fn written(entries: &Value, servers: Vec<Server>, flags: &str) -> Fleet {
        let file = scratch("servers.json");
        write(&file, entries);
        let gateway = Server::with().gateway(&file).flags("--reload-interval 50ms").flags(flags).start();
        Fleet { file, _servers: servers, gateway }
    }

    /// Two modern servers, `a` and `b`.
    fn two() -> Fleet {
        Fleet::of(vec![("a", modern("", "")), ("b", modern("", ""))], "")
    }
}

/// Returns the values of a member of the items in a list.
fn keys(list: &Value, items: &str, key: &str) -> Vec<String> {
    let items = list[items].as_array().unwrap_or_else(|| panic!("no {items} in {list}"));
    items.iter().map(|item| item[key].as_str().expect("a text").to_owned()).collect()
}

fn tools(client: &Modern<'_>) -> Vec<String> {
    keys(&result(&client.send("tools/list", json!({}))), "tools", "name")
}

/// Returns the answer of a server that speaks for itself.
fn http(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// Starts a server that lists one tool, and answers everything else with an error.
fn lister(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Upstream {
    Upstream::doing(move |request, stream| {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default();
        let id = &message["id"];
        let body = answer(method).unwrap_or_else(|| {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}})
                .to_string()
        });
        stream.write_all(&http(&body.replace("$ID", &id.to_string())))
    })
}

#[test]
fn both_eras_see_and_call_the_tools_of_all_servers() {
    let fleet = Fleet::of(vec![("time", modern("", "")), ("old", ready(Server::start("")))], "");
    let client = fleet.gateway.modern();
    let names = tools(&client);
    assert!(names.contains(&"time__echo".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("time__")), "the other server lists none: {names:?}");
    let odd = json!({"a": "\u{a0}\u{3000}é\n", "n": 1.50});
    let session = fleet.gateway.session();
    assert_eq!(session.version(), "2025-11-25");
    assert_eq!(client.result("time__echo", odd.clone())["structuredContent"], odd);
    assert_eq!(client.result("old__echo", odd.clone())["a"], odd["a"]);
    assert_eq!(session.call("time__echo", odd.clone())["result"]["structuredContent"], odd);
    let listed = session.ask("tools/list", json!({}));
    assert_eq!(keys(&listed["result"], "tools", "name"), names);
    // The same at the other path.
    let Fleet { gateway, _servers, .. } = fleet;
    let gateway = gateway.at("/discover");
    assert_eq!(tools(&gateway.modern()), names);
    assert_eq!(gateway.session().call("time__echo", json!({}))["result"]["content"][0]["text"], "echo");
    let unknown = gateway.modern().call("echo", json!({}));
    assert_eq!(unknown.code(), -32602, "{}", unknown.text());
    assert_eq!(gateway.modern().call("none__echo", json!({})).code(), -32602);
    assert_eq!(gateway.modern().send("tasks/get", json!({"taskId": "1"})).code(), -32601);
}

#[test]
fn one_server_keeps_its_names_and_every_byte() {
    let fleet = Fleet::of(vec![("only", modern("", ""))], "");
    let client = fleet.gateway.modern();
    assert!(tools(&client).contains(&"echo".to_owned()));
    let extra = client.send("acme/extra", json!({}));
    assert_eq!(result(&extra)["extra"], true);
    let raw = r#"{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"complete", "content":[],"x":1.50e3,"\u0061":"\u00e9"}}"#;
    let said = client.call("raw", json!({"line": raw})).text();
    assert!(said.contains(r#""resultType":"complete", "content":[],"x":1.50e3,"\u0061":"\u00e9""#), "{said}");
    let discovered = result(&client.send("server/discover", json!({})));
    assert_eq!(discovered["instructions"], "be modern");
    assert!(discovered["capabilities"]["extensions"].is_object(), "{discovered}");
}

#[test]
fn servers_describe_themselves_together() {
    let fleet = Fleet::of(vec![("a", modern("", "--ttl 5000")), ("b", modern("", "--ttl 9000"))], "");
    let discovered = result(&fleet.gateway.modern().send("server/discover", json!({})));
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["instructions"], "a: be modern\n\nb: be modern");
    assert_eq!((&discovered["ttlMs"], &discovered["cacheScope"]), (&json!(5000), &json!("private")));
    let capabilities = &discovered["capabilities"];
    assert_eq!(capabilities["resources"], json!({"subscribe": true, "listChanged": true}));
    assert!(
        capabilities["completions"].is_object() && capabilities["extensions"].is_null(),
        "{capabilities}"
    );
}

#[test]
fn resources_and_prompts_reach_their_servers() {
    let list = |uri: &'static str| {
        lister(move |method| match method {
            "resources/list" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","resources":[{{"uri":"{uri}","name":"r"}},{{"uri":"same:","name":"r"}}]}}}}"#
            )),
            "resources/templates/list" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","resourceTemplates":[{{"uriTemplate":"{uri}/{{x}}","name":"t"}}]}}}}"#
            )),
            "prompts/list" => Some(
                r#"{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"complete","prompts":[{"name":"p"}]}}"#
                    .to_owned(),
            ),
            "resources/read" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","contents":[{{"uri":"x:","text":"{uri}"}}]}}}}"#
            )),
            "prompts/get" | "completion/complete" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","said":"{uri}","messages":[],"completion":{{"values":[]}}}}}}"#
            )),
            _ => None,
        })
    };
    let (one, two) = (list("one:"), list("two:"));
    let entries = json!({"a": {"url": one.url()}, "b": {"url": two.url()}});
    let fleet = Fleet::written(&entries, Vec::new(), "");
    let client = fleet.gateway.modern();
    let read = |uri: &str| client.send("resources/read", json!({"uri": uri}));
    // Nobody has listed anything yet.
    assert_eq!(result(&read("two:"))["contents"][0]["text"], "two:");
    assert_eq!(result(&read("two:/5"))["contents"][0]["text"], "two:", "by its template");
    assert_eq!(two.last().header("mcp-name"), Some("two:/5"));
    let listed = result(&client.send("resources/list", json!({})));
    assert_eq!(keys(&listed, "resources", "uri"), ["one:", "same:", "two:"]);
    assert_eq!(result(&read("same:"))["contents"][0]["text"], "one:", "the first server counts");
    let unknown = read("three:");
    assert_eq!((unknown.code(), &unknown.answer()["error"]["data"]["uri"]), (-32602, &json!("three:")));
    let prompts = result(&client.send("prompts/list", json!({})));
    assert_eq!(keys(&prompts, "prompts", "name"), ["a__p", "b__p"]);
    assert_eq!(result(&client.send("prompts/get", json!({"name": "b__p"})))["said"], "two:");
    assert_eq!(two.last().header("mcp-name"), Some("p"));
    let argument = json!({"name": "x", "value": ""});
    let complete = |reference: Value| {
        result(&client.send("completion/complete", json!({"ref": reference, "argument": argument})))["said"]
            .clone()
    };
    assert_eq!(complete(json!({"type": "ref/prompt", "name": "b__p"})), "two:");
    assert_eq!(complete(json!({"type": "ref/resource", "uri": "two:/{x}"})), "two:");
    let body: Value = serde_json::from_str(&two.last().body).expect("JSON");
    assert!(body["params"]["_meta"]["proxyrunner/identity"].is_null(), "{body}");
}

#[test]
fn names_in_conflict_or_too_long_are_shortened_and_found_again() {
    let long = "x".repeat(127);
    let of = |name: &str| {
        let (tool, said) = (name.to_owned(), name.to_owned());
        lister(move |method| match method {
            "tools/list" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","tools":[{{"name":"{tool}","inputSchema":{{"type":"object"}}}},{{"name":"{tool}","inputSchema":{{"type":"object"}}}},{{"noname":1}},7]}}}}"#
            )),
            "tools/call" => Some(format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","content":[],"said":"{said}"}}}}"#
            )),
            _ => None,
        })
    };
    let (one, two, three) = (of("_t"), of("t"), of(&long));
    let entries = json!({"a": {"url": one.url()}, "a_": {"url": two.url()}, "b": {"url": three.url()}});
    let fleet = Fleet::written(&entries, Vec::new(), "");
    let names = tools(&fleet.gateway.modern());
    assert_eq!(names.len(), 3, "a name that occurs twice counts once: {names:?}");
    assert_eq!(names[0], "a___t");
    assert!(names[1].starts_with("a___t_") && names[2].len() == 128, "{names:?}");
    // Another gateway has not listed them.
    let other = Fleet::written(&entries, Vec::new(), "");
    for fleet in [&other, &fleet] {
        for (name, said) in names.iter().zip(["_t", "t", &long]) {
            assert_eq!(fleet.gateway.modern().result(name, json!({}))["said"], said, "{name}");
        }
    }
    let called =
        three.received().into_iter().rfind(|request| request.header("mcp-method") == Some("tools/call"));
    assert_eq!(called.expect("a call").header("mcp-name"), Some(&*long));
}

#[test]
fn tools_are_filtered_and_renamed_by_the_file() {
    let server = modern("", "");
    let entries = json!({
        "a": {"url": url(&server), "tools": {"allow": ["echo", "facts", "heard"], "deny": ["facts"], "rename": {"echo": "say"}}},
        "b": {"url": url(&server), "tools": {"allow": []}},
    });
    let fleet = Fleet::written(&entries, vec![server], "");
    let client = fleet.gateway.modern();
    assert_eq!(tools(&client), ["a__say", "a__heard"]);
    assert_eq!(client.result("a__say", json!({"x": 1}))["structuredContent"]["x"], 1);
    for hidden in ["a__echo", "a__facts", "a__raw", "b__echo"] {
        assert_eq!(client.call(hidden, json!({})).code(), -32602, "{hidden}");
    }
    let bad = scratch("bad.json");
    for (members, problem) in [
        (json!({"tools": {"only": []}}), "tools has the unknown member"),
        (json!({"tools": []}), "tools is not an object"),
        (json!({"tools": {"rename": {"a": "x", "b": "x"}}}), "tools has an unusable rename"),
        (json!({"failure": "half"}), "failure is neither open nor closed"),
    ] {
        let mut entry = members;
        entry["url"] = "http://localhost:1/mcp".into();
        write(&bad, &json!({"a": entry}));
        let (status, log) = Server::with().gateway(&bad).run();
        assert_eq!(status.code(), Some(64));
        assert!(log.contains(problem), "{log}");
    }
}

#[test]
fn lists_lack_a_server_that_is_down_or_fail_without_it() {
    let server = modern("", "");
    let entries = |failure: &str| json!({"a": {"url": url(&server)}, "gone": {"url": "http://127.0.0.1:1/mcp", "failure": failure}});
    let open = Fleet::written(&entries("open"), Vec::new(), "");
    let client = open.gateway.modern();
    let list = result(&client.send("tools/list", json!({})));
    assert!(keys(&list, "tools", "name").contains(&"a__echo".to_owned()));
    assert_eq!(list["ttlMs"], 0, "it may return");
    let closed = Fleet::written(&entries("closed"), Vec::new(), "");
    let failed = closed.gateway.modern().send("tools/list", json!({}));
    assert_eq!(failed.code(), -32603);
    assert!(failed.text().contains("the server gone"), "{}", failed.text());
    // Calls of the others do not depend on it.
    assert!(closed.gateway.modern().result("a__echo", json!({}))["content"].is_array());
    let call = closed.gateway.modern().call("gone__echo", json!({}));
    assert!(call.code() == -32603 && call.text().contains("the server gone"), "{}", call.text());
}

#[test]
fn a_server_that_lies_costs_only_its_own_items() {
    let page = |next: &'static str| {
        lister(move |method| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","tools":[{{"name":"t","inputSchema":{{"type":"object"}}}}],"nextCursor":"{next}"}}}}"#
            );
            (method == "tools/list").then_some(body)
        })
    };
    let looping = page("same");
    let bad: Vec<(&str, Upstream)> = vec![
        ("b-text", Upstream::saying(http("no JSON"))),
        (
            "c-id",
            lister(|_| {
                Some(r#"{"jsonrpc":"2.0","id":99,"result":{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}}"#.to_owned())
            }),
        ),
        (
            "d-shape",
            lister(|_| Some(r#"{"jsonrpc":"2.0","id":$ID,"result":{"tools":{"name":"t"}}}"#.to_owned())),
        ),
        ("e-redirect", Upstream::saying("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n")),
        (
            "f-page",
            Upstream::saying("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}"),
        ),
        ("g-refuses", Upstream::saying("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")),
        (
            "h-stream",
            Upstream::saying(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 11\r\n\r\n: nothing\n\n",
            ),
        ),
        (
            "i-long",
            Upstream::doing(|_, stream| {
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 67108864\r\n\r\n";
                stream.write_all(head.as_bytes())?;
                stream.write_all(&vec![b' '; 64 << 20])
            }),
        ),
        (
            "j-zip",
            Upstream::saying(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            ),
        ),
    ];
    let good = modern("", "");
    let mut entries = json!({"a": {"url": url(&good)}, "z-loops": {"url": looping.url()}});
    for (name, server) in &bad {
        entries[*name] = json!({"url": server.url()});
    }
    let fleet = Fleet::written(&entries, vec![good], "");
    let names = tools(&fleet.gateway.modern());
    assert!(names.contains(&"a__echo".to_owned()), "{names:?}");
    let others: Vec<_> = names.iter().filter(|name| !name.starts_with("a__")).collect();
    assert_eq!(others, ["z-loops__t"], "a cursor that repeats ends the list");
    // What a call gets passes as it is, unless it is no answer.
    for (name, _) in bad.iter().filter(|(name, _)| *name != "d-shape") {
        let call = fleet.gateway.modern().call(&format!("{name}__t"), json!({}));
        assert!(call.text().contains(&format!("the server {name}")), "{}", call.text());
    }
}

/// Items of a server that no client should see, and the problem of each.
fn unfit_items() -> Vec<(&'static str, String, &'static str)> {
    const SCHEMA: &str = r#""inputSchema":{"type":"object"}"#;
    let tool = |members: &str| format!(r#"{{"name":"bad",{}}}"#, members.replace("SCHEMA", SCHEMA));
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    vec![
        ("tools/list", tool(r#""x":1"#), "inputSchema is missing"),
        ("tools/list", tool(r#""inputSchema":{"type":"string"}"#), "inputSchema.type is none of the values"),
        ("tools/list", tool(r#"SCHEMA,"description":5"#), "description is no text"),
        (
            "tools/list",
            tool(r#"SCHEMA,"annotations":{"readOnlyHint":"x"}"#),
            "annotations.readOnlyHint is neither",
        ),
        ("tools/list", tool(r#"SCHEMA,"description":"\ud800""#), "half of a surrogate pair"),
        ("tools/list", tool(&format!(r#"SCHEMA,"x":{deep}"#)), "nested too deeply"),
        ("tools/list", tool(&format!(r#"SCHEMA,"x":{}"#, "9".repeat(5_000))), "number that is too long"),
        ("prompts/list", r#"{"name":"bad","arguments":[{}]}"#.into(), "arguments.name is missing"),
        ("resources/list", r#"{"uri":"bad:"}"#.into(), "name is missing"),
        ("resources/list", r#"{"uri":"bad","name":"r"}"#.into(), "uri is no absolute URI"),
        ("resources/templates/list", r#"{"uriTemplate":"bad:{x}","name":7}"#.into(), "name is no text"),
    ]
}

#[test]
fn items_that_clients_would_refuse_are_left_out_and_told() {
    let list = |method: &str, more: Option<&str>| {
        let (member, item) = match method {
            "tools/list" => {
                ("tools", r#"{ "inputSchema" : {"type":"object","x":1.50e3}, "name":"t","\u0061":"\u00e9"}"#)
            }
            "prompts/list" => ("prompts", r#"{"arguments":[ {"name":"a"} ],"name":"t"}"#),
            "resources/list" => ("resources", r#"{"uri":"e://a/b c","name":"r", "size":7}"#),
            "resources/templates/list" => ("resourceTemplates", r#"{"name":"r","uriTemplate":"{x}" }"#),
            _ => return None,
        };
        let more = more.map(|more| format!("{more} , ")).unwrap_or_default();
        Some(format!(
            r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","ttlMs":0,"cacheScope":"private","{member}":[{more}{item}]}}}}"#
        ))
    };
    for (at, (method, item, problem)) in unfit_items().into_iter().enumerate() {
        let good = lister(move |method| list(method, None));
        let bad = lister(move |asked| list(asked, (asked == method).then_some(&*item)));
        let entries = json!({"a": {"url": bad.url()}, "b": {"url": good.url()}});
        let fleet = Fleet::written(&entries, Vec::new(), "");
        let said = fleet.gateway.modern().send(method, json!({})).text();
        assert!(!said.contains("bad"), "{problem}: {said}");
        let fit = match method {
            "tools/list" => {
                r#"{ "inputSchema" : {"type":"object","x":1.50e3}, "name":"NAME","\u0061":"\u00e9"}"#
            }
            "prompts/list" => r#"{"arguments":[ {"name":"a"} ],"name":"NAME"}"#,
            "resources/list" => r#"{"uri":"e://a/b c","name":"r", "size":7}"#,
            _ => r#"{"name":"r","uriTemplate":"{x}" }"#,
        };
        for name in ["a__t", "b__t"] {
            assert!(said.contains(&fit.replace("NAME", name)), "what fits passes byte for byte: {said}");
        }
        let line = fleet.gateway.until_logged("items that clients would refuse are left out");
        let told = |text: &str| line.contains(text);
        assert!(
            told(problem) && told(method) && told("\"count\":1,") && told("\"item\":\"bad"),
            "{at}: {line}"
        );
    }
}

#[test]
fn pages_end_between_servers_and_their_cursors_belong_to_their_caller() {
    let big = |_: &str| {
        let items: Vec<_> =
            (0..4_000).map(|n| format!(r#"{{"name":"t{n}","inputSchema":{{"type":"object"}}}}"#)).collect();
        let items = items.join(",");
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"resultType":"complete","tools":[{items}]}}}}"#);
        lister(move |method| (method == "tools/list").then(|| body.clone()))
    };
    let servers: Vec<_> = ["a", "b", "c"].into_iter().map(|name| (name, big(name))).collect();
    let entries = servers.iter().map(|(name, server)| ((*name).to_owned(), json!({"url": server.url()})));
    let fleet = Fleet::written(&Value::Object(entries.collect()), Vec::new(), "--principal-header x-user");
    let ann = fleet.gateway.modern().of("ann");
    let first = result(&ann.send("tools/list", json!({})));
    assert_eq!(keys(&first, "tools", "name").len(), 8_000);
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    let next = result(&ann.send("tools/list", json!({"cursor": cursor})));
    let names = keys(&next, "tools", "name");
    assert!(names.len() == 4_000 && names[0] == "c__t0" && next["nextCursor"].is_null(), "{}", names.len());
    let refused = |response: Response| assert_eq!(response.code(), -32602, "{}", response.text());
    refused(fleet.gateway.modern().of("bob").send("tools/list", json!({"cursor": cursor})));
    refused(ann.send("prompts/list", json!({"cursor": cursor})));
    refused(ann.send("tools/list", json!({"cursor": "YQ"})));
    let anonymous = Fleet::written(
        &json!({"a": {"url": servers[0].1.url()}, "b": {"url": servers[1].1.url()}}),
        Vec::new(),
        "",
    );
    for made_up in [json!("b"), json!(""), json!(7), json!("YQ")] {
        refused(anonymous.gateway.modern().send("tools/list", json!({"cursor": made_up})));
    }
}

#[test]
fn progress_passes_and_another_requests_progress_does_not() {
    let forger = Upstream::doing(|request, stream| {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let (id, token) = (&message["id"], &message["params"]["_meta"]["progressToken"]);
        let mut events = String::new();
        for token in [json!(1), json!(2), json!(3), json!("p"), token.clone()] {
            let told = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
            events += &format!("data: {told}\n\n");
        }
        events += &format!(
            "data: {}\n\n",
            json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": []}})
        );
        let length = events.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{events}"
        )
    });
    let server = modern("", "");
    let entries = json!({"a": {"url": url(&server)}, "forger": {"url": forger.url()}});
    let fleet = Fleet::written(&entries, vec![server], "");
    let client = fleet.gateway.modern().meta("progressToken", "mine");
    let messages = client.call("a__progress", json!({"n": 3})).messages();
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert_eq!(messages[0]["params"]["progressToken"], "mine");
    let messages = client.call("forger__t", json!({})).messages();
    assert_eq!(messages.len(), 2, "only its own: {messages:?}");
}

#[test]
fn repeated_parameters_are_the_gateways_to_send() {
    let fleet = Fleet::two();
    let arguments = json!({"region": "eu-é", "count": 5});
    let session = fleet.gateway.session();
    // Nobody has listed the tools of this caller yet.
    assert_eq!(session.call("a__echo", arguments.clone())["result"]["structuredContent"], arguments);
    let client = fleet
        .gateway
        .modern()
        .header("Mcp-Param-Region", "=?base64?ZXUtw6k=?=")
        .header("Mcp-Param-Count", "5");
    assert_eq!(client.result("b__echo", arguments.clone())["structuredContent"], arguments);
    let other = fleet.gateway.modern().header("Mcp-Param-Region", "us").header("Mcp-Param-Count", "5");
    assert_eq!(other.call("b__echo", arguments).code(), -32020);
}

#[test]
fn questions_name_their_server_and_their_answers_reach_it() {
    let fleet = Fleet::two();
    let form = json!({"type": "object", "properties": {}});
    let rounds = json!([{"inputRequests": {
        "form": {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": form}},
        "llm": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}},
    }}]);
    let arguments = json!({"rounds": rounds});
    let client = fleet.gateway.asked();
    let asked = Asked::of(&client.call("b__ask", arguments.clone()));
    let questions: std::collections::BTreeMap<_, _> = asked.questions.iter().cloned().collect();
    assert_eq!(questions["form"]["params"]["message"], "[b] Who?");
    assert_eq!(questions["llm"]["params"]["_meta"]["io.proxyrunner/server"], "b");
    let answers = asked.all(&json!({"action": "accept", "content": {}}));
    let done = client.retry("b__ask", arguments.clone(), &asked, answers.clone());
    assert_eq!(result(&done)["structuredContent"]["state"], "1:é\"\\", "{}", done.text());
    for (tool, state) in [("a__ask", &*asked.state), ("b__ask", "1:é\"\\"), ("b__ask", &asked.state[1..])] {
        let refused = client.begin_retry(tool, arguments.clone(), state, answers.clone()).response();
        assert_eq!(refused.code(), -32602, "{tool}: {}", refused.text());
    }
    // A legacy client is asked by requests of their own.
    let capabilities = json!({"sampling": {}, "elicitation": {}});
    let session = fleet.gateway.opening().capabilities(capabilities).open();
    let mut events = session.begin_call(7, "b__ask", arguments).events();
    for _ in 0..2 {
        let question = events.message();
        let said = match question["method"].as_str() {
            Some("elicitation/create") => {
                assert_eq!(question["params"]["message"], "[b] Who?");
                json!({"action": "accept", "content": {}})
            }
            _ => json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}}),
        };
        session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": said}));
    }
    let done = events.message();
    assert_eq!((&done["id"], &done["result"]["structuredContent"]["state"]), (&json!(7), &json!("1:é\"\\")));
}

#[test]
fn a_cancelled_call_is_cancelled_at_its_server() {
    let journal = Journal::new();
    let fleet = Fleet::of(vec![("a", modern("", &journal.flag())), ("b", modern("", ""))], "");
    let call = fleet.gateway.modern().begin_call(1, "a__hang", json!({}));
    journal.until_called("hang");
    call.cut();
    journal.until_cancelled("hang");
    let session = fleet.gateway.session();
    let call = session.begin_call(5, "a__wait", json!({"name": "never"}));
    journal.until_called("wait");
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}));
    journal.until_cancelled("wait");
    drop(call);
}

#[test]
fn changes_at_servers_and_in_the_file_reach_subscribers() {
    let (a, b) = (modern("", ""), modern("", ""));
    let entries = json!({"a": {"url": url(&a)}, "b": {"url": url(&b)}});
    let fleet = Fleet::written(&entries, Vec::new(), "");
    let client = fleet.gateway.modern();
    let filter = json!({"toolsListChanged": true, "resourceSubscriptions": ["a:", "none:"]});
    let mut events = client
        .begin_body(&client.body("s", "subscriptions/listen", json!({"notifications": filter})))
        .events();
    let acknowledged = events.message();
    let honoured = &acknowledged["params"]["notifications"];
    assert_eq!(honoured, &json!({"toolsListChanged": true, "resourceSubscriptions": ["a:"]}));
    let session = fleet.gateway.session();
    let mut stream = session.listen();
    session.result("a__touch", json!({"uri": "a:"}));
    let updated = events.message();
    assert_eq!(
        (&updated["method"], &updated["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("a:"))
    );
    assert_eq!(updated["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "s");
    // A change at a server. It is watched soon, but not at once.
    let mut changes = 0;
    until("a change is told", || {
        session.result("b__touch", json!({"kind": "tools"}));
        changes += 1;
        fleet.gateway.logged();
        changes > 0
    });
    assert_eq!(events.message()["method"], "notifications/tools/list_changed");
    assert_eq!(stream.message()["method"], "notifications/tools/list_changed");
    let mut more = entries.clone();
    more["c"] = json!({"url": url(&b)});
    write(&fleet.file, &more);
    assert_eq!(events.message()["method"], "notifications/tools/list_changed");
    until("the new server is listed", || tools(&client).contains(&"c__echo".to_owned()));
    // One server only: the names are its own again.
    write(&fleet.file, &json!({"a": {"url": url(&a)}}));
    until("the names are its own", || tools(&client).contains(&"echo".to_owned()));
}

#[test]
fn a_change_that_clients_cannot_read_does_not_pass() {
    let server = Upstream::doing(|request, stream| {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let id = message["id"].to_string();
        if message["method"] != "subscriptions/listen" {
            let list = r#"{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"complete","ttlMs":18446744073709551614,"capabilities":{"resources":{"subscribe":true}},"resources":[{"uri":"e:","name":"r"}]}}"#;
            return stream.write_all(&http(&list.replace("$ID", &id)));
        }
        let updated = |more: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"e:"{more}}}}}"#
            )
        };
        let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"resourceSubscriptions":["e:"]}}}"#;
        let all = [acknowledged.to_owned(), updated(r#","x":"\ud800""#), updated(r#","x":1"#)];
        let all = all.map(|event| format!("data: {event}\n\n")).concat();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99999\r\n\r\n";
        stream.write_all(format!("{head}{all}").as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let entries = json!({"a": {"url": server.url()}, "b": {"url": server.url()}});
    let fleet = Fleet::written(&entries, Vec::new(), "");
    let client = fleet.gateway.modern();
    let listed = result(&client.send("resources/list", json!({})));
    assert_eq!(listed["ttlMs"], 86_400_000, "a number that all clients can read");
    let filter = json!({"notifications": {"resourceSubscriptions": ["e:"]}});
    let mut events = client.begin_body(&client.body("s", "subscriptions/listen", filter)).events();
    let acknowledged = events.message();
    assert_eq!(
        acknowledged["params"]["notifications"]["resourceSubscriptions"],
        json!(["e:"]),
        "{acknowledged}"
    );
    assert_eq!(events.message()["params"]["x"], 1);
}

#[test]
fn a_session_of_the_legacy_era_watches_resources_of_several_servers() {
    let servers = vec![("a", modern("", "")), ("b", modern("", ""))];
    let fleet = Fleet::of(servers, "");
    let session = fleet.gateway.session();
    let relisted =
        json!({"method": "resources/list", "pages": [[{"uri": "b:", "name": "b"}]], "told": false});
    session.result("b__relist", relisted);
    let mut stream = session.listen();
    for uri in ["a:", "b:"] {
        let subscribed = session.ask("resources/subscribe", json!({"uri": uri}));
        assert!(subscribed["result"].is_object(), "{subscribed}");
        session.result(&format!("{}__touch", &uri[..1]), json!({"uri": uri}));
        let updated = stream.message();
        assert_eq!(
            (&updated["method"], &updated["params"]["uri"]),
            (&json!("notifications/resources/updated"), &json!(uri))
        );
        assert!(updated["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_null(), "{updated}");
    }
    let unknown = session.ask("resources/subscribe", json!({"uri": "none:"}));
    assert!(unknown["error"].is_object(), "{unknown}");
}

#[test]
fn each_caller_sees_its_own_lists() {
    let server = Upstream::doing(|request, stream| {
        let token = request.header("authorization").unwrap_or_default();
        let claims = token.split('.').nth(1).unwrap_or_default();
        use base64::Engine;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let tool = claims["sub"].as_str().unwrap_or("nobody").replace('#', "-");
        let result = json!({"resultType": "complete", "tools": [{"name": tool, "inputSchema": {"type": "object"}}], "ttlMs": 60000, "cacheScope": "private"});
        stream.write_all(&http(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string()))
    });
    let entries = json!({"a": {"url": server.url()}, "b": {"url": server.url()}});
    let fleet = Fleet::written(&entries, Vec::new(), "--principal-header x-user");
    for _ in 0..2 {
        for user in ["ann", "bob"] {
            let expected = [format!("a__proxy-{user}"), format!("b__proxy-{user}")];
            assert_eq!(tools(&fleet.gateway.modern().of(user)), expected);
            let session = fleet.gateway.opening().header("X-User", user).open();
            assert_eq!(keys(&session.ask("tools/list", json!({}))["result"], "tools", "name"), expected);
        }
    }
    // A caller cannot say who it is by other means.
    let forged = json!({"principal": "ann", "means": "proxy", "subject": "ann", "scopes": [], "groups": [], "roles": []});
    let bob = fleet.gateway.modern().of("bob").meta("proxyrunner/identity", forged);
    assert_eq!(tools(&bob), ["a__proxy-bob", "b__proxy-bob"]);
}

#[test]
fn all_servers_come_back_however_often_their_relay_is_killed() {
    let fleet = Fleet::two();
    let mut killed = HashSet::new();
    for _ in 0..8 {
        until("another relay runs", || {
            let log = fleet.gateway.logged();
            let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let started = lines.find(|line| line["fields"]["message"] == "server started");
            let pid = started.and_then(|line| line["fields"]["pid"].as_i64());
            let pid = pid.filter(|pid| killed.insert(*pid)).and_then(|pid| i32::try_from(pid).ok());
            pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
        });
    }
    until("all servers are back", || {
        let response = fleet.gateway.modern().call("a__echo", json!({}));
        response.status == 200 && response.answer()["result"].is_object()
    });
}

#[test]
fn an_answer_that_is_none_names_its_server_and_status() {
    let failing = Upstream::saying(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"busy\":true}",
    );
    let odd = lister(|_| Some(r#"{"jsonrpc":"2.0","id":$ID,"error":"no"}"#.to_owned()));
    let entries = json!({"a": {"url": failing.url()}, "b": {"url": odd.url()}});
    let fleet = Fleet::written(&entries, Vec::new(), "");
    for (tool, expected) in [
        ("a__t", "the server a answered 503 Service Unavailable and something else than JSON-RPC"),
        ("b__t", "the server b answered with an error that lacks a code or a message"),
    ] {
        let said = fleet.gateway.modern().call(tool, json!({}));
        assert!(said.code() == -32603 && said.text().contains(expected), "{}", said.text());
    }
}

#[test]
fn a_gateway_that_is_its_own_server_is_refused() {
    let server = modern("", "");
    let entries = json!({"a": {"url": url(&server)}});
    let fleet = Fleet::written(&entries, vec![server], "");
    let own = json!({"a": entries["a"], "self": {"url": url(&fleet.gateway)}});
    write(&fleet.file, &own);
    let call = || fleet.gateway.modern().call("self__a__echo", json!({}));
    until("the gateway finds itself", || call().text().contains("one of its own servers"));
    let names = tools(&fleet.gateway.modern());
    assert!(names.iter().all(|name| name.starts_with("a__")), "{names:?}");
}

#[test]
fn commands_are_servers_too_and_lists_wait_until_they_have_started() {
    let script = format!("{}/tests/children/modern.py", env!("CARGO_MANIFEST_DIR"));
    let entries = json!({
        "one": {"command": "python3", "args": [script]},
        "two": {"command": "python3", "args": [script]},
    });
    let fleet = Fleet::written(&entries, Vec::new(), "");
    let names = tools(&fleet.gateway.modern());
    for name in ["one__echo", "two__echo"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
        assert!(fleet.gateway.modern().result(name, json!({}))["content"].is_array());
    }
}

#[test]
fn a_request_that_comes_back_to_its_gateway_ends() {
    let [one, other] = [(); 2].map(|()| Fleet::written(&json!({}), Vec::new(), ""));
    let own = modern("", "");
    let at = |fleet: &Fleet, path: &str| json!({"url": format!("http://{}{path}", fleet.gateway.address())});
    let entries = |next: &Fleet| {
        let mut entries = json!({"t": {"url": url(&own)}, "loop": at(next, "/servers/loop/mcp")});
        entries["all"] = at(next, "/mcp");
        entries
    };
    let post = |headers: &[(&str, &str)]| {
        let all = [
            &[("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")],
            headers,
        ];
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        one.gateway.request("POST", "/servers/loop/mcp", &all.concat(), body)
    };
    // First by itself, then over another gateway, which shows its own tools.
    for (next, is_shown) in [(&one, false), (&other, true)] {
        write(&one.file, &entries(next));
        write(&other.file, &entries(&one));
        for fleet in [&one, &other] {
            let card = || fleet.gateway.request("GET", "/servers/all/server-card", &[], b"").status;
            until("the servers", || card() == 200);
        }
        until("the loop ends", || post(&[]).status == 508);
        let text = post(&[]).text();
        assert!(text.contains("the request has come here before"), "{text}");
        let has = |begin: &str| tools(&one.gateway.modern()).iter().any(|name| name.starts_with(begin));
        until("the tools", || has("t__") && has("all__t__") == is_shown);
        assert!(!has("loop__") && !has("all__all__") && !has("all__loop__"));
        let sent =
            one.gateway.metric(r#"proxyrunner_gateway_requests_total{server="loop",result="server_error"}"#);
        assert!(sent < 100, "{sent} requests");
    }
    // Who makes up gateways ends only requests of its own.
    for forged in ["a,b,c", "a,,b", "\""] {
        let response = post(&[("X-Proxyrunner-Gateway", forged)]);
        assert!(response.status == 508 && response.text().contains("too many gateways"), "{forged}");
    }
    assert_eq!(one.gateway.request("GET", "/health", &[("X-Proxyrunner-Gateway", "a,b,c")], b"").status, 200);
}

#[test]
fn two_tools_stand_for_all_with_search_tools() {
    let servers = vec![("a", modern("", "")), ("b", modern("", ""))];
    let fleet = Fleet::of(servers, "--search-tools");
    let client = fleet.gateway.modern();
    assert_eq!(tools(&client), ["search_tools", "call_tool"]);
    let found = client.result("search_tools", json!({"query": "b echo", "limit": 1}));
    assert_eq!(keys(&found["structuredContent"], "tools", "name"), ["b__echo"]);
    let text = found["content"][0]["text"].as_str().expect("a text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), found["structuredContent"]);
    let odd = json!({"a": "\u{a0}\u{3000}é\n", "n": 1.50});
    let called = client.result("call_tool", json!({"name": "b__echo", "arguments": odd}));
    assert_eq!(called["structuredContent"], odd);
    assert_eq!(client.result("a__echo", odd.clone())["structuredContent"], odd, "a known name works, too");
    let session = fleet.gateway.session();
    let listed = session.ask("tools/list", json!({}));
    assert_eq!(keys(&listed["result"], "tools", "name"), ["search_tools", "call_tool"]);
    let called = session.call("call_tool", json!({"name": "a__echo", "arguments": odd}));
    assert_eq!(called["result"]["structuredContent"], odd);
    for (name, arguments, said) in [
        ("search_tools", json!({}), "arguments.query must be one text"),
        ("search_tools", json!({"query": 1}), "arguments.query must be one text"),
        ("search_tools", json!({"query": "x".repeat(1025)}), "arguments.query has more than 1024 bytes"),
        (
            "search_tools",
            json!({"query": "", "limit": 0}),
            "arguments.limit must be a whole number from 1 to 50",
        ),
        ("search_tools", json!([]), "arguments must be an object"),
        ("call_tool", json!({}), "arguments.name must be one text, the name of a tool"),
        ("call_tool", json!({"name": "a__echo", "arguments": 1}), "arguments.arguments must be an object"),
        ("call_tool", json!({"name": "c__echo"}), "unknown tool \"c__echo\""),
        ("call_tool", json!({"name": "call_tool"}), "arguments.name must be one text, the name of a tool"),
        (
            "call_tool",
            json!({"name": "call_tool", "arguments": {"name": "a__echo"}}),
            "call_tool cannot call itself",
        ),
    ] {
        let answer = client.send("tools/call", json!({"name": name, "arguments": arguments})).json();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert_eq!(answer["error"]["message"], format!("Invalid params: {said}"));
    }
}

#[test]
fn questions_of_a_tool_that_was_searched_reach_the_client() {
    let fleet = Fleet::of(vec![("a", modern("", "")), ("b", modern("", ""))], "--search-tools");
    let session = fleet.gateway.opening().capabilities(json!({"elicitation": {}})).open();
    let form =
        json!({"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    let rounds = json!([{"inputRequests": {"form": {"method": "elicitation/create", "params": form}}}]);
    let call = session.begin_call(1, "call_tool", json!({"name": "b__ask", "arguments": {"rounds": rounds}}));
    let mut events = call.events();
    let question = events.message();
    assert_eq!(question["params"]["message"], "[b] Who?", "{question}");
    session
        .tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {}}}));
    let answer = events.message();
    assert_eq!(answer["id"], 1, "{answer}");
    assert!(answer["result"].is_object(), "{answer}");
}

/// Returns the subscriptions to lists that a server has received.
fn watched(server: &Upstream) -> usize {
    server.received().iter().filter(|request| request.body.contains("toolsListChanged")).count()
}

#[test]
fn a_server_that_ends_each_subscription_at_once_is_asked_less_and_less_often() {
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let noted = Arc::clone(&asked);
    let server = Upstream::doing(move |request, stream| {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let end = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete"}});
        if message["method"] != "subscriptions/listen" {
            return stream.write_all(&http(&end.to_string()));
        }
        noted.lock().expect("a lock").push(Instant::now());
        let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{}}}"#;
        let body = format!("data: {acknowledged}\n\ndata: {end}\n\n");
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    });
    let fleet = Fleet::written(&json!({"a": {"url": server.url()}}), Vec::new(), "");
    let client = fleet.gateway.modern();
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut events = client.begin_body(&client.body("s", "subscriptions/listen", filter)).events();
    events.message();
    until("it is asked again and again", || asked.lock().expect("a lock").len() >= 4);
    let asked = asked.lock().expect("a lock");
    // The pauses before them are 1 s and 2 s.
    assert!(asked[3] - asked[1] >= Duration::from_secs(3), "{asked:?}");
}

#[test]
fn the_return_of_a_server_without_subscriptions_is_told() {
    let is_up = Arc::<AtomicBool>::default();
    let up = Arc::clone(&is_up);
    let server = Upstream::doing(move |request, stream| {
        if !up.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("down"));
        }
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let error = json!({"code": -32601, "message": "no such method"});
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
        stream.write_all(&http(&answer.to_string()))
    });
    let fleet = Fleet::written(&json!({"a": {"url": server.url()}}), Vec::new(), "");
    let client = fleet.gateway.modern();
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut events = client.begin_body(&client.body("s", "subscriptions/listen", filter)).events();
    assert_eq!(events.message()["method"], "notifications/subscriptions/acknowledged");
    until("it is asked while it is down", || watched(&server) > 0);
    is_up.store(true, Ordering::SeqCst);
    assert_eq!(events.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn limits_of_a_tool_hold_for_calls_by_call_tool() {
    let limits = scratch("limits.yaml");
    fs::write(&limits, "tools: [{name: a__echo, shared: {maxTokens: 1, refillPeriod: 1h}}]\n")
        .expect("a file");
    let servers = vec![("a", modern("", "")), ("b", modern("", ""))];
    let flags = format!("--search-tools --sse --rate-limits {}", limits.display());
    let fleet = Fleet::of(servers, &flags);
    let client = fleet.gateway.modern();
    let call = json!({"name": "call_tool", "arguments": {"name": "a__echo", "arguments": {}}});
    assert_eq!(client.send("tools/call", call.clone()).status, 200);
    assert_eq!(client.send("tools/call", call.clone()).status, 429);
    let session = fleet.gateway.session();
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call});
    assert_eq!(session.post(message.to_string()).status, 429);
    assert_eq!(client.call("b__echo", json!({})).status, 200);
}
