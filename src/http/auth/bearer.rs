//! Finds the credentials in a request's head (RFC 6750 §2.1).

use crate::auth::has_token_bytes_only;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::http::request::Parts;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The parameter by which RFC 6750 §2.3 lets a client put a token into the URL. MCP forbids it: URLs are logged.
const QUERY: &str = "access_token";

/// Why the credentials of a request cannot be read. Constant texts, since a part of them may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The header occurs twice.
    Twice,
    /// Two headers carry credentials.
    Both,
    /// The token is empty or has characters that no token has.
    Characters,
    /// The token is in the URL.
    Query,
}

impl Malformed {
    /// Returns what is wrong, and how to mend it.
    pub fn text(self) -> &'static str {
        match self {
            Malformed::Twice => "the Authorization header occurs more than once; send one token",
            Malformed::Both => "send either Authorization or X-API-Key, not both",
            Malformed::Characters => "the token in the Authorization header is empty or malformed",
            Malformed::Query => "a token must not be in the URL; send it as Authorization: Bearer",
        }
    }
}

/// What a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// An access token or an API key, in `Authorization`.
    Bearer(&'a str),
    /// An API key, in `X-API-Key`.
    Key(&'a str),
}

/// Returns the credentials of a request, or `None` if it has none.
///
/// # Errors
/// When it is malformed, or presented in more than one way.
pub fn credentials(head: &Parts) -> Result<Option<Credentials<'_>>, Malformed> {
    let single = |name: &HeaderName| {
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (only, None) => Ok(only),
            (_, Some(_)) => Err(Malformed::Twice),
        }
    };
    if head.uri.query().is_some_and(|query| query.split('&').any(carries_token)) {
        return Err(Malformed::Query);
    }
    let (authorization, key) = (single(&AUTHORIZATION)?, single(&API_KEY)?);
    let (token, is_key) = match (authorization, key) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Malformed::Both),
        (None, Some(key)) => (key.as_bytes(), true),
        (Some(value), None) => match bearer(value.as_bytes()) {
            Some(token) => (token, false),
            // Another scheme carries no token for this resource.
            None => return Ok(None),
        },
    };
    if token.is_empty() || !has_token_bytes_only(token) {
        return Err(Malformed::Characters);
    }
    match std::str::from_utf8(token) {
        Ok(text) => Ok(Some(if is_key { Credentials::Key(text) } else { Credentials::Bearer(text) })),
        _ => Err(Malformed::Characters),
    }
}

/// Returns whether a parameter of a query is the token, whose name may be percent-encoded in part.
fn carries_token(parameter: &str) -> bool {
    let mut name = parameter.split('=').next().unwrap_or_default().as_bytes();
    let mut decoded = Vec::with_capacity(name.len());
    while let [first, rest @ ..] = name {
        let encoded = match name {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(encoded.unwrap_or(*first));
        name = if encoded.is_some() { &name[3..] } else { rest };
    }
    decoded.eq_ignore_ascii_case(QUERY.as_bytes())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Returns the token of the `Bearer` scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at(value.len().min("bearer".len()));
    let is_separate = rest.first().is_none_or(|byte| *byte == b' ');
    (scheme.eq_ignore_ascii_case(b"bearer") && is_separate).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn read(uri: &str, headers: &[(&str, &str)]) -> Result<Option<String>, Malformed> {
        let request =
            headers.iter().fold(Request::builder().uri(uri), |r, (name, value)| r.header(*name, *value));
        let (head, ()) = request.body(()).expect("a request").into_parts();
        credentials(&head).map(|credentials| {
            credentials.map(|presented| match presented {
                Credentials::Bearer(token) => token.to_owned(),
                Credentials::Key(key) => format!("key {key}"),
            })
        })
    }

    #[test]
    fn a_token_comes_in_one_header() {
        for value in ["Bearer abc.d-e_f~+/==", "bearer abc.d-e_f~+/==", "BEARER   abc.d-e_f~+/==  "] {
            assert_eq!(
                read("/mcp", &[("authorization", value)]),
                Ok(Some("abc.d-e_f~+/==".into())),
                "{value}"
            );
        }
        assert_eq!(read("/mcp", &[("x-api-key", "k1")]), Ok(Some("key k1".into())));
        for none in ["Basic YTpi", "DPoP x", "Bearerabc", "Bear", ""] {
            assert_eq!(read("/mcp?access=1", &[("authorization", none)]), Ok(None), "{none}");
        }
        assert_eq!(read("/mcp", &[]), Ok(None));
    }

    #[test]
    fn credentials_that_are_repeated_or_unreadable_are_malformed() {
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(read("/mcp", &twice), Err(Malformed::Twice));
        assert_eq!(read("/mcp", &[("authorization", "Bearer a"), ("x-api-key", "a")]), Err(Malformed::Both));
        for bad in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer \"a\"", "Bearer é"] {
            assert_eq!(read("/mcp", &[("authorization", bad)]), Err(Malformed::Characters), "{bad}");
        }
        for query in [
            "/mcp?access_token=x",
            "/mcp?a=b&ACCESS_TOKEN=x",
            "/mcp?access_token",
            "/mcp?%61ccess_token=x",
            "/mcp?a&access%5FToke%6e=x",
            "/mcp?%61%63%63%65%73%73%5f%74%6f%6b%65%6e",
        ] {
            assert_eq!(read(query, &[("authorization", "Bearer a")]), Err(Malformed::Query), "{query}");
            assert_eq!(read(query, &[]), Err(Malformed::Query), "{query}");
        }
        for other in
            ["/mcp?access_token%", "/mcp?%access_token", "/mcp?access_toke%6", "/mcp?%2561ccess_token=x"]
        {
            assert_eq!(read(other, &[]), Ok(None), "{other}");
        }
    }
}
