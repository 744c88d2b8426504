//! By what operations are told apart: a method of the protocol, a tool or prompt that the child lists, how it came out, and
//! the revision. Each is one of a bounded set, whatever clients and children say; the rest is [`OTHER`].

use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};

/// What is none of the known ones.
pub const OTHER: &str = "_OTHER";

/// The methods of all revisions; clients' and children's, requests and notifications.
const METHODS: &[&str] = &[
    "tools/call",
    "initialize",
    "server/discover",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "completion/complete",
    "logging/setLevel",
    "ping",
    "tasks/get",
    "tasks/result",
    "tasks/list",
    "tasks/update",
    "tasks/cancel",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
];

/// The codes of JSON-RPC and of MCP, and what went wrong without one.
const ERRORS: &[&str] = &[
    "tool_error",
    "cancelled",
    "-32700",
    "-32600",
    "-32601",
    "-32602",
    "-32603",
    "-32800",
    "-32001",
    "-32002",
    "-32020",
    "-32021",
    "-32022",
    "-32042",
];

/// The protocol's revisions.
const REVISIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// One of a set, or none of it.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident $set:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(u8);

        impl $name {
            /// The one of this name.
            pub fn of(name: &str) -> Self {
                let at = $set.iter().position(|known| *known == name);
                $name(at.map_or(0, |at| at as u8 + 1))
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                usize::from(self.0).checked_sub(1).map_or(OTHER, |at| $set[at])
            }

            fn from_bits(bits: u64) -> Self {
                let known = usize::from(bits as u8) <= $set.len();
                $name(if known { bits as u8 } else { 0 })
            }
        }
    };
}

label! {
    /// A method.
    Method METHODS
}
label! {
    /// What went wrong.
    ErrorType ERRORS
}
label! {
    /// A revision of the protocol.
    Revision REVISIONS
}

impl Method {
    /// `tools/call`.
    pub fn is_tool_call(self) -> bool {
        self.0 == 1
    }

    /// `prompts/get`.
    pub fn is_prompt(self) -> bool {
        self.name() == "prompts/get"
    }

    /// Whether it asks what there is, or is a handshake.
    pub fn is_discovery(self) -> bool {
        matches!(self.name(), "initialize" | "server/discover") || self.name().ends_with("/list")
    }
}

/// Names that a child lists, of tools or of prompts. They are never forgotten, so that there are at most as many as it may
/// list; further ones are [`OTHER`].
#[derive(Debug)]
pub struct Names {
    most: u16,
    known: OnceLock<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Box<str>, u16>,
    names: Vec<Box<str>>,
}

/// The names of tools.
pub static TOOLS: Names = Names::new(1_000);
/// The names of prompts.
pub static PROMPTS: Names = Names::new(1_000);
/// A longer name is none.
const LONGEST_NAME: usize = 128;

/// A name that a child lists, or none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameId(u16);

impl Names {
    const fn new(most: u16) -> Self {
        Names { most, known: OnceLock::new() }
    }

    /// The child lists this one.
    pub fn learn(&self, name: &str) {
        if name.len() > LONGEST_NAME || self.id(name) != NameId::default() {
            return;
        }
        let mut known = self.known().write().unwrap_or_else(PoisonError::into_inner);
        if known.names.len() < usize::from(self.most) && !known.ids.contains_key(name) {
            known.names.push(name.into());
            let id = known.names.len() as u16;
            known.ids.insert(name.into(), id);
        }
    }

    /// What it is counted as.
    pub fn id(&self, name: &str) -> NameId {
        let known = self.known().read().unwrap_or_else(PoisonError::into_inner);
        NameId(known.ids.get(name).copied().unwrap_or_default())
    }

    /// Whether anything was listed.
    pub fn is_empty(&self) -> bool {
        self.known().read().unwrap_or_else(PoisonError::into_inner).names.is_empty()
    }

    /// The name that is counted as this.
    pub fn name(&self, id: NameId) -> Box<str> {
        let known = self.known().read().unwrap_or_else(PoisonError::into_inner);
        usize::from(id.0).checked_sub(1).and_then(|at| known.names.get(at)).map_or(OTHER.into(), Clone::clone)
    }

    fn known(&self) -> &RwLock<Known> {
        self.known.get_or_init(RwLock::default)
    }
}

/// Whose part of an operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// proxyrunner as its clients' server.
    Server,
    /// proxyrunner as its child's client.
    Client,
}

/// By what an operation is told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Whose part.
    pub side: Side,
    /// The method.
    pub method: Method,
    /// The tool or the prompt, by its method.
    pub target: NameId,
    /// What went wrong; `None` if nothing did.
    pub error: Option<ErrorType>,
    /// The revision that is spoken.
    pub revision: Revision,
}

impl Labels {
    /// All of them in one word, never zero.
    pub fn bits(self) -> u64 {
        let error = self.error.map_or(0, |error| u64::from(error.0) + 1);
        let side = u64::from(self.side == Side::Client);
        1 << 63
            | side << 40
            | u64::from(self.method.0) << 32
            | u64::from(self.target.0) << 16
            | error << 8
            | u64::from(self.revision.0)
    }

    /// The labels in such a word.
    pub fn from_bits(bits: u64) -> Self {
        Labels {
            side: if bits >> 40 & 1 == 1 { Side::Client } else { Side::Server },
            method: Method::from_bits(bits >> 32 & 0xff),
            target: NameId((bits >> 16) as u16),
            error: (bits >> 8 & 0xff).checked_sub(1).map(ErrorType::from_bits),
            revision: Revision::from_bits(bits & 0xff),
        }
    }

    /// The same without what may be of many kinds.
    pub fn coarse(self) -> Self {
        Labels { target: NameId::default(), error: self.error.map(|_| ErrorType::default()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_other() {
        assert_eq!(Method::of("tools/call").name(), "tools/call");
        assert!(Method::of("tools/call").is_tool_call());
        assert_eq!(Method::of("evil/method").name(), OTHER);
        assert_eq!(ErrorType::of("-32603").name(), "-32603");
        assert_eq!(ErrorType::of("-1").name(), OTHER);
        assert_eq!(Revision::of("2026-07-28").name(), "2026-07-28");
    }

    #[test]
    fn names_are_bounded_and_only_those_that_were_listed() {
        let names = Names::new(3);
        assert_eq!(&*names.name(names.id("echo")), OTHER);
        for n in 0..10 {
            names.learn(&format!("tool-{n}"));
            names.learn(&format!("tool-{n}"));
        }
        assert_eq!(&*names.name(names.id("tool-2")), "tool-2");
        assert_eq!(&*names.name(names.id("tool-3")), OTHER);
        let long = Names::new(3);
        long.learn(&"x".repeat(LONGEST_NAME + 1));
        assert!(long.is_empty());
    }

    #[test]
    fn a_word_holds_all_labels() {
        for side in [Side::Server, Side::Client] {
            for error in [None, Some(ErrorType::default()), Some(ErrorType::of("tool_error"))] {
                let labels = Labels {
                    side,
                    method: Method::of("notifications/roots/list_changed"),
                    target: NameId(u16::MAX),
                    error,
                    revision: Revision::of("2025-11-25"),
                };
                assert_eq!(Labels::from_bits(labels.bits()), labels);
                assert_ne!(labels.bits(), 0);
            }
        }
    }
}
