//! One request at a child as it is seen: its CLIENT span, whose context the child is given, and what is counted of it.

use super::clock;
use super::metrics::labels::{ErrorType, Labels, Revision, Side};
use super::span::{Parent, Span, SpanKind, tracer};
use super::subject::Subject;
use super::verdict::Verdict;
use super::{Operation, metrics, names};
use crate::trace_context::Context;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// One request at a child, from its turn to the child's answer.
#[derive(Debug)]
pub struct ChildOperation {
    subject: Box<Subject>,
    span: Option<Span>,
    tracestate: Option<Box<str>>,
    revision: Revision,
    begun: Instant,
    cause: Option<Arc<Operation>>,
    over: bool,
}

impl ChildOperation {
    /// Its turn has come.
    pub(super) fn begin(
        subject: Cow<'_, Subject>,
        parent: Option<Parent<'_>>,
        revision: Revision,
        child: u64,
        cause: Option<Arc<Operation>>,
    ) -> Self {
        let span = tracer().map(|tracer| {
            let mut span = tracer.begin(SpanKind::Client, parent);
            if span.is_recorded() {
                span.name(subject.span_name());
                span.describe(|attributes| {
                    subject.describe(attributes);
                    attributes.text(names::PROTOCOL, revision.name());
                    attributes.text(names::TRANSPORT, "pipe");
                    attributes.number(names::CHILD, child.cast_signed());
                });
            }
            span
        });
        let tracestate = parent.and_then(|parent| parent.tracestate).map(Box::from);
        let subject = Box::new(subject.into_owned());
        ChildOperation { subject, span, tracestate, revision, begun: Instant::now(), cause, over: false }
    }

    /// A request of proxyrunner's own, of this method; within `parent`, if there is one.
    pub fn own(method: &str, parent: Option<Parent<'_>>, revision: Revision, child: u64) -> Option<Self> {
        if tracer().is_none() && !metrics::are_kept() {
            return None;
        }
        Some(Self::begin(Cow::Owned(Subject::new(method, None)), parent, revision, child, None))
    }

    /// The context that the child is to be given, and the state beside it.
    pub fn context(&self) -> Option<(Context, Option<&str>)> {
        Some((self.span.as_ref()?.context(), self.tracestate.as_deref()))
    }

    /// The id under which the child knows it.
    pub fn sent(&mut self, wire_id: u64) {
        if let Some(span) = &mut self.span
            && span.is_recorded()
        {
            let id = wire_id.to_string();
            span.describe(|attributes| attributes.text(names::REQUEST, &id));
        }
    }

    /// The child has answered, or can't any more.
    pub fn end(mut self, verdict: &Verdict) {
        self.finish(verdict);
    }

    fn finish(&mut self, verdict: &Verdict) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let took = self.begun.elapsed();
        if let Some(cause) = &self.cause {
            cause.child_took(clock::nanos(took));
        }
        let recorded = self.span.as_ref().filter(|span| span.is_recorded()).map(Span::context);
        if metrics::are_kept() {
            let labels = Labels {
                side: Side::Client,
                method: self.subject.known,
                target: self.subject.target_id(),
                error: verdict.error_type().map(|error| ErrorType::of(&error)),
                revision: self.revision,
            };
            metrics::operation(labels, took, recorded);
        }
        if let Some(span) = &mut self.span {
            verdict.describe(span);
        }
    }
}

/// It was given up before the child answered.
impl Drop for ChildOperation {
    fn drop(&mut self) {
        self.finish(&Verdict::Cancelled);
    }
}
