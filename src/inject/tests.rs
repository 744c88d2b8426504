//! Rewrites whole streams of manifests.

use super::*;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: s\n    image: i\n    command: [x]\n";
const SERVICE: &str =
    "apiVersion: v1 # kept\nkind: Service\nmetadata: {name: &n b}\nspec: {selector: {a: *n}}\n";

fn refused(text: &str) -> Vec<String> {
    rewrite(text, &Options::default()).expect_err("a refusal")
}

fn injected(text: &str) -> String {
    rewrite(text, &Options::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn documents_of_other_kinds_pass_through_byte_by_byte() {
    let text = format!("# first\n{SERVICE}---\n{POD}--- # last\n{SERVICE}---\n");
    let out = injected(&text);
    assert!(out.starts_with(&format!("# first\n{SERVICE}---\napiVersion: v1\nkind: Pod\n")), "{out}");
    assert!(out.ends_with(&format!("--- # last\n{SERVICE}---\n")), "{out}");
    assert!(out.contains("- /opt/proxyrunner/proxyrunner\n"), "{out}");
}

#[test]
fn injected_documents_are_unchanged() {
    let once = injected(&format!("{POD}---\n{SERVICE}"));
    assert_eq!(injected(&once), once);
    let by_hand = "apiVersion: v1\nkind:   Pod # by hand\nspec: {containers: [&c {name: a, command: [/proxyrunner, --, x]}]}";
    assert_eq!(injected(by_hand), by_hand);
}

#[test]
fn templates_are_injected_with_their_annotations() {
    let template = "metadata: {annotations: {proxyrunner/command: python3 s.py}}, spec: {containers: [{name: s, image: i}]}";
    for kind in ["Deployment", "StatefulSet"] {
        let text =
            format!("{{apiVersion: apps/v1, kind: {kind}, spec: {{replicas: 2, template: {{{template}}}}}}}");
        let out = injected(&text);
        assert!(out.contains("        - --\n        - python3\n        - s.py\n"), "{out}");
        assert!(out.contains("  replicas: 2\n"), "{out}");
    }
    let around = POD
        .replace("  name: a\n", "  annotations: {proxyrunner/container: s}\n")
        .replace("  containers:\n", "  containers:\n  - {name: other, image: o}\n");
    assert!(injected(&around).contains("- name: other\n    image: o\n  - name: s\n"));
    let bad = POD.replace("  name: a\n", "  annotations: {proxyrunner/command: \"sh -c 'a'\"}\n");
    assert!(refused(&bad)[0].contains("annotation proxyrunner/command that contains a quote"));
}

#[test]
fn problems_name_line_kind_and_name() {
    let two = POD.replace("command: [x]", "command: [x]\n  - name: t");
    let text = format!("{SERVICE}---\n{two}---\n{}", POD.replace("    command: [x]\n", ""));
    let lines = refused(&text);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("line 5: Pod \"a\" has 2 containers (s, t); name"), "{lines:?}");
    assert!(lines[1].starts_with("line 16: Pod \"a\" has no command in container"), "{lines:?}");
}

#[test]
fn a_stream_without_a_server_is_refused_with_its_kinds() {
    let job = "apiVersion: batch/v1\nkind: Job\n---\napiVersion: extensions/v1beta1\nkind: Deployment\n";
    let lines = refused(&format!("{SERVICE}---\n{job}---\na: 1\n"));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(
        "only Deployment (extensions/v1beta1), Job (batch/v1), Service (v1), a document without kind"
    ));
    assert!(lines[0].contains("give a Pod (v1), a Deployment"), "{lines:?}");
    assert!(refused("kind: Pod\n")[0].contains("only Pod without apiVersion;"));
    for empty in ["", "# nothing\n", "---\n---\n", "[]", "text"] {
        assert!(refused(empty)[0].contains("contains no manifest; give a Pod"), "{empty:?}");
    }
}

#[test]
fn lists_with_a_server_are_refused_wherever_they_are() {
    let of = |kind: &str, item: &str| format!("apiVersion: v1\nkind: {kind}\nitems:\n- {item}\n");
    let toolhive = "apiVersion: toolhive.stacklok.dev/v1beta1";
    for (list, what) in [
        (of("List", "{apiVersion: apps/v1, kind: Deployment}"), "Deployment"),
        (of("PodList", "{apiVersion: v1, kind: Pod}"), "Pod"),
        (of("List", &format!("{{{toolhive}, kind: MCPServer}}")), "MCPServer"),
        (
            of("MCPServerList", &format!("{{{toolhive}, kind: MCPServer}}"))
                .replace("apiVersion: v1", toolhive),
            "MCPServer",
        ),
    ] {
        let lines = refused(&format!("{POD}---\n{list}"));
        assert!(
            lines[0].contains(&format!("contains items of kind {what}; give them as documents")),
            "{lines:?}"
        );
    }
    let other = of("List", "{apiVersion: v1, kind: Service}");
    assert!(injected(&format!("{POD}---\n{other}")).ends_with(&other));
}

#[test]
fn a_byte_order_mark_stays_with_what_is_unchanged() {
    let out = injected(&format!("\u{feff}{SERVICE}---\n{POD}"));
    assert!(out.starts_with(&format!("\u{feff}{SERVICE}---\n")), "{out}");
    let done = format!("\u{feff}{}", injected(POD));
    assert_eq!(injected(&done), done);
    assert!(injected(&format!("\u{feff}{POD}")).starts_with("apiVersion"));
}

#[test]
fn anchors_and_aliases_are_refused_by_name() {
    let text = format!("---\n{}", POD.replace("name: a", "name: &n a\n  labels: {app: *n}"));
    let lines = refused(&text);
    assert!(lines[0].contains("contains an anchor in line 5"), "{lines:?}");
    for (from, to, what) in [("name: a", "<<: {name: a}", "a merge key"), ("name: a", "name: !x a", "a tag")]
    {
        assert!(refused(&POD.replace(from, to))[0].contains(&format!("contains {what} in line 4")), "{what}");
    }
    assert!(
        refused(&POD.replace("kind: Pod", "kind: Pod\nkind: Pod"))[0].contains("a key that occurs twice")
    );
}

#[test]
fn malformed_streams_are_refused_with_their_line() {
    assert!(refused(&format!("{POD}---\nkind: [\n"))[0].starts_with("line 1"));
    assert!(refused("kind: Pod\n\tapiVersion: v1\n")[0].contains("is not valid YAML or JSON"));
    let deep = refused(&format!("{POD}---\na: {}\n", "[".repeat(70) + &"]".repeat(70)));
    assert!(deep[0].starts_with("line 11: is nested more than 64 levels deep"), "{deep:?}");
}

#[test]
fn json_is_read_too() {
    let text =
        r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a","command":["x","007"]}]}}"#;
    let out = injected(text);
    assert!(out.starts_with("apiVersion: v1\nkind: Pod\n") && out.contains("    - \"007\"\n"), "{out}");
}

#[test]
fn headers_are_kept() {
    let out = injected(&format!("# about\n---\n# more\n{POD}"));
    assert!(out.starts_with("# about\n---\n# more\napiVersion: v1\n"), "{out}");
}

#[test]
fn manifests_that_cannot_be_read_are_errors() {
    let run =
        |file: Option<&str>, stdin: &[u8]| manifests(file.map(PathBuf::from), &Options::default(), stdin);
    assert!(run(None, POD.as_bytes()).expect("manifests").contains("copy-proxyrunner"));
    let exit = run(Some("no/such/file"), b"").expect_err("an error");
    assert!(exit.code == USAGE && exit.lines[0].starts_with("inject: no/such/file: "), "{exit:?}");
    let large = vec![b'#'; (LIMIT + 1) as usize];
    for (stdin, reason) in
        [(&b"kind: x"[..], "contains nothing"), (b"\xff", "is not UTF-8"), (&large, "is larger than 32 MiB")]
    {
        let exit = run(None, stdin).expect_err("an error");
        assert_eq!(exit.code, REFUSED);
        assert!(exit.lines[0].starts_with(&format!("inject: stdin: {reason}")), "{exit:?}");
    }
}
