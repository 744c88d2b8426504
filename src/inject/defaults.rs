//! Probes, limits and security context for containers that have none: those of `deploy/kubernetes`, with which
//! `tests/kubernetes.py` compares them.

use super::tree::{Map, Value};

/// Requests and limits of one container.
pub(super) struct Sizes {
    /// Resource, request, limit.
    sizes: [(&'static str, &'static str, &'static str); 2],
}

/// Sizes for a server and proxyrunner together.
pub(super) const SERVER: Sizes = Sizes { sizes: [("cpu", "100m", "1000m"), ("memory", "128Mi", "512Mi")] };
/// Sizes for copying the binary.
pub(super) const COPIER: Sizes = Sizes { sizes: [("cpu", "10m", "100m"), ("memory", "16Mi", "32Mi")] };

/// Adds the probes that are missing.
pub(super) fn probes(container: &mut Map, port: u16) {
    let probe = |path: &str, period: u32, timeout: u32, failures: u32| {
        let get = Value::map([("path", Value::text(path)), ("port", Value::bare(port))]);
        Value::map([
            ("httpGet", get),
            ("periodSeconds", Value::bare(period)),
            ("timeoutSeconds", Value::bare(timeout)),
            ("failureThreshold", Value::bare(failures)),
        ])
    };
    container.set_missing("livenessProbe", probe("/health", 10, 5, 3));
    container.set_missing("readinessProbe", probe("/health/ready", 5, 3, 2));
    // Five minutes, as --start-timeout.
    container.set_missing("startupProbe", probe("/health/startup", 2, 2, 150));
}

/// Adds the limits that are missing, and requests for resources that have neither.
///
/// # Errors
/// The reason why the manifest is wrong.
pub(super) fn limits(container: &mut Map, sizes: &Sizes) -> Result<(), String> {
    const WRONG: &str = "has resources that are not a map; correct them";
    let resources = container.map_mut("resources").ok_or(WRONG)?;
    for (name, request, limit) in sizes.sizes {
        let limits = resources.map_mut("limits").ok_or(WRONG)?;
        if limits.get(name).is_some() {
            continue;
        }
        let requests = resources.map_mut("requests").ok_or(WRONG)?;
        let limit = match requests.text(name) {
            // A limit below the request would be refused.
            Some(own) if quantity(own) > quantity(limit) => requests.get(name).cloned(),
            Some(_) => None,
            None => {
                requests.set(name, Value::bare(request));
                None
            }
        }
        .unwrap_or(Value::bare(limit));
        resources.map_mut("limits").ok_or(WRONG)?.set(name, limit);
    }
    Ok(())
}

/// Returns the number that a quantity stands for; infinity if it is none.
fn quantity(text: &str) -> f64 {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1.125_899_906_842_624e15),
        ("Ei", 1.152_921_504_606_847e18),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let found = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = found.unwrap_or((text, 1.0));
    number.parse::<f64>().map_or(f64::INFINITY, |number| number * factor)
}

/// Completes a hardened security context; `shared` is that of the pod. Returns whether the root file system has
/// become read-only.
///
/// # Errors
/// The reason why the manifest is wrong.
pub(super) fn harden(container: &mut Map, shared: &Map) -> Result<bool, String> {
    const WRONG: &str = "has a securityContext that is not a map; correct it";
    let own = container.map_mut("securityContext").ok_or(WRONG)?;
    let user = own.text("runAsUser").or(shared.text("runAsUser"));
    let is_decided = own.get("runAsNonRoot").or(shared.get("runAsNonRoot")).is_some();
    // The kubelet refuses user 0 with runAsNonRoot.
    if !is_decided && user != Some("0") {
        own.set("runAsNonRoot", Value::bare(true));
    }
    let is_closed = own.get("readOnlyRootFilesystem").is_none();
    own.set_missing("readOnlyRootFilesystem", Value::bare(true));
    let adds = own.map("capabilities").and_then(|capabilities| capabilities.list("add")).unwrap_or_default();
    let is_admin = adds.iter().any(|name| matches!(name.as_text(), Some("SYS_ADMIN" | "CAP_SYS_ADMIN")));
    // The API server refuses both with allowPrivilegeEscalation: false.
    if own.text("privileged") != Some("true") && !is_admin {
        own.set_missing("allowPrivilegeEscalation", Value::bare(false));
    }
    let capabilities =
        own.map_mut("capabilities").ok_or("has capabilities that are not a map; correct them")?;
    capabilities.set_missing("drop", Value::List(vec![Value::text("ALL")]));
    if shared.get("seccompProfile").is_none() {
        own.set_missing("seccompProfile", Value::map([("type", Value::text("RuntimeDefault"))]));
    }
    Ok(is_closed)
}

#[cfg(test)]
mod tests {
    use super::super::read::documents;
    use super::super::write::document;
    use super::*;

    fn map(text: &str) -> Map {
        match documents(text).expect("YAML").remove(0).content {
            Some(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    fn limited(text: &str) -> String {
        let mut container = map(text);
        limits(&mut container, &SERVER).expect("resources");
        document(&Value::Map(container))
    }

    #[test]
    fn limits_are_added_where_they_are_missing() {
        assert_eq!(
            limited("name: a"),
            "name: a\nresources:\n  limits:\n    cpu: 1000m\n    memory: 512Mi\n  requests:\n    cpu: 100m\n    memory: 128Mi\n"
        );
        let whole = "resources:\n  limits:\n    cpu: 2\n    memory: 64Mi\n";
        assert_eq!(limited(whole), whole);
        let shown = limited("resources: {requests: {cpu: 4, memory: 1Gi}, limits: {cpu: 8}}");
        assert!(shown.ends_with("limits:\n    cpu: 8\n    memory: 1Gi\n"), "{shown}");
        assert!(limited("resources: {requests: {cpu: 500m}}").contains("cpu: 1000m\n"));
        assert!(limits(&mut map("resources: []"), &SERVER).is_err());
    }

    #[test]
    fn quantities_are_compared_with_their_suffixes() {
        assert!(quantity("1500m") > quantity("1"));
        assert!(quantity("1Gi") > quantity("512Mi"));
        assert!(quantity("512M") < quantity("512Mi"));
        assert!(quantity("1e3") > quantity("999"));
        assert!(quantity("much").is_infinite());
    }

    fn hardened(own: &str, shared: &str) -> (Map, bool) {
        let mut container = map(&format!("securityContext: {own}"));
        let is_closed = harden(&mut container, &map(shared)).expect("a context");
        (container.map("securityContext").expect("one").clone(), is_closed)
    }

    #[test]
    fn a_security_context_is_completed() {
        let (context, is_closed) = hardened("{}", "{}");
        assert!(is_closed);
        assert_eq!(
            document(&Value::Map(context)),
            "runAsNonRoot: true\nreadOnlyRootFilesystem: true\nallowPrivilegeEscalation: false\ncapabilities:\n  drop:\n  - ALL\n\
             seccompProfile:\n  type: RuntimeDefault\n"
        );
    }

    #[test]
    fn existing_keys_of_a_security_context_are_kept() {
        let own = "{runAsUser: 0, readOnlyRootFilesystem: false, privileged: true, capabilities: {drop: [], add: [X]}}";
        let (context, is_closed) = hardened(own, "{seccompProfile: {type: Unconfined}}");
        assert!(!is_closed);
        let keys: Vec<_> = context.entries.iter().map(|(key, _)| &*key.text).collect();
        assert_eq!(keys, ["runAsUser", "readOnlyRootFilesystem", "privileged", "capabilities"]);
        assert_eq!(context.map("capabilities").expect("a map").list("drop"), Some(&[][..]));
        for (own, shared) in
            [("{}", "{runAsUser: 0}"), ("{}", "{runAsNonRoot: false}"), ("{runAsUser: 0}", "{}")]
        {
            assert!(hardened(own, shared).0.get("runAsNonRoot").is_none(), "{own} {shared}");
        }
        assert!(
            hardened("{capabilities: {add: [SYS_ADMIN]}}", "{}").0.get("allowPrivilegeEscalation").is_none()
        );
    }

    #[test]
    fn existing_probes_are_kept() {
        let mut container = map("livenessProbe: {exec: {command: [x]}}");
        probes(&mut container, 9000);
        assert!(container.map("livenessProbe").expect("a probe").get("exec").is_some());
        let startup = container.map("startupProbe").expect("a probe");
        let number = |key| startup.text(key).and_then(|text| text.parse::<u32>().ok()).expect("a number");
        assert!(number("periodSeconds") * number("failureThreshold") >= 60);
        assert_eq!(startup.map("httpGet").expect("a request").text("port"), Some("9000"));
    }
}
