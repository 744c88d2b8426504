//! Answers of the registry, checked against the form of the official API.

use super::super::directory::Directory;
use super::super::replica::{Endpoint, Probed};
use super::*;
use hyper::HeaderMap;
use std::time::Instant;

const NOW: u64 = 1_796_004_184;
const BASE: &str = "https://tools.example.com";

fn about(name: &str) -> Description {
    Description {
        name: name.to_owned(),
        segment: name.rsplit('/').next().unwrap_or_default().into(),
        description: Some(format!("About {name}")),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        headers: HeaderMap::new(),
        tools: Default::default(),
        is_required: false,
        audiences: Vec::new(),
    }
}

/// Creates a directory of servers with one replica each.
fn directory(names: &[&str]) -> Directory {
    let directory = Directory::default();
    let endpoint = |name: &str| Endpoint::parse(&format!("http://{name}:8080/mcp")).expect("a URL");
    directory.replace(names.iter().map(|name| (about(name), Some(vec![endpoint("replica")]))).collect());
    directory
}

struct Asking {
    catalog: Catalog,
    directory: Directory,
    now: u64,
}

impl Asking {
    fn of(names: &[&str]) -> Self {
        Asking { catalog: Catalog::default(), directory: directory(names), now: NOW }
    }

    fn ask(&self, target: &str) -> Result<Value, Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = Asked { path, query, base: BASE, now: self.now };
        let answer = self.catalog.answer(&self.directory.snapshot(), asked)?;
        match answer.get("servers") {
            Some(_) => check_list(&answer),
            None => check_server(&answer),
        }
        Ok(answer)
    }

    /// Returns the last parts of the names in a list.
    fn names(&self, query: &str) -> Vec<String> {
        let answer = self.ask(&format!("/servers?{query}")).expect("a list");
        let servers = answer["servers"].as_array().expect("a list").iter();
        let name = |server: &Value| {
            server["server"]["name"].as_str().expect("a name").rsplit('/').next().map(str::to_owned)
        };
        servers.filter_map(name).collect()
    }
}

/// Checks a ServerList: `servers`, and `metadata` with `count` and, unless it is the last page, `nextCursor`.
fn check_list(list: &Value) {
    assert_eq!(members(list), ["metadata", "servers"]);
    let servers = list["servers"].as_array().expect("a list");
    servers.iter().for_each(check_server);
    assert_eq!(list["metadata"]["count"], servers.len());
    for member in members(&list["metadata"]) {
        assert!(matches!(&*member, "count" | "nextCursor"), "{member}");
    }
}

/// Checks a ServerResponse: the schema of 2025-12-11, and what the API says of an entry.
fn check_server(response: &Value) {
    assert_eq!(members(response), ["_meta", "server"]);
    let server = &response["server"];
    let text = |name: &str| server[name].as_str().unwrap_or_else(|| panic!("{name} is a text")).to_owned();
    let (space, rest) =
        text("name").split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a namespace");
    let in_space = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let in_name = |c: char| in_space(c) || c == '_';
    assert!(
        !space.is_empty() && space.chars().all(in_space) && !rest.is_empty() && rest.chars().all(in_name)
    );
    assert!(
        (3..=200).contains(&text("name").len()) && (1..=100).contains(&text("description").chars().count())
    );
    assert!(
        (1..=255).contains(&text("version").len())
            && !text("version").contains(['^', '~', '>', '<', '*', 'x'])
    );
    let remote = &server["remotes"][0];
    assert_eq!(
        (&remote["type"], server["remotes"].as_array().map(Vec::len)),
        (&json!("streamable-http"), Some(1))
    );
    assert!(remote["url"].as_str().is_some_and(|url| url.starts_with(BASE) && url.ends_with("/mcp")));
    assert_eq!(members(server), ["$schema", "description", "name", "remotes", "version"]);
    let official = &response["_meta"][OFFICIAL];
    assert_eq!((&official["status"], &official["isLatest"]), (&json!("active"), &json!(true)));
    for name in ["statusChangedAt", "publishedAt", "updatedAt"] {
        assert!(official[name].as_str().and_then(time::seconds).is_some(), "{name}");
    }
    let own = &response["_meta"][OWN];
    assert!(
        own.to_string().len() < 4_096
            && ["healthy", "degraded", "unavailable"].contains(&own["health"].as_str().expect("a text"))
    );
}

fn members(value: &Value) -> Vec<String> {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
    names.sort();
    names
}

#[test]
fn lists_and_entries_have_the_form_of_the_registry() {
    let asking = Asking::of(&["com.example/time", "files"]);
    let list = asking.ask("/servers").expect("a list");
    let first = &list["servers"][0];
    assert_eq!(first["server"]["name"], "com.example.tools/files");
    assert_eq!(first["server"]["remotes"][0]["url"], "https://tools.example.com/servers/files/mcp");
    assert_eq!(first["_meta"][OWN]["labels"], json!({"team": "core"}));
    assert_eq!(
        first["_meta"][OWN]["replicas"],
        json!({"healthy": 1, "unready": 0, "ejected": 0, "trial": 0})
    );
    for path in [
        "/servers/com.example%2Ftime/versions",
        "/servers/com.example%2ftime/versions/",
        "/servers/com.example/time/versions",
    ] {
        let versions = asking.ask(path).expect("a list");
        assert_eq!(versions["servers"][0]["server"]["name"], "com.example/time", "{path}");
    }
    for version in ["latest", VERSION] {
        let entry = asking.ask(&format!("/servers/com.example%2Ftime/versions/{version}")).expect("an entry");
        assert_eq!(entry["server"]["description"], "About com.example/time");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let asking = Asking::of(&["com.example/time"]);
    for path in [
        "",
        "/",
        "/server",
        "/servers/time",
        "/servers/com.example%2Ftime",
        "/servers/time/versions",
        "/servers/com.example%2Ftime/versions/2.0.0",
        "/servers/com.example%2Ftime/versionsx",
        "/servers//versions",
        "/servers/%/versions",
        "/servers/%ff/versions",
        "/serversx",
        "/publish",
        "/servers/com.example%2Ftime/versions/1/2",
    ] {
        assert!(matches!(asking.ask(path), Err(Refusal::NotFound(_))), "{path}");
    }
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let names: Vec<_> = (0..70).map(|at| format!("s{at:02}")).collect();
    let asking = Asking::of(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = asking.ask(&format!("/servers?limit=32&cursor={cursor}")).expect("a page");
        let servers = page["servers"].as_array().expect("a list");
        found.extend(
            servers.iter().map(|server| server["server"]["name"].as_str().expect("a name")[18..].to_owned()),
        );
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, names);
    assert_eq!(asking.names("").len(), USUAL);
}

#[test]
fn lists_are_filtered() {
    let mut asking = Asking::of(&["com.example/time", "files", "times"]);
    assert_eq!(asking.names("search=TIME"), ["time", "times"]);
    assert_eq!(asking.names("search=example%2Fti"), ["time"]);
    assert_eq!(asking.names("version=latest&unknown=1&include_deleted=true"), ["files", "time", "times"]);
    assert!(asking.names("version=2.0.0").is_empty());
    asking.now += 60;
    let mut changed = about("files");
    changed.description = None;
    let same = || (about("com.example/time"), None);
    asking.directory.replace(vec![(changed, None), same()]);
    assert_eq!(asking.names(&format!("updated_since={}", time::shown(NOW + 60))), ["files"]);
    assert_eq!(asking.names(&format!("updated_since={}", time::shown(NOW))), ["files", "time"]);
    let entry = asking.ask("/servers/com.example.tools%2Ffiles/versions/latest").expect("an entry");
    assert_eq!(entry["server"]["description"], "The server files");
    assert_eq!(entry["_meta"][OFFICIAL]["publishedAt"], time::shown(NOW));
}

#[test]
fn a_server_without_a_healthy_replica_is_not_listed_but_found() {
    let asking = Asking::of(&["files", "time"]);
    let replicas = asking.directory.find("time").expect("a server").replicas();
    replicas[0].probed(Probed::Silent, Instant::now());
    assert_eq!(asking.names(""), ["files"]);
    let entry = asking.ask("/servers/com.example.tools%2Ftime/versions/latest").expect("an entry");
    assert_eq!(entry["_meta"][OWN]["health"], "unavailable");
    replicas[0].probed(Probed::Ready, Instant::now());
    assert_eq!(asking.names(""), ["files", "time"]);
}

#[test]
fn bad_parameters_are_named() {
    let asking = Asking::of(&["time"]);
    for (query, reason) in [
        ("limit=0", "limit is not a number from 1 to 100"),
        ("limit=101", "limit is not a number from 1 to 100"),
        ("limit=x", "limit is not a number from 1 to 100"),
        ("cursor=x", "cursor is not one of this list"),
        ("cursor=MDp4", "cursor is not one of this list"),
        ("updated_since=yesterday", "updated_since is not a time of RFC 3339"),
        ("search=%zz", "a parameter is not percent-encoded UTF-8"),
        ("search=%ff", "a parameter is not percent-encoded UTF-8"),
    ] {
        assert_eq!(asking.ask(&format!("/servers?{query}")), Err(Refusal::Invalid(reason)), "{query}");
    }
}

#[test]
fn names_without_a_namespace_get_that_of_the_gateway() {
    for (base, expected) in [
        ("https://Tools.Example.com:8443/x", "com.example.tools/time"),
        ("http://localhost:8080", "localhost/time"),
        ("http://127.0.0.1:8080", "localhost/time"),
        ("http://[::1]:8080", "localhost/time"),
        ("", "localhost/time"),
        (&format!("https://{}", "a.".repeat(120)), "localhost/time"),
    ] {
        assert_eq!(name(&about("time"), base), expected, "{base}");
    }
    assert_eq!(name(&about("com.example/time"), BASE), "com.example/time");
}
