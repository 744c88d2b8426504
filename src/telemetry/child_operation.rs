//! One request at a child as it is seen: its CLIENT span, whose context the child is given, and what is counted of it.

use super::clock::Moment;
use super::metrics::labels::{Labels, Names, PROMPTS, PROMPTS_LIST, Revision, Side, TOOLS, TOOLS_LIST};
use super::trace::{Parent, Span, SpanKind, Tracer, tracer};
use super::subject::Subject;
use super::verdict::Verdict;
use super::operation::Operation;
use super::trace::scope;
use super::{metrics, names};
use crate::trace_context::Trace;
use std::borrow::Cow;
use std::sync::Arc;

/// One request at a child, from its turn to the child's answer.
#[derive(Debug)]
pub struct ChildOperation {
    cause: Cause,
    span: Option<Span>,
    revision: Revision,
    begun: Moment,
    over: bool,
}

/// Whose request it is.
#[derive(Debug)]
enum Cause {
    Message(Arc<Operation>),
    /// proxyrunner's own.
    Own(Box<Subject>),
}

impl Cause {
    fn subject(&self) -> &Subject {
        match self {
            Cause::Message(message) => message.subject().expect("one that is seen"),
            Cause::Own(subject) => subject,
        }
    }
}

impl Operation {
    /// A request that it causes at its child, with a span below its own.
    pub fn ask(self: &Arc<Self>, revision: Revision, child: u64) -> Option<ChildOperation> {
        self.subject()?;
        ChildOperation::of(Arc::clone(self), revision, child)
    }
}

impl ChildOperation {
    /// That of a message, whose turn has come.
    pub(super) fn of(message: Arc<Operation>, revision: Revision, child: u64) -> Option<Self> {
        let parent = message.as_parent();
        let span = tracer().zip(parent).map(|(tracer, parent)| tracer.begin(SpanKind::Client, Some(parent)));
        message.subject()?;
        Some(Self::begin(Cause::Message(message), span, revision, child))
    }

    /// A request of proxyrunner's own, of this method. It has a span only where it is within one.
    pub fn own(method: &str, revision: Revision, child: u64) -> Option<Self> {
        let parent = scope::current().map(|context| Parent { context, tracestate: None, remote: false });
        let span = tracer().zip(parent).map(|(tracer, parent)| tracer.begin(SpanKind::Client, Some(parent)));
        // Without a span too, the names that the child lists are noted for others' spans.
        if tracer().is_none() && !metrics::are_kept() {
            return None;
        }
        let subject = Subject::new(method.as_bytes(), || None::<&str>, || None);
        Some(Self::begin(Cause::Own(Box::new(subject)), span, revision, child))
    }

    #[inline(always)]
    fn begin(cause: Cause, mut span: Option<Span>, revision: Revision, child: u64) -> Self {
        if let Some(span) = span.as_mut().filter(|span| span.is_recorded()) {
            span.describe(|attributes| {
                cause.subject().describe(attributes);
                if revision != Revision::default() {
                    attributes.text(names::PROTOCOL, revision.name());
                }
                attributes.text(names::TRANSPORT, "pipe");
                attributes.number(names::CHILD, child.cast_signed());
            });
        }
        ChildOperation { cause, span, revision, begun: Moment::now(), over: false }
    }

    /// The trace context that the child is to be given in place of the client's.
    pub fn traced<'a>(&self, trace: &'a Trace) -> Cow<'a, Trace> {
        let Some(span) = self.span.as_ref().filter(|_| tracer().is_some_and(Tracer::propagates)) else {
            return Cow::Borrowed(trace);
        };
        let tracestate = match &self.cause {
            Cause::Message(message) => message.as_parent().and_then(|parent| parent.tracestate),
            Cause::Own(_) => None,
        };
        Cow::Owned(trace.at(span.context(), tracestate))
    }

    /// Another message causes it from now on.
    pub fn caused_by(&mut self, message: &Arc<Operation>) {
        if message.subject().is_some() {
            self.cause = Cause::Message(Arc::clone(message));
        }
    }

    /// The id under which the child knows it.
    pub fn sent(&mut self, wire_id: u64) {
        if let Some(span) = &mut self.span
            && span.is_recorded()
        {
            let mut digits = itoa::Buffer::new();
            span.describe(|attributes| attributes.text(names::REQUEST, digits.format(wire_id)));
        }
    }

    /// Where the names go that the child lists in its answer, and what member of that the list is; if it asks for one that
    /// matters here.
    pub fn lists(&self) -> Option<(&'static Names, &'static str)> {
        match self.cause.subject().known {
            TOOLS_LIST => Some((&TOOLS, "tools")),
            PROMPTS_LIST => Some((&PROMPTS, "prompts")),
            _ => None,
        }
    }

    /// What the child's tool gave back, in JSON; that belongs to the message.
    pub fn gave<'a>(&self, result: impl FnOnce() -> Option<&'a [u8]>) {
        if let Cause::Message(message) = &self.cause {
            message.gave(result);
        }
    }

    /// The child has answered, or can't any more.
    pub fn end(mut self, verdict: &Verdict) {
        self.finish(verdict);
    }

    fn finish(&mut self, verdict: &Verdict) {
        self.over = true;
        let took = self.begun.nanos();
        if let Cause::Message(message) = &self.cause {
            message.child_took(took);
        }
        let recorded = self.span.as_ref().filter(|span| span.is_recorded()).map(Span::context);
        if metrics::are_kept() {
            let labels = Labels {
                side: Side::Client,
                method: self.cause.subject().known,
                target: self.cause.subject().target_id(),
                error: verdict.counted(),
                revision: self.revision,
            };
            metrics::operation(labels, took, recorded.as_ref());
        }
        if let Some(mut span) = self.span.take().filter(Span::is_recorded) {
            span.name(self.cause.subject().span_name());
            verdict.describe(&mut span);
        }
    }
}

/// It was given up before the child answered.
impl Drop for ChildOperation {
    fn drop(&mut self) {
        if !self.over {
            self.finish(&Verdict::Cancelled);
        }
    }
}
