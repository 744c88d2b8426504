//! Finds the pod in a Pod, Deployment or StatefulSet, and the annotations that say how to inject it.

use super::options::{Options, entry_point};
use super::pod::{self, Outcome, Wish};
use super::tree::{Map, Value};

/// The annotation that gives the entry point.
const COMMAND: &str = "proxyrunner/command";
/// The annotation that names the server's container.
const CONTAINER: &str = "proxyrunner/container";

/// The place of the pod in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The document is the pod.
    Whole,
    /// `spec.template` is the pod.
    Template,
}

/// Returns the place of the pod in documents of a kind; `None` for other kinds.
pub(super) fn place(version: &str, kind: &str) -> Option<Place> {
    match (version, kind) {
        ("v1", "Pod") => Some(Place::Whole),
        ("apps/v1", "Deployment" | "StatefulSet") => Some(Place::Template),
        _ => None,
    }
}

/// Rewrites a document. After an error it must not be used.
///
/// # Errors
/// The reason, and what to do.
pub(super) fn inject(root: &mut Map, place: Place, options: &Options) -> Result<Outcome, String> {
    let around = root.map("metadata").and_then(|metadata| metadata.map("annotations")).cloned();
    let pod = match place {
        Place::Whole => root,
        Place::Template => {
            let spec = existing(root, "spec")?;
            existing(spec, "template")?
        }
    };
    let own = pod.map("metadata").and_then(|metadata| metadata.map("annotations")).cloned();
    let annotations: Vec<Map> = own.into_iter().chain(around).collect();
    let wish = wish(options, &annotations)?;
    pod::inject(existing(pod, "spec")?, &wish)
}

/// Returns what to inject. Options precede annotations.
///
/// # Errors
/// A bad entry point in an annotation.
pub(super) fn wish<'a>(options: &'a Options, annotations: &'a [Map]) -> Result<Wish<'a>, String> {
    let annotation = |name| annotations.iter().find_map(|annotations| annotations.text(name));
    let command = match (&options.command, annotation(COMMAND)) {
        (Some(command), _) => Some(command.clone()),
        (None, Some(text)) => {
            let command = entry_point(text);
            Some(command.map_err(|reason| format!("has an annotation {COMMAND} that {reason}"))?)
        }
        (None, None) => None,
    };
    Ok(Wish {
        container: options.container.as_deref().or(annotation(CONTAINER)),
        command,
        image: &options.image,
        mode: options.mode,
        port: options.port,
        flags: Vec::new(),
    })
}

/// Returns the map of a key that must be there.
fn existing<'a>(map: &'a mut Map, key: &str) -> Result<&'a mut Map, String> {
    match map.entries.iter_mut().find(|(own, _)| own.text == key) {
        Some((_, Value::Map(map))) => Ok(map),
        _ => Err(format!("has no map {key:?} where its pod is described; complete it")),
    }
}
