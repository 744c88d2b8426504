//! Tests of `trace_context.rs`.

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn traceparent_grammar() {
    let later = format!("cc{}", &PARENT[2..]);
    for value in [PARENT, &later, &format!("{later}-what-ever"), &PARENT.replace("-01", "-ff")] {
        assert!(is_traceparent(value), "{value}");
    }
    for value in [
        "",
        &PARENT[..54],
        &format!("{PARENT}-00"),
        &format!("{later}.x"),
        &format!("{later}-{}", "x".repeat(300)),
        &format!("ff{}", &PARENT[2..]),
        &PARENT.to_uppercase(),
        &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        &PARENT.replace("-01", "-0g"),
        &PARENT.replace("-00f", "_00f"),
        &PARENT.replace("00-4b", "0x-4b"),
    ] {
        assert!(!is_traceparent(value), "{value}");
    }
}

#[test]
fn tracestate_grammar() {
    let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    for value in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "t1@s=x y", "a=1,, \tb=2 ", "0a=~!"] {
        assert!(is_tracestate(value), "{value}");
    }
    assert!(is_tracestate(&many(32)) && !is_tracestate(&many(33)));
    assert!(is_tracestate(&format!("a={},b={}", "x".repeat(256), "x".repeat(100))));
    for value in
        ["", ",", "a", "a=", "=1", "A=1", "a=1,a=2", "a=b=c", "a=é", "a@1=x", "a@=x", "a@b@c=x", "a b=1"]
    {
        assert!(!is_tracestate(value), "{value}");
    }
    assert!(!is_tracestate(&format!("a={}", "x".repeat(257))));
    assert!(!is_tracestate(&format!("a={},b={}", "x".repeat(256), "x".repeat(252))));
}

#[test]
fn baggage_grammar() {
    for value in ["a=1", "userId=alice,serverNode=DF%2028", "a = 1 ; p ; q = 2 , b=", "a=b=c"] {
        assert!(is_baggage(value), "{value}");
    }
    let many = |count: usize| vec!["k=v"; count].join(",");
    assert!(is_baggage(&many(64)) && !is_baggage(&many(65)));
    for value in ["", "a", "a=1,", "=1", "a=\"q\"", "a=x y", "a=é", "a=1;", "a(b=1", "a=\\"] {
        assert!(!is_baggage(value), "{value}");
    }
    assert!(!is_baggage(&format!("a={}", "x".repeat(8192))));
}

#[test]
fn a_context_is_parsed_and_formatted() {
    let context = Context::parse(PARENT).unwrap();
    assert_eq!(context.to_string(), PARENT);
    assert_eq!(
        (context.trace_id(), context.span_id()),
        (PARENT[3..35].to_owned(), PARENT[36..52].to_owned())
    );
    assert!(context.is_sampled());
    assert_eq!(Context::parse("00-xyz"), None);
    let later = Context::parse(&format!("cc{}-what-ever", &PARENT[2..])).unwrap();
    assert_eq!(later.to_string(), PARENT, "in the supported version");
    assert!(!Context::parse(&PARENT.replace("-01", "-02")).unwrap().is_sampled());
}

#[test]
fn baggage_is_filtered_by_key() {
    let allowed = |keys: &[&str]| AllowedBaggage::new(keys.iter().map(|&key| key.to_owned()).collect());
    let header = || Trace::from_headers(None, None, Some("a=1,secret=2;p, b = 3"));
    let passed = |own, keys: &[&str]| {
        let trace = header().with_allowed_baggage(own, &allowed(keys));
        (trace.baggage().map(str::to_owned), trace.replaces_baggage())
    };
    let (none, malformed) = (OwnBaggage::None, OwnBaggage::Malformed);
    assert_eq!(passed(malformed, &[]), (None, true));
    assert_eq!(passed(malformed, &["a"]), (Some("a=1".into()), true), "the header's replaces it");
    assert!(!passed(malformed, &["*"]).1, "all keys are allowed");
    assert_eq!(passed(none, &[]), (None, false));
    assert_eq!(passed(none, &["a", "b", "A"]), (Some("a=1, b = 3".into()), false));
    assert_eq!(passed(none, &["*"]), (Some("a=1,secret=2;p, b = 3".into()), false));
    assert_eq!(passed(OwnBaggage::WellFormed("a=7"), &["a"]), (None, false), "it stays unchanged");
    assert_eq!(passed(OwnBaggage::WellFormed("a=7,c=8"), &["a"]), (Some("a=7".into()), true));
    assert_eq!(
        passed(OwnBaggage::WellFormed("c=8"), &["a"]),
        (None, true),
        "it is removed, and the header's is not added"
    );
}

#[test]
fn only_well_formed_headers_are_kept() {
    let received = Traceparent::Received(PARENT.into());
    let trace = Trace::from_headers(Some(PARENT), Some("bad"), Some("a=1"));
    assert_eq!(
        (trace.traceparent(), trace.tracestate(), trace.baggage()),
        (Some(&received), None, Some("a=1"))
    );
    let orphan = Trace::from_headers(Some("bad"), Some("a=1"), None);
    assert_eq!(orphan, Trace::default());
    let padded = Trace::from_headers(Some(&format!(" {PARENT}\t")), Some(" a=1 "), None);
    assert_eq!((padded.traceparent(), padded.tracestate()), (Some(&received), Some("a=1")));
}
