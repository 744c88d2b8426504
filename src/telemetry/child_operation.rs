//! The telemetry of one request to a child: its CLIENT span, whose context the child receives, and its metrics.

use super::clock::Moment;
use super::metrics::labels::{Labels, Names, PROMPTS, PROMPTS_LIST, Revision, Side, TOOLS, TOOLS_LIST};
use super::operation::Operation;
use super::subject::Subject;
use super::trace::scope;
use super::trace::{Parent, Span, SpanKind, Tracer, tracer};
use super::verdict::Verdict;
use super::{metrics, names};
use crate::trace_context::Trace;
use std::borrow::Cow;
use std::sync::Arc;

/// The telemetry of one request to a child, from its permit to the child's answer.
#[derive(Debug)]
pub struct ChildOperation {
    cause: Cause,
    span: Option<Span>,
    revision: Revision,
    begun: Moment,
    over: bool,
}

/// The origin of a request to a child.
#[derive(Debug)]
enum Cause {
    Message(Arc<Operation>),
    /// A request of proxyrunner itself.
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
    /// Begins the telemetry of a request to a child, with a span below this operation's.
    pub fn ask(self: &Arc<Self>, revision: Revision, child: u64) -> Option<ChildOperation> {
        self.subject()?;
        ChildOperation::of(Arc::clone(self), revision, child)
    }
}

impl ChildOperation {
    /// Begins the telemetry of a client message's request.
    pub(super) fn of(message: Arc<Operation>, revision: Revision, child: u64) -> Option<Self> {
        let parent = message.as_parent();
        let span = tracer().zip(parent).map(|(tracer, parent)| tracer.begin(SpanKind::Client, Some(parent)));
        message.subject()?;
        Some(Self::begin(Cause::Message(message), span, revision, child))
    }

    /// Begins the telemetry of a request of proxyrunner itself. It has a span only within another span.
    pub fn own(method: &str, revision: Revision, child: u64) -> Option<Self> {
        let parent = scope::current().map(|context| Parent { context, tracestate: None, remote: false });
        let span = tracer().zip(parent).map(|(tracer, parent)| tracer.begin(SpanKind::Client, Some(parent)));
        // Even without a span, the names that the child lists are stored for the spans of other requests.
        if tracer().is_none() && !metrics::is_enabled() {
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
                    attributes.constant(names::PROTOCOL, revision.name());
                }
                attributes.constant(names::TRANSPORT, "pipe");
                attributes.number(names::CHILD, child.cast_signed());
            });
        }
        ChildOperation { cause, span, revision, begun: Moment::now(), over: false }
    }

    /// Returns the trace context that the child receives in place of the client's.
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

    /// Sets the client message that causes this request from now on.
    pub fn set_cause(&mut self, message: &Arc<Operation>) {
        if message.subject().is_some() {
            self.cause = Cause::Message(Arc::clone(message));
        }
    }

    /// Sets the request id that the child sees.
    pub fn set_wire_id(&mut self, wire_id: u64) {
        if let Some(span) = &mut self.span
            && span.is_recorded()
        {
            let mut digits = itoa::Buffer::new();
            span.describe(|attributes| attributes.text(names::REQUEST, digits.format(wire_id)));
        }
    }

    /// Returns the set for the names listed in the answer, and the member that holds the list; `None` if the request
    /// lists no tools or prompts.
    pub fn listed_names(&self) -> Option<(&'static Names, &'static str)> {
        match self.cause.subject().known {
            TOOLS_LIST => Some((&TOOLS, "tools")),
            PROMPTS_LIST => Some((&PROMPTS, "prompts")),
            _ => None,
        }
    }

    /// Adds the tool's result, in JSON, to the message's span.
    pub fn record_result<'a>(&self, result: impl Fn() -> Option<&'a [u8]>) {
        if let Cause::Message(message) = &self.cause {
            message.record_result(result);
        }
    }

    /// Ends the request: the child has answered, or has exited.
    pub fn end(mut self, verdict: &Verdict) {
        self.finish(verdict);
    }

    fn finish(&mut self, verdict: &Verdict) {
        self.over = true;
        let took = self.begun.nanos();
        if let Cause::Message(message) = &self.cause {
            message.add_child_time(took);
        }
        let recorded = self.span.as_ref().filter(|span| span.is_recorded()).map(Span::context);
        if metrics::is_enabled() {
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

/// Ends the operation: the request was abandoned before the child answered.
impl Drop for ChildOperation {
    fn drop(&mut self) {
        if !self.over {
            self.finish(&Verdict::Cancelled);
        }
    }
}
