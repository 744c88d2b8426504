//! Compares proxyrunner with the least that a bridge can cost, with no bridge at all, and with other bridges.
//!
//!     cargo bench --bench compare -- 1x32x200     one shape: sessions x connections of each x bytes of text
//!     cargo bench --bench compare -- report       all of it; writes docs/performance.md (about 15 minutes)
//!     cargo bench --bench compare -- report --from target/performance.json       only writes the document again
//!     cargo bench --bench compare -- case footprint|large|quota|sessions|load [--subjects NAMES]       one of its other parts
//!     cargo bench --bench compare -- gateway         what a gateway adds, against the least that a relay adds
//!     cargo bench --bench compare -- gateway --others         the same, and what calls cost other gateways
//!     cargo bench --bench compare -- discovery       a gateway of 100 servers: CPU time of a list of their 5,000 tools, and memory
//!     compare floor --listen 127.0.0.1:8080 -- COMMAND       only the floor, for profilers
//!
//! Options: `--rounds 3`, `--seconds 2`, `--subjects direct,floor,proxyrunner`; for one shape also
//! `--era legacy|modern|translated` (`--modern` for short) and `--progress`. `PROXYRUNNER_BIN` names another binary of proxyrunner.
//!
//! This one program is the load generator, the floor, the child and the driver, each in a process of its own.

mod call;
mod cases;
mod child;
mod direct;
mod document;
mod fleet;
mod floor;
mod gateways;
mod http;
mod job;
mod load;
mod measure;
mod paths;
mod peers;
mod pipe;
mod process;
mod quota;
mod relay;
mod report;
mod scan;
mod subjects;
mod svg;
mod tables;
mod window;

use job::{Era, Shape};
use subjects::Subject;

/// Progress notifications per call with `--progress`.
const PROGRESS: usize = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("child") => child::run(words.iter().any(|word| word == "--modern")),
        Some("floor") => run_floor(&words),
        Some("load") => load::run(&words[1]),
        Some("report") => run_report(&words),
        Some("relay") => {
            let address = |name| option(&words, name).expect("an address").parse().expect("an address");
            relay::run(address("--listen"), address("--to"));
        }
        Some("gateway") => {
            process::raise_file_limit();
            let rounds = option(&words, "--rounds").map_or(5, |text| text.parse().expect("a number"));
            let seconds = option(&words, "--seconds").map_or(2.0, |text| text.parse().expect("a number"));
            let others = words.iter().any(|word| word == "--others");
            println!("{}", relay::report(rounds, seconds, others));
        }
        Some("fleet") => {
            fleet::run(option(&words, "--listen").expect("an address").parse().expect("an address"))
        }
        Some("discovery") => {
            process::raise_file_limit();
            println!("{}", fleet::report().unwrap_or_else(|error| panic!("{error}")));
        }
        Some("case") => run_case(&words),
        Some(shape) => one_shape(shape, &words),
        None => println!("say: report, or a shape such as 1x32x200"),
    }
}

fn run_floor(words: &[String]) {
    process::raise_file_limit();
    let command = words.iter().position(|word| word == "--").expect("-- COMMAND") + 1;
    let workers = option(&words[..command], "--workers").map_or(1, |text| text.parse().expect("a number"));
    let address = option(&words[..command], "--listen").unwrap_or("127.0.0.1:8080");
    floor::run(address.parse().expect("an address"), workers, &words[command..]);
}

fn one_shape(shape: &str, words: &[String]) {
    let has = |name: &str| words.iter().any(|word| word == name);
    let numbers: Vec<usize> = shape.split('x').map_while(|number| number.parse().ok()).collect();
    let [sessions, concurrency, size] = numbers[..] else {
        return println!("no shape: {shape}; say 1x32x200 for one session, 32 connections, 200 bytes");
    };
    let era = option(words, "--era").map_or(Era::Legacy, |name| Era::parse(name).expect("an era"));
    let era = if has("--modern") { Era::Modern } else { era };
    let progress = if has("--progress") { PROGRESS } else { 0 };
    let shape = Shape { era, sessions, concurrency, size, progress };
    let names = option(words, "--subjects").unwrap_or("direct,floor,proxyrunner");
    let subjects: Vec<Subject> = Subject::all()
        .into_iter()
        .filter(|subject| names.split(',').any(|name| name == subject.name()))
        .collect();
    let rounds = option(words, "--rounds").map_or(3, |text| text.parse().expect("a number"));
    let seconds = option(words, "--seconds").map_or(2.0, |text| text.parse().expect("a number"));
    process::raise_file_limit();
    println!("{} (medians of {rounds} rounds of {seconds} s)", shape.name());
    let rows = measure::compare(&subjects, shape, rounds, seconds);
    rows.iter().for_each(|row| println!("{}", row.line()));
    measure::require_success(&subjects, &rows);
}

fn run_report(words: &[String]) {
    process::raise_file_limit();
    if let Some(file) = option(words, "--from") {
        return report::rewrite(file.as_ref());
    }
    let rounds = option(words, "--rounds").map_or(3, |text| text.parse().expect("a number"));
    let seconds = option(words, "--seconds").map_or(1.2, |text| text.parse().expect("a number"));
    let all: Vec<&str> = Subject::all().iter().map(|subject| subject.name()).collect();
    report::run(subjects(words, &all.join(",")), rounds, seconds);
}

fn run_case(words: &[String]) {
    process::raise_file_limit();
    for subject in subjects(words, "floor,proxyrunner") {
        match words.get(1).map(String::as_str) {
            Some("footprint") => println!("{}", cases::footprint(subject)),
            Some("large") => cases::large(subject).iter().for_each(|point| println!("{point}")),
            Some("quota") => println!("{}", cases::quota(subject)),
            Some("sessions") => {
                report::SESSIONS
                    .iter()
                    .for_each(|count| println!("{}", cases::with_sessions(subject, *count)));
            }
            Some("load") => {
                report::LOADS.iter().for_each(|count| println!("{}", cases::with_load(subject, *count)));
            }
            _ => println!("say: footprint, large, quota, sessions or load"),
        }
    }
}

/// Returns the subjects that `--subjects` names.
fn subjects(words: &[String], default: &str) -> Vec<Subject> {
    let names: Vec<&str> = option(words, "--subjects").unwrap_or(default).split(',').collect();
    Subject::all().into_iter().filter(|subject| names.contains(&subject.name())).collect()
}

/// Returns the word after `name`.
fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).map(String::as_str)
}
