//! Tests that the tables in docs/observability.md list every span, attribute and metric with the help texts of the
//! code.

use super::metrics::{Levels, MetricKind, gather};
use super::names::{ATTRIBUTES, SPANS};
use std::fmt::Write;

const PAGE: &str = include_str!("../../docs/observability.md");

/// Returns the part of the page between two marks of this name.
fn part(name: &str) -> &'static str {
    let mark = format!("<!-- {name} -->\n");
    PAGE.split(&*mark).nth(1).unwrap_or_else(|| panic!("docs/observability.md has no {mark:?}"))
}

fn same(name: &str, expected: &str) {
    assert!(part(name) == expected, "between its marks, docs/observability.md should say:\n{expected}");
}

fn table(heads: &str, rows: impl Iterator<Item = String>) -> String {
    let columns = heads.split(" | ").count();
    let mut table = format!("| {heads} |\n|{}\n", " --- |".repeat(columns));
    rows.for_each(|row| writeln!(table, "| {row} |").expect("memory"));
    table
}

#[test]
fn every_span_is_listed() {
    let rows = SPANS.iter().map(|(name, says)| format!("`{name}` | {says}"));
    same("spans", &table("span | description", rows));
}

#[test]
fn every_attribute_is_listed() {
    let rows = ATTRIBUTES.iter().map(|(name, says)| format!("`{name}` | {says}"));
    same("attributes", &table("attribute | description", rows));
}

#[test]
fn every_metric_is_listed() {
    let families = gather(Levels::default());
    let rows = families.iter().map(|family| family.definition).map(|it| {
        let kind = match it.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let convention = it.convention.map(|name| format!("`{name}`")).unwrap_or_default();
        format!("`{}` | {convention} | {kind} | {}", it.name, it.help)
    });
    same("metrics", &table("metric | name in OTLP, if different | kind | description", rows));
}

#[test]
fn no_name_is_listed_that_nothing_has() {
    let source = |file: &str| std::fs::read_to_string(file).expect("a source");
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.ends_with("telemetry/names.rs") => {}
                path if path.extension().is_none_or(|kind| kind != "rs") => {}
                path => sources += &source(&path.to_string_lossy()),
            }
        }
    }
    let table = source(concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/names.rs"));
    let constants = table.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(" \""));
    let constants = constants
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase()));
    let unused: Vec<_> = constants
        .filter(|name| !sources.contains(&format!("names::{name}")) && !imported(&sources, name))
        .collect();
    assert!(unused.is_empty(), "nothing uses {unused:?}");
}

/// Returns whether an import list names it.
fn imported(sources: &str, name: &str) -> bool {
    let imports = sources.lines().filter(|line| line.contains("names::{"));
    imports.into_iter().any(|line| line.split(['{', '}', ',', ' ']).any(|word| word == name))
}
