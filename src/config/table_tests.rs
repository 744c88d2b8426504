//! Checks the table's names and help texts, and the pages that are made from it.

use super::*;
use std::collections::HashSet;

#[test]
fn names_are_kebab_case_and_unique() {
    let mut seen = HashSet::new();
    for setting in settings() {
        assert!(seen.insert(setting.flag), "--{} is defined twice", setting.flag);
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
fn help_texts_fit_on_one_line() {
    for setting in settings() {
        let length = setting.help.chars().count();
        assert!(length <= 70, "the help of --{} has {length} characters", setting.flag);
        assert!(!setting.help.ends_with('.'), "the help of --{} ends with a full stop", setting.flag);
    }
}

fn page(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_settings_page_contains_the_table() {
    let page = page("docs/settings.md");
    let (_, rest) = page.split_once("<!-- flags -->\n").expect("the opening marker");
    let (shown, _) = rest.split_once("\n<!-- flags -->").expect("the closing marker");
    let table = markdown_table();
    assert!(shown == table, "between its <!-- flags --> markers, docs/settings.md should say:\n{table}");
}

/// The README names a few settings with their defaults.
#[test]
fn the_readme_tells_the_truth_about_settings() {
    let page = page("README.md");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `--")).collect();
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let mut cells = row.split(" | ");
        let flag = cells.next().expect("a flag").trim_end_matches('`');
        let flag = flag.split(' ').next().expect("a name");
        let setting = find(flag).unwrap_or_else(|| panic!("--{flag} is not a setting"));
        let default = cells.next().expect("a default").trim().trim_end_matches('|').trim();
        assert_eq!(default, setting.default_words().unwrap_or_default(), "the default of --{flag}");
    }
}
