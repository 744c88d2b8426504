//! Files of servers: good ones of every kind, and each problem.

use super::*;

fn read(text: &str) -> Result<Vec<Entry>, Vec<String>> {
    super::read(Path::new("servers.json"), text.as_bytes()).map(|content| content.servers)
}

/// Returns the only problem of a file.
fn problem(text: &str) -> String {
    let lines = read(text).expect_err("a problem");
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap_or_default()
}

/// Returns the only problem of a server with these members, without the parts that are always the same.
fn of(members: &str) -> String {
    let line = problem(&format!("{{\"mcpServers\": {{\"time\": {members}}}}}"));
    let line = line.strip_prefix("servers.json, line 1: server \"time\": ").unwrap_or(&line);
    line.split_once("; ").map_or(line, |(what, _)| what).to_owned()
}

#[test]
fn a_file_of_every_kind_is_read() {
    let servers = read(
        r#"{"mcpServers": {
            "com.example/time": {"type": "http", "url": "https://Time/mcp", "description": "Tells the time",
                                 "labels": {"team": "core"}, "headers": {"X-Api-Key": "s3cret"}},
            "files": {"urls": ["http://10.0.0.1:8080/mcp", "http://[::1]:8080/mcp"], "audience": "files"},
            "many": {"dns": "http://many.tools.svc:8080/mcp"},
            "off": {"url": "http://off:1/mcp", "disabled": true},
            "child": {"type": "stdio", "command": "npx", "args": ["-y", "server", 7], "env": {"TOKEN": "s3cret", "N": null},
                      "cwd": "/srv", "url": null}
        }}"#,
    )
    .expect("servers");
    let [child, files, many, time] = &servers[..] else { panic!("four servers") };
    assert_eq!((&*time.about.name, &*time.about.segment), ("com.example/time", "time"));
    assert_eq!(time.about.audiences, ["https://Time/mcp"]);
    assert_eq!(
        (time.about.description.as_deref(), &*time.about.labels["team"]),
        (Some("Tells the time"), "core")
    );
    let key = &time.about.headers["x-api-key"];
    assert!(key == "s3cret" && key.is_sensitive());
    assert!(!format!("{servers:?}").contains("s3cret"));
    assert!(matches!(&files.source, Source::Urls(urls) if urls.len() == 2));
    assert_eq!(files.about.audiences, ["files"]);
    assert!(matches!(&many.source, Source::Dns(url) if url.address() == "many.tools.svc:8080"));
    assert_eq!(many.about.audiences, ["http://many.tools.svc:8080/mcp"]);
    let Source::Command(command) = &child.source else { panic!("a command") };
    assert_eq!((&*command.program, command.args.join(" ")), ("npx", "-y server 7".to_owned()));
    assert_eq!(command.env[0], ("TOKEN".to_owned(), "s3cret".to_owned()));
    assert_eq!((command.env[1].1.as_str(), command.cwd.as_deref()), ("", Some(Path::new("/srv"))));
    assert!(child.about.audiences.is_empty());
}

#[test]
fn yaml_is_read_as_json_is() {
    let servers = read("mcpServers:\n  time:\n    url: http://time:8080/mcp\n    labels: {tier: 1}\n")
        .expect("servers");
    assert_eq!(servers[0].about.labels["tier"], "1");
    assert_eq!(read("mcpServers: {}"), Ok(Vec::new()));
    assert_eq!(read("mcpServers:\n"), Ok(Vec::new()));
}

#[test]
fn a_file_of_another_kind_is_refused_with_its_name() {
    for (text, expected) in [
        ("", "servers.json: the file is empty"),
        ("{", "servers.json, line 1: the file is neither JSON nor YAML, or is nested too deeply"),
        ("[]", "servers.json, line 1: the file is not an object"),
        ("{}", "servers.json: the member mcpServers is missing"),
        ("{\"mcpServers\": []}", "servers.json, line 1: mcpServers is not an object"),
        ("mcpServers: {}\nglobal: 1", "servers.json, line 2: the member \"global\" is unknown"),
        ("mcpServers: {a: {}, a: {}}", "servers.json, line 1: a key occurs twice"),
    ] {
        let line = problem(text);
        assert_eq!(line.split_once("; ").map(|(what, _)| what), Some(expected), "{line}");
    }
    let lines = super::read(Path::new("a\nb"), b"\xff").expect_err("a problem");
    assert!(lines[0].starts_with("a\\nb: the file is not UTF-8"), "{lines:?}");
}

#[test]
fn a_bad_member_is_named() {
    for (members, expected) in [
        ("7", "it is not an object"),
        ("{}", "it has no url, urls, dns or command"),
        (r#"{"url": null}"#, "it has no url, urls, dns or command"),
        (r#"{"url": "http://a/", "command": "b"}"#, "it has more than one of url, urls, dns or command"),
        (r#"{"url": "http://a/", "autoApprove": []}"#, "\"autoApprove\" is unknown"),
        (r#"{"url": "http://a/", "args": []}"#, "args does not go with url"),
        (r#"{"command": "a", "headers": {}}"#, "headers does not go with command"),
        (r#"{"url": 7}"#, "url is not an http or https URL"),
        (r#"{"url": ["http://a/"]}"#, "url is not a text"),
        (r#"{"url": "a:8080"}"#, "url is not an http or https URL"),
        (r#"{"url": "ftp://a/"}"#, "url is not an http or https URL"),
        (r#"{"url": "http://"}"#, "url is not a URL"),
        (r#"{"url": "http://a b/"}"#, "url is not a URL"),
        (r#"{"url": "http://:80/"}"#, "url has no usable host or port"),
        (r#"{"url": "http://a:0/"}"#, "url has no usable host or port"),
        (r#"{"url": "http://a:99999/"}"#, "url has no usable host or port"),
        (r#"{"url": "http://s3cret@a/"}"#, "url contains user information"),
        (r#"{"url": "http://a/#b"}"#, "url has a query or a fragment"),
        (r#"{"url": "http://a/?key=s3cret"}"#, "url has a query or a fragment"),
        (r#"{"url": "http://a/${TOKEN}"}"#, "url contains a variable"),
        (r#"{"urls": []}"#, "urls has no URL, or more than 100"),
        (r#"{"urls": ["http://a/", "http://A:80/b"]}"#, "urls has a host and port twice"),
        (r#"{"urls": "http://a/"}"#, "urls is not a list"),
        (r#"{"dns": "http://10.0.0.1/"}"#, "dns has an address for its host"),
        (r#"{"dns": "https://a/"}"#, "dns is an https URL"),
        (r#"{"dns": "http://[::1]/"}"#, "dns has an address for its host"),
        (r#"{"command": ""}"#, "command is empty"),
        (r#"{"command": "a\u0000"}"#, "command contains a NUL byte"),
        (r#"{"command": "a", "args": "b"}"#, "args is not a list"),
        (r#"{"command": "a", "args": [{}]}"#, "args is not a text"),
        (r#"{"command": "a", "args": ["\u0000"]}"#, "args contains a NUL byte"),
        (r#"{"command": "a", "cwd": ""}"#, "cwd is empty"),
        (r#"{"command": "a", "env": ["A=b"]}"#, "env is not an object"),
        (r#"{"command": "a", "env": {"A=": "b"}}"#, "env has an unusable variable"),
        (r#"{"command": "a", "env": {"A": ["b"]}}"#, "env has a value that is not a text"),
        (
            r#"{"command": "a", "env": {"PROXYRUNNER_POLICY": "b"}}"#,
            "env has a variable that is proxyrunner's own",
        ),
        (r#"{"command": "a", "env": {"A": "${B}"}}"#, "env contains a variable"),
        (r#"{"command": "a", "type": "http"}"#, "type is not the kind of this server"),
        (r#"{"url": "http://a/", "type": "stdio"}"#, "type is not the kind of this server"),
        (r#"{"url": "http://a/", "type": "sse"}"#, "type is not the kind of this server"),
        (r#"{"url": "http://a/", "headers": {"a b": "c"}}"#, "headers has an unusable name"),
        (r#"{"url": "http://a/", "headers": {"a": "b\r\nc: d"}}"#, "headers has an unusable value"),
        (r#"{"url": "http://a/", "headers": {"a": "é"}}"#, "headers has an unusable value"),
        (
            r#"{"url": "http://a/", "headers": {"Host": "b"}}"#,
            "headers has a header that the gateway sets itself",
        ),
        (
            r#"{"url": "http://a/", "headers": {"MCP-Session-Id": "b"}}"#,
            "headers has a header that the gateway sets itself",
        ),
        (r#"{"url": "http://a/", "headers": {"a": "b", "A": "b"}}"#, "headers has a header twice"),
        (r#"{"url": "http://a/", "headers": {"a": "Bearer ${B}"}}"#, "headers contains a variable"),
        (r#"{"url": "http://a/", "audience": ""}"#, "audience is not an audience"),
        (r#"{"url": "http://a/", "description": " "}"#, "description is empty, too long or more than a line"),
        (r#"{"url": "http://a/", "labels": {"a b": "c"}}"#, "labels has an unusable label"),
        (r#"{"url": "http://a/", "labels": {"a": "b\nc"}}"#, "labels has an unusable label"),
        (r#"{"url": "http://a/", "disabled": "no"}"#, "disabled is neither true nor false"),
    ] {
        assert_eq!(of(members), expected, "{members}");
    }
    let long = "x".repeat(101);
    let long = of(&format!("{{\"url\": \"http://a/\", \"description\": \"{long}\"}}"));
    assert_eq!(long, "description is empty, too long or more than a line");
}

#[test]
fn a_bad_name_is_shown_shortened() {
    let name = |name: &str| problem(&format!("{{\"mcpServers\": {{{name:?}: {{\"url\": \"http://a/\"}}}}}}"));
    for (bad, reason) in [
        ("", "is not a segment of a path"),
        ("A", "is not a segment of a path"),
        (".a", "is not a segment of a path"),
        ("..", "is not a segment of a path"),
        ("a b", "is not a segment of a path"),
        ("a%2fb", "is not a segment of a path"),
        ("com.example/", "is not a segment of a path"),
        ("/a", "has an unusable namespace"),
        ("a/b/c", "has an unusable namespace"),
        ("a_b/c", "has an unusable namespace"),
        ("a__b", "contains __, which separates servers from their tools"),
    ] {
        let line = name(bad);
        assert!(
            line.starts_with(&format!("servers.json, line 1: server {bad:?}: its name {reason}; ")),
            "{line}"
        );
    }
    for (length, reason) in [(64, "is not a segment of a path"), (300, "is longer than 200 bytes")] {
        let line = name(&"a".repeat(length));
        assert!(line.contains(reason) && line.len() < 400, "{line}");
    }
    assert!(name(&"é".repeat(90)).contains("…\": its name"));
    assert_eq!(name::segment(&"a".repeat(63)).map(str::len), Ok(63));
    assert_eq!(name::segment("com.example/time-2_x.y"), Ok("time-2_x.y"));
}

#[test]
fn names_that_lead_to_one_path_are_refused() {
    let line = problem(r#"{"mcpServers": {"a/time": {"url": "http://a/"}, "b/time": {"url": "http://b/"}}}"#);
    assert_eq!(
        line,
        "servers.json, line 1: server \"b/time\": its name leads to the same path as \"a/time\"; the part behind the last \
         slash must be unique"
    );
}

#[test]
fn every_problem_is_told_at_once_and_none_shows_a_value() {
    let lines = read(
        "mcpServers:\n  one:\n    url: s3cret\n    labels: 7\n  two:\n    command: a\n    env:\n      X: ok\n      A=: s3cret\n",
    )
    .expect_err("problems");
    assert_eq!(
        lines,
        [
            "servers.json, line 3: server \"one\": url is not an http or https URL; give e.g. http://time:8080/mcp",
            "servers.json, line 4: server \"one\": labels is not an object; give an object of texts",
            "servers.json, line 9: server \"two\": env has an unusable variable; give names without =, and no NUL byte",
        ]
    );
    let many: Vec<_> = (0..100).map(|at| format!("\"a{at}\": {{}}")).collect();
    let lines = read(&format!("{{\"mcpServers\": {{{}}}}}", many.join(","))).expect_err("problems");
    assert_eq!((lines.len(), lines[50].as_str()), (51, "servers.json: 50 more problems"));
    let many: Vec<_> = (0..1001).map(|at| format!("\"a{at}\": {{\"url\": \"http://a/\"}}")).collect();
    let many = problem(&format!("{{\"mcpServers\": {{{}}}}}", many.join(",")));
    assert_eq!(many, "servers.json: mcpServers has more than 1000 servers; use several gateways");
}

#[test]
fn mutilated_files_are_read_or_refused() {
    let whole = br#"{"mcpServers": {"com.example/time": {"type": "http", "url": "https://time:8443/mcp", "labels": {"a": "b"},
        "headers": {"X-Api-Key": "k"}}, "many": {"dns": "http://many.svc:8080/mcp"}, "files": {"urls": ["http://10.0.0.1:1/",
        "http://[::1]:1/"], "disabled": true}, "child": {"command": "npx", "args": ["-y", "x"], "env": {"T": "x"}, "cwd": "/"}}}"#;
    let parts: [&[u8]; 12] =
        [b"{", b"}", b"[", b"\"", b":", b"\n", b"&a", b"*a", b"<<: ", b"\\u0000", b"http://", b"\xff"];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..random.usize(1..4) {
            let (from, length) = (random.usize(..bytes.len()), random.usize(..12));
            let to = (from + length).min(bytes.len());
            let part = parts[random.usize(..parts.len())];
            bytes.splice(from..to, part.iter().copied());
        }
        match servers_in(&bytes) {
            Ok(segments) => assert!(segments.windows(2).all(|pair| pair[0] < pair[1]), "{segments:?}"),
            Err(lines) => assert!(
                (1..=51).contains(&lines.len())
                    && lines
                        .iter()
                        .all(|line| line.starts_with("servers.json") && !line.contains(char::is_control)),
                "{lines:?}"
            ),
        }
    }
}

#[test]
fn bad_rules_of_registration_are_named() {
    const GOOD: &str = "subject: 'https://a#b', names: [a/b], networks: [10.0.0.0/8]";
    for (rules, expected) in [
        ("7", "register is not a list"),
        ("{}", "register is not a list"),
        ("[7]", "a rule of register is not an object"),
        ("[{}]", "a rule of register needs subject, names and networks"),
        ("[{subject: 'https://a#b'}]", "a rule of register needs subject, names and networks"),
        ("[{x: 1}]", "a rule of register has an unknown member \"x\""),
        ("[{subject: '*'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{subject: 'b'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{subject: 'https://*#b'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{subject: 'https://a#'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{subject: 'https://a#*b'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{subject: 'https://a#b**'}]", "subject of a rule of register is not ISSUER#SUBJECT"),
        ("[{names: []}]", "names of a rule of register is not a list of 1 to 256 texts"),
        ("[{names: ['*']}]", "names of a rule of register has no namespace"),
        ("[{names: [b]}]", "names of a rule of register has no namespace"),
        ("[{names: ['a*/b']}]", "names of a rule of register has no name of a server"),
        ("[{names: [a/B]}]", "names of a rule of register has no name of a server"),
        ("[{names: ['a/b*c']}]", "names of a rule of register has no name of a server"),
        ("[{networks: [10.0.0.0/33]}]", "networks of a rule of register has no range of addresses"),
        ("[{networks: 10.0.0.0/8}]", "networks of a rule of register is not a list of 1 to 256 texts"),
    ] {
        let line = problem(&format!("mcpServers: {{}}\nregister: {rules}"));
        let what = line.strip_prefix("servers.json, line 2: ").and_then(|line| line.split_once("; "));
        assert_eq!(what.map(|(what, _)| what), Some(expected), "{rules}: {line}");
    }
    let content = super::read(Path::new("a"), format!("mcpServers: {{}}\nregister: [{{{GOOD}}}]").as_bytes());
    assert_eq!(content.expect("a file").rules.len(), 1);
    let none = super::read(Path::new("a"), b"mcpServers: {}\nregister:\n").expect("a file");
    assert!(none.rules.is_empty());
}

#[test]
fn rules_give_no_two_callers_names_with_the_same_path() {
    let read = |names: [&str; 2], subjects: [&str; 2]| {
        let rule = |at: usize| {
            let (subject, names) = (subjects[at], names[at]);
            format!("{{subject: 'https://a#{subject}', names: [{names}], networks: [10.0.0.0/8]}}")
        };
        let text = format!("mcpServers: {{}}\nregister: [{}, {}]", rule(0), rule(1));
        super::read(Path::new("a"), text.as_bytes()).map(drop)
    };
    for (one, other) in [
        ("'com.example/*'", "'org.other/*'"),
        ("'com.example/*'", "org.other/echo"),
        ("com.example/echo", "org.other/echo"),
        ("com.example/echo", "'org.other/e*'"),
        ("'com.example/e*'", "'org.other/ec*'"),
        ("com.example/a, com.example/b", "org.other/c, org.other/b"),
    ] {
        let problems = read([one, other], ["x", "y"]).expect_err("refused");
        assert!(problems.len() == 1 && problems[0].contains("which may have the same path"), "{problems:?}");
        assert!(read([one, other], ["x", "y*"]).is_err() && read([other, one], ["x", "y"]).is_err());
        assert_eq!(
            read([one, other], ["x", "x"]),
            Ok(()),
            "whoever has both names cannot take another one's"
        );
    }
    for (one, other) in [
        ("'com.example/*'", "'com.example/*'"),
        ("com.example/a", "org.other/b"),
        ("'com.example/a-*'", "'org.other/b-*'"),
    ] {
        assert_eq!(read([one, other], ["x", "y"]), Ok(()), "{one} {other}");
    }
}
