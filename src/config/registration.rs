//! Reads where a sidecar registers: `--register` and what goes with it.

use super::parse::{FILE, ValueKind};
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::http;
use crate::outbound::Tls;
use crate::registration::Settings;
use hyper::Uri;
use std::ffi::OsString;

/// The settings that only a sidecar has.
pub(super) const OF_SIDECARS: [&str; 3] = ["register-url", "register-token-file", "register-ca"];

const URL: ValueKind<String> = ValueKind { parse: url, show: |url| url.as_str().into() };

/// Parses a URL without user, query and fragment. A slash at its end is removed.
fn url(text: &str) -> Result<String, InvalidValue> {
    let refused = || {
        InvalidValue::new(
            "is not an http or https URL without user and query",
            "give e.g. http://gateway:8080",
        )
    };
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.trim_matches(['[', ']']).is_empty());
    if is_web && has_host && !text.contains(['@', '?', '#']) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(refused())
    }
}

/// Returns the URL of an endpoint. One without a path is that of this proxyrunner, not of its endpoint.
fn endpoint(url: String, path: &str) -> String {
    if url.splitn(4, '/').nth(3).is_some() { url } else { format!("{url}{path}") }
}

/// What `--register` names.
pub(super) type Given = Option<String>;

/// Reads `--register`; a gateway's is also that of `TOOL_REGISTRY_URL`, which common deployments set.
pub(super) fn read_url(reader: &mut Reader, variable: Option<OsString>) -> Given {
    let given = reader.optional("register", URL);
    let variable = variable.filter(|text| !text.is_empty() && !reader.is_given("register"));
    let Some(text) = variable else { return given };
    match url(&text.to_string_lossy()) {
        Ok(found) => {
            reader.comment(&format!("the servers of {found} are mirrored (TOOL_REGISTRY_URL)"));
            Some(found)
        }
        Err(refusal) => {
            reader.note(Problem::general("TOOL_REGISTRY_URL", refusal));
            None
        }
    }
}

/// Reads how a sidecar registers at this gateway; `None` without one. Also returns a remark.
pub(super) fn read(
    reader: &mut Reader,
    gateway: Given,
    http: &http::Settings,
) -> (Option<Settings>, Option<String>) {
    let url = reader.optional("register-url", URL);
    let token_file = reader.optional("register-token-file", FILE);
    let authorities = reader.optional("register-ca", FILE).and_then(|path| {
        let read = std::fs::read(&path);
        read.map_err(|error| {
            let refusal = InvalidValue::new(
                format!("cannot be read: {error}"),
                "name a file with certificates in PEM format",
            );
            reader.note(Problem::general("--register-ca", refusal));
        })
        .ok()
    });
    let Some(gateway) = gateway else { return (None, None) };
    let own = http.auth.resource.as_ref().filter(|_| http.public_url.is_some()).map(http::Resource::url);
    let url = url.map(|url| endpoint(url, &http.path)).or(own);
    reader.cross_check(
        url.is_some() || !http.listen.ip().is_unspecified(),
        &["register", "register-url", "public-url"],
        InvalidValue::new(
            "needs the URL by which the gateway reaches this server",
            "give --register-url, e.g. http://$(POD_IP):8080/mcp",
        ),
    );
    let is_open = token_file.is_some() && gateway.starts_with("http://");
    let remark = is_open.then(|| {
        "the token of --register-token-file is sent to the gateway without TLS; give --register an https URL".to_owned()
    });
    (Some(Settings { gateway, url, token_file, tls: Tls { authorities, ..Tls::default() } }), remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_is_completed() {
        for (given, meant) in [
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080/mcp"),
            ("https://[fd00::1]", "https://[fd00::1]/mcp"),
            ("http://10.0.0.1/a", "http://10.0.0.1/a"),
        ] {
            assert_eq!(endpoint(given.to_owned(), "/mcp"), meant);
        }
    }

    #[test]
    fn a_gateway_is_named_by_its_url() {
        assert_eq!(url("https://gateway.svc:8443/base/").as_deref(), Ok("https://gateway.svc:8443/base"));
        for bad in ["", "gateway", "ftp://a", "http://", "http://u@a", "http://a?b", "http://a/#b"] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
    }
}
