//! Checks that trace headers are well-formed or ignored, that only allowed baggage passes, and that a collector's
//! answer becomes at most a count and a short reason, and a name server's at most as many addresses as it has room for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::budget::Charged;
use proxyrunner::internals::export::{Signal, records_in, rejected};
use proxyrunner::internals::jsonrpc::rewrite::request_for_child;
use proxyrunner::internals::jsonrpc::{Span, scan, text as text_of};
use proxyrunner::internals::trace_context::{
    AllowedBaggage, Context, OwnBaggage, Trace, is_baggage, is_traceparent, is_tracestate,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// The maximum length of a rejection reason, in bytes.
const LONGEST: usize = 256;

fuzz_target!(|data: &[u8]| {
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let (_, why) = rejected(signal, data);
        assert!(why.len() <= LONGEST);
    }
    if let Some((flags, records)) = data.split_first_chunk() {
        // The shortest record of an address has 15 bytes.
        assert!(records_in(*flags, records) <= records.len() / 15);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    parents(text);
    states(text);
    bags(text);
    told(text);
});

/// Checks that header values reach the child only as strings inside the message that its client sent.
fn told(text: &str) {
    const MESSAGE: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"k":1}}}"#;
    let bytes = Charged::fixed(MESSAGE);
    let message = scan(&bytes).expect("a message");
    let parent = format!("cc{}-{text}", &PARENT[2..]);
    for parent in [text, &parent, PARENT] {
        let trace = Trace::from_headers(Some(parent), Some(text), Some(text));
        let told = request_for_child(&bytes, &message, Some(7), None, &trace).to_vec();
        let read = scan(&told).expect("still a message");
        let (id, method) = (read.id.expect("its id"), read.method.expect("its method"));
        assert_eq!((&told[id], &told[method]), (&b"7"[..], &b"\"m\""[..]));
        let meta = read.params.and_then(|params| params.meta).expect("what it was given");
        let said = |span: Option<Span>| span.map(|span| text_of(&told, &span).into_owned());
        assert_eq!(said(meta.traceparent), trace.traceparent().map(ToString::to_string));
        assert_eq!(said(meta.tracestate).as_deref(), trace.tracestate());
        assert_eq!(said(meta.baggage).as_deref(), trace.baggage());
    }
}

fn parents(text: &str) {
    let context = Context::parse(text);
    assert_eq!(context.is_some(), is_traceparent(text));
    let Some(context) = context else { return };
    assert!(context.trace != [0; 16] && context.span != [0; 8]);
    assert_eq!(Context::parse(&context.to_string()), Some(context), "it is passed on as it is");
}

fn states(text: &str) {
    let alone = Trace::from_headers(None, Some(text), None);
    assert_eq!(alone.tracestate(), None, "without a parent it means nothing");
    if let Some(state) = Trace::from_headers(Some(PARENT), Some(text), None).tracestate() {
        assert!(is_tracestate(state) && state.len() <= 512);
    }
}

fn bags(text: &str) {
    let allowed = AllowedBaggage::new(vec!["a".to_owned(), "user.id".to_owned()]);
    let keys = |baggage: &str| -> Vec<String> {
        let key = |member: &str| member.split(['=', ';']).next().unwrap_or_default().trim().to_owned();
        baggage.split(',').map(key).collect()
    };
    let from_header =
        Trace::from_headers(None, None, Some(text)).with_allowed_baggage(OwnBaggage::None, &allowed);
    let own = is_baggage(text).then_some(text);
    let said = own.map_or(OwnBaggage::Malformed, OwnBaggage::WellFormed);
    let from_message = Trace::default().with_allowed_baggage(said, &allowed);
    for passed in [&from_header, &from_message].into_iter().filter_map(|trace| trace.baggage()) {
        assert!(is_baggage(passed), "{passed}");
        assert!(keys(passed).iter().all(|key| key == "a" || key == "user.id"), "{passed}");
    }
    if own.is_none_or(|own| keys(own).iter().any(|key| key != "a" && key != "user.id")) {
        assert!(from_message.replaces_baggage(), "what may not pass is taken out");
    }
}
