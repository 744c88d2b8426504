//! Puts proxyrunner in front of the server in a pod's specification.

use super::defaults;
use super::options::Mode;
use super::tree::{Map, Scalar, Value};

/// The folder of the binary. It is not in the image of proxyrunner, where `/proxyrunner` is the program.
const FOLDER: &str = "/opt/proxyrunner";
/// The binary in the server's container.
const BINARY: &str = "/opt/proxyrunner/proxyrunner";
/// The volume of the binary.
const VOLUME: &str = "proxyrunner";
/// The volume at `/tmp`.
const SCRATCH: &str = "proxyrunner-tmp";
/// The init container that copies the binary.
const COPIER: &str = "copy-proxyrunner";
/// The name of the port.
const PORT: &str = "mcp";

/// The wrapper for one pod.
pub(super) struct Wish<'a> {
    /// The name of the server's container, if it was given.
    pub container: Option<&'a str>,
    /// The entry point, if the container has none.
    pub command: Option<Vec<String>>,
    /// The image that contains proxyrunner.
    pub image: &'a str,
    pub mode: Mode,
    /// The port, if it was given.
    pub port: Option<u16>,
    /// Further flags of proxyrunner.
    pub flags: Vec<&'static str>,
}

/// The outcome of an injection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Injected,
    AlreadyInjected,
}

/// Rewrites the specification of a pod. After an error it must not be used.
///
/// # Errors
/// The reason, and what to do.
pub(super) fn inject(spec: &mut Map, wish: &Wish) -> Result<Outcome, String> {
    if spec.map("os").and_then(|os| os.text("name")) == Some("windows") {
        return Err("is a Windows pod, which proxyrunner does not run in; leave it out".to_owned());
    }
    let containers = containers(spec)?;
    if containers.iter().any(is_wrapped) {
        return Ok(Outcome::AlreadyInjected);
    }
    let at = choose(&containers, wish.container)?;
    let mut server = containers[at].clone();
    let port = port(&server, wish.port)?;
    no_conflicts(spec, &containers, at, port)?;

    let shared = spec.map("securityContext").cloned().unwrap_or_default();
    let has_pod_limits = spec.get("resources").is_some();
    wrap(&mut server, wish, port)?;
    expose(&mut server, port)?;
    defaults::probes(&mut server, port);
    if !has_pod_limits {
        defaults::limits(&mut server, &defaults::SERVER)?;
    }
    let is_closed = defaults::harden(&mut server, &shared)?;
    mount(&mut server, VOLUME, FOLDER, true)?;
    let needs_scratch = is_closed && !has_mount(&server, "/tmp");
    if needs_scratch {
        mount(&mut server, SCRATCH, "/tmp", false)?;
    }

    let all = spec.list_mut("containers").ok_or("has containers that are not a list")?;
    all[at] = Value::Map(server);
    let volumes = spec.list_mut("volumes").ok_or("has volumes that are not a list; correct it")?;
    volumes.push(binary(wish));
    if needs_scratch {
        volumes.push(Value::map([("name", Value::text(SCRATCH)), ("emptyDir", Value::map([]))]));
    }
    if wish.mode == Mode::Init {
        let copier = copier(wish, &shared, has_pod_limits)?;
        let all =
            spec.list_mut("initContainers").ok_or("has initContainers that are not a list; correct it")?;
        all.insert(0, copier);
    }
    Ok(Outcome::Injected)
}

/// Returns the containers of a pod.
fn containers(spec: &Map) -> Result<Vec<Map>, String> {
    let items = match spec.get("containers") {
        None => &[][..],
        Some(Value::List(items)) => items,
        Some(_) => return Err("has containers that are not a list; correct it".to_owned()),
    };
    if items.is_empty() {
        return Err("has no container; add the container of the MCP server".to_owned());
    }
    let as_map = |item: &Value| match item {
        Value::Map(map) => Ok(map.clone()),
        _ => Err("has a container that is not a map; correct it".to_owned()),
    };
    items.iter().map(as_map).collect()
}

/// Returns whether a container runs proxyrunner.
fn is_wrapped(container: &Map) -> bool {
    let program = container.list("command").and_then(|words| words.first()?.as_text());
    program.is_some_and(|program| program.rsplit('/').next() == Some("proxyrunner"))
}

/// Returns the place of the server's container.
fn choose(containers: &[Map], wanted: Option<&str>) -> Result<usize, String> {
    let names: Vec<_> = containers.iter().map(|container| container.text("name").unwrap_or("?")).collect();
    match wanted {
        None if containers.len() == 1 => Ok(0),
        None => Err(format!(
            "has {} containers ({}); name the MCP server's by --container or the annotation proxyrunner/container",
            names.len(),
            names.join(", ")
        )),
        Some(wanted) => names.iter().position(|name| *name == wanted).ok_or_else(|| {
            format!("has no container {wanted:?}; give one of these by --container: {}", names.join(", "))
        }),
    }
}

/// Returns the ports of a container, as name and number.
fn ports(container: &Map) -> Vec<(Option<&str>, Option<u16>)> {
    let items = container.list("ports").unwrap_or_default();
    let maps = items.iter().filter_map(|item| match item {
        Value::Map(map) => Some(map),
        _ => None,
    });
    maps.map(|port| (port.text("name"), port.text("containerPort").and_then(|text| text.parse().ok())))
        .collect()
}

/// Returns the port to listen on: the container's port that is named mcp, else the given one, else 8080.
fn port(server: &Map, given: Option<u16>) -> Result<u16, String> {
    let named =
        ports(server).into_iter().find(|(name, _)| *name == Some(PORT)).and_then(|(_, number)| number);
    match (named, given) {
        (Some(named), Some(given)) if named != given => Err(format!(
            "has a port named mcp with the number {named} already; leave out --port {given}, or rename it"
        )),
        (named, given) => Ok(named.or(given).unwrap_or(8080)),
    }
}

/// Refuses pods in which the wrapper's names or its port are taken.
fn no_conflicts(spec: &Map, containers: &[Map], at: usize, port: u16) -> Result<(), String> {
    for (other, container) in containers.iter().enumerate() {
        let is_taken =
            |(name, number): &(Option<&str>, Option<u16>)| *number == Some(port) || *name == Some(PORT);
        if other != at && ports(container).iter().any(is_taken) {
            let name = container.text("name").unwrap_or("?");
            return Err(format!(
                "has port {port} or a port named mcp at container {name:?}, too; give another --port"
            ));
        }
    }
    let names = |key: &str| {
        spec.list(key).unwrap_or_default().iter().filter_map(|item| match item {
            Value::Map(map) => map.text("name"),
            _ => None,
        })
    };
    for name in names("volumes").chain(names("initContainers")) {
        if [VOLUME, SCRATCH, COPIER].contains(&name) {
            return Err(format!(
                "has {name:?} of an earlier injection, but no container that runs proxyrunner; remove it, or inject the original"
            ));
        }
    }
    if has_mount(&containers[at], FOLDER) {
        return Err(format!("has something mounted at {FOLDER}; mount it elsewhere"));
    }
    Ok(())
}

/// Puts proxyrunner in front of the container's own command. Its arguments stay where they are, behind the command.
fn wrap(server: &mut Map, wish: &Wish, port: u16) -> Result<(), String> {
    let own = match server.get("command") {
        None => Vec::new(),
        Some(Value::List(words)) => words.clone(),
        Some(_) => return Err("has a command that is not a list; correct it".to_owned()),
    };
    let own = match (own.is_empty(), &wish.command) {
        (false, _) => own,
        (true, Some(words)) => words.iter().map(Value::text).collect(),
        (true, None) => {
            let image = server.text("image").unwrap_or("?");
            return Err(format!(
                "has a container without a command, and an image's entry point is not inherited once the command is set; \
                 give the entry point of {image} by --command or the annotation proxyrunner/command"
            ));
        }
    };
    let mut words = vec![Value::text(BINARY), Value::text("--listen"), Value::text(format!("[::]:{port}"))];
    words.extend(wish.flags.iter().map(|&flag| Value::text(flag)));
    words.push(Value::text("--"));
    words.extend(own);
    let is_there = server.entries.iter().any(|(key, _)| key.text == "command");
    if !is_there {
        let before = |key: &Scalar| key.text == "args";
        let place = server.entries.iter().position(|(key, _)| before(key)).unwrap_or(server.entries.len());
        server.entries.insert(place, (Scalar::text("command"), Value::List(Vec::new())));
    }
    server.set("command", Value::List(words));
    Ok(())
}

/// Declares the port, or names it if it is declared without a name.
fn expose(server: &mut Map, port: u16) -> Result<(), String> {
    let number = port.to_string();
    let items = server.list_mut("ports").ok_or("has ports that are not a list; correct it")?;
    for item in items.iter_mut() {
        let Value::Map(own) = item else { return Err("has a port that is not a map; correct it".to_owned()) };
        let is_tcp = own.text("protocol").is_none_or(|protocol| protocol == "TCP");
        if own.text("containerPort") == Some(&number) && is_tcp {
            own.set_missing("name", Value::text(PORT));
            return Ok(());
        }
    }
    items.push(Value::map([("name", Value::text(PORT)), ("containerPort", Value::bare(port))]));
    Ok(())
}

fn has_mount(container: &Map, path: &str) -> bool {
    let mounts = container.list("volumeMounts").unwrap_or_default();
    mounts.iter().any(|mount| match mount {
        Value::Map(mount) => mount.text("mountPath").is_some_and(|own| own.trim_end_matches('/') == path),
        _ => false,
    })
}

fn mount(container: &mut Map, volume: &str, path: &str, is_read_only: bool) -> Result<(), String> {
    let mounts =
        container.list_mut("volumeMounts").ok_or("has volumeMounts that are not a list; correct it")?;
    let mut mount = Map::of([("name", Value::text(volume)), ("mountPath", Value::text(path))]);
    if is_read_only {
        mount.set("readOnly", Value::bare(true));
    }
    mounts.push(Value::Map(mount));
    Ok(())
}

/// Returns the volume that contains the binary.
fn binary(wish: &Wish) -> Value {
    let source = match wish.mode {
        Mode::Init => ("emptyDir", Value::map([("sizeLimit", Value::bare("64Mi"))])),
        Mode::ImageVolume => ("image", Value::map([("reference", Value::text(wish.image))])),
    };
    Value::map([("name", Value::text(VOLUME)), source])
}

/// Returns the init container that copies the binary.
fn copier(wish: &Wish, shared: &Map, has_pod_limits: bool) -> Result<Value, String> {
    let words = ["/proxyrunner", "--copy-self", BINARY].map(Value::text);
    let mut container = Map::of([
        ("name", Value::text(COPIER)),
        ("image", Value::text(wish.image)),
        ("command", Value::List(words.into())),
    ]);
    if !has_pod_limits {
        defaults::limits(&mut container, &defaults::COPIER)?;
    }
    defaults::harden(&mut container, shared)?;
    mount(&mut container, VOLUME, FOLDER, false)?;
    Ok(Value::Map(container))
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
