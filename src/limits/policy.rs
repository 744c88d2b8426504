//! The limits of a file in ToolHive's shape (`rateLimiting`), and members of proxyrunner's own.

use super::go_duration;
use super::rate::Rate;
use crate::yaml::{self, Entry, Node, Unusable, Value};
use std::collections::HashMap;
use std::fmt;

/// Maximum number of tools.
const MOST_TOOLS: usize = 10_000;
/// Maximum number of calls in `maxCallsPerPrincipal`.
const MOST_CALLS: u64 = 1 << 20;

/// Two buckets: one that all callers share, and one of each caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// `shared`
    pub shared: Option<Rate>,
    /// `perUser`
    pub per_user: Option<Rate>,
}

/// All limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of the server.
    pub server: Pair,
    /// Of each tool that has its own, by name.
    pub tools: HashMap<Box<str>, Pair>,
    /// `perAddress`: of each client address, before it is authenticated.
    pub per_address: Option<Rate>,
    /// `maxCallsPerPrincipal`: calls of one caller at the same time.
    pub max_calls: Option<u32>,
}

/// The reason why a file is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPolicy {
    line: u64,
    reason: String,
}

impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

fn bad<T>(line: u64, reason: impl Into<String>) -> Result<T, BadPolicy> {
    Err(BadPolicy { line, reason: reason.into() })
}

/// Returns a member's name for messages. Files are the operator's, but may hold anything.
fn shown(key: &str) -> String {
    format!("{:?}", crate::telemetry::cut(key, 64))
}

impl Policy {
    /// Reads a file, in YAML or JSON. The limits may stand below `rateLimiting`, as in ToolHive's resources.
    ///
    /// # Errors
    /// When anything in it is not understood.
    pub fn parse(text: &str) -> Result<Self, BadPolicy> {
        let document = yaml::parse(text).or_else(|unusable| match unusable {
            Unusable::Malformed(line) => bad(line, "is not valid YAML or JSON"),
            Unusable::DuplicateKey(line) => bad(line, "contains a key twice"),
        })?;
        let Some(document) = document else { return bad(1, "the file is empty") };
        let mut members = map(&document, "the file")?;
        if let [Entry { key, node, .. }] = members
            && key == "rateLimiting"
        {
            members = map(node, "rateLimiting")?;
        }
        let mut policy = Policy::default();
        for Entry { line, key, node } in members {
            match key.as_str() {
                "shared" => policy.server.shared = bucket(node)?,
                "perUser" => policy.server.per_user = bucket(node)?,
                "tools" => policy.tools = tools(node)?,
                "perAddress" => policy.per_address = bucket(node)?,
                "maxCallsPerPrincipal" => policy.max_calls = calls(node)?,
                key => return bad(*line, format!("{} is not a limit; give {MEMBERS}", shown(key))),
            }
        }
        Ok(policy)
    }
}

const MEMBERS: &str = "shared, perUser, tools, perAddress or maxCallsPerPrincipal";

fn map<'a>(node: &'a Node, what: &str) -> Result<&'a [Entry], BadPolicy> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        _ => bad(node.line, format!("{what} is not a map")),
    }
}

fn bucket(node: &Node) -> Result<Option<Rate>, BadPolicy> {
    if node.value == Value::Null {
        return Ok(None);
    }
    let (mut tokens, mut period) = (None, None);
    for Entry { line, key, node } in map(node, "a limit")? {
        let Value::Text(text) = &node.value else { return bad(*line, "a limit's member is not a value") };
        match key.as_str() {
            "maxTokens" => match text.parse::<u64>() {
                Ok(number @ 1..) => tokens = Some(number),
                _ => return bad(*line, "maxTokens is not a number of at least 1"),
            },
            "refillPeriod" => match go_duration::parse(text) {
                Some(duration) if !duration.is_zero() => period = Some(duration),
                _ => return bad(*line, "refillPeriod is not a duration such as 1m0s or 1h"),
            },
            key => return bad(*line, format!("{} is not maxTokens or refillPeriod", shown(key))),
        }
    }
    let (Some(tokens), Some(period)) = (tokens, period) else {
        return bad(node.line, "a limit needs maxTokens and refillPeriod");
    };
    match Rate::new(tokens, period) {
        Some(rate) => Ok(Some(rate)),
        None => {
            bad(node.line, "a limit gives more than one token in a nanosecond, or takes more than a year")
        }
    }
}

fn tools(node: &Node) -> Result<HashMap<Box<str>, Pair>, BadPolicy> {
    let items = match &node.value {
        Value::Null => &[][..],
        Value::List(items) => items,
        _ => return bad(node.line, "tools is not a list"),
    };
    if items.len() > MOST_TOOLS {
        return bad(node.line, format!("tools has more than {MOST_TOOLS} items"));
    }
    let mut tools = HashMap::new();
    for item in items {
        let (mut name, mut pair) = (None, Pair::default());
        for Entry { line, key, node } in map(item, "a tool")? {
            match (key.as_str(), &node.value) {
                ("name", Value::Text(text)) if !text.is_empty() => name = Some(text.as_str().into()),
                ("name", _) => return bad(*line, "name is not a tool's name"),
                ("shared", _) => pair.shared = bucket(node)?,
                ("perUser", _) => pair.per_user = bucket(node)?,
                (key, _) => return bad(*line, format!("{} is not name, shared or perUser", shown(key))),
            }
        }
        let Some(name) = name else { return bad(item.line, "a tool has no name") };
        if pair == Pair::default() {
            return bad(item.line, "a tool has neither shared nor perUser");
        }
        if tools.insert(name, pair).is_some() {
            return bad(item.line, "a tool is named twice");
        }
    }
    Ok(tools)
}

fn calls(node: &Node) -> Result<Option<u32>, BadPolicy> {
    match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) => match text.parse::<u64>() {
            Ok(number @ 1..=MOST_CALLS) => Ok(u32::try_from(number).ok()),
            _ => bad(node.line, format!("maxCallsPerPrincipal is not a number from 1 to {MOST_CALLS}")),
        },
        _ => bad(node.line, "maxCallsPerPrincipal is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn toolhives_shape_is_read() {
        let text = "
rateLimiting:
  shared: {maxTokens: 100, refillPeriod: 1m0s}
  perUser: {maxTokens: 10, refillPeriod: 1m}
  tools:
  - name: search
    shared: {maxTokens: 5, refillPeriod: 10s}
    perUser: {maxTokens: 2, refillPeriod: 1.5s}
";
        let policy = Policy::parse(text).expect("a policy");
        let rate = |tokens, millis| Rate::new(tokens, Duration::from_millis(millis));
        assert_eq!(policy.server, Pair { shared: rate(100, 60_000), per_user: rate(10, 60_000) });
        assert_eq!(policy.tools["search"], Pair { shared: rate(5, 10_000), per_user: rate(2, 1_500) });
        assert_eq!((policy.per_address, policy.max_calls), (None, None));
        let json = r#"{"perAddress": {"maxTokens": 1, "refillPeriod": "1s"}, "maxCallsPerPrincipal": 4, "tools": null}"#;
        let policy = Policy::parse(json).expect("a policy");
        assert_eq!((policy.per_address, policy.max_calls), (rate(1, 1_000), Some(4)));
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        for (text, line, reason) in [
            ("", 1, "empty"),
            ("- 1", 1, "not a map"),
            ("shared: [", 1, "YAML"),
            ("shared: 1", 1, "not a map"),
            ("\nshard: {}", 2, "\"shard\" is not a limit"),
            ("shared: {maxTokens: 1}", 1, "needs maxTokens and refillPeriod"),
            ("shared:\n  maxTokens: 0\n  refillPeriod: 1s", 2, "at least 1"),
            ("shared:\n  maxTokens: 1\n  refillPeriod: 1 minute", 3, "duration"),
            ("shared:\n  maxTokens: 1\n  refillPeriod: 0s", 3, "duration"),
            ("shared: {maxTokens: 1, refillPeriod: 99999h}", 1, "more than a year"),
            ("shared: {maxTokens: 1, refillPeriod: 1s, burst: 2}", 1, "\"burst\""),
            ("tools: {}", 1, "not a list"),
            ("tools: [{name: a}]", 1, "neither"),
            ("tools: [{shared: {maxTokens: 1, refillPeriod: 1s}}]", 1, "no name"),
            (
                "tools:\n- {name: a, perUser: &r {maxTokens: 1, refillPeriod: 1s}}\n- {name: a, perUser: *r}",
                3,
                "twice",
            ),
            ("maxCallsPerPrincipal: 0", 1, "from 1"),
        ] {
            let error = Policy::parse(text).expect_err(text);
            assert!(error.line == line && error.reason.contains(reason), "{text}: {error}");
        }
    }
}
