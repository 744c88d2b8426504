//! What a gateway knows of its servers: commands that it runs, tokens that name the caller, names in DNS, and the registry.

use crate::support::{Journal, Server, lives, scratch, until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Two Ed25519 keys of RFC 8032, which everybody knows.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                   -----END PRIVATE KEY-----\n";
const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n\
                         -----END PRIVATE KEY-----\n";

fn write(path: &Path, servers: &Value) {
    let next = path.with_extension("next");
    fs::write(&next, json!({"mcpServers": servers}).to_string()).expect("a file");
    fs::rename(&next, path).expect("a rename");
}

fn file(servers: &Value) -> PathBuf {
    let path = scratch("servers.json");
    write(&path, servers);
    path
}

/// Returns the entry of the scripted server as a command.
fn scripted(flags: &[&str], more: Value) -> Value {
    let script = format!("{}/tests/children/scripted.py", env!("CARGO_MANIFEST_DIR"));
    let args = [&[script.as_str()], flags].concat();
    let mut entry = json!({"command": "python3", "args": args});
    for (name, value) in more.as_object().expect("an object") {
        entry[name] = value.clone();
    }
    entry
}

/// Waits until the server at the gateway's endpoint takes sessions.
fn until_served(gateway: &Server) {
    until("a ready server", || gateway.opening().send().status == 200);
}

/// Starts a sidecar of the scripted server, and waits until it is ready.
fn ready() -> Server {
    let server = Server::start("");
    server.session();
    server
}

fn get(server: &Server, path: &str) -> Value {
    let response = server.request("GET", path, &[], b"");
    assert_eq!(response.status, 200, "{path}");
    response.json()
}

/// Returns the process id of the sidecar that was started last.
fn sidecar(gateway: &Server) -> i32 {
    let logged = gateway.logged();
    let line =
        logged.lines().rfind(|line| line.contains("the server's process has started")).expect("a sidecar");
    let line: Value = serde_json::from_str(line).expect("JSON");
    i32::try_from(line["fields"]["pid"].as_i64().expect("a pid")).expect("a pid")
}

#[test]
fn a_command_has_its_variables_and_no_others() {
    let entry = scripted(&[], json!({"env": {"API_KEY": "s3cret", "EMPTY": ""}, "cwd": "/"}));
    let gateway = Server::with()
        .gateway(&file(&json!({"tools": entry})))
        .env("PROXYRUNNER_MAX_BODY", "1MiB")
        .env("SOMEBODY_ELSES", "s3cret")
        .start()
        .at("/servers/tools/mcp");
    until_served(&gateway);
    let facts = gateway.session().result("facts", json!({}));
    let env = facts["env"].as_object().expect("variables");
    assert_eq!((&env["API_KEY"], &env["EMPTY"], &facts["cwd"]), (&json!("s3cret"), &json!(""), &json!("/")));
    assert!(env.contains_key("PATH") && !env.contains_key("SOMEBODY_ELSES"), "{env:?}");
    assert!(!env.keys().any(|name| name.starts_with("PROXYRUNNER_")), "{env:?}");
    let words = fs::read(format!("/proc/{}/cmdline", sidecar(&gateway))).expect("a command line");
    assert!(!String::from_utf8_lossy(&words).contains("s3cret"), "others may read it");
    assert!(!gateway.logged().contains("s3cret"));
}

#[test]
fn only_the_gateway_reaches_the_process_of_a_command() {
    let gateway = Server::with()
        .gateway(&file(&json!({"tools": scripted(&[], json!({}))})))
        .start()
        .at("/servers/tools/mcp");
    until_served(&gateway);
    let listening = gateway.until_logged("listening address=");
    let at = listening.find("listening address=").expect("found") + "listening address=".len();
    let address = listening[at..].split([' ', '"']).next().expect("an address");
    let request = |authorization: &str| {
        let mut stream = std::net::TcpStream::connect(address).expect("a connection");
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{authorization}content-length: 2\r\n\r\n{{}}"
        );
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
        std::io::read_to_string(stream).expect("an answer")
    };
    assert!(request("").starts_with("HTTP/1.1 401"));
    assert!(request("authorization: Bearer x.y.z\r\n").starts_with("HTTP/1.1 401"));
}

#[test]
fn a_command_that_dies_is_started_again_at_the_same_address() {
    let gateway = Server::with()
        .gateway(&file(&json!({"tools": scripted(&[], json!({}))})))
        .start()
        .at("/servers/tools/mcp");
    until_served(&gateway);
    let session = gateway.session();
    let first = sidecar(&gateway);
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("a process");
    until("another process", || sidecar(&gateway) != first);
    until_served(&gateway);
    let after = session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!((after.status, after.code()), (404, -32001), "its sessions are gone");
    gateway.session().result("facts", json!({}));
}

#[test]
fn commands_end_with_the_gateway_and_with_their_entry() {
    let path = file(&json!({"tools": scripted(&[], json!({})), "more": scripted(&[], json!({}))}));
    let gateway =
        Server::with().gateway(&path).flags("--reload-interval 50ms").start().at("/servers/tools/mcp");
    until_served(&gateway);
    let of = |gateway: &Server| {
        i32::try_from(gateway.session().result("facts", json!({}))["pid"].as_i64().expect("a pid"))
    };
    let tools = of(&gateway).expect("a pid");
    let gateway = gateway.at("/servers/more/mcp");
    until_served(&gateway);
    let more = of(&gateway).expect("a pid");
    write(&path, &json!({"more": scripted(&[], json!({}))}));
    until("the end of the removed server", || !lives(tools));
    assert!(lives(more), "the other one goes on");
    gateway.session().result("facts", json!({}));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), 0);
    assert!(!lives(more));
}

#[test]
fn nothing_outlives_a_killed_gateway() {
    let gateway = Server::with()
        .gateway(&file(&json!({"tools": scripted(&[], json!({}))})))
        .start()
        .at("/servers/tools/mcp");
    until_served(&gateway);
    let server = gateway.session().result("facts", json!({}))["pid"].as_i64().expect("a pid");
    let (server, sidecar) = (i32::try_from(server).expect("a pid"), sidecar(&gateway));
    drop(gateway);
    until("the end of all processes", || !lives(server) && !lives(sidecar));
}

#[test]
fn a_command_that_cannot_run_leaves_the_others_alone() {
    let servers = json!({"bad": {"command": "/nonexistent/server"}, "tools": scripted(&[], json!({}))});
    let gateway = Server::with().gateway(&file(&servers)).start().at("/servers/tools/mcp");
    until_served(&gateway);
    gateway.until_logged("/nonexistent/server");
    let gateway = gateway.at("/servers/bad/mcp");
    assert_eq!(gateway.opening().send().status, 503);
}

#[test]
fn a_sidecar_verifies_tokens_by_discovery_and_sees_the_caller() {
    let (key, path) = (scratch("key.pem"), file(&json!({})));
    fs::write(&key, KEY).expect("a file");
    let gateway = Server::with()
        .gateway(&path)
        .flags("--reload-interval 50ms --principal-header x-user")
        .flags(&format!("--gateway-key {}", key.display()))
        .start()
        .at("/servers/tools/mcp");
    let issuer = format!("http://{}", gateway.address());
    let journal = Journal::new();
    let sidecar = Server::with()
        .flags(&format!("--auth-issuer {issuer} --auth-audience tools --child-identity meta"))
        .child(&journal.flag())
        .start();
    let url = format!("http://{}/mcp", sidecar.address());
    write(&path, &json!({"tools": {"url": url, "audience": "tools"}}));
    let open = || gateway.opening().header("X-User", "ann");
    until("the new server", || open().send().status == 200);
    let session = open().open();
    session.result("echo", json!({}));
    let identity = || {
        let frames = journal.frames();
        let call = frames.iter().rfind(|read| read.message["method"] == "tools/call").expect("a call");
        call.message["params"]["_meta"]["proxyrunner/identity"].clone()
    };
    assert_eq!(identity(), json!({"iss": issuer, "sub": "proxy#ann"}));
    // The next key is published before it signs.
    let first = get(&gateway, "/.well-known/jwks.json");
    fs::write(&key, format!("{KEY}{OTHER_KEY}")).expect("a file");
    until("two keys", || get(&gateway, "/.well-known/jwks.json")["keys"].as_array().map(Vec::len) == Some(2));
    assert_eq!(get(&gateway, "/.well-known/jwks.json")["keys"][0], first["keys"][0]);
    session.result("echo", json!({}));
    // A server for which the tokens are not meant refuses them, and the gateway says whose fault it is.
    write(&path, &json!({"tools": {"url": url, "audience": "others"}}));
    until("the other audience", || open().send().status == 502);
}

#[test]
fn every_address_of_a_name_is_a_replica() {
    let replica = ready();
    let port = replica.address().port();
    // A name of this host, which has no replica at its other address.
    let servers = json!({"tools": {"dns": format!("http://localhost:{port}/mcp")}});
    let gateway = Server::with().gateway(&file(&servers)).start().at("/servers/tools/mcp");
    until_served(&gateway);
    gateway.session().result("facts", json!({}));
    until("both replicas", || {
        let list = get(&gateway, "/registry/v0.1/servers");
        let replicas = &list["servers"][0]["_meta"]["io.proxyrunner/gateway"]["replicas"];
        replicas.as_object().is_some_and(|states| states.values().filter_map(Value::as_u64).sum::<u64>() == 2)
    });
}

#[test]
fn the_registry_lists_servers_to_callers() {
    let replica = ready();
    let servers = json!({
        "com.example/tools": {"url": format!("http://{}/mcp", replica.address()), "description": "Tools", "labels": {"a": "b"},
                              "headers": {"x-api-key": "s3cret"}},
        "files": {"url": format!("http://{}/mcp", replica.address())},
    });
    let gateway = Server::with().gateway(&file(&servers)).start();
    let response = gateway.request("GET", "/registry/v0.1/servers?limit=1", &[], b"");
    assert_eq!((response.status, response.header("cache-control")), (200, Some("private, no-cache")));
    assert_eq!(response.header("vary"), Some("authorization"));
    let page = response.json();
    let base = format!("http://{}", gateway.address());
    assert_eq!(page["servers"][0]["server"]["name"], "localhost/files");
    assert_eq!(page["servers"][0]["server"]["remotes"][0]["url"], format!("{base}/servers/files/mcp"));
    let cursor = page["metadata"]["nextCursor"].as_str().expect("a cursor");
    let last = get(&gateway, &format!("/registry/v0.1/servers?limit=1&cursor={cursor}"));
    assert_eq!(
        (&last["servers"][0]["server"]["name"], last["metadata"].get("nextCursor")),
        (&json!("com.example/tools"), None)
    );
    let entry = get(&gateway, "/registry/v0.1/servers/com.example%2Ftools/versions/latest");
    assert_eq!(entry["server"]["description"], "Tools");
    assert!(!format!("{page}{last}{entry}").contains("s3cret"));
    for (method, path, status, error) in [
        ("GET", "/registry/v0.1/servers/com.example%2Fother/versions", 404, "Server not found"),
        ("GET", "/registry/v0.1/servers?limit=x", 400, "limit is not a number from 1 to 100"),
        (
            "POST",
            "/registry/v0.1/publish",
            501,
            "this registry is read-only; sidecars register at /registrations/NAMESPACE/NAME",
        ),
        (
            "PUT",
            "/registry/v0.1/servers",
            501,
            "this registry is read-only; sidecars register at /registrations/NAMESPACE/NAME",
        ),
    ] {
        let response = gateway.request(method, path, &[], b"");
        assert_eq!((response.status, &response.json()["error"]), (status, &json!(error)), "{method} {path}");
    }
}

#[test]
fn documents_need_a_caller_unless_they_are_for_everybody() {
    let gateway = Server::with().gateway(&file(&json!({}))).flags("--principal-header x-user").start();
    let status = |path: &str| gateway.request("GET", path, &[], b"").status;
    let (list, elsewhere) = (status("/registry/v0.1/servers"), status("/registry/v0.1"));
    assert_eq!((list, elsewhere), (400, 400), "--principal-header is required");
    let metadata = get(&gateway, "/.well-known/openid-configuration");
    assert_eq!(metadata["issuer"], format!("http://{}", gateway.address()));
    assert_eq!(metadata["jwks_uri"], format!("http://{}/.well-known/jwks.json", gateway.address()));
    let keys = get(&gateway, "/.well-known/jwks.json");
    assert_eq!((&keys["keys"][0]["crv"], keys["keys"][0].get("d")), (&json!("Ed25519"), None));
    assert_eq!(status("/.well-known/oauth-authorization-server"), 404, "it issues no tokens to clients");
    assert_eq!(gateway.request("POST", "/.well-known/jwks.json", &[], b"").status, 405);
    // The URL may be that of an endpoint, as at a sidecar.
    for url in ["https://tools.example.com/x/", "https://tools.example.com/x/mcp"] {
        let gateway = Server::with().gateway(&file(&json!({}))).flags(&format!("--public-url {url}")).start();
        let metadata = get(&gateway, "/.well-known/openid-configuration");
        assert_eq!(metadata["issuer"], "https://tools.example.com/x");
    }
}

#[test]
fn a_bad_file_of_servers_or_keys_is_told_before_anything_starts() {
    let (bad, key) = (scratch("bad.json"), scratch("bad.pem"));
    fs::write(&bad, r#"{"mcpServers": {"a__b": {"url": "http://a/mcp"}, "c": {}}}"#).expect("a file");
    let (status, said) = Server::with().gateway(&bad).run();
    assert_eq!(status.code(), Some(64), "{said}");
    for line in ["server \"a__b\": its name contains __", "server \"c\": it has no url, urls, dns or command"]
    {
        assert!(said.contains(line), "{said}");
    }
    fs::write(&key, "nonsense").expect("a file");
    let flags = format!("--gateway-key {}", key.display());
    let (status, said) = Server::with().gateway(&file(&json!({}))).flags(&flags).run();
    assert!(!status.success() && said.contains("the file has no private key in PKCS #8"), "{said}");
}

#[test]
fn a_socket_that_listens_is_inherited() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
    let server = Server::with().flags(&format!("--listen fd:{}", listener.as_raw_fd())).start();
    assert_eq!(server.address(), listener.local_addr().expect("an address"));
    let child = server.session().result("facts", json!({}))["pid"].as_i64().expect("a pid");
    let files = fs::read_dir(format!("/proc/{child}/fd")).expect("a folder").flatten();
    let links: Vec<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    assert!(
        !links.iter().any(|link| link.to_string_lossy().starts_with("socket")),
        "not by the child: {links:?}"
    );
    let file = fs::File::open("/dev/null").expect("a file");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
    for (number, reason) in [
        (file.as_raw_fd(), "is not a socket"),
        (900, "is not an open file"),
        (2, "is stdin, stdout or stderr"),
    ] {
        let (status, said) = Server::with().flags(&format!("--listen fd:{number}")).run();
        assert!(
            status.code() == Some(64) && said.contains(&format!("--listen: \"fd:{number}\" {reason}")),
            "{said}"
        );
    }
}
