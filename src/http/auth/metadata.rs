//! Serves the metadata of the protected resource (RFC 9728 §3), which clients read without credentials.

use super::super::Server;
use super::super::reject::method_not_allowed;
use super::super::response::{self, Body};
use super::super::site;
use super::resource::METADATA;
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// Returns the response to a request for the metadata; `None` if there are none at this path. Any page may read them, and
/// any Host is served: they hold no secret.
pub fn serve(server: &Server, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let settings = &server.settings.auth;
    let rest = path.strip_prefix(METADATA)?;
    if settings.issuers.is_empty() {
        return None;
    }
    let resource = super::resource(server, headers, rest)?;
    let rest = rest.trim_end_matches('/');
    // An ingress may have stripped the prefix of the external path.
    let is_own = rest.is_empty()
        || path.trim_end_matches('/') == resource.metadata_path()
        || rest == server.settings.path;
    // At a gateway, each server is a resource of its own, beside the one of all servers.
    #[cfg(feature = "gateway")]
    let is_own = match &server.gateway {
        Some(_) => {
            let is_server = super::super::paths::server_path(rest).is_some();
            is_server || (is_own && !rest.is_empty())
        }
        None => is_own,
    };
    if !is_own {
        return None;
    }
    let mut response = match *method {
        Method::GET | Method::HEAD => {
            let metadata = resource.metadata(&settings.issuers, &settings.scopes, settings.certificates);
            response::json(StatusCode::OK, Spliced::from(Charged::own(metadata.to_string())))
        }
        Method::OPTIONS => site::preflight(headers),
        _ => method_not_allowed("GET, HEAD, OPTIONS"),
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    Some(response)
}
