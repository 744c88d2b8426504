//! Reads where decisions on requests come from: `--policy`, `--policy-url`.

use super::parse::{DURATION, KEY, ValueKind};
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::policy::{RemoteSettings, Settings};
use hyper::Uri;
use std::path::PathBuf;
use std::time::Duration;

/// The path below a decision point's URL at which it decides.
const DECISION: &str = "/decision";

const PATH: ValueKind<PathBuf> = ValueKind { parse: path, show: |path| path.to_string_lossy().into() };
const URL: ValueKind<Uri> = ValueKind { parse: url, show: |url| url.to_string().into() };

/// Parses a path. Whether there is something is found when it is read.
fn path(text: &str) -> Result<PathBuf, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is empty", "give a file or a directory"));
    }
    Ok(text.into())
}

/// Parses the URL of a decision point, and appends the path of decisions.
fn url(text: &str) -> Result<Uri, InvalidValue> {
    let refused =
        || InvalidValue::new("is not the URL of a decision point", "give e.g. http://localhost:9000");
    let is_plain = !text.contains(['@', '?', '#']);
    let url: Uri = text.parse().ok().filter(|_| is_plain).ok_or_else(refused)?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err(refused());
    }
    format!("{}{DECISION}", text.trim_end_matches('/')).parse().map_err(|_| refused())
}

/// What was given.
struct Given {
    path: Option<PathBuf>,
    url: Option<Uri>,
    timeout: Duration,
    server: Option<String>,
}

/// Reads the settings; `identifies` says whether callers are identified. Also returns remarks on the policies.
pub(super) fn read(reader: &mut Reader, identifies: bool) -> (Option<Settings>, Vec<String>) {
    let given = Given {
        path: reader.optional("policy", PATH),
        url: reader.optional("policy-url", URL),
        timeout: reader.one("policy-timeout", DURATION),
        server: reader.optional("policy-server", KEY),
    };
    let flag = match (&given.path, &given.url) {
        (None, None) => return (None, Vec::new()),
        (Some(_), Some(_)) => {
            let refusal = InvalidValue::new("are given together", "give one of them");
            reader.note(Problem::general("--policy, --policy-url", refusal));
            return (None, Vec::new());
        }
        (Some(_), None) => "--policy",
        (None, Some(_)) => "--policy-url",
    };
    if !identifies {
        let refusal = InvalidValue::new(
            "needs to know the caller",
            "identify callers by --auth-issuer, --auth-introspection, --api-keys, --tls-client-ca or --principal-header",
        );
        reader.note(Problem::general(flag, refusal));
    }
    match (given.path, given.url) {
        (Some(path), _) => files(reader, path, given.server),
        (None, Some(url)) => {
            let server = given.server.unwrap_or_default();
            (Some(Settings::Remote(RemoteSettings { url, timeout: given.timeout, server })), Vec::new())
        }
        (None, None) => (None, Vec::new()),
    }
}

#[cfg(feature = "policy")]
fn files(reader: &mut Reader, path: PathBuf, server: Option<String>) -> (Option<Settings>, Vec<String>) {
    use crate::policy::Loaded;
    use std::sync::Arc;
    match Loaded::read(&path, server.as_deref()) {
        Ok(mut loaded) => {
            let warnings = std::mem::take(&mut loaded.warnings);
            (Some(Settings::Files(Arc::new(loaded))), warnings)
        }
        Err(faults) => {
            for fault in faults {
                let refusal = InvalidValue::new(fault.to_string(), "see `proxyrunner policy check`");
                reader.note(Problem::general("--policy", refusal));
            }
            (None, Vec::new())
        }
    }
}

#[cfg(not(feature = "policy"))]
fn files(reader: &mut Reader, _: PathBuf, _: Option<String>) -> (Option<Settings>, Vec<String>) {
    let refusal = InvalidValue::new(
        "is not part of this build (cargo feature policy)",
        "use the default build, or --policy-url",
    );
    reader.note(Problem::general("--policy", refusal));
    (None, Vec::new())
}
