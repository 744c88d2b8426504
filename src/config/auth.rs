//! Settings of authentication by tokens and keys. An issuer and an introspection endpoint have options of their own,
//! which follow their URL: `https://idp.example jwks=/etc/keys.json typ=jwt`.

use super::parse::{DURATION, SWITCH, ValueKind};
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::auth::{
    Algorithm, ClaimNames, ClientAuth, IntrospectionSettings, IssuerSettings, KeySource, Settings, TokenType,
    bad_files,
};
use hyper::Uri;
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;

/// A URL and the options that follow it.
#[derive(Debug, PartialEq, Eq)]
struct WithOptions<T> {
    /// As it was given.
    text: String,
    url: String,
    options: T,
}

/// The options of an issuer.
#[derive(Debug, Default, PartialEq, Eq)]
struct IssuerOptions {
    keys: Option<KeySource>,
    algorithms: Option<Vec<Algorithm>>,
    jwt: bool,
    audience_claim: Option<String>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// The options of an introspection endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
struct IntrospectionOptions {
    client: String,
    secret: PathBuf,
    post: bool,
    all: bool,
    issuer: Option<String>,
    audience_optional: bool,
    ca: Option<PathBuf>,
}

const ISSUER: ValueKind<WithOptions<IssuerOptions>> =
    ValueKind { parse: issuer, show: |issuer| issuer.text.as_str().into() };
const INTROSPECTION: ValueKind<WithOptions<IntrospectionOptions>> =
    ValueKind { parse: introspection, show: |endpoint| endpoint.text.as_str().into() };
const KEYS: ValueKind<KeySource> = ValueKind { parse: keys, show: show_keys };
const ALGORITHM: ValueKind<Algorithm> =
    ValueKind { parse: algorithm, show: |algorithm| algorithm.name().into() };
const FILE: ValueKind<PathBuf> = ValueKind { parse: file, show: |path| path.to_string_lossy().into() };
const TEXT: ValueKind<String> = ValueKind { parse: text, show: |text| text.as_str().into() };
const SCOPE: ValueKind<String> = ValueKind { parse: scope, show: |scope| scope.as_str().into() };
const IMPLICATION: ValueKind<(String, Vec<String>)> =
    ValueKind { parse: implication, show: |(broad, narrow)| format!("{broad}={}", narrow.join(" ")).into() };

/// Reads the settings.
pub(super) fn read(reader: &mut Reader) -> Settings {
    let issuers = reader.list("auth-issuer", ISSUER);
    let audiences = reader.list("auth-audience", TEXT);
    let shared = IssuerOptions {
        keys: reader.optional("auth-jwks", KEYS),
        algorithms: Some(reader.list("auth-algorithms", ALGORITHM)),
        ca: reader.optional("auth-ca", FILE),
        token_file: reader.optional("auth-token-file", FILE),
        ..IssuerOptions::default()
    };
    let scopes = reader.list("auth-scopes", SCOPE);
    let implies = reader.list("auth-scope-implies", IMPLICATION);
    let claims = claims(reader);
    let endpoint = reader.optional("auth-introspection", INTROSPECTION);
    let api_keys = reader.optional("api-keys", FILE);
    let insecure: bool = reader.one("auth-insecure-http", SWITCH);
    let settings = Settings {
        introspection: endpoint.map(|endpoint| introspection_settings(endpoint, &issuers, &shared)),
        audiences,
        scopes,
        implies,
        claims,
        api_keys,
        keys_max_age: reader.one("auth-keys-max-age", DURATION),
        allow_private: reader.one("auth-allow-private", SWITCH),
        require_keys: reader.one("require-keys-at-start", SWITCH),
        issuers: Vec::new(),
    };
    check(reader, &settings, &issuers, &shared, insecure);
    let issuers = issuers.into_iter().map(|issuer| issuer_settings(issuer, &shared, insecure)).collect();
    let settings = Settings { issuers, ..settings };
    check_files(reader, &settings, &shared);
    settings
}

/// Reads the files, so that a bad one is found before anything starts.
fn check_files(reader: &mut Reader, settings: &Settings, shared: &IssuerOptions) {
    let mut known: Vec<PathBuf> = Vec::new();
    for bad in bad_files(settings) {
        if known.contains(&bad.path) {
            continue;
        }
        let is_shared = |file: &Option<PathBuf>| file.as_ref() == Some(&bad.path);
        let subject = match bad.option {
            "ca" if is_shared(&shared.ca) => "--auth-ca",
            "token-file" if is_shared(&shared.token_file) => "--auth-token-file",
            "jwks" if shared.keys == Some(KeySource::File(bad.path.clone())) => "--auth-jwks",
            _ => bad.setting,
        };
        let is_own = subject == bad.setting && !bad.option.is_empty();
        let option = if is_own { format!("({}) ", bad.option) } else { String::new() };
        // Some give the secret itself.
        let is_shown = bad.option != "secret";
        let value = is_shown.then(|| bad.path.to_string_lossy().into_owned());
        let refusal = InvalidValue::new(format!("{option}{}", bad.reason), bad.remedy);
        reader.note(Problem { value, ..Problem::general(subject, refusal) });
        known.push(bad.path);
    }
}

fn claims(reader: &mut Reader) -> ClaimNames {
    let scope = reader.list("auth-scope-claim", TEXT);
    ClaimNames {
        scope: if scope.is_empty() { vec!["scope".to_owned(), "scp".to_owned()] } else { scope },
        groups: reader.one("auth-groups-claim", TEXT),
        roles: reader.one("auth-roles-claim", TEXT),
    }
}

fn issuer_settings(
    issuer: WithOptions<IssuerOptions>,
    shared: &IssuerOptions,
    insecure: bool,
) -> IssuerSettings {
    let WithOptions { url, options, .. } = issuer;
    let algorithms =
        options.algorithms.or_else(|| shared.algorithms.clone()).filter(|named| !named.is_empty());
    IssuerSettings {
        issuer: url,
        keys: options.keys.or_else(|| shared.keys.clone()).unwrap_or(KeySource::Discovery),
        algorithms: algorithms.unwrap_or_else(|| Algorithm::ALL.to_vec()),
        token_type: if options.jwt { TokenType::Jwt } else { TokenType::AccessToken },
        audience_claim: options.audience_claim.unwrap_or_else(|| "aud".to_owned()),
        ca: options.ca.or_else(|| shared.ca.clone()),
        token_file: options.token_file.or_else(|| shared.token_file.clone()),
        insecure,
    }
}

fn introspection_settings(
    endpoint: WithOptions<IntrospectionOptions>,
    issuers: &[WithOptions<IssuerOptions>],
    shared: &IssuerOptions,
) -> IntrospectionSettings {
    let WithOptions { url, options, .. } = endpoint;
    let only = match issuers {
        [only] => Some(only.url.clone()),
        _ => None,
    };
    IntrospectionSettings {
        issuer: options.issuer.or(only).unwrap_or_else(|| url.clone()),
        client: options.client,
        secret_file: options.secret,
        auth: if options.post { ClientAuth::Post } else { ClientAuth::Basic },
        all: options.all,
        audience_optional: options.audience_optional,
        ca: options.ca.or_else(|| shared.ca.clone()),
        url,
    }
}

/// Checks settings that are valid on their own, but not together.
fn check(
    reader: &mut Reader,
    settings: &Settings,
    issuers: &[WithOptions<IssuerOptions>],
    shared: &IssuerOptions,
    insecure: bool,
) {
    let flag = if issuers.is_empty() { "auth-introspection" } else { "auth-issuer" };
    reader.cross_check(
        !settings.audiences.is_empty() || (issuers.is_empty() && settings.introspection.is_none()),
        &[flag, "auth-audience"],
        InvalidValue::new(
            "needs --auth-audience, without which tokens for any other server would be accepted",
            "give the audience that the issuer puts into tokens for this server, e.g. its URL",
        ),
    );
    reader.cross_check(
        shared.keys.is_none() || issuers.iter().filter(|issuer| issuer.options.keys.is_none()).count() <= 1,
        &["auth-jwks", "auth-issuer"],
        InvalidValue::new(
            "is for one issuer, but several have no key set of their own",
            "give each its own behind its URL: --auth-issuer 'URL jwks=URL|FILE'",
        ),
    );
    for (at, issuer) in issuers.iter().enumerate() {
        if issuers[..at].iter().any(|other| other.url == issuer.url) {
            let refusal = InvalidValue::new("is given twice", "give each issuer once");
            reader.note(Problem {
                value: Some(issuer.url.clone()),
                ..Problem::general("--auth-issuer", refusal)
            });
        }
    }
    let own_keys = issuers.iter().map(|issuer| &issuer.options.keys).chain([&shared.keys]);
    let key_urls = own_keys.filter_map(|keys| match keys {
        Some(KeySource::Url(url)) => Some(("--auth-jwks", url)),
        _ => None,
    });
    let urls = issuers.iter().map(|issuer| ("--auth-issuer", &issuer.url)).chain(key_urls);
    let endpoint = settings.introspection.iter().map(|endpoint| ("--auth-introspection", &endpoint.url));
    for (flag, url) in urls.chain(endpoint).filter(|(_, url)| !insecure && is_exposed(url)) {
        let refusal = InvalidValue::new(
            "is a plain http URL, whose answers anybody on the way could forge",
            "give an https URL, or set --auth-insecure-http",
        );
        reader.note(Problem { value: Some(url.clone()), ..Problem::general(flag, refusal) });
    }
}

/// Returns whether a URL leads through a network in plain text.
fn is_exposed(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return true };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() != Some("https") && !is_here
}

const ISSUERS: &str = "give the issuer's URL, and behind it, after blanks: jwks=URL|FILE, algorithms=RS256,ES256, \
                       typ=at+jwt|jwt, audience-claim=NAME, ca=FILE, token-file=FILE";
const ENDPOINTS: &str = "give the endpoint's URL, and behind it, after blanks: client=ID, secret=FILE, \
                         auth=basic|post, for=opaque|all, issuer=URL, audience=required|optional, ca=FILE";

/// Splits a URL from the options behind it.
fn split(text: &str, accepts: &'static str) -> Result<(String, Vec<(String, String)>), InvalidValue> {
    let mut words = text.split_ascii_whitespace();
    let url = words.next().unwrap_or_default();
    if !is_url(url) {
        let has_more = url.starts_with("https://") || url.starts_with("http://");
        return Err(InvalidValue::new(
            match url {
                _ if !has_more => "does not begin with an http or https URL",
                url if url.contains('@') => "has a name or a password in its URL",
                url if url.contains('#') => "has a fragment in its URL",
                _ => "does not begin with a valid URL",
            },
            accepts,
        ));
    }
    let mut options: Vec<(String, String)> = Vec::new();
    for word in words {
        let option = word.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let (name, value) =
            option.ok_or_else(|| InvalidValue::new("has an option without a value", accepts))?;
        if options.iter().any(|(other, _)| other == name) {
            return Err(InvalidValue::new(format!("has the option {name} twice"), accepts));
        }
        options.push((name.to_owned(), value.to_owned()));
    }
    Ok((url.to_owned(), options))
}

/// Returns whether a text is an http or https URL without user information and fragment.
fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    scheme && uri.host().is_some_and(|host| !host.is_empty()) && !text.contains(['@', '#'])
}

fn issuer(text: &str) -> Result<WithOptions<IssuerOptions>, InvalidValue> {
    let (url, given) = split(text, ISSUERS)?;
    if url.contains('?') {
        return Err(InvalidValue::new("has a query, which an issuer has not", ISSUERS));
    }
    let mut options = IssuerOptions::default();
    for (name, value) in given {
        match (name.as_str(), value.as_str()) {
            ("jwks", value) => options.keys = Some(keys(value)?),
            ("algorithms", value) => {
                options.algorithms = Some(value.split(',').map(algorithm).collect::<Result<_, _>>()?);
            }
            ("typ", "at+jwt") => options.jwt = false,
            ("typ", "jwt") => options.jwt = true,
            ("audience-claim", value) => options.audience_claim = Some(value.to_owned()),
            ("ca", value) => options.ca = Some(value.into()),
            ("token-file", value) => options.token_file = Some(value.into()),
            (name, _) => return Err(unknown(name, ISSUERS)),
        }
    }
    Ok(WithOptions { text: text.to_owned(), url, options })
}

fn introspection(text: &str) -> Result<WithOptions<IntrospectionOptions>, InvalidValue> {
    let (url, given) = split(text, ENDPOINTS)?;
    let mut options = IntrospectionOptions::default();
    for (name, value) in given {
        match (name.as_str(), value.as_str()) {
            ("client", value) => options.client = value.to_owned(),
            ("secret", value) => options.secret = value.into(),
            ("auth", "basic") => options.post = false,
            ("auth", "post") => options.post = true,
            ("for", "opaque") => options.all = false,
            ("for", "all") => options.all = true,
            ("issuer", value) if is_url(value) => options.issuer = Some(value.to_owned()),
            ("audience", "required") => options.audience_optional = false,
            ("audience", "optional") => options.audience_optional = true,
            ("ca", value) => options.ca = Some(value.into()),
            (name, _) => return Err(unknown(name, ENDPOINTS)),
        }
    }
    for (option, is_missing) in
        [("client", options.client.is_empty()), ("secret", options.secret.as_os_str().is_empty())]
    {
        if is_missing {
            return Err(InvalidValue::new(format!("has no option {option}"), ENDPOINTS));
        }
    }
    Ok(WithOptions { text: text.to_owned(), url, options })
}

/// Refuses an option by its name. Its value may be a secret.
fn unknown(name: &str, accepts: &'static str) -> InvalidValue {
    InvalidValue::new(format!("has the option {name}, which is unknown or has an unknown value"), accepts)
}

fn keys(text: &str) -> Result<KeySource, InvalidValue> {
    let refused = || {
        InvalidValue::new(
            "is neither a URL nor a file",
            "give e.g. https://idp.example/keys or /etc/keys.json",
        )
    };
    match text.contains("://") {
        true if is_url(text) => Ok(KeySource::Url(text.to_owned())),
        true => Err(refused()),
        false if text.is_empty() => Err(refused()),
        false => Ok(KeySource::File(text.into())),
    }
}

fn show_keys(keys: &KeySource) -> Value {
    match keys {
        KeySource::Discovery => Value::Null,
        KeySource::Url(url) => url.as_str().into(),
        KeySource::File(path) => path.to_string_lossy().into(),
    }
}

fn algorithm(text: &str) -> Result<Algorithm, InvalidValue> {
    Algorithm::named(text).ok_or_else(|| {
        let all: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        InvalidValue::new("is not an algorithm that proves who signed", format!("give {}", all.join(", ")))
    })
}

fn file(text: &str) -> Result<PathBuf, InvalidValue> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err(InvalidValue::new("is not a file", "give an existing file")) }
}

/// Parses a text without blanks at its ends.
fn text(text: &str) -> Result<String, InvalidValue> {
    let text = text.trim();
    if text.is_empty() { Err(InvalidValue::new("is empty", "give a name")) } else { Ok(text.to_owned()) }
}

/// Parses one scope.
fn scope(text: &str) -> Result<String, InvalidValue> {
    let scope = self::text(text)?;
    if scope.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(InvalidValue::new("is more than one scope", "give the setting once for each scope"));
    }
    Ok(scope)
}

/// Parses `broad=narrow narrow`.
fn implication(text: &str) -> Result<(String, Vec<String>), InvalidValue> {
    let (broad, narrow) = text.split_once('=').unwrap_or_default();
    let narrow: Vec<_> = narrow.split_ascii_whitespace().map(str::to_owned).collect();
    if broad.trim().is_empty() || narrow.is_empty() {
        return Err(InvalidValue::new("is not SCOPE=SCOPES", "give e.g. 'mcp:admin=mcp:read mcp:write'"));
    }
    Ok((broad.trim().to_owned(), narrow))
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
