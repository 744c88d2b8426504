//! One question to the policies: may the caller use this tool, prompt or resource?

use super::Hints;

/// A kind of thing that a server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Feature {
    /// A tool, to be called.
    Tool,
    /// A prompt, to be fetched.
    Prompt,
    /// A resource, to be read.
    Resource,
}

impl Feature {
    /// Returns the name in attributes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Feature::Tool => "tool",
            Feature::Prompt => "prompt",
            Feature::Resource => "resource",
        }
    }

    /// Returns what is done with it.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Feature::Tool => "call",
            Feature::Prompt => "get",
            Feature::Resource => "read",
        }
    }
}

/// A question to the policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The server that offers it, at a gateway; `None`: that of `--policy-server`.
    pub(crate) server: Option<&'a str>,
    /// The kind of thing.
    pub(crate) feature: Feature,
    /// Its name, or the URI of a resource.
    pub(crate) name: &'a str,
    /// The arguments, a valid JSON object, if the request has any.
    pub(crate) arguments: Option<&'a [u8]>,
    /// The annotations of a tool.
    pub(crate) hints: Hints,
}
