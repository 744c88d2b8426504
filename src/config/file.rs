//! Configuration files: YAML or JSON, with the names of flags as keys.
//!
//! Values keep their text, and are read by the same parsers as on the command line: `007` stays `007`, and an
//! unquoted `5` equals a quoted one.

use super::problem::{FileLine, InvalidValue, Problem, Source};
use super::table::{Arity, NOT_IN_FILE, Setting, find};
use crate::yaml::{self, Entry, Node, Unusable, Value};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

/// A configuration file's settings.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) values: HashMap<&'static str, (Vec<OsString>, Source)>,
    /// COMMAND and its arguments; empty when the file names none.
    pub(super) command: Vec<OsString>,
    /// Whether nothing of it could be read, so that it may name a COMMAND.
    pub(super) is_lost: bool,
}

impl File {
    /// Creates the settings of a file that cannot be read.
    pub(super) fn lost() -> File {
        File { is_lost: true, ..File::default() }
    }
}

/// Reads `path`. Unusable parts are left out and reported in `problems`.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> File {
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => parse(&text, &path.to_string_lossy(), problems),
            Err(_) => {
                unusable(path, "is not UTF-8", problems);
                File::lost()
            }
        },
        Err(error) => {
            unusable(path, &format!("cannot be read: {error}"), problems);
            File::lost()
        }
    }
}

fn unusable(path: &Path, reason: &str, problems: &mut Vec<Problem>) {
    let refusal = InvalidValue::new(reason.to_owned(), "give a readable YAML or JSON file");
    problems.push(Problem {
        value: Some(path.to_string_lossy().into_owned()),
        ..Problem::general("--config", refusal)
    });
}

fn parse(text: &str, path: &str, problems: &mut Vec<Problem>) -> File {
    let mut reading = Reading { path: path.into(), problems, file: File::default() };
    match yaml::parse(text) {
        Ok(None | Some(Node { value: Value::Null, .. })) => {}
        Ok(Some(Node { value: Value::Map(entries), .. })) => {
            entries.iter().for_each(|entry| reading.entry(entry))
        }
        Ok(Some(node)) => {
            let place = reading.place(node.line);
            reading.refuse("--config", place, "is not a map", "give settings as `name: value`, one a line");
        }
        Err(unusable) => {
            let (line, reason, accepts) = match unusable {
                Unusable::DuplicateKey(line) => (line, "contains a key twice", "remove one"),
                Unusable::Malformed(line) => {
                    (line, "is not valid YAML or JSON", "check this line and the lines before it")
                }
            };
            let place = reading.place(line);
            reading.refuse("--config", place, reason, accepts);
            reading.file.is_lost = true;
        }
    }
    reading.file
}

struct Reading<'a> {
    path: Rc<str>,
    problems: &'a mut Vec<Problem>,
    file: File,
}

impl Reading<'_> {
    fn entry(&mut self, Entry { line, key, node }: &Entry) {
        let place = self.place(*line);
        if key == "command" {
            if let Some(items) = self.list("command", node, "give a list, e.g. [python3, server.py]") {
                self.file.command = items;
            }
            return;
        }
        match find(key) {
            Some(setting) if NOT_IN_FILE.contains(&setting.flag) => {
                self.refuse(key, place, "is not allowed in a file", "give it as a flag");
            }
            Some(setting) => {
                if let Some(items) = self.items(setting, node) {
                    self.file.values.insert(setting.flag, (items, Source::File(place)));
                }
            }
            None => {
                let kebab = key.replace('_', "-").to_ascii_lowercase();
                let accepts = match find(&kebab) {
                    Some(setting) => format!("give {}", setting.flag),
                    None => "give a flag's name without its dashes; --help lists them".to_owned(),
                };
                self.refuse(key, place, "is not a setting", accepts);
            }
        }
    }

    /// Returns the values of one setting; `None` if it is empty or unusable.
    fn items(&mut self, setting: &Setting, node: &Node) -> Option<Vec<OsString>> {
        match (&node.value, setting.arity) {
            // What a template leaves of a variable that is not set would turn protection off.
            (Value::Null, _) => self.without_value(setting, node),
            (Value::List(items), Arity::Many { .. }) if items.is_empty() && setting.flag == "auth-issuer" => {
                self.without_value(setting, node)
            }
            (Value::Map(entries), Arity::Many { .. }) if setting.flag == "env" => self.variables(entries),
            (_, _) if ["auth-issuer", "auth-introspection"].contains(&setting.flag) => {
                self.with_options(setting, node)
            }
            (_, Arity::Many { .. }) => {
                let items = self.list(setting.flag, node, "give a list")?;
                if items.is_empty() && setting.flag.starts_with("auth-") {
                    return self.without_value(setting, node);
                }
                Some(items)
            }
            (Value::List(_) | Value::Map(_), _) => {
                let place = self.place(node.line);
                self.refuse(
                    setting.flag,
                    place,
                    "is not a single value",
                    format!("give one {}", setting.value),
                );
                None
            }
            _ => Some(vec![scalar(node)?.into()]),
        }
    }

    fn without_value(&mut self, setting: &Setting, node: &Node) -> Option<Vec<OsString>> {
        let place = self.place(node.line);
        self.refuse(setting.flag, place, "has no value", "give one, or remove the line");
        None
    }

    fn list(&mut self, key: &str, node: &Node, accepts: &'static str) -> Option<Vec<OsString>> {
        let items = match &node.value {
            Value::List(items) => {
                let scalars = items.iter().map(|item| scalar(item).map(OsString::from));
                scalars.collect::<Option<Vec<_>>>()
            }
            Value::Map(_) => None,
            _ => scalar(node).map(|item| vec![item.into()]),
        };
        if items.is_none() {
            let place = self.place(node.line);
            self.refuse(key, place, "is not a list of single values", accepts);
        }
        items
    }

    /// Turns `NAME: value` into `NAME=value`, and `NAME:` alone into `NAME`.
    fn variables(&mut self, entries: &[Entry]) -> Option<Vec<OsString>> {
        let mut items = Vec::with_capacity(entries.len());
        for Entry { line, key, node } in entries {
            match (&node.value, scalar(node)) {
                (Value::Null, _) => items.push(key.into()),
                (_, Some(value)) => items.push(format!("{key}={value}").into()),
                (_, None) => {
                    let place = self.place(*line);
                    self.refuse(
                        "env",
                        place,
                        "contains an item that is not a single value",
                        "give NAME: value",
                    );
                    return None;
                }
            }
        }
        Some(items)
    }

    /// Turns `url: URL` and options beside it, or a list of such maps, into `URL option=value`.
    fn with_options(&mut self, setting: &Setting, node: &Node) -> Option<Vec<OsString>> {
        let items = match (&node.value, setting.arity) {
            (Value::List(items), Arity::Many { .. }) => items.iter().map(words).collect(),
            _ => words(node).map(|item| vec![item]),
        };
        if items.is_none() {
            let place = self.place(node.line);
            let accepts = "give a URL, or a map with url and options, none of which has blanks";
            self.refuse(setting.flag, place, "is not a URL with options", accepts);
        }
        items
    }

    fn place(&self, line: u64) -> FileLine {
        FileLine { path: self.path.clone(), line }
    }

    fn refuse(
        &mut self,
        subject: &str,
        place: FileLine,
        reason: &'static str,
        accepts: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        let source = Some(Source::File(place));
        let refusal = InvalidValue::new(reason, accepts);
        self.problems.push(Problem { source, ..Problem::general(subject, refusal) });
    }
}

/// Returns the URL and the options of a map as words, or a text as it is.
fn words(node: &Node) -> Option<OsString> {
    let Value::Map(entries) = &node.value else { return scalar(node).map(OsString::from) };
    let (mut url, mut options) = (None, String::new());
    for Entry { key, node, .. } in entries {
        let value = match &node.value {
            Value::List(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(","),
            _ => scalar(node)?.to_owned(),
        };
        if value.contains(char::is_whitespace) || key.contains(char::is_whitespace) {
            return None;
        }
        match key.as_str() {
            "url" => url = Some(value),
            key => options += &format!(" {key}={value}"),
        }
    }
    Some((url? + &options).into())
}

/// Returns the text of a scalar.
fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> File {
        let mut problems = Vec::new();
        let file = parse(text, "c.yaml", &mut problems);
        assert_eq!(problems, []);
        file
    }

    fn refused(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        parse(text, "c.yaml", &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn scalars_keep_their_text() {
        let file = parsed(
            "children: 007   # seven\nmax-body: 1_000\nsse: yes\nsession-idle: 5m\nevict-after: 1e3\n\
             path: \"/m\\x63p\"\ncommand: [a, 0x10, 1.50, true, ~x, 99999999999999999999999, é, 1.0 ]\n",
        );
        let one = |flag: &str| file.values[flag].0[0].to_str().expect("text").to_owned();
        assert_eq!(one("children"), "007");
        assert_eq!(one("max-body"), "1_000");
        assert_eq!(one("sse"), "yes");
        assert_eq!(one("session-idle"), "5m");
        assert_eq!(one("evict-after"), "1e3");
        assert_eq!(one("path"), "/mcp");
        assert_eq!(file.command, ["a", "0x10", "1.50", "true", "~x", "99999999999999999999999", "é", "1.0"]);
    }

    #[test]
    fn json_is_read_too() {
        let file = parsed("\u{feff}{\"children\": 3, \"sse\": true, \"env\": [\"A=é\", \"B=2\"]}");
        assert_eq!(file.values["children"].0, ["3"]);
        assert_eq!(file.values["sse"].0, ["true"]);
        assert_eq!(file.values["env"].0, ["A=é", "B=2"]);
    }

    #[test]
    fn env_is_a_map_or_a_list_and_values_know_their_line() {
        let file = parsed("# first\n\nenv:\n  A: 1\n  B: \"x=y\"\n  C:\nallow-host: one\n");
        assert_eq!(file.values["env"].0, ["A=1", "B=x=y", "C"]);
        assert_eq!(file.values["env"].1, Source::File(FileLine { path: "c.yaml".into(), line: 3 }));
        assert_eq!(file.values["allow-host"].0, ["one"]);
    }

    #[test]
    fn issuers_are_texts_or_maps_with_options() {
        let file = parsed(
            "auth-issuer:\n- https://a.example typ=jwt\n- url: https://b.example\n  jwks: /k.json\n  algorithms: [ES256, PS256]\n\
             auth-introspection: {url: 'https://a.example/i', client: c, secret: /s}\n",
        );
        assert_eq!(
            file.values["auth-issuer"].0,
            ["https://a.example typ=jwt", "https://b.example jwks=/k.json algorithms=ES256,PS256"]
        );
        assert_eq!(file.values["auth-introspection"].0, ["https://a.example/i client=c secret=/s"]);
        assert_eq!(
            parsed("auth-issuer: {url: 'https://a.example'}\n").values["auth-issuer"].0,
            ["https://a.example"]
        );
        for bad in [
            "auth-issuer: {jwks: a}",
            "auth-issuer: [{url: 'a b'}]",
            "auth-issuer: [[a]]",
            "auth-introspection: [a]",
        ] {
            assert!(refused(bad)[0].contains("is not a URL with options"), "{bad}");
        }
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert!(parsed("").values.is_empty());
        assert!(parsed("# nothing\n").values.is_empty());
        assert_eq!(
            refused("cwd:\nenv: ~\n"),
            [
                "proxyrunner: cwd: (from c.yaml, line 1) has no value; give one, or remove the line",
                "proxyrunner: env: (from c.yaml, line 2) has no value; give one, or remove the line",
            ]
        );
    }

    #[test]
    fn every_unusable_key_is_reported_with_its_line() {
        let lines = refused(
            "sesion-idle: 5m\nsession_idle: 5m\nconfig: x\npath: [a]\nenv: {A: [b]}\nallow-host: [[a]]\ncommand: {a: b}\n",
        );
        assert_eq!(
            lines,
            [
                "proxyrunner: sesion-idle: (from c.yaml, line 1) is not a setting; \
                 give a flag's name without its dashes; --help lists them",
                "proxyrunner: session_idle: (from c.yaml, line 2) is not a setting; give session-idle",
                "proxyrunner: config: (from c.yaml, line 3) is not allowed in a file; give it as a flag",
                "proxyrunner: path: (from c.yaml, line 4) is not a single value; give one PATH",
                "proxyrunner: env: (from c.yaml, line 5) contains an item that is not a single value; give NAME: value",
                "proxyrunner: allow-host: (from c.yaml, line 6) is not a list of single values; give a list",
                "proxyrunner: command: (from c.yaml, line 7) is not a list of single values; \
                 give a list, e.g. [python3, server.py]",
            ]
        );
    }

    #[test]
    fn a_parse_error_shows_the_line_and_no_secret() {
        for text in
            ["a: b\nenv: {TOKEN: hunter2\n", "path: /a\npath: hunter2\n", "env: *hunter2\n", "hunter2"]
        {
            let lines = refused(text);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].starts_with("proxyrunner: --config: (from c.yaml, line "), "{lines:?}");
            assert!(!lines[0].contains("hunter2"), "{lines:?}");
        }
        assert_eq!(
            refused("path: /a\nsse: true\npath: /b\n"),
            ["proxyrunner: --config: (from c.yaml, line 3) contains a key twice; remove one"]
        );
    }
}
