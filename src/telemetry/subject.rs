//! What a message is about: its method, and the tool, prompt or resource that it names.

use super::metrics::labels::{Method, NameId, Names, PROMPTS, TOOLS};
use super::names;
use super::otlp::Attributes;
use std::borrow::Cow;

/// What a message is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The method, as it was said.
    pub(super) method: Box<str>,
    pub(super) known: Method,
    /// The tool, the prompt or the resource.
    pub(super) target: Option<Box<str>>,
}

impl Subject {
    /// Of this method, and the tool, prompt or resource that it names.
    pub fn new(method: &str, target: Option<&str>) -> Self {
        Subject { known: Method::of(method), method: method.into(), target: target.map(Box::from) }
    }

    /// Where its target is counted, if it has one that is.
    fn names(&self) -> Option<&'static Names> {
        match self.known {
            method if method.is_tool_call() => Some(&TOOLS),
            method if method.is_prompt() => Some(&PROMPTS),
            _ => None,
        }
    }

    /// What its target is counted as.
    pub(super) fn target_id(&self) -> NameId {
        let target = self.names().zip(self.target.as_deref());
        target.map(|(names, target)| names.id(target)).unwrap_or_default()
    }

    /// `{method} {target}`, with a target that is one of few: whoever makes names up gets none into a span's.
    pub(super) fn span_name(&self) -> Cow<'static, str> {
        let method = self.known.name();
        let target = self.names().zip(self.target.as_deref());
        match target.filter(|(names, target)| names.is_empty() || names.id(target) != NameId::default()) {
            Some((_, target)) => format!("{method} {target}").into(),
            None => method.into(),
        }
    }

    pub(super) fn describe(&self, attributes: &mut Attributes) {
        attributes.text(names::METHOD, &self.method);
        if self.known.is_tool_call() {
            attributes.text(names::OPERATION, "execute_tool");
        }
        let key = match self.known {
            method if method.is_tool_call() => names::TOOL,
            method if method.is_prompt() => names::PROMPT,
            _ => names::RESOURCE,
        };
        if let Some(target) = &self.target {
            attributes.text(key, target);
        }
    }
}
