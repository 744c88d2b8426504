//! The `local.yaml` that the operator kmcp writes for its transport adapter (`proxyrunner -f FILE`).
//!
//! proxyrunner is a drop-in for that adapter, so it reads exactly the document of a stdio server: one bind, one
//! listener, one route, one target. Everything else is refused by its path.

use super::file::File;
use super::problem::{FileLine, InvalidValue, Problem, Source};
use crate::yaml::{self, Entry, Node, Unusable, Value};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

/// The file that contains the pod's namespace, if it has a token.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The file whose search list begins with the pod's namespace.
const RESOLVER: &str = "/etc/resolv.conf";

/// The contents of a `local.yaml`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Local {
    port: u16,
    /// The name of the server and its Service.
    name: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
}

/// Reads `path` as settings: the listener, both transports, the command and its variables. Problems are noted.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> File {
    let namespace = std::fs::read_to_string(NAMESPACE).ok().map(|text| text.trim().to_owned());
    let namespace = namespace.or_else(|| searched(&std::fs::read_to_string(RESOLVER).ok()?));
    let text = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        other => {
            let reason = match other {
                Err(error) => format!("cannot be read: {error}"),
                Ok(_) => "is not UTF-8".to_owned(),
            };
            let refusal = InvalidValue::new(reason, "give the local.yaml that kmcp wrote");
            let value = Some(path.to_string_lossy().into_owned());
            problems.push(Problem { value, ..Problem::general("-f", refusal) });
            return File::lost();
        }
    };
    let name: Rc<str> = path.to_string_lossy().into();
    parse(&text, name.clone(), problems).map_or_else(File::lost, |local| settings(local, name, namespace))
}

/// Returns the namespace in a resolver's search list, such as `search NAME.svc.cluster.local svc.cluster.local`.
fn searched(resolver: &str) -> Option<String> {
    let mut lists = resolver.lines().filter_map(|line| line.strip_prefix("search "));
    let first = lists.next()?.split_whitespace().next()?;
    first.split_once(".svc.").map(|(namespace, _)| namespace.to_owned())
}

/// Returns the settings of a document.
fn settings(local: Local, path: Rc<str>, namespace: Option<String>) -> File {
    let source = || Source::File(FileLine { path: path.clone(), line: 1 });
    let mut values = HashMap::new();
    let mut set = |flag, items: Vec<String>| {
        values.insert(flag, (items.into_iter().map(OsString::from).collect(), source()));
    };
    set("listen", vec![format!("[::]:{}", local.port)]);
    set("sse", vec!["true".to_owned()]);
    // kmcp puts the same variables into the environment of the container, where proxyrunner reads its own.
    let of_server = local.env.iter().filter(|(name, _)| !name.starts_with("PROXYRUNNER_"));
    set("env", of_server.map(|(name, value)| format!("{name}={value}")).collect());
    if let Some(namespace) = namespace {
        // The name by which agents of kagent reach the Service.
        set("allow-host", vec![format!("{}.{namespace}", local.name)]);
    }
    File { values, command: local.command.into_iter().map(OsString::from).collect(), is_lost: false }
}

/// Parses a document; `None` after noting problems.
fn parse(text: &str, path: Rc<str>, problems: &mut Vec<Problem>) -> Option<Local> {
    let before = problems.len();
    let mut walk = Walk { path, problems };
    let mut local = Local::default();
    match yaml::parse(text) {
        Ok(Some(root)) => walk.root(&root, &mut local),
        Ok(None) => walk.refuse("the file", 1, "is empty"),
        Err(Unusable::DuplicateKey(line)) => walk.refuse("the file", line, "contains a key twice"),
        Err(Unusable::Malformed(line)) => walk.refuse("the file", line, "is not valid YAML or JSON"),
    }
    (problems.len() == before).then_some(local)
}

/// Walks through a document and notes what does not belong there.
struct Walk<'a> {
    path: Rc<str>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn root(&mut self, root: &Node, local: &mut Local) {
        if self.entries("the file", root).iter().all(|entry| entry.key != "binds") {
            return self.refuse("binds", root.line, "is missing");
        }
        let Some([config, binds]) = self.fields("", root, ["config", "binds"]) else { return };
        let is_empty = match config.map(|config| &config.value) {
            None | Some(Value::Null) => true,
            Some(Value::Map(entries)) => entries.is_empty(),
            Some(Value::Text(_) | Value::List(_)) => false,
        };
        if !is_empty {
            self.refuse("config", root.line, "is not empty");
        }
        let Some(bind) = self.only("binds", binds, root.line) else { return };
        let Some([port, listeners]) = self.fields("binds[0].", bind, ["port", "listeners"]) else { return };
        match self.text("binds[0].port", port, bind.line).map(|port| port.parse()) {
            Some(Ok(port)) if port > 0 => local.port = port,
            Some(_) => self.refuse("binds[0].port", bind.line, "is not a port"),
            None => {}
        }
        let Some(listener) = self.only("binds[0].listeners", listeners, bind.line) else { return };
        self.listener(listener, local);
    }

    fn listener(&mut self, listener: &Node, local: &mut Local) {
        const AT: &str = "binds[0].listeners[0].";
        let Some([_, protocol, routes]) = self.fields(AT, listener, ["name", "protocol", "routes"]) else {
            return;
        };
        let protocol = self.text(&format!("{AT}protocol"), protocol, listener.line);
        if protocol.is_some_and(|protocol| protocol != "HTTP") {
            self.refuse(&format!("{AT}protocol"), listener.line, "is not HTTP");
        }
        let Some(route) = self.only(&format!("{AT}routes"), routes, listener.line) else { return };
        let at = format!("{AT}routes[0].");
        let Some([_, matches, backends]) = self.fields(&at, route, ["name", "matches", "backends"]) else {
            return;
        };
        if let Some(Node { value: Value::List(items), .. }) = matches {
            for item in items {
                self.path_match(&format!("{at}matches"), item);
            }
        }
        let Some(backend) = self.only(&format!("{at}backends"), backends, route.line) else { return };
        let at = format!("{at}backends[0].");
        let Some([_, mcp]) = self.fields(&at, backend, ["weight", "mcp"]) else { return };
        let Some(mcp) = self.given(&format!("{at}mcp"), mcp, backend.line) else { return };
        let at = format!("{at}mcp.");
        let Some([targets]) = self.fields(&at, mcp, ["targets"]) else { return };
        let Some(target) = self.only(&format!("{at}targets"), targets, mcp.line) else { return };
        self.target(&format!("{at}targets[0]."), target, local);
    }

    /// Checks that a match is one of the two paths that proxyrunner serves.
    fn path_match(&mut self, at: &str, item: &Node) {
        let Some([path]) = self.fields(&format!("{at}[]."), item, ["path"]) else { return };
        let Some(path) = self.given(&format!("{at}[].path"), path, item.line) else { return };
        let Some([prefix]) = self.fields(&format!("{at}[].path."), path, ["pathPrefix"]) else { return };
        let name = format!("{at}[].path.pathPrefix");
        let prefix = self.text(&name, prefix, path.line);
        if prefix.is_some_and(|prefix| !["/sse", "/mcp"].contains(&&*prefix)) {
            self.refuse(&name, path.line, "is neither /sse nor /mcp");
        }
    }

    fn target(&mut self, at: &str, target: &Node, local: &mut Local) {
        let Some([name, stdio]) = self.fields(at, target, ["name", "stdio"]) else { return };
        local.name = self.text(&format!("{at}name"), name, target.line).unwrap_or_default();
        let Some(stdio) = self.given(&format!("{at}stdio"), stdio, target.line) else { return };
        let at = format!("{at}stdio.");
        let Some([cmd, args, env]) = self.fields(&at, stdio, ["cmd", "args", "env"]) else { return };
        match self.text(&format!("{at}cmd"), cmd, stdio.line) {
            Some(program) if program.is_empty() => self.refuse(&format!("{at}cmd"), stdio.line, "is empty"),
            program => local.command.extend(program),
        }
        match args.map(|args| &args.value) {
            None | Some(Value::Null) => {}
            Some(Value::List(items)) => {
                for item in items {
                    let word = self.text(&format!("{at}args"), Some(item), item.line);
                    local.command.extend(word);
                }
            }
            Some(Value::Text(_) | Value::Map(_)) => {
                self.refuse(&format!("{at}args"), stdio.line, "is not a list")
            }
        }
        if let Some(env) = env.filter(|env| env.value != Value::Null) {
            for Entry { line, key, node } in self.entries(&format!("{at}env"), env) {
                if key.is_empty() || key.contains('=') {
                    self.refuse(&format!("{at}env"), *line, "contains a bad name");
                }
                let value = self.text(&format!("{at}env.{key}"), Some(node), *line);
                local.env.push((key.clone(), value.unwrap_or_default()));
            }
        }
    }

    /// Returns the entries of a map.
    fn entries<'n>(&mut self, at: &str, node: &'n Node) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.refuse(at, node.line, "is not a map");
                &[]
            }
        }
    }

    /// Returns the values of the keys that a map may have; `None` if it has others.
    fn fields<'n, const N: usize>(
        &mut self,
        at: &str,
        node: &'n Node,
        keys: [&str; N],
    ) -> Option<[Option<&'n Node>; N]> {
        let before = self.problems.len();
        let entries = self.entries(at.trim_end_matches('.'), node);
        for entry in entries.iter().filter(|entry| !keys.contains(&&*entry.key)) {
            self.refuse(&format!("{at}{}", entry.key), entry.line, "is not supported");
        }
        let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node);
        (self.problems.len() == before).then(|| keys.map(find))
    }

    fn given<'n>(&mut self, at: &str, node: Option<&'n Node>, line: u64) -> Option<&'n Node> {
        if node.is_none() {
            self.refuse(at, line, "is missing");
        }
        node
    }

    /// Returns the only item of a list.
    fn only<'n>(&mut self, at: &str, node: Option<&'n Node>, line: u64) -> Option<&'n Node> {
        match &self.given(at, node, line)?.value {
            Value::List(items) if items.len() == 1 => items.first(),
            Value::List(items) => {
                self.refuse(at, line, format!("has {} items instead of one", items.len()));
                None
            }
            _ => {
                self.refuse(at, line, "is not a list");
                None
            }
        }
    }

    /// Returns the text of a scalar; `None` after noting that there is none.
    fn text(&mut self, at: &str, node: Option<&Node>, line: u64) -> Option<String> {
        match &self.given(at, node, line)?.value {
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.refuse(at, line, "is not a single value");
                None
            }
        }
    }

    fn refuse(&mut self, subject: &str, line: u64, reason: impl Into<std::borrow::Cow<'static, str>>) {
        let source = Some(Source::File(FileLine { path: self.path.clone(), line }));
        let accepts =
            "-f takes the local.yaml that kmcp writes for one stdio server; --config takes settings";
        let refusal = InvalidValue::new(reason, accepts);
        self.problems
            .push(Problem { source, ..Problem::general(format!("-f: {}", subject.escape_debug()), refusal) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document that kmcp 0.3.0 writes.
    const WHOLE: &str = r#"binds:
- listeners:
  - name: default
    protocol: HTTP
    routes:
    - backends:
      - mcp:
          targets:
          - name: github
            stdio:
              args:
              - server.py
              - "007"
              cmd: python3
              env:
                A: "1"
                TOKEN: hunter2
        weight: 100
      matches:
      - path:
          pathPrefix: /sse
      - path:
          pathPrefix: /mcp
      name: mcp
  port: 3000
config: {}
"#;

    fn read(text: &str) -> Result<Local, Vec<String>> {
        let mut problems = Vec::new();
        let local = parse(text, "local.yaml".into(), &mut problems);
        local.ok_or(problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_document_of_a_stdio_server_is_read() {
        let local = read(WHOLE).expect("a document");
        assert_eq!((local.port, &*local.name), (3000, "github"));
        assert_eq!(local.command, ["python3", "server.py", "007"]);
        assert_eq!(local.env, [("A".into(), "1".into()), ("TOKEN".into(), "hunter2".into())]);
        let short = r#"{"config":{},"binds":[{"port":1,"listeners":[{"protocol":"HTTP","routes":[{"backends":[
            {"weight":100,"mcp":{"targets":[{"name":"a","stdio":{"cmd":"b"}}]}}]}]}]}]}"#;
        assert_eq!(read(short).expect("a document").command, ["b"]);
    }

    #[test]
    fn settings_of_proxyrunner_do_not_reach_the_server() {
        let text =
            WHOLE.replace("                A: \"1\"\n", "                PROXYRUNNER_LOG_LEVEL: debug\n");
        let file = settings(read(&text).expect("a document"), "l".into(), None);
        assert_eq!(file.values["env"].0, ["TOKEN=hunter2"]);
    }

    #[test]
    fn its_settings_listen_on_all_interfaces_and_serve_both_transports() {
        let file = settings(read(WHOLE).expect("a document"), "l".into(), Some("tools".into()));
        let items = |flag: &str| file.values[flag].0.clone();
        assert_eq!(items("listen"), ["[::]:3000"]);
        assert_eq!(items("sse"), ["true"]);
        assert_eq!(items("env"), ["A=1", "TOKEN=hunter2"]);
        assert_eq!(items("allow-host"), ["github.tools"]);
        assert_eq!(file.command, ["python3", "server.py", "007"]);
        assert!(!settings(Local::default(), "l".into(), None).values.contains_key("allow-host"));
    }

    #[test]
    fn the_namespace_is_the_first_word_of_the_search_list() {
        let resolver = "nameserver 10.0.0.10\nsearch tools.svc.cluster.local svc.cluster.local\n";
        assert_eq!(searched(resolver).as_deref(), Some("tools"));
        assert_eq!(searched("search example.com\n"), None);
        assert_eq!(searched(""), None);
    }

    #[test]
    fn everything_else_is_refused_by_its_path_and_without_values() {
        let replaced = |from: &str, to: &str| {
            assert!(WHOLE.contains(from), "{from}");
            WHOLE.replacen(from, to, 1)
        };
        let target = "binds[0].listeners[0].routes[0].backends[0].mcp.targets";
        for (text, place) in [
            (String::new(), "the file: (from local.yaml, line 1) is empty".to_owned()),
            ("listen: :8080\n".to_owned(), "binds: (from local.yaml, line 1) is missing".to_owned()),
            ("[".to_owned(), "the file: ".to_owned()),
            (replaced("config: {}", "config: {logging: {}}"), "config: ".to_owned()),
            (
                replaced("config: {}", "services: []"),
                "services: (from local.yaml, line 26) is not supported".to_owned(),
            ),
            (replaced("port: 3000", "port: 0"), "binds[0].port: ".to_owned()),
            (
                replaced("config: {}", "- port: 1\nconfig: {}"),
                "binds: (from local.yaml, line 1) has 2 items".to_owned(),
            ),
            (
                replaced("port: 3000", "port:"),
                "binds[0].port: (from local.yaml, line 2) is not a single".to_owned(),
            ),
            (replaced("protocol: HTTP", "protocol: []"), "binds[0].listeners[0].protocol: ".to_owned()),
            (replaced("              cmd: python3\n", ""), format!("{target}[0].stdio.cmd: ")),
            (replaced("HTTP", "HTTPS"), "binds[0].listeners[0].protocol: ".to_owned()),
            (
                replaced("/sse", "/x"),
                "binds[0].listeners[0].routes[0].matches[].path.pathPrefix: ".to_owned(),
            ),
            (
                replaced("stdio:", "sse:"),
                format!("{target}[0].sse: (from local.yaml, line 10) is not supported"),
            ),
            (replaced("cmd: python3", "cmd: ''"), format!("{target}[0].stdio.cmd: ")),
            (replaced("A: \"1\"", "A: [1]"), format!("{target}[0].stdio.env.A: ")),
            (replaced("A: \"1\"", "'A=': 1"), format!("{target}[0].stdio.env: ")),
            (
                replaced("weight: 100", "policies: {}"),
                "binds[0].listeners[0].routes[0].backends[0].policies: ".to_owned(),
            ),
        ] {
            let lines = read(&text).expect_err(&text);
            assert!(lines[0].starts_with(&format!("proxyrunner: -f: {place}")), "{place}:\n{lines:?}");
            assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }
}
