//! The table's names, and the README that is made from it.

use super::*;
use std::collections::HashSet;

#[test]
fn names_are_kebab_case_and_unique() {
    let mut seen = HashSet::new();
    for setting in settings() {
        assert!(seen.insert(setting.flag), "--{} is there twice", setting.flag);
        assert!(setting.flag.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "--{}", setting.flag);
    }
}

/// Kubernetes gives every pod `PROXYRUNNER_PORT=tcp://…` and `PROXYRUNNER_SERVICE_…` when a Service beside
/// it is called proxyrunner.
#[test]
fn no_variable_collides_with_kubernetes_service_links() {
    for setting in settings() {
        let name = setting.variable();
        let taken = ["PROXYRUNNER_PORT", "PROXYRUNNER_SERVICE_"];
        assert!(!taken.iter().any(|taken| name.starts_with(taken)), "{name} is set by Kubernetes");
    }
}

#[test]
fn the_readme_holds_the_table() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let (_, rest) = readme.split_once("<!-- flags -->\n").expect("the opening marker");
    let (shown, _) = rest.split_once("<!-- flags -->").expect("the closing marker");
    let table = markdown_table();
    assert_eq!(shown, table, "put this between README.md's <!-- flags --> markers:\n{table}");
}
