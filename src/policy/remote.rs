//! Decisions by a service over HTTP (`--policy-url`), in the form of ToolHive's `httpv1`: principal, operation,
//! resource and context as JSON, answered with `{"allow": true}` or not. Any failure denies.

use super::ambiguity::is_ambiguous_within;
use super::{Decision, Request};
use crate::identity::Identity;
use crate::jsonrpc::{members, reads_as, unescaped};
use crate::outbound::{Fetcher, Limits, Reach, Tls};
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{StatusCode, Uri};
use serde_json::{Map, Value};
use std::time::Duration;

/// Maximum size of an answer, in bytes.
const LARGEST: usize = 64 * 1024;
/// The claims that describe the principal, and the names that the service knows them by.
const CLAIMS: [(&str, &str); 5] =
    [("sub", "sub"), ("roles", "roles"), ("groups", "groups"), ("scope", "scopes"), ("scopes", "scopes")];

/// The settings of a decision point.
#[derive(Clone, Debug)]
pub(crate) struct RemoteSettings {
    /// `--policy-url`, with the path of decisions.
    pub(crate) url: Uri,
    /// `--policy-timeout`
    pub(crate) timeout: Duration,
    /// `--policy-server`: the name of the server in resources.
    pub(crate) server: String,
}

/// A client of the decision point.
#[derive(Debug)]
pub(super) struct Decider {
    fetcher: Fetcher,
    settings: RemoteSettings,
}

impl Decider {
    /// Creates a client.
    ///
    /// # Errors
    /// When TLS cannot be used.
    pub fn new(settings: &RemoteSettings) -> Result<Self, String> {
        let limits = Limits { time: settings.timeout, size: LARGEST };
        // The operator names the service, which is often a sidecar.
        let fetcher = Fetcher::new(&Tls::default(), Reach::Anywhere, limits);
        let fetcher = fetcher.map_err(|error| error.to_string())?;
        Ok(Decider { fetcher, settings: settings.clone() })
    }

    /// Asks for a decision.
    pub async fn decide(&self, identity: &Identity, request: &Request<'_>) -> Decision {
        let body = match body(request.server.unwrap_or(&self.settings.server), &identity.claims, request) {
            Ok(body) => body,
            Err(why) => return Decision::failed(why),
        };
        let mut post = hyper::Request::post(self.settings.url.clone())
            .body(Bytes::from(body))
            .expect("a valid URL makes a valid request");
        for (name, value) in [(CONTENT_TYPE, "application/json"), (ACCEPT, "application/json")] {
            post.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let answer = match self.fetcher.send(post).await {
            Ok(answer) => answer,
            Err(error) => return Decision::failed(format!("the decision point failed: {error}")),
        };
        if answer.status() != StatusCode::OK {
            return Decision::failed(format!(
                "the decision point answered with {}",
                answer.status().as_u16()
            ));
        }
        match allows(answer.body()) {
            Some(true) => Decision::allowed(Vec::new()),
            Some(false) => Decision::denied("the decision point refuses it"),
            None => Decision::failed("the decision point's answer has no allow"),
        }
    }
}

/// Returns what an answer says; `None` if it says nothing, or could be read in two ways.
fn allows(answer: &[u8]) -> Option<bool> {
    let allow = serde_json::from_slice::<Value>(answer).ok()?["allow"].as_bool()?;
    let start = answer.iter().position(|byte| *byte == b'{')?;
    let named = members(answer, start..answer.len())
        .filter(|(key, _)| reads_as(&unescaped(&answer[key.clone()]), "allow"));
    (named.count() == 1).then_some(allow)
}

/// Writes the question. The arguments are copied as they are, since they may be long.
fn body(server: &str, claims: &Map<String, Value>, request: &Request<'_>) -> Result<String, &'static str> {
    let (feature, operation) = (request.feature.name(), request.feature.operation());
    let mut principal = Map::new();
    for (claim, name) in CLAIMS {
        if let Some(value) = claims.get(claim) {
            principal.insert(name.to_owned(), value.clone());
        }
    }
    let mut mcp = format!(
        "\"feature\":{},\"operation\":{},\"resource_id\":{}",
        Value::from(feature),
        Value::from(operation),
        Value::from(request.name)
    );
    if let Some(arguments) = request.arguments {
        // The decision point and the server may read them differently.
        if is_ambiguous_within(arguments) {
            return Err("an argument is given twice, or differs from another in case only");
        }
        // They were checked to be JSON.
        let arguments = std::str::from_utf8(arguments).map_err(|_| "the arguments are not text")?;
        mcp += &format!(",\"args\":{arguments}");
    }
    if !request.hints.is_empty() {
        let hints: Map<_, _> =
            request.hints.given().map(|(name, value)| (name.to_owned(), value.into())).collect();
        mcp += &format!(",\"annotations\":{}", Value::from(hints));
    }
    Ok(format!(
        "{{\"principal\":{},\"operation\":{},\"resource\":{},\"context\":{{\"mcp\":{{{mcp}}}}}}}",
        Value::from(principal),
        Value::from(format!("mcp:{feature}:{operation}")),
        Value::from(format!("mrn:mcp:{server}:{feature}:{}", request.name)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Feature, Hints, hints_of};
    use serde_json::json;

    #[test]
    fn a_question_has_the_documented_form() {
        let claims = json!({"sub": "ann", "scope": "a b", "roles": {"feature": "x"}, "email": "e"});
        let tool = br#"{"annotations":{"readOnlyHint":true}}"#;
        let request = Request {
            server: None,
            feature: Feature::Tool,
            name: "a\"b",
            arguments: Some(br#"{ "x":1.0, "y":[{}] }"#),
            hints: hints_of(tool, &(0..tool.len())),
        };
        let text = body("s", claims.as_object().expect("claims"), &request).expect("text");
        assert!(text.contains(r#""args":{ "x":1.0, "y":[{}] }"#), "{text}");
        let question: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "principal": {"sub": "ann", "scopes": "a b", "roles": {"feature": "x"}},
            "operation": "mcp:tool:call",
            "resource": "mrn:mcp:s:tool:a\"b",
            "context": {"mcp": {
                "feature": "tool", "operation": "call", "resource_id": "a\"b",
                "args": {"x": 1.0, "y": [{}]}, "annotations": {"readOnlyHint": true},
            }},
        });
        assert_eq!(question, expected);
        let plain =
            Request { feature: Feature::Resource, arguments: None, hints: Hints::default(), ..request };
        let text = body("s", claims.as_object().expect("claims"), &plain).expect("text");
        let question: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(question["operation"], "mcp:resource:read");
        assert!(question["context"]["mcp"].get("args").is_none());
    }
}
