//! The URL by which clients know this server, and its metadata (RFC 9728; MCP 2026-07-28, authorization §Authorization
//! Server Discovery).

use hyper::Uri;
use hyper::http::uri::Scheme;
use serde_json::{Value, json};

/// The path of the metadata, to which the resource's own path is appended.
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

/// A canonical URL: scheme and host in lower case, no fragment, no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Scheme and authority.
    origin: String,
    /// The path; empty for the root.
    path: String,
}

impl Resource {
    /// Parses an absolute http or https URL.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_web = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        let authority = uri.authority()?.as_str();
        let is_plain = text.is_ascii() && !text.contains(['#', '"', '\\']);
        if !is_web || !is_plain || uri.query().is_some() || authority.contains('@') {
            return None;
        }
        let origin = format!("{}://{}", uri.scheme_str()?, authority).to_ascii_lowercase();
        Some(Resource { origin, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    /// Returns the resource at another path of the same server, whose own path is `own`.
    #[cfg(feature = "gateway")]
    pub fn sibling(&self, own: &str, path: &str) -> Self {
        let base = self.path.strip_suffix(own.trim_end_matches('/')).unwrap_or(&self.path);
        Resource { origin: self.origin.clone(), path: format!("{base}{path}") }
    }

    /// Returns the URL of the metadata.
    pub fn metadata_url(&self) -> String {
        format!("{}{METADATA}{}", self.origin, self.path)
    }

    /// Returns the path of the metadata at this server.
    pub fn metadata_path(&self) -> String {
        format!("{METADATA}{}", self.path)
    }

    /// Returns the metadata (RFC 9728 §2).
    pub fn metadata(&self, issuers: &[String], scopes: &[String], binds_to_certificates: bool) -> Value {
        let mut metadata = json!({
            "resource": self.url(),
            "authorization_servers": issuers,
            "bearer_methods_supported": ["header"],
        });
        // Clients ask for what stands here; refreshing is theirs to ask for.
        let scopes: Vec<_> = scopes.iter().filter(|scope| *scope != "offline_access").collect();
        if !scopes.is_empty() {
            metadata["scopes_supported"] = json!(scopes);
        }
        if binds_to_certificates {
            metadata["tls_client_certificate_bound_access_tokens"] = json!(true);
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_canonical() {
        for (text, url, metadata) in [
            (
                "https://H.example/a/mcp",
                "https://h.example/a/mcp",
                "https://h.example/.well-known/oauth-protected-resource/a/mcp",
            ),
            (
                "https://h.example:8443/",
                "https://h.example:8443",
                "https://h.example:8443/.well-known/oauth-protected-resource",
            ),
            (
                "http://[::1]:8080/mcp/",
                "http://[::1]:8080/mcp",
                "http://[::1]:8080/.well-known/oauth-protected-resource/mcp",
            ),
        ] {
            let resource = Resource::parse(text).expect(text);
            assert_eq!((resource.url(), resource.metadata_url()), (url.to_owned(), metadata.to_owned()));
        }
        for bad in [
            "",
            "mcp",
            "/mcp",
            "ftp://h.example/mcp",
            "https://h.example/mcp?x",
            "https://h.example/#x",
            "https://a@h.example/",
            "https://h.example/é",
        ] {
            assert_eq!(Resource::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_metadata_name_the_resource_and_its_authorization_servers() {
        let resource = Resource::parse("https://h.example/mcp").expect("a resource");
        let (issuers, scopes) =
            (["https://idp.example".to_owned()], ["mcp".to_owned(), "offline_access".to_owned()]);
        assert_eq!(
            resource.metadata(&issuers, &scopes, false),
            json!({
                "resource": "https://h.example/mcp",
                "authorization_servers": ["https://idp.example"],
                "bearer_methods_supported": ["header"],
                "scopes_supported": ["mcp"],
            })
        );
        assert_eq!(
            resource.metadata(&issuers, &[], true)["tls_client_certificate_bound_access_tokens"],
            true
        );
    }
}
