//! The external URL behind ingresses that rewrite host or path.

/// An external URL (`--public-url`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    authority: String,
    path: String,
}

impl PublicUrl {
    /// Builds a URL from its parts: the authority in lower case, the path empty or with a leading slash.
    pub fn new(scheme: &str, authority: &str, path: &str) -> Self {
        let text = format!("{scheme}://{authority}{path}");
        PublicUrl { text, authority: authority.to_owned(), path: path.to_owned() }
    }

    /// Returns the whole URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the host, with its port if there is one.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the path prefix that ingresses strip. The URL may or may not end with the path of the endpoint.
    pub fn prefix(&self, endpoint: &str) -> &str {
        let path = self.path.trim_end_matches('/');
        path.strip_suffix(endpoint.trim_end_matches('/')).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_the_path_before_the_endpoint() {
        for (path, prefix) in [
            ("", ""),
            ("/", ""),
            ("/mcp", ""),
            ("/mcp/", ""),
            ("/github", "/github"),
            ("/github/", "/github"),
            ("/github/mcp", "/github"),
            ("/a/b/mcp", "/a/b"),
        ] {
            assert_eq!(PublicUrl::new("https", "tools.example", path).prefix("/mcp"), prefix, "{path}");
        }
        assert_eq!(PublicUrl::new("https", "tools.example", "/a").prefix("/"), "/a");
    }
}
