//! The objects that run a server: StatefulSet, Service, ServiceAccount, NetworkPolicy, PodDisruptionBudget and
//! HorizontalPodAutoscaler.

use super::super::tree::{Map, Value};
use super::server::Server;

/// The server's container, as in a `podTemplateSpec`.
pub(super) const CONTAINER: &str = "mcp";
/// The label that pods of a server have.
const LABEL: &str = "proxyrunner/server";
/// The label of namespaces and pods whose clients are admitted.
const GATEWAY: &str = "proxyrunner/gateway";
/// The label of namespaces that the server may reach: collectors and approved services.
const APPROVED: &str = "proxyrunner/approved";
/// Tool calls per second of one pod beyond which another is started.
const CALLS: &str = "50";
/// Networks that are not public.
const PRIVATE: [&str; 5] =
    ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
const PRIVATE_6: [&str; 2] = ["fc00::/7", "fe80::/10"];

/// Returns the pod template of a server, with its container but without proxyrunner.
///
/// # Errors
/// The part of the `podTemplateSpec` that is unusable.
pub(super) fn template(server: &Server) -> Result<Map, String> {
    let wrong =
        |what: &str| format!("has a spec.podTemplateSpec whose {what} is of the wrong type; correct it");
    let mut template = server.template.clone();
    let metadata = template.map_mut("metadata").ok_or_else(|| wrong("metadata"))?;
    let labels = metadata.map_mut("labels").ok_or_else(|| wrong("metadata.labels"))?;
    for (key, value) in &server.labels.entries {
        labels.set_missing(&key.text, value.clone());
    }
    labels.set(LABEL, Value::text(&server.name));

    let spec = template.map_mut("spec").ok_or_else(|| wrong("spec"))?;
    let account = server.service_account.as_ref().unwrap_or(&server.name);
    spec.set_missing("serviceAccountName", Value::text(account));
    if server.service_account.is_none() {
        spec.set_missing("automountServiceAccountToken", Value::bare(false));
    }
    if !server.volumes.is_empty() {
        let volumes = spec.list_mut("volumes").ok_or_else(|| wrong("spec.volumes"))?;
        volumes.extend(server.volumes.iter().cloned());
    }
    let containers = spec.list_mut("containers").ok_or_else(|| wrong("spec.containers"))?;
    let is_own = |item: &Value| matches!(item, Value::Map(map) if map.text("name") == Some(CONTAINER));
    let at = containers.iter().position(is_own).unwrap_or_else(|| {
        containers.push(Value::map([("name", Value::text(CONTAINER))]));
        containers.len() - 1
    });
    let Value::Map(container) = &mut containers[at] else { return Err(wrong("spec.containers")) };
    fill(container, server).ok_or_else(|| wrong("container mcp"))?;
    Ok(template)
}

/// Returns the server's container of a pod template.
pub(super) fn container(template: &Map) -> Option<&Map> {
    template.map("spec")?.list("containers")?.iter().find_map(|item| match item {
        Value::Map(map) if map.text("name") == Some(CONTAINER) => Some(map),
        _ => None,
    })
}

/// Fills in the server's container; `None` if it is unusable.
fn fill(container: &mut Map, server: &Server) -> Option<()> {
    container.set("image", Value::text(&server.image));
    if !server.args.is_empty() {
        container.set("args", Value::List(server.args.clone()));
    }
    if !server.env.is_empty() {
        let env = container.list_mut("env")?;
        let name = |item: &Value| match item {
            Value::Map(map) => map.text("name").map(str::to_owned),
            _ => None,
        };
        env.retain(|own| server.env.iter().all(|other| name(own) != name(other)));
        env.extend(server.env.iter().cloned());
    }
    if !server.mounts.is_empty() {
        container.list_mut("volumeMounts")?.extend(server.mounts.iter().cloned());
    }
    if let Some(resources) = &server.resources {
        let own = container.map_mut("resources")?;
        for (key, sizes) in &resources.entries {
            own.set(&key.text, sizes.clone());
        }
    }
    Some(())
}

/// Returns all objects, from a pod template with proxyrunner.
pub(super) fn all(server: &Server, template: Map) -> Vec<Value> {
    let mut objects = Vec::new();
    if server.service_account.is_none() {
        objects.push(object(
            server,
            "v1",
            "ServiceAccount",
            &server.name,
            [("automountServiceAccountToken", Value::bare(false))],
        ));
    }
    objects.push(service(server));
    objects.push(stateful_set(server, template));
    objects.push(network_policy(server));
    let budget = Map::of([("maxUnavailable", Value::bare(1)), ("selector", selector(server))]);
    objects.push(object(
        server,
        "policy/v1",
        "PodDisruptionBudget",
        &server.name,
        [("spec", Value::Map(budget))],
    ));
    objects.push(autoscaler(server));
    objects
}

fn object<const N: usize>(
    server: &Server,
    version: &str,
    kind: &str,
    name: &str,
    rest: [(&str, Value); N],
) -> Value {
    let mut metadata = Map::of([("name", Value::text(name))]);
    if let Some(namespace) = &server.namespace {
        metadata.set("namespace", Value::text(namespace));
    }
    let mut labels = server.labels.clone();
    labels.set(LABEL, Value::text(&server.name));
    metadata.set("labels", Value::Map(labels));
    if kind == "StatefulSet" && !server.annotations.entries.is_empty() {
        metadata.set("annotations", Value::Map(server.annotations.clone()));
    }
    let mut object = Map::of([
        ("apiVersion", Value::text(version)),
        ("kind", Value::text(kind)),
        ("metadata", Value::Map(metadata)),
    ]);
    for (key, value) in rest {
        object.set(key, value);
    }
    Value::Map(object)
}

fn own_label(server: &Server) -> Value {
    Value::map([(LABEL, Value::text(&server.name))])
}

fn selector(server: &Server) -> Value {
    Value::map([("matchLabels", own_label(server))])
}

/// Returns the name of the Service, which is that of the operator, so that clients keep their URL.
fn service_name(server: &Server) -> String {
    format!("mcp-{}-proxy", server.name)
}

fn service(server: &Server) -> Value {
    let port = Value::map([
        ("name", Value::text("mcp")),
        ("port", Value::bare(server.port)),
        ("targetPort", Value::text("mcp")),
        ("protocol", Value::text("TCP")),
    ]);
    let spec = Value::map([
        ("selector", own_label(server)),
        ("sessionAffinity", Value::text(&server.affinity)),
        ("ports", Value::List(vec![port])),
    ]);
    object(server, "v1", "Service", &service_name(server), [("spec", spec)])
}

fn stateful_set(server: &Server, template: Map) -> Value {
    let mut spec = Map::of([
        ("serviceName", Value::text(service_name(server))),
        ("podManagementPolicy", Value::text("Parallel")),
        ("selector", selector(server)),
        ("template", Value::Map(template)),
    ]);
    // Otherwise the autoscaler decides.
    if server.replicas == Some(0) {
        spec.set("replicas", Value::bare(0));
    }
    object(server, "apps/v1", "StatefulSet", &server.name, [("spec", Value::Map(spec))])
}

fn autoscaler(server: &Server) -> Value {
    let least = server.replicas.unwrap_or(1).max(1);
    let target = Value::map([
        ("apiVersion", Value::text("apps/v1")),
        ("kind", Value::text("StatefulSet")),
        ("name", Value::text(&server.name)),
    ]);
    let pods = Value::map([
        ("metric", Value::map([("name", Value::text("mcp_tool_requests_per_second"))])),
        ("target", Value::map([("type", Value::text("AverageValue")), ("averageValue", Value::text(CALLS))])),
    ]);
    let metric = Value::map([("type", Value::text("Pods")), ("pods", pods)]);
    let calm = Value::map([("scaleDown", Value::map([("stabilizationWindowSeconds", Value::bare(300))]))]);
    let spec = Value::map([
        ("scaleTargetRef", target),
        ("minReplicas", Value::bare(least)),
        ("maxReplicas", Value::bare(least.saturating_mul(4))),
        ("metrics", Value::List(vec![metric])),
        ("behavior", calm),
    ]);
    object(server, "autoscaling/v2", "HorizontalPodAutoscaler", &server.name, [("spec", spec)])
}

/// Returns the policy: in from gateways, out to DNS, approved namespaces and, if allowed, public addresses.
fn network_policy(server: &Server) -> Value {
    let yes = |label: &str| Value::map([("matchLabels", Value::map([(label, Value::text("true"))]))]);
    let port =
        |port: Value, protocol: &str| Value::map([("protocol", Value::text(protocol)), ("port", port)]);
    let ingress = Value::map([
        (
            "from",
            Value::List(vec![
                Value::map([("namespaceSelector", yes(GATEWAY))]),
                Value::map([("podSelector", yes(GATEWAY))]),
            ]),
        ),
        ("ports", Value::List(vec![port(Value::text("mcp"), "TCP")])),
    ]);
    let system = Value::map([("kubernetes.io/metadata.name", Value::text("kube-system"))]);
    let dns = Value::map([
        ("to", Value::List(vec![Value::map([("namespaceSelector", Value::map([("matchLabels", system)]))])])),
        ("ports", Value::List(vec![port(Value::bare(53), "UDP"), port(Value::bare(53), "TCP")])),
    ]);
    let approved =
        Value::map([("to", Value::List(vec![Value::map([("namespaceSelector", yes(APPROVED))])]))]);
    let mut egress = vec![dns, approved];
    if server.has_network {
        let block = |all: &str, except: &[&str]| {
            let except = except.iter().map(|&network| Value::text(network)).collect();
            Value::map([(
                "ipBlock",
                Value::map([("cidr", Value::text(all)), ("except", Value::List(except))]),
            )])
        };
        let public = vec![block("0.0.0.0/0", &PRIVATE), block("::/0", &PRIVATE_6)];
        egress.push(Value::map([("to", Value::List(public))]));
    }
    let spec = Value::map([
        ("podSelector", selector(server)),
        ("policyTypes", Value::List(vec![Value::text("Ingress"), Value::text("Egress")])),
        ("ingress", Value::List(vec![ingress])),
        ("egress", Value::List(egress)),
    ]);
    object(server, "networking.k8s.io/v1", "NetworkPolicy", &server.name, [("spec", spec)])
}
