//! The subject of a message: its method, and the tool, prompt or resource that it names.

use super::metrics::labels::{Method, NameId, Names, PROMPTS, TOOLS, TOOLS_CALL};
use super::names;
use super::trace::Attributes;
use std::borrow::Cow;

/// Maximum length in bytes of a stored method or target: clients choose both.
const LONGEST: usize = 1_024;

/// The method and target of a message. Known names need no allocation.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(super) known: Method,
    /// The method's name, unless it is known.
    unknown: Option<Box<str>>,
    target: Option<Target>,
}

/// The tool, prompt or resource that a message names.
#[derive(Clone, Debug)]
enum Target {
    /// A name that a child lists.
    Listed(NameId),
    /// Any other name.
    Named(Box<str>),
}

impl Subject {
    /// Creates a subject from the method and from the params' `name` (a tool or prompt) or `uri` (a resource).
    /// Invalid UTF-8 is replaced.
    pub fn new<T: AsRef<[u8]>>(
        method: &[u8],
        name: impl FnOnce() -> Option<T>,
        uri: impl FnOnce() -> Option<T>,
    ) -> Self {
        // Stored until the answer, in memory that no budget is charged for: hence the length limit.
        let text =
            |bytes: &[u8]| Box::<str>::from(String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]));
        // The most frequent method needs no lookup.
        let known = if method == b"tools/call" { TOOLS_CALL } else { Method::of(method) };
        let unknown = (known == Method::default()).then(|| text(method));
        let target = if known.is_about_resource() {
            // A URI may contain credentials (semantic-conventions, url.full).
            uri().map(|uri| Target::Named(without_credentials(&text(uri.as_ref()))))
        } else {
            name().map(|name| match names_of(known).map(|names| names.id(&name)) {
                Some(id) if id != NameId::default() => Target::Listed(id),
                _ => Target::Named(text(name.as_ref())),
            })
        };
        Subject { known, unknown, target }
    }

    /// Returns the method as the message names it.
    pub(super) fn method(&self) -> &str {
        self.unknown.as_deref().unwrap_or_else(|| self.known.name())
    }

    /// Returns the target as the message names it.
    pub(super) fn target(&self) -> Option<&str> {
        match self.target.as_ref()? {
            Target::Listed(id) => names_of(self.known).map(|names| names.name(*id)),
            Target::Named(name) => Some(name),
        }
    }

    /// Returns the target's label for metrics. A child may have listed the name since the message arrived.
    pub(super) fn target_id(&self) -> NameId {
        match (&self.target, names_of(self.known)) {
            (Some(Target::Listed(id)), _) => *id,
            (Some(Target::Named(name)), Some(names)) => names.id(name.as_bytes()),
            _ => NameId::default(),
        }
    }

    /// Returns `{method} {target}`. The target is included only if a child lists it, so that clients cannot create
    /// span names.
    pub(super) fn span_name(&self) -> Cow<'static, str> {
        let method = self.known.name();
        match self.target().filter(|_| self.target_id() != NameId::default()) {
            Some(target) => super::names::two_words(method, target).into(),
            None => method.into(),
        }
    }

    pub(super) fn describe(&self, attributes: &mut Attributes) {
        attributes.text(names::METHOD, self.method());
        if self.known.is_tool_call() {
            attributes.constant(names::OPERATION, "execute_tool");
        }
        let key = match self.known {
            method if method.is_tool_call() => names::TOOL,
            method if method.is_prompt() => names::PROMPT,
            method if method.is_about_resource() => names::RESOURCE,
            _ => return,
        };
        if let Some(target) = self.target() {
            attributes.text(key, target);
        }
    }
}

/// Delimiters of the part of a URI that is shown, also percent-encoded.
const PARAMETERS: [&str; 8] = ["?", "#", ";", "&", "%3f", "%23", "%3b", "%26"];

/// Removes the parts of a URI that may carry credentials: user information, parameters, query, fragment, and the data
/// of a `data` URI. A text that is not a URI but seems to contain user information is treated as one.
fn without_credentials(uri: &str) -> Box<str> {
    let lower = uri.to_ascii_lowercase();
    let end = PARAMETERS.iter().filter_map(|parameters| lower.find(parameters)).min().unwrap_or(uri.len());
    let shown = &uri[..end];
    if lower.trim_start().starts_with("data:") {
        return shown.split(',').next().unwrap_or_default().into();
    }
    let (scheme, rest, has_authority) = match (shown.find("://"), shown.find(':')) {
        (Some(at), _) => (&shown[..at + 3], &shown[at + 3..], true),
        (None, Some(at)) if !shown[..at].contains('@') => (&shown[..=at], &shown[at + 1..], false),
        _ => ("", shown, false),
    };
    let named = rest.trim_start_matches(['/', '\\']);
    let authority = named.split(['/', '\\']).next().unwrap_or_default();
    // A password may contain unescaped delimiters; a port consists of digits.
    let is_password = |port: &str| port.contains(|c: char| !c.is_ascii_digit());
    let may_be_anywhere = !has_authority
        || (!authority.starts_with('[')
            && authority.split_once(':').is_some_and(|(_, port)| is_password(port)));
    let escaped = || authority.rfind("%40").map(|at| at + 2);
    let user = authority.rfind('@').or_else(escaped).or_else(|| named.rfind('@').filter(|_| may_be_anywhere));
    user.map_or_else(|| shown.into(), |at| format!("{scheme}{}", &named[at + 1..]).into())
}

/// Returns the names under which the targets of a method are counted, if they are.
fn names_of(method: Method) -> Option<&'static Names> {
    match method {
        method if method.is_tool_call() => Some(&TOOLS),
        method if method.is_prompt() => Some(&PROMPTS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(method: &str, target: &str) -> Subject {
        Subject::new(method.as_bytes(), || Some(target), || Some(target))
    }

    #[test]
    fn targets_are_kept_and_only_listed_ones_are_labels() {
        let before = subject("tools/call", "later-listed");
        TOOLS.learn("later-listed");
        let after = subject("tools/call", "later-listed");
        assert_ne!(before.target_id(), NameId::default());
        assert_eq!(before.target_id(), after.target_id());
        for subject in [&before, &after] {
            assert_eq!((subject.method(), subject.target()), ("tools/call", Some("later-listed")));
        }
        assert_eq!([before.span_name(), after.span_name()], ["tools/call later-listed"; 2]);
        let invented = subject("tools/call", "invented");
        assert_eq!((invented.target(), invented.target_id()), (Some("invented"), NameId::default()));
        assert_eq!(invented.span_name(), "tools/call");
        let unknown = subject("evil/method", "x");
        assert_eq!(
            (unknown.method(), unknown.target(), &*unknown.span_name()),
            ("evil/method", Some("x"), "_OTHER")
        );
    }

    #[test]
    fn only_resources_have_the_resource_attribute() {
        let described = |method: &str| {
            let mut attributes = Attributes::new(100);
            subject(method, "file:///a").describe(&mut attributes);
            format!("{:?}", attributes.list())
        };
        assert!(described("resources/read").contains(names::RESOURCE));
        assert!(described("resources/subscribe").contains("file:///a"));
        for (uri, shown) in [
            ("https://user:word@host/path?token=1#f", "https://host/path"),
            ("https://host@2/a@b", "https://2/a@b"),
            ("urn:x?y", "urn:x"),
            ("://@", "://"),
            ("https://[::1]:80/@a/b", "https://[::1]:80/@a/b"),
            ("https://h:80/@a/b", "https://h:80/@a/b"),
            ("file:///a/b", "file:///a/b"),
            ("x:/a/b", "x:/a/b"),
            ("http:/u:word@h/p", "http:h/p"),
            ("http:///u:word@h/p", "http://h/p"),
            ("http:\\\\u:word@h", "http:h"),
            ("//u:word@h/p", "//u:h/p"),
            ("http://u:wo/rd@h/p", "http://h/p"),
            ("jdbc:db://u:word@h/d", "jdbc:db://h/d"),
            ("u:word@h", "u:h"),
            ("https://u:word%40h/p", "https://h/p"),
            ("git@h:a/b", "h:a/b"),
            ("x://h/p;jsessionid=word", "x://h/p"),
            ("x://h/p&token=word", "x://h/p"),
            ("file:///x%3Ftoken=word", "file:///x"),
            ("data:text/plain,word", "data:text/plain"),
            ("data:,word", "data:"),
        ] {
            assert_eq!(&*without_credentials(uri), shown);
        }
        assert!(!described("completion/complete").contains("file:///a"));
        assert!(!described("evil/method").contains("file:///a"));
    }
}
