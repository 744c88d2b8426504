//! The gateways that a request has passed, in a header that each of them adds itself to. A request that comes back to its
//! gateway ends, and so does one that has passed many: replicas of one gateway do not know each other's names. Whoever
//! makes them up ends only requests of their own.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub(super) const PASSED: HeaderName = HeaderName::from_static("x-proxyrunner-gateway");
/// Maximum number of gateways that a request passes.
const MOST: usize = 3;
/// Maximum length of a name.
const LONGEST: usize = 64;

/// The gateways that a request has passed: their names, with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed(Box<str>);

impl Passed {
    /// The key in `params._meta` of a message to the gateway's own server.
    pub(crate) const KEY: &str = "proxyrunner/gateways";

    /// Reads the header; `None` if it is malformed, or names as many as a request may pass.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut names = Vec::new();
        for value in headers.get_all(PASSED) {
            names.extend(value.to_str().ok()?.split(',').map(str::trim));
        }
        let is_name = |name: &&str| {
            (1..=LONGEST).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        (names.len() < MOST && names.iter().all(is_name)).then(|| Passed(names.join(",").into()))
    }

    /// Reads what [`Self::as_str`] returns.
    pub(super) fn read(text: &str) -> Self {
        Passed(text.into())
    }

    /// Returns their names, which need no escapes; empty without any.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this gateway is among them.
    pub(super) fn contains(&self, own: &str) -> bool {
        self.0.split(',').any(|name| name == own)
    }

    /// Returns the header of a request that this gateway passes on.
    pub(super) fn and(&self, own: &str) -> HeaderValue {
        let all = if self.0.is_empty() { own.to_owned() } else { format!("{},{own}", self.0) };
        HeaderValue::try_from(all).unwrap_or(HeaderValue::from_static("gateway"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(values: &[&str]) -> Option<Passed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PASSED, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        Passed::of(&headers)
    }

    #[test]
    fn a_gateway_knows_its_requests_and_many_are_too_many() {
        let none = passed(&[]).expect("none");
        assert_eq!(
            (none.as_str(), none.contains("a"), none.and("a")),
            ("", false, HeaderValue::from_static("a"))
        );
        let two = passed(&["a, b"]).expect("two");
        assert_eq!(passed(&["a", "b"]), Some(two.clone()));
        assert!(two.contains("a") && two.contains("b") && !two.contains("c") && !two.contains("a,b"));
        assert_eq!(two.and("c"), "a,b,c");
        let long = "x".repeat(65);
        for bad in
            [&["a,b,c"][..], &["a", "b", "c"], &[""], &["a,"], &["a\"b"], &["\u{e9}"], &["a b"], &[&long]]
        {
            assert_eq!(passed(bad), None, "{bad:?}");
        }
    }
}
