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
/// Its size. The kubelet evicts a pod whose files are larger together.
const SCRATCH_SIZE: &str = "64Mi";
/// The size of the volume of the binary.
const VOLUME_SIZE: &str = "32Mi";
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
    let os = spec.map("os").and_then(|os| os.text("name"));
    let of_node = spec.map("nodeSelector").and_then(|labels| labels.text("kubernetes.io/os"));
    if os.or(of_node) == Some("windows") {
        return Err("is a Windows pod, which proxyrunner does not run in; leave it out".to_owned());
    }
    let containers = containers(spec)?;
    let named = containers.iter().find(|own| own.text("name").is_some_and(|own| Some(own) == wish.container));
    if named.map_or_else(|| containers.iter().any(is_wrapped), is_wrapped) {
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
        volumes.push(empty(SCRATCH, SCRATCH_SIZE));
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
            format!(
                "has no container {wanted:?}; name one of these by --container or the annotation proxyrunner/container: {}",
                names.join(", ")
            )
        }),
    }
}

/// A port of a container.
struct Port<'a> {
    name: Option<&'a str>,
    /// The number, if it can be one.
    number: Option<u16>,
    is_tcp: bool,
}

fn ports(container: &Map) -> Vec<Port<'_>> {
    let items = maps(container, "ports");
    let number = |port: &Map| port.text("containerPort")?.parse().ok().filter(|number| *number > 0);
    items
        .map(|port| Port {
            name: port.text("name"),
            number: number(port),
            is_tcp: port.text("protocol").is_none_or(|protocol| protocol == "TCP"),
        })
        .collect()
}

/// Returns the maps of a list.
fn maps<'a>(map: &'a Map, key: &str) -> impl Iterator<Item = &'a Map> {
    map.list(key).unwrap_or_default().iter().filter_map(|item| match item {
        Value::Map(map) => Some(map),
        _ => None,
    })
}

/// Returns whether a container has a port named mcp.
pub(super) fn has_port(container: &Map) -> bool {
    ports(container).iter().any(|port| port.name == Some(PORT))
}

/// Returns the port to listen on: the container's port that is named mcp, else the given one, else 8080.
fn port(server: &Map, given: Option<u16>) -> Result<u16, String> {
    let named = ports(server).into_iter().find(|port| port.name == Some(PORT));
    match (named, given) {
        (None, given) => Ok(given.unwrap_or(8080)),
        (Some(Port { is_tcp: false, .. }), _) => {
            Err("has a port named mcp that is not a TCP port; rename it".to_owned())
        }
        (Some(Port { number: None, .. }), _) => {
            Err("has a port named mcp without a containerPort from 1 to 65535; correct it".to_owned())
        }
        (Some(Port { number: Some(named), .. }), Some(given)) if named != given => Err(format!(
            "has a port named mcp with the number {named} already; leave out --port {given}, or rename it"
        )),
        (Some(Port { number: Some(named), .. }), _) => Ok(named),
    }
}

/// Refuses pods in which the wrapper's names, its folder or its port are taken.
fn no_conflicts(spec: &Map, containers: &[Map], at: usize, port: u16) -> Result<(), String> {
    for (key, what) in [
        ("volumes", "a volume"),
        ("initContainers", "an init container"),
        ("containers", "a container"),
        ("ephemeralContainers", "an ephemeral container"),
    ] {
        let reserved: &[_] = if key == "volumes" { &[VOLUME, SCRATCH] } else { &[COPIER] };
        let taken = maps(spec, key).filter_map(|item| item.text("name")).find(|name| reserved.contains(name));
        if let Some(name) = taken {
            return Err(format!(
                "has {what} named {name:?}, a name that inject needs; rename it, or remove it if it is of an earlier injection"
            ));
        }
    }
    let others = containers.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other);
    let sidecars = maps(spec, "initContainers").filter(|one| one.text("restartPolicy") == Some("Always"));
    let is_taken = |own: &Port| own.name == Some(PORT) || (own.is_tcp && own.number == Some(port));
    for container in others.chain(sidecars) {
        if ports(container).iter().any(is_taken) {
            let name = container.text("name").unwrap_or("?");
            return Err(format!(
                "has port {port} or a port named mcp at container {name:?}, too; give another --port, or rename it"
            ));
        }
    }
    let is_below = |mount: &Map| mount.text("mountPath").is_some_and(|path| below(path, FOLDER));
    if maps(&containers[at], "volumeMounts").any(is_below) {
        return Err(format!("has something mounted at or below {FOLDER}; mount it elsewhere"));
    }
    Ok(())
}

/// Returns whether a path is a folder or is below it.
fn below(path: &str, folder: &str) -> bool {
    let is_step = |part: &&str| !part.is_empty() && *part != ".";
    let mut steps = path.split('/').filter(is_step);
    folder.split('/').filter(is_step).all(|part| steps.next() == Some(part))
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
            let name = server.text("name").unwrap_or("?");
            let image = server.text("image").unwrap_or("its image");
            return Err(format!(
                "has no command in container {name:?}, and an image's entry point is not inherited once the command is set; \
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
    match wish.mode {
        Mode::Init => empty(VOLUME, VOLUME_SIZE),
        Mode::ImageVolume => {
            let image = Value::map([("reference", Value::text(wish.image))]);
            Value::map([("name", Value::text(VOLUME)), ("image", image)])
        }
    }
}

/// Returns an empty volume of at most this size.
fn empty(name: &str, size: &str) -> Value {
    let limit = Value::map([("sizeLimit", Value::bare(size))]);
    Value::map([("name", Value::text(name)), ("emptyDir", limit)])
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
