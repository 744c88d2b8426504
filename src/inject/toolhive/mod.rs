//! Turns ToolHive's `MCPServer` into the objects that run it without an operator.

mod fields;
mod objects;
mod server;

use super::options::Options;
use super::pod::{self, Outcome};
use super::tree::{Map, Value};
use super::workload;
use server::Server;

/// The API groups: that of ToolHive's releases, and the older spelling.
const GROUPS: [&str; 2] = ["toolhive.stacklok.dev/", "toolhive.stacklok.io/"];

/// Returns whether an API version is one of ToolHive.
pub(super) fn is_meant(version: &str) -> bool {
    GROUPS.iter().any(|group| version.starts_with(group))
}

/// Returns the objects that run a server.
///
/// # Errors
/// Every reason, and what to do.
pub(super) fn convert(root: &Map, options: &Options) -> Result<Option<Vec<Value>>, Vec<String>> {
    let (version, kind) =
        (root.text("apiVersion").unwrap_or_default(), root.text("kind").unwrap_or_default());
    if kind != "MCPServer" {
        return Err(vec![
            "is a kind of ToolHive that means nothing without its operator; remove the document".to_owned(),
        ]);
    }
    let known =
        GROUPS.iter().any(|group| matches!(version.strip_prefix(group), Some("v1alpha1" | "v1beta1")));
    if !known {
        return Err(vec![format!("has the unknown version {version:?}; give v1alpha1 or v1beta1")]);
    }
    let server = Server::read(root)?;
    let mut template = objects::template(&server).map_err(|reason| vec![reason])?;
    let annotations: Vec<Map> = [template.map("metadata"), root.map("metadata")]
        .into_iter()
        .filter_map(|metadata| metadata?.map("annotations").cloned())
        .collect();
    let mut wish = workload::wish(options, &annotations).map_err(|reason| vec![reason])?;
    wish.container = Some(objects::CONTAINER);
    // The Service refers to the port by its name. One below 1024 takes a capability that the container does not have.
    let is_named = objects::container(&template).is_some_and(pod::has_port);
    if !is_named {
        wish.port = wish.port.or(Some(if server.port < 1024 { 8080 } else { server.port }));
    }
    if server.has_old_sse {
        wish.flags.push("--sse");
    }
    let spec =
        template.map_mut("spec").ok_or_else(|| vec!["has a podTemplateSpec without a spec".to_owned()])?;
    match pod::inject(spec, &wish) {
        Ok(Outcome::Injected) => Ok(Some(objects::all(&server, template))),
        Ok(Outcome::AlreadyInjected) => {
            Err(vec!["has a podTemplateSpec that runs proxyrunner already; remove its command".to_owned()])
        }
        Err(reason) => Err(vec![reason]),
    }
}

#[cfg(test)]
mod tests;
