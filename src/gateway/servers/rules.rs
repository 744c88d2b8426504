//! The rules of `register`: which callers may register which servers, and at which addresses.

use super::problem::{Problems, shortened};
use super::{name, values};
use crate::outbound::Network;
use crate::yaml::{Entry as Member, Node, Value};
use std::net::IpAddr;

/// Maximum number of rules.
const MOST: usize = 256;
/// Maximum length of a subject.
const LONGEST: usize = 1_024;
const EXAMPLE: &str = r#"give e.g. [{"subject": "https://issuer.example#system:serviceaccount:tools:*", "names": ["com.example/*"], "networks": ["10.0.0.0/8"]}]"#;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    subject: Pattern,
    names: Vec<Pattern>,
    networks: Vec<Network>,
}

/// A text, or the beginning of one (`*` at its end).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let prefix = text.strip_suffix('*');
        Pattern { text: prefix.unwrap_or(text).to_owned(), is_prefix: prefix.is_some() }
    }

    fn shown(&self) -> String {
        format!("{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }

    /// Returns whether two names of different namespaces may have the same last part.
    fn collides(&self, other: &Pattern) -> bool {
        let (Some((space, own)), Some((others, theirs))) =
            (self.text.split_once('/'), other.text.split_once('/'))
        else {
            return false;
        };
        let is_shared = (own == theirs)
            || (self.is_prefix && theirs.starts_with(own))
            || (other.is_prefix && own.starts_with(theirs));
        space != others && is_shared
    }

    fn matches(&self, text: &str) -> bool {
        if self.is_prefix { text.starts_with(&self.text) } else { text == self.text }
    }
}

impl Rule {
    /// Returns whether a caller may register a name somewhere.
    pub(crate) fn allows_name(&self, subject: &str, name: &str) -> bool {
        self.subject.matches(subject) && self.names.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns names of two namespaces that would have the same path, if another caller may register the second one.
    fn collides<'a>(&'a self, other: &'a Rule) -> Option<(&'a Pattern, &'a Pattern)> {
        let others = (self.subject != other.subject).then_some(&other.names).into_iter().flatten();
        let mut pairs = others.flat_map(|theirs| self.names.iter().map(move |own| (own, theirs)));
        pairs.find(|(own, theirs)| own.collides(theirs))
    }

    /// Returns whether replicas may be at an address. One of this host must be meant: a network of all addresses does
    /// not include it.
    pub(crate) fn allows_address(&self, address: IpAddr) -> bool {
        let is_meant = |network: &Network| !address.to_canonical().is_loopback() || network.is_loopback();
        self.networks.iter().any(|network| network.contains(address) && is_meant(network))
    }
}

/// Reads the rules. Problems are noted.
pub(super) fn read(line: u64, value: Value, problems: &mut Problems) -> Vec<Rule> {
    let rules = match value {
        Value::Null => return Vec::new(),
        Value::List(rules) if rules.len() <= MOST => rules,
        Value::List(_) => {
            problems.add(Some(line), "register has more than 256 rules", "give fewer, with * at the end");
            return Vec::new();
        }
        _ => {
            problems.add(Some(line), "register is not a list", EXAMPLE);
            return Vec::new();
        }
    };
    let mut read: Vec<Rule> = Vec::with_capacity(rules.len());
    for Node { line, value } in rules {
        let Value::Map(members) = value else {
            problems.add(Some(line), "a rule of register is not an object", EXAMPLE);
            continue;
        };
        let Some(rule) = rule(line, members, problems) else { continue };
        // The path of a server is the last part of its name: who registers first would get the other one's requests.
        if let Some((one, other)) = read.iter().find_map(|former| former.collides(&rule)) {
            let (one, other) = (shortened(&one.shown()), shortened(&other.shown()));
            let what = format!(
                "rules of register give {one} and {other} to different callers, which may have the same path"
            );
            problems.add(Some(line), &what, "give names whose last parts differ, e.g. org.example/web-*");
        }
        read.push(rule);
    }
    read
}

fn rule(line: u64, members: Vec<Member>, problems: &mut Problems) -> Option<Rule> {
    let (mut subject, mut names, mut networks) = (None, None, None);
    let mut is_sound = true;
    for member in members {
        let read = match member.key.as_str() {
            "subject" => self::subject(member.node).map(|read| subject = Some(read)),
            "names" => list(member.node, pattern_of_names).map(|read| names = Some(read)),
            "networks" => list(member.node, network).map(|read| networks = Some(read)),
            other => {
                let what = format!("a rule of register has an unknown member {}", shortened(other));
                problems.add(Some(member.line), &what, "the members are subject, names, networks");
                is_sound = false;
                continue;
            }
        };
        if let Err((what, remedy)) = read {
            problems.add(Some(member.line), &format!("{} of a rule of register {what}", member.key), remedy);
            is_sound = false;
        }
    }
    if is_sound && (subject.is_none() || names.is_none() || networks.is_none()) {
        problems.add(Some(line), "a rule of register needs subject, names and networks", EXAMPLE);
    }
    Some(Rule { subject: subject?, names: names?, networks: networks? }).filter(|_| is_sound)
}

/// The reason why a value was refused, and the remedy.
type Refusal = (&'static str, &'static str);

fn subject(node: Node) -> Result<Pattern, Refusal> {
    const SUBJECTS: &str = "give the issuer and the subject: https://issuer.example#subject, or api_key#NAME; * may stand at the end";
    let text = values::text(node).map_err(|_| ("is not a text", SUBJECTS))?;
    // Without the whole issuer, another issuer could name the same subject.
    let has_issuer = text
        .split_once('#')
        .is_some_and(|(issuer, rest)| !issuer.is_empty() && !issuer.contains('*') && !rest.is_empty());
    let is_plain = text.len() <= LONGEST && text.trim_end_matches('*').len() + 1 >= text.len();
    if has_issuer && is_plain && !text[..text.len() - 1].contains('*') {
        Ok(Pattern::new(&text))
    } else {
        Err(("is not ISSUER#SUBJECT", SUBJECTS))
    }
}

fn pattern_of_names(text: &str) -> Result<Pattern, Refusal> {
    const NAMES: &str = "give e.g. com.example/time or com.example/*";
    let pattern = Pattern::new(text);
    let (space, rest) = pattern.text.split_once('/').ok_or(("has no namespace", NAMES))?;
    // The part before `*` is that of a name if it is one with a letter behind it.
    let whole = if pattern.is_prefix { format!("{space}/{rest}a") } else { pattern.text.clone() };
    match name::segment(&whole) {
        Ok(_) => Ok(pattern),
        Err(_) => Err(("has no name of a server", NAMES)),
    }
}

fn network(text: &str) -> Result<Network, Refusal> {
    text.parse().map_err(|()| ("has no range of addresses", "give e.g. 10.0.0.0/8"))
}

fn list<T>(node: Node, read: fn(&str) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
    const LISTS: Refusal = ("is not a list of 1 to 256 texts", "give a list of texts");
    let Value::List(items) = node.value else { return Err(LISTS) };
    if items.is_empty() || items.len() > MOST {
        return Err(LISTS);
    }
    items.into_iter().map(|item| values::text(item).map_err(|_| LISTS).and_then(|text| read(&text))).collect()
}
