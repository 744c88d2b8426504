//! Trace context in messages (SEP-414): reading it from `params._meta`, and writing it there for the child.

use super::message::{Message, Meta, Span};
use super::splice::SmallBytes;
use super::text::text;
use crate::trace_context::{
    Context, OwnBaggage, TRACEPARENT_LEN, Trace, Traceparent, is_baggage, is_traceparent, is_tracestate,
};
use serde_json::Value;
use std::borrow::Cow;

/// Maximum length of a value that is read, in bytes of raw JSON: the longest baggage, entirely escaped.
const LONGEST: usize = 64 * 1024;

/// The trace context of a message, as far as it is well-formed and not duplicated.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried<'a> {
    /// The sender's span.
    pub context: Option<Context>,
    /// Vendor state; only with a context.
    pub tracestate: Option<Cow<'a, str>>,
    /// Baggage, which may be present without a context.
    pub baggage: Option<Cow<'a, str>>,
    /// Whether there is baggage that is malformed or duplicated.
    pub has_malformed_baggage: bool,
}

impl Carried<'_> {
    /// Returns the baggage.
    pub fn own_baggage(&self) -> OwnBaggage<'_> {
        match self.baggage.as_deref() {
            Some(baggage) => OwnBaggage::WellFormed(baggage),
            None if self.has_malformed_baggage => OwnBaggage::Malformed,
            None => OwnBaggage::None,
        }
    }
}

/// Reads the trace context of a message.
pub fn carried<'a>(bytes: &'a [u8], message: &Message) -> Carried<'a> {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let Some(meta) = meta else { return Carried::default() };
    if meta.trace_repeated {
        return Carried { has_malformed_baggage: meta.baggage.is_some(), ..Carried::default() };
    }
    let string = |span: &Option<Span>, is_well_formed: fn(&str) -> bool| {
        let span = span.as_ref().filter(|span| bytes[span.start] == b'"' && span.len() <= LONGEST)?;
        Some(text(bytes, span)).filter(|value| is_well_formed(value))
    };
    let context = string(&meta.traceparent, is_traceparent).and_then(|value| Context::parse(&value));
    let baggage = string(&meta.baggage, is_baggage);
    Carried {
        context,
        tracestate: context.and_then(|_| string(&meta.tracestate, is_tracestate)),
        has_malformed_baggage: baggage.is_none() && meta.baggage.is_some(),
        baggage,
    }
}

/// Returns the members of `trace` that `_meta` lacks or has to give up: the keys to remove, and the members to add.
pub(super) fn injection(
    bytes: &[u8],
    meta: Option<&Meta>,
    trace: &Trace,
) -> (&'static [&'static str], SmallBytes) {
    let well_formed = |part: fn(&Meta) -> &Option<Span>, check: fn(&str) -> bool| {
        meta.filter(|meta| !meta.trace_repeated).and_then(|meta| part(meta).as_ref()).is_some_and(|span| {
            bytes[span.start] == b'"' && span.len() <= LONGEST && check(&text(bytes, span))
        })
    };
    let context = trace
        .traceparent()
        .filter(|_| trace.replaces_context() || !well_formed(|meta| &meta.traceparent, is_traceparent));
    let baggage = trace
        .baggage()
        .filter(|_| trace.replaces_baggage() || !well_formed(|meta| &meta.baggage, is_baggage));
    // If there is nothing to remove, the object need not be read again.
    let has = |part: fn(&Meta) -> &Option<Span>| meta.is_some_and(|meta| part(meta).is_some());
    let clears_context = context.is_some() && (has(|meta| &meta.traceparent) || has(|meta| &meta.tracestate));
    let clears_baggage = (baggage.is_some() || trace.replaces_baggage()) && has(|meta| &meta.baggage);
    let keys: &[&str] = match (clears_context, clears_baggage) {
        (true, true) => &["traceparent", "tracestate", "baggage"],
        (true, false) => &["traceparent", "tracestate"],
        (false, true) => &["baggage"],
        (false, false) => &[],
    };
    let mut members = SmallBytes::new();
    let (state, mut longer) = (context.and_then(|_| trace.tracestate()), None);
    match context {
        Some(Traceparent::Own(context)) => put_traceparent(&context.written(), &mut members),
        Some(Traceparent::Received(value)) => match value.as_bytes().try_into() {
            Ok(value) => put_traceparent(value, &mut members),
            // A later version may append anything.
            Err(_) => longer = Some(&**value),
        },
        None => {}
    }
    for (key, value) in [("traceparent", longer), ("tracestate", state), ("baggage", baggage)] {
        let Some(value) = value else { continue };
        let comma = if members.is_empty() { "" } else { "," };
        members.extend_from_slice(format!("{comma}\"{key}\":{}", Value::from(value)).as_bytes());
    }
    (keys, members)
}

/// Appends a traceparent of this length. Its hexadecimal digits need no escapes.
fn put_traceparent(value: &[u8; TRACEPARENT_LEN], members: &mut SmallBytes) {
    members.extend_from_slice(b"\"traceparent\":\"");
    members.extend_from_slice(value);
    members.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn told(meta: &str) -> (bool, Option<String>, Option<String>) {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"_meta":{meta}}}}}"#);
        let message = scan(text.as_bytes()).expect("a message");
        let carried = carried(text.as_bytes(), &message);
        let owned = |value: Option<Cow<'_, str>>| value.map(Cow::into_owned);
        (carried.context.is_some(), owned(carried.tracestate), owned(carried.baggage))
    }

    #[test]
    fn well_formed_and_unique_values_are_carried() {
        let parent = format!("\"traceparent\":\"{PARENT}\"");
        assert_eq!(told(&format!("{{{parent}}}")), (true, None, None));
        let all = format!(r#"{{{parent},"tracestate":"a=1","baggage":"b=2"}}"#);
        assert_eq!(told(&all), (true, Some("a=1".into()), Some("b=2".into())));
        assert_eq!(told(r#"{"tracestate":"a=1","baggage":"b=2"}"#), (false, None, Some("b=2".into())));
        let long = format!(r#"{{{parent},"tracestate":"a={}"}}"#, "x".repeat(10_000));
        assert_eq!(told(&long), (true, None, None));
        for nothing in [
            "{}",
            "7",
            r#"{"traceparent":7,"tracestate":[],"baggage":null}"#,
            r#"{"traceparent":"00-xyz","tracestate":"a=1","baggage":"\""}"#,
            &format!("{{{parent},{parent}}}"),
        ] {
            assert_eq!(told(nothing), (false, None, None), "{nothing}");
        }
    }

    #[test]
    fn malformed_baggage_is_reported() {
        let twice = r#""baggage":"a=1","baggage":"a=1""#;
        let beside = format!(r#""traceparent":"{PARENT}","traceparent":"{PARENT}","baggage":"a=1""#);
        for (meta, malformed) in [
            ("", false),
            (r#""baggage":"a=1""#, false),
            (r#""baggage":"a=1,""#, true),
            (r#""baggage":["a=1"]"#, true),
            (r#""baggage":null"#, true),
            (twice, true),
            (&*beside, true),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"_meta":{{{meta}}}}}}}"#);
            let message = scan(text.as_bytes()).expect("a message");
            let own = carried(text.as_bytes(), &message);
            assert_eq!(own.own_baggage() == OwnBaggage::Malformed, malformed, "{meta}");
        }
    }
}
