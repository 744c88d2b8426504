//! The labels of operations: method, tool or prompt, error type and revision. Each comes from a bounded set; any
//! other value that clients and children send is [`OTHER`].

use parking_lot::RwLock;
use std::sync::OnceLock;

/// The label of unknown values.
pub const OTHER: &str = "_OTHER";

/// Methods of all revisions, of clients and children, requests and notifications.
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

/// Error codes of JSON-RPC and MCP, and errors without a code.
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
    "403",
    "429",
];

/// The revisions of the protocol.
const REVISIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// Defines a label whose value is one of a set, or [`OTHER`].
macro_rules! label {
    ($(#[$doc:meta])* $name:ident $set:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(u8);

        impl $name {
            /// Returns the label of this name.
            pub fn of(name: impl AsRef<[u8]>) -> Self {
                let name = name.as_ref();
                let at = $set.iter().position(|known| known.as_bytes() == name);
                $name(at.map_or(0, |at| at as u8 + 1))
            }

            /// Returns the name.
            pub fn name(self) -> &'static str {
                usize::from(self.0).checked_sub(1).map_or(OTHER, |at| $set[at])
            }

            /// Restores a label from its bits; unknown bits are [`OTHER`].
            pub fn from_bits(bits: u8) -> Self {
                $name(if usize::from(bits) <= $set.len() { bits } else { 0 })
            }
        }
    };
}

label! {
    /// A method of the protocol.
    Method METHODS
}
label! {
    /// The type of an error.
    ErrorType ERRORS
}
label! {
    /// A revision of the protocol.
    Revision REVISIONS
}

impl Revision {
    /// Returns the label in eight bits.
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// `tools/call`
pub const TOOLS_CALL: Method = Method(known(METHODS, b"tools/call"));
const PROMPTS_GET: Method = Method(known(METHODS, b"prompts/get"));
/// `tools/list`
pub const TOOLS_LIST: Method = Method(known(METHODS, b"tools/list"));
/// `prompts/list`
pub const PROMPTS_LIST: Method = Method(known(METHODS, b"prompts/list"));
/// The modern revision.
pub const MODERN: Revision = Revision(known(REVISIONS, b"2026-07-28"));

/// Finds a name in a set at compile time.
const fn known(set: &[&str], name: &[u8]) -> u8 {
    let mut at = 0;
    loop {
        let (known, mut same) = (set[at].as_bytes(), 0);
        while known.len() == name.len() && same < name.len() && known[same] == name[same] {
            same += 1;
        }
        if same == name.len() {
            return at as u8 + 1;
        }
        at += 1;
    }
}

impl Method {
    /// Returns whether this is `tools/call`.
    pub fn is_tool_call(self) -> bool {
        self == TOOLS_CALL
    }

    /// Returns whether this is a known method of requests.
    pub fn is_request(self) -> bool {
        self != Method::default() && !self.name().starts_with("notifications/")
    }

    /// Returns whether this is `prompts/get`.
    pub fn is_prompt(self) -> bool {
        self == PROMPTS_GET
    }

    /// Returns whether the target is a resource (gen-ai/mcp.md, `mcp.resource.uri`).
    pub fn is_about_resource(self) -> bool {
        matches!(self.name(), "resources/read" | "resources/subscribe" | "resources/unsubscribe")
    }

    /// Returns whether this is a handshake or a request for a list.
    pub fn is_discovery(self) -> bool {
        matches!(self.name(), "initialize" | "server/discover") || self.name().ends_with("/list")
    }
}

/// A bounded set of the tool or prompt names that children list. Names are never removed; names beyond the limit are
/// [`OTHER`]. Each request looks up its tool, in few steps for any name.
#[derive(Debug)]
pub struct Names {
    most: u16,
    known: OnceLock<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// In order of insertion.
    names: Vec<&'static str>,
    /// Sorted, each with its position in `names` plus one.
    sorted: Vec<(&'static str, u16)>,
}

/// The names of tools.
pub static TOOLS: Names = Names::new(1_000);
/// The names of prompts.
pub static PROMPTS: Names = Names::new(1_000);
/// Maximum length of a name in bytes; longer names are not stored.
const LONGEST_NAME: usize = 128;

/// The id of a listed name, or of [`OTHER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameId(u16);

impl Names {
    const fn new(most: u16) -> Self {
        Names { most, known: OnceLock::new() }
    }

    /// Adds a name that a child lists.
    pub fn learn(&self, name: &str) {
        if name.len() > LONGEST_NAME || self.id(name) != NameId::default() || self.is_full() {
            return;
        }
        let mut known = self.known().write();
        let Err(at) = known.find(name.as_bytes()) else { return };
        if known.names.len() < usize::from(self.most) {
            // Names are never removed.
            let name: &'static str = Box::leak(name.into());
            known.names.push(name);
            let id = known.names.len() as u16;
            known.sorted.insert(at, (name, id));
        }
    }

    /// Returns the id of a name.
    pub fn id(&self, name: impl AsRef<[u8]>) -> NameId {
        let known = self.known().read();
        NameId(known.find(name.as_ref()).map_or(0, |at| known.sorted[at].1))
    }

    fn is_full(&self) -> bool {
        let known = self.known().read();
        known.names.len() >= usize::from(self.most)
    }

    /// Returns whether no name was added.
    pub fn is_empty(&self) -> bool {
        self.known().read().names.is_empty()
    }

    /// Returns the name of an id.
    pub fn name(&self, id: NameId) -> &'static str {
        let known = self.known().read();
        usize::from(id.0).checked_sub(1).and_then(|at| known.names.get(at)).copied().unwrap_or(OTHER)
    }

    fn known(&self) -> &RwLock<Known> {
        self.known.get_or_init(RwLock::default)
    }
}

impl Known {
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|(known, _)| known.as_bytes().cmp(name))
    }
}

/// The role of proxyrunner in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Server of its clients.
    Server,
    /// Client of its children.
    Client,
}

/// The labels of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The role of proxyrunner.
    pub side: Side,
    /// The method.
    pub method: Method,
    /// The tool or prompt.
    pub target: NameId,
    /// The error; `None` on success.
    pub error: Option<ErrorType>,
    /// The protocol revision.
    pub revision: Revision,
}

impl Labels {
    /// Packs the labels into one nonzero word.
    #[inline]
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

    /// Unpacks the labels of a word.
    pub fn from_bits(bits: u64) -> Self {
        Labels {
            side: if bits >> 40 & 1 == 1 { Side::Client } else { Side::Server },
            method: Method::from_bits((bits >> 32) as u8),
            target: NameId((bits >> 16) as u16),
            error: ((bits >> 8) as u8).checked_sub(1).map(ErrorType::from_bits),
            revision: Revision::from_bits(bits as u8),
        }
    }

    /// Returns the labels without target and error code, which have many values.
    pub fn coarse(self) -> Self {
        Labels { target: NameId::default(), error: self.error.map(|_| ErrorType::default()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_other() {
        assert_eq!(Method::of("tools/call").name(), "tools/call");
        assert!(Method::of("tools/call").is_tool_call() && Method::of("prompts/get").is_prompt());
        assert_eq!((TOOLS_LIST.name(), PROMPTS_LIST.name()), ("tools/list", "prompts/list"));
        assert_eq!(Method::of("evil/method").name(), OTHER);
        assert_eq!(ErrorType::of("-32603").name(), "-32603");
        assert_eq!(ErrorType::of("-1").name(), OTHER);
        assert_eq!(Revision::of("2026-07-28").name(), "2026-07-28");
    }

    #[test]
    fn only_listed_names_are_known_and_their_number_is_bounded() {
        let names = Names::new(3);
        assert_eq!(names.name(names.id("echo")), OTHER);
        for n in 0..10 {
            names.learn(&format!("tool-{n}"));
            names.learn(&format!("tool-{n}"));
        }
        assert_eq!(names.name(names.id("tool-2")), "tool-2");
        assert_eq!(names.name(names.id("tool-3")), OTHER);
        names.learn("a-last");
        assert_eq!(names.name(names.id("tool-0")), "tool-0");
        let long = Names::new(3);
        long.learn(&"x".repeat(LONGEST_NAME + 1));
        assert!(long.is_empty());
    }

    #[test]
    fn a_word_contains_all_labels() {
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
