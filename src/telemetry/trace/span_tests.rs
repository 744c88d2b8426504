//! Tests ended spans, as the SDK receives them.

use super::*;
use parking_lot::Mutex;
use std::sync::Arc;

fn tracer(sampler: &str, longest: usize) -> (&'static Tracer, Arc<Mutex<Vec<SpanData>>>) {
    let bounds = Bounds { queued: 100, batch: 100, delay: Duration::ZERO };
    let sampler = Sampler::named(sampler, None).expect("a sampler");
    let scope = InstrumentationScope::builder("proxyrunner").build();
    let tracer: &'static Tracer = Box::leak(Box::new(Tracer::new(sampler, true, longest, bounds, scope)));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&ended);
    tracer.outbox().connect(Box::new(move |span| sink.lock().push(span)));
    (tracer, ended)
}

#[test]
fn an_ended_span_has_all_recorded_data() {
    let (tracer, ended) = tracer("always_on", 8);
    let remote = Context { trace: [7; 16], span: [8; 8], flags: 3 };
    let parent = Parent { context: remote, tracestate: Some("a=1"), remote: true };
    let mut span = tracer.begin(SpanKind::Server, Some(parent));
    span.name("tools/call echo");
    span.describe(|attributes| {
        attributes.text("text", "höchst lang");
        attributes.constant("constant", "also long");
        attributes.number("negative", -5);
    });
    let linked = Context { trace: [1; 16], span: [2; 8], flags: 1 };
    span.link(linked);
    span.fail("out of luck");
    let (context, below) = (span.context(), tracer.begin(SpanKind::Client, Some(span.as_parent())));
    assert_eq!(below.context().trace, [7; 16]);
    drop(below);
    drop(span);
    let ended = ended.lock();
    let [client, server] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(server.span_context.trace_id().to_bytes(), [7; 16]);
    assert_eq!(server.span_context.span_id().to_bytes(), context.span);
    assert_eq!((server.parent_span_id.to_bytes(), server.parent_span_is_remote), ([8; 8], true));
    assert_eq!(
        (server.span_context.trace_flags().to_u8(), server.span_context.trace_state().header()),
        (3, "a=1".to_owned())
    );
    assert_eq!((&*server.name, &server.span_kind), ("tools/call echo", &SpanKind::Server));
    assert!(server.end_time >= server.start_time && server.start_time > at(1_700_000_000_000_000_000));
    let attributes: Vec<_> = server.attributes.iter().map(|pair| pair.value.to_string()).collect();
    assert_eq!(attributes, ["höchst ", "also lon", "-5"]);
    assert_eq!(server.links.links[0].span_context.span_id().to_bytes(), [2; 8]);
    assert_eq!(server.status, Status::error("out of luck"));
    assert_eq!((client.parent_span_id.to_bytes(), client.parent_span_is_remote), (context.span, false));
    assert_eq!(
        (client.span_context.trace_state().header(), &client.status),
        ("a=1".to_owned(), &Status::Unset)
    );
}

#[test]
fn an_unsampled_span_has_a_context_but_is_not_recorded() {
    let (tracer, ended) = tracer("parentbased_always_off", 8);
    let root = tracer.begin(SpanKind::Server, None);
    assert!(!root.is_recorded() && !root.context().is_sampled());
    assert_ne!(root.context().trace, [0; 16]);
    let below = tracer.begin(SpanKind::Client, Some(root.as_parent()));
    assert_eq!(below.context().trace, root.context().trace);
    assert_ne!(below.context().span, root.context().span);
    drop::<[Span; 2]>([root, below]);
    assert!(ended.lock().is_empty());
}

#[test]
fn the_size_of_a_span_includes_its_strings() {
    let (tracer, ended) = tracer("always_on", 4_096);
    let mut span = tracer.begin(SpanKind::Server, None);
    span.describe(|attributes| attributes.text("text", &"x".repeat(4_096)));
    drop(span);
    assert!(ended.lock()[0].bytes() > 4_096);
}
