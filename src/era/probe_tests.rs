//! Tests the state machine with children of every kind.

use super::fixtures::scanned;
use super::probe::*;
use super::{Era, MODERN_VERSION};
use crate::jsonrpc::codes;

fn modern() -> Vec<String> {
    vec![MODERN_VERSION.to_owned()]
}

fn discovered() -> Answer {
    Answer::Result(Some(modern()))
}

fn unsupported(versions: Option<Vec<String>>) -> Answer {
    Answer::Error(codes::UNSUPPORTED_VERSION, versions)
}

fn initialized() -> Answer {
    Answer::Result(None)
}

const NOT_FOUND: Answer = Answer::Error(-32601, None);
const LEGACY: Step = Step::Decided(DetectedEra::Legacy { modern_too: false });
const MODERN: Step = Step::Decided(DetectedEra::Modern);

/// An event from the child.
enum Event {
    Discover(Answer),
    Initialize(Answer),
    Silence,
    Exit,
}
use Event::*;

/// Plays the child's events to the machine and returns its last step; no earlier step may end it.
fn last(choice: Choice, first: Step, events: Vec<(Event, Step)>) -> Step {
    let (mut probe, mut step) = Probe::start(choice);
    assert_eq!(step, first);
    for (event, expected) in events {
        step = match event {
            Discover(answer) => probe.on_discover(answer),
            Initialize(answer) => probe.on_initialize(answer),
            Silence => probe.on_silence(),
            Exit => probe.on_exit(),
        };
        assert_eq!(step, expected);
    }
    step
}

fn auto(events: Vec<(Event, Step)>) {
    last(Choice::Auto, Step::SendDiscover, events);
}

#[test]
fn a_modern_child_is_detected() {
    auto(vec![(Discover(discovered()), MODERN)]);
    // rmcp also lists the legacy revisions.
    let all = Answer::Result(Some(["2025-11-25", MODERN_VERSION].map(str::to_owned).to_vec()));
    auto(vec![(Discover(all), MODERN)]);
    auto(vec![(Discover(unsupported(Some(modern()))), MODERN)]);
    auto(vec![(Discover(unsupported(None)), MODERN)]);
}

#[test]
fn a_legacy_child_refuses_and_is_initialized() {
    for code in [-32601, -32602, -32600, -32603, -32000, 0] {
        let refusal = Answer::Error(code, None);
        auto(vec![(Discover(refusal), Step::SendInitialize), (Initialize(initialized()), LEGACY)]);
    }
    // An answer that is not a DiscoverResult has the same effect.
    auto(vec![(Discover(Answer::Result(None)), Step::SendInitialize), (Initialize(initialized()), LEGACY)]);
}

#[test]
fn a_silent_child_is_initialized() {
    auto(vec![(Silence, Step::SendInitialize), (Silence, Step::Wait), (Initialize(initialized()), LEGACY)]);
    // The child's refusal comes late.
    auto(vec![
        (Silence, Step::SendInitialize),
        (Discover(NOT_FOUND), Step::Wait),
        (Initialize(initialized()), LEGACY),
        (Discover(discovered()), Step::Wait),
    ]);
}

#[test]
fn a_slow_modern_child_is_not_misjudged() {
    for answer in [unsupported(Some(modern())), unsupported(None), NOT_FOUND] {
        auto(vec![
            (Silence, Step::SendInitialize),
            (Silence, Step::Wait),
            (Discover(discovered()), Step::Wait),
            (Initialize(answer), MODERN),
        ]);
    }
    // The child ignores unknown requests.
    auto(vec![(Silence, Step::SendInitialize), (Discover(discovered()), Step::Wait), (Silence, MODERN)]);
    // The child answers in reverse order.
    auto(vec![
        (Silence, Step::SendInitialize),
        (Initialize(unsupported(Some(modern()))), MODERN),
        (Discover(discovered()), Step::Wait),
    ]);
    auto(vec![
        (Silence, Step::SendInitialize),
        (Discover(unsupported(Some(modern()))), Step::Wait),
        (Initialize(unsupported(None)), MODERN),
    ]);
}

#[test]
fn a_slow_child_of_both_eras_is_legacy_after_initialize() {
    auto(vec![
        (Silence, Step::SendInitialize),
        (Discover(discovered()), Step::Wait),
        (Initialize(initialized()), Step::Decided(DetectedEra::Legacy { modern_too: true })),
    ]);
}

#[test]
fn a_child_that_exits_after_discover_is_started_again() {
    let restart = || (Exit, Step::RestartAndInitialize);
    auto(vec![restart(), (Initialize(initialized()), LEGACY)]);
    auto(vec![(Silence, Step::SendInitialize), restart(), (Initialize(initialized()), LEGACY)]);
    auto(vec![restart(), (Exit, Step::Failed(Reason::Exited)), (Exit, Step::Wait)]);
    // The new process was never sent `server/discover`, so nothing counts as an answer to it.
    auto(vec![
        restart(),
        (Discover(discovered()), Step::Wait),
        (Silence, Step::Wait),
        (Initialize(NOT_FOUND), Step::Failed(Reason::InitializeRefused(-32601))),
    ]);
}

#[test]
fn a_child_of_neither_era_fails() {
    let newer = || vec!["2027-01-01".to_owned()];
    let none = || Step::Failed(Reason::NoCommonVersion(newer()));
    auto(vec![(Discover(Answer::Result(Some(newer()))), none())]);
    auto(vec![(Discover(unsupported(Some(newer()))), none())]);
    auto(vec![(Silence, Step::SendInitialize), (Initialize(unsupported(Some(newer()))), none())]);
    auto(vec![
        (Discover(NOT_FOUND), Step::SendInitialize),
        (Initialize(Answer::Error(-32603, None)), Step::Failed(Reason::InitializeRefused(-32603))),
    ]);
    auto(vec![
        (Silence, Step::SendInitialize),
        (Discover(discovered()), Step::Wait),
        (Exit, Step::RestartAndDiscover),
        (Silence, Step::Wait),
        (Exit, Step::Failed(Reason::Exited)),
    ]);
}

#[test]
fn a_slow_modern_child_that_exits_after_initialize_is_not_sent_it_again() {
    auto(vec![
        (Silence, Step::SendInitialize),
        (Discover(discovered()), Step::Wait),
        (Exit, Step::RestartAndDiscover),
        (Silence, Step::Wait),
        (Discover(discovered()), MODERN),
    ]);
}

#[test]
fn the_operators_choice_is_not_probed() {
    let legacy = |events| last(Choice::Legacy, Step::SendInitialize, events);
    legacy(vec![(Silence, Step::Wait), (Initialize(initialized()), LEGACY)]);
    legacy(vec![(Exit, Step::Failed(Reason::Exited))]);
    legacy(vec![(Initialize(unsupported(None)), Step::Failed(Reason::InitializeRefused(-32022)))]);
    let modern = |events| last(Choice::Modern, Step::SendDiscover, events);
    modern(vec![(Silence, Step::Wait), (Discover(discovered()), MODERN)]);
    modern(vec![(Exit, Step::Failed(Reason::Exited))]);
    modern(vec![(Discover(NOT_FOUND), Step::Failed(Reason::NotModern(Some(-32601))))]);
    modern(vec![(Discover(Answer::Result(None)), Step::Failed(Reason::NotModern(None)))]);
}

#[test]
fn answers_are_read() {
    let read = |rest: &str| {
        let (frame, message) = scanned(&format!(r#"{{"jsonrpc":"2.0","id":1,{rest}}}"#));
        Answer::read(&frame, message.result.as_ref(), message.error.as_ref())
    };
    assert_eq!(read(r#""result":{"supportedVersions":["2026-07-28"]}"#), discovered());
    assert_eq!(read(r#""result":{"protocolVersion":"2025-11-25"}"#), initialized());
    let error =
        r#""error":{"code":-32022,"message":"m","data":{"supported":["2026-07-28"],"requested":"x"}}"#;
    assert_eq!(read(error), unsupported(Some(modern())));
    assert_eq!(read(r#""error":{"code":-32601,"message":"m"}"#), NOT_FOUND);
    assert_eq!(read(r#""error":"boom""#), Answer::Error(-32603, None));
}

/// Whatever the order of a child's events: the machine ends at most once, and never asks twice.
#[test]
fn every_sequence_ends_once() {
    let event = |code: u32| match code {
        0 => Discover(discovered()),
        1 => Discover(NOT_FOUND),
        2 => Discover(unsupported(None)),
        3 => Initialize(initialized()),
        4 => Initialize(NOT_FOUND),
        5 => Initialize(unsupported(None)),
        6 => Silence,
        _ => Exit,
    };
    for choice in [Choice::Auto, Choice::Legacy, Choice::Modern] {
        for mut sequence in 0..8_u32.pow(5) {
            let (mut probe, first) = Probe::start(choice);
            let mut steps = vec![first];
            for _ in 0..5 {
                steps.push(match event(sequence % 8) {
                    Discover(answer) => probe.on_discover(answer),
                    Initialize(answer) => probe.on_initialize(answer),
                    Silence => probe.on_silence(),
                    Exit => probe.on_exit(),
                });
                sequence /= 8;
            }
            let is_end = |step: &Step| matches!(step, Step::Decided(_) | Step::Failed(_));
            let end = steps.iter().position(is_end);
            if let Some(end) = end {
                assert!(steps[end + 1..].iter().all(|step| *step == Step::Wait), "{choice:?} {steps:?}");
            }
            for once in [
                Step::SendDiscover,
                Step::SendInitialize,
                Step::RestartAndInitialize,
                Step::RestartAndDiscover,
            ] {
                assert!(steps.iter().filter(|step| **step == once).count() <= 1, "{choice:?} {steps:?}");
            }
            if choice == Choice::Modern {
                assert!(!steps.contains(&Step::SendInitialize), "{steps:?}");
            }
        }
    }
}

#[test]
fn the_operators_choice_is_an_era() {
    assert_eq!(Choice::from(Era::Legacy), Choice::Legacy);
    assert_eq!(Choice::from(Era::Modern), Choice::Modern);
}

#[test]
fn a_failure_names_the_reason() {
    for (reason, words) in [
        (Reason::Exited, "the server exited before"),
        (Reason::NoCommonVersion(vec!["a".into(), "b".into()]), "the server supports only a, b,"),
        (Reason::InitializeRefused(-7), "the server refused initialize with the error -7"),
        (Reason::NotModern(Some(-8)), "the server refused server/discover with the error -8; is --child-era"),
        (Reason::NotModern(None), "the server's answer to server/discover is malformed; is --child-era"),
    ] {
        assert!(reason.to_string().starts_with(words), "{reason}");
    }
}
