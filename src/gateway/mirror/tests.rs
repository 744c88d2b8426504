//! Mirrors of registries that are good, bad, endless, or point where they must not.

use super::*;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A registry that gives these answers, one after another, and keeps the targets of the requests.
struct Registry {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    async fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("http://{}/base", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut head = [0; 8192];
                let length = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                kept.lock().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Registry { url, asked }
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(&self.url, &Tls::default()).expect("a mirror")
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn page(servers: &[Value], next: Option<&str>) -> String {
    let mut page = json!({"servers": servers, "metadata": {"count": servers.len()}});
    if let Some(next) = next {
        page["metadata"]["nextCursor"] = next.into();
    }
    answer("200 OK", &page.to_string())
}

fn entry(name: &str, url: &str, status: &str) -> Value {
    json!({
        "server": {"name": name, "description": "A server", "version": "1.2.3",
                   "remotes": [{"type": "sse", "url": "https://sse.example/"}, {"type": "streamable-http", "url": url}]},
        "_meta": {OFFICIAL: {"status": status, "isLatest": true}},
    })
}

fn named(name: &str) -> Value {
    entry(name, &format!("https://{}.example/mcp", name.replace('/', ".")), "active")
}

fn names(servers: &Servers) -> Vec<&str> {
    servers.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn all_pages_are_read_and_then_what_has_changed() {
    let registry = Registry::new(vec![
        page(&[named("com.example/a"), named("com.example/b")], Some("c d&")),
        page(&[named("com.example/c")], None),
        page(&[entry("com.example/a", "https://a.example/", "deleted"), named("com.example/d")], Some("")),
    ])
    .await;
    let mirror = registry.mirror();
    let all = mirror.poll(&Servers::new(), None).await.expect("servers");
    assert_eq!(names(&all), ["com.example/a", "com.example/b", "com.example/c"]);
    let later = mirror.poll(&all, Some(1_796_004_184)).await.expect("servers");
    assert_eq!(names(&later), ["com.example/b", "com.example/c", "com.example/d"]);
    let asked = registry.asked.lock();
    assert_eq!(asked[0], "/base/v0.1/servers?version=latest&limit=100");
    assert_eq!(asked[1], "/base/v0.1/servers?version=latest&limit=100&cursor=c%20d%26");
    let since = asked[2].split_once("&include_deleted=true&updated_since=").expect("a time").1;
    assert!(since.starts_with("2026-11-30T") && since.ends_with('Z'), "{since}");
}

#[tokio::test]
async fn a_registry_that_cannot_be_read_to_its_end_is_an_error() {
    let many = |at: usize| (0..100).map(|n| named(&format!("com.example/s{at}-{n}"))).collect::<Vec<_>>();
    let endless: Vec<_> = (0..20).map(|at| page(&many(at), Some(&format!("{at}")))).collect();
    let empty: Vec<_> = (0..MOST_PAGES).map(|at| page(&[], Some(&format!("{at}")))).collect();
    for (answers, expected) in [
        (vec![answer("500 Internal Server Error", "")], "it answers 500 Internal Server Error"),
        (vec![answer("302 Found", "")], "it answers 302 Found"),
        (vec![answer("200 OK", "<html>")], "its answer is no JSON"),
        (vec![answer("200 OK", "[]")], "its answer is no list of servers"),
        (vec![answer("200 OK", r#"{"servers": [1, null]}"#)], "its answer is no list of servers"),
        (
            vec![answer("200 OK", r#"{"servers": [], "metadata": {"nextCursor": 5}}"#)],
            "its cursors repeat, or are too long",
        ),
        (
            vec![page(&[], Some("a")), page(&[], Some("b")), page(&[], Some("a"))],
            "its cursors repeat, or are too long",
        ),
        (vec![page(&[], Some(&"x".repeat(9_999)))], "its cursors repeat, or are too long"),
        (endless, "it has more than 1000 servers with a URL"),
        (empty, "it has more than 200 pages"),
        (vec![answer("200 OK", &" ".repeat(5 << 20))], "the response exceeds 4194304 bytes"),
    ] {
        let registry = Registry::new(answers).await;
        let why = registry.mirror().poll(&Servers::new(), None).await.expect_err(expected);
        assert_eq!(why, expected);
    }
    let closed = Mirror::new("http://127.0.0.1:1", &Tls::default()).expect("a mirror");
    assert!(closed.poll(&Servers::new(), None).await.is_err());
}

#[test]
fn only_servers_with_a_usable_url_are_taken() {
    let read = |entry: &Value, reach| {
        let mut servers = Servers::new();
        apply(&mut servers, entry, reach);
        servers.into_values().next().map(|entry| entry.url)
    };
    let good = named("com.example/Good");
    assert_eq!(read(&good, Reach::Public).as_deref(), Some("https://com.example.Good.example/mcp"));
    let changed = |change: fn(&mut Value)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry
    };
    for bad in [
        json!({}),
        json!([]),
        changed(|entry| entry["server"]["name"] = "good".into()),
        changed(|entry| entry["server"]["name"] = "com.example/a__b".into()),
        changed(|entry| entry["server"]["name"] = format!("com.example/{}", "x".repeat(300)).into()),
        changed(|entry| entry["server"]["remotes"] = json!(null)),
        changed(|entry| entry["server"]["remotes"] = json!([{"type": "sse", "url": "https://a.example/"}])),
        changed(|entry| entry["server"]["remotes"][1]["url"] = "https://{tenant}.example/mcp".into()),
        changed(|entry| entry["server"]["remotes"][1]["url"] = "https://u@a.example/mcp".into()),
        changed(|entry| entry["server"]["remotes"][1]["url"] = "https://a.example/mcp?key=1".into()),
        changed(|entry| entry["server"]["remotes"][1]["url"] = "file:///etc/passwd".into()),
        changed(|entry| {
            entry["server"]["remotes"][1]["headers"] = json!([{"name": "X-Key", "isRequired": true}])
        }),
        changed(|entry| entry["_meta"][OFFICIAL]["status"] = "deleted".into()),
        changed(|entry| entry["_meta"][OFFICIAL]["isLatest"] = false.into()),
    ] {
        assert_eq!(read(&bad, Reach::Host), None, "{bad}");
    }
    let near = ["http://10.0.0.1/mcp", "http://[fd00::1]/mcp"];
    let here =
        ["http://127.0.0.1/mcp", "http://127.1.2.3/mcp", "http://[::1]/mcp", "http://[::ffff:127.0.0.1]/mcp"];
    let never = [
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://[fd00:ec2::254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://255.255.255.255/",
        "http://224.0.0.1/",
        "http://[ff02::1]/",
    ];
    for (urls, least) in [(&near[..], Some(Reach::Network)), (&here, Some(Reach::Host)), (&never, None)] {
        for &url in urls {
            let entry = entry("com.example/a", url, "active");
            for (at, reach) in [Reach::Public, Reach::Network, Reach::Host].into_iter().enumerate() {
                let is_taken = match least {
                    Some(Reach::Network) => at >= 1,
                    Some(_) => at == 2,
                    None => false,
                };
                assert_eq!(read(&entry, reach).as_deref(), is_taken.then_some(url), "{reach:?}");
            }
        }
    }
    let mut servers = Servers::new();
    let hidden = changed(|entry| entry["server"]["description"] = " a\u{202e}b\u{7}\u{200b} c ".into());
    apply(&mut servers, &hidden, Reach::Public);
    assert_eq!(servers["com.example/Good"].description.as_deref(), Some("ab c"));
    servers.clear();
    apply(&mut servers, &named("com.example/a"), Reach::Public);
    apply(&mut servers, &entry("com.example/a", "http://127.0.0.1/", "active"), Reach::Public);
    assert!(servers.is_empty(), "an entry that cannot be used any more is gone");
}

#[test]
fn what_a_registry_may_name_depends_on_where_it_is() {
    for (registry, reach) in [
        (Some("127.0.0.1"), Reach::Host),
        (Some("::1"), Reach::Host),
        (Some("::ffff:127.0.0.1"), Reach::Host),
        (Some("10.1.2.3"), Reach::Network),
        (Some("fd00::1"), Reach::Network),
        (Some("::ffff:192.168.0.1"), Reach::Network),
        (Some("8.8.8.8"), Reach::Public),
        (Some("2606:4700::1111"), Reach::Public),
        (None, Reach::Public),
    ] {
        assert_eq!(reach_from(registry.map(|at| at.parse().expect("an address"))), reach, "{registry:?}");
    }
}

#[tokio::test]
async fn a_registry_on_this_host_may_name_what_is_here() {
    let here = entry("com.example/here", "http://127.0.0.1:1/mcp", "active");
    let metadata = entry("com.example/metadata", "http://169.254.169.254/mcp", "active");
    let registry = Registry::new(vec![page(&[here, metadata], None)]).await;
    let servers = registry.mirror().poll(&Servers::new(), None).await.expect("servers");
    assert_eq!(names(&servers), ["com.example/here"]);
}

#[test]
fn own_servers_come_first() {
    let directory = Directory::default();
    let about = |name: &str| Description {
        name: name.to_owned(),
        segment: name.rsplit('/').next().unwrap_or_default().into(),
        description: None,
        labels: BTreeMap::new(),
        headers: HeaderMap::new(),
        tools: Default::default(),
        is_required: false,
        audiences: Vec::new(),
    };
    let own = |name: &str| (about(name), Some(vec![Endpoint::parse("http://own:1/mcp").expect("a URL")]));
    let mut servers = Servers::new();
    for name in ["com.example/a", "com.example/b", "com.example/C", "org.example/c"] {
        apply(&mut servers, &named(name), Reach::Public);
    }
    let addresses = |segment: &str| {
        let replicas = directory.find(segment)?.replicas();
        Some(replicas.first()?.endpoint.address().to_owned())
    };
    directory.replace(vec![own("a")]);
    publish(&servers, &directory);
    directory.replace_registered(vec![own("com.example/b")]);
    assert_eq!(addresses("a").as_deref(), Some("own:1"));
    assert_eq!(addresses("b").as_deref(), Some("own:1"));
    assert_eq!(addresses("c").as_deref(), Some("com.example.c.example:443"), "the first by name");
    publish(&servers, &directory);
    assert_eq!(addresses("b").as_deref(), Some("own:1"));
    directory.replace(Vec::new());
    directory.replace_registered(Vec::new());
    publish(&servers, &directory);
    assert_eq!(addresses("a").as_deref(), Some("com.example.a.example:443"));
    assert_eq!(addresses("b").as_deref(), Some("com.example.b.example:443"));
    publish(&Servers::new(), &directory);
    assert!(directory.snapshot().is_empty());
}

#[tokio::test]
async fn a_server_that_was_hidden_returns_at_once() {
    let registry = Registry::new(vec![page(&[named("com.example/a")], None)]).await;
    let directory = Arc::new(Directory::default());
    let following = tokio::spawn(registry.mirror().follow(Arc::clone(&directory)));
    while directory.find("a").is_none() {
        tokio::task::yield_now().await;
    }
    // The runtime is never idle from here on, so that no time passes.
    tokio::time::pause();
    let about = super::super::directory::about("a");
    directory.replace(vec![(about, Some(vec![Endpoint::parse("http://own:1/mcp").expect("a URL")]))]);
    directory.replace(Vec::new());
    assert!(directory.find("a").is_none());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(directory.find("a").is_some());
    following.abort();
}
