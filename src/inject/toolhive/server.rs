//! The fields of an `MCPServer`, checked.

use super::super::tree::{Map, Value};
use super::fields::{Fields, Problems};

/// A server as ToolHive describes it.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub name: String,
    pub namespace: Option<String>,
    pub labels: Map,
    pub annotations: Map,
    pub image: String,
    pub args: Vec<Value>,
    /// Variables, those of secrets included, in Kubernetes' form.
    pub env: Vec<Value>,
    pub volumes: Vec<Value>,
    pub mounts: Vec<Value>,
    pub resources: Option<Map>,
    pub service_account: Option<String>,
    /// Whether the server may reach public addresses.
    pub has_network: bool,
    pub template: Map,
    pub affinity: String,
    /// The port of the Service.
    pub port: u16,
    /// Whether clients of HTTP+SSE are served, too.
    pub has_old_sse: bool,
    pub replicas: Option<u32>,
}

/// Maximum length of a name: pods of a StatefulSet have a label with its name and a hash of eleven characters.
const NAME: usize = 52;
/// Fields of the specification that are read.
const READ: [&str; 19] = [
    "image",
    "transport",
    "proxyMode",
    "proxyPort",
    "mcpPort",
    "port",
    "targetPort",
    "args",
    "env",
    "volumes",
    "resources",
    "secrets",
    "serviceAccount",
    "permissionProfile",
    "podTemplateSpec",
    "sessionAffinity",
    "replicas",
    "backendReplicas",
    "trustProxyHeaders",
];
const AUTHENTICATION: &str =
    "is not read by proxyrunner; remove it, and authenticate callers in front of the Service";
const AUTHORIZATION: &str =
    "is not read by proxyrunner; remove it, and authorize callers in front of the Service";
const TOOLS: &str = "is not read by proxyrunner; remove it, and filter tools at the gateway";
const TELEMETRY: &str =
    "is not read by proxyrunner; remove it, and give OTEL_EXPORTER_OTLP_ENDPOINT in spec.env";
const OVERRIDES: &str = "concerns objects of the operator; remove it, and edit the printed objects";
const REDIS: &str = "concerns the operator's proxy; remove it, and keep sessionAffinity: ClientIP";
/// Fields of ToolHive that cannot be translated, each with its reason and the remedy.
const REFUSED: [(&str, &str); 17] = [
    ("oidcConfig", AUTHENTICATION),
    ("oidcConfigRef", AUTHENTICATION),
    ("authServerRef", AUTHENTICATION),
    (
        "externalAuthConfigRef",
        "is not read by proxyrunner; remove it, and give the server its credentials in spec.secrets",
    ),
    ("authzConfig", AUTHORIZATION),
    ("authzConfigRef", AUTHORIZATION),
    ("webhookConfigRef", AUTHORIZATION),
    ("audit", "is not read by proxyrunner; remove it, and set PROXYRUNNER_ACCESS_LOG in spec.env"),
    ("tools", TOOLS),
    ("toolConfigRef", TOOLS),
    ("telemetry", TELEMETRY),
    ("telemetryConfigRef", TELEMETRY),
    ("endpointPrefix", "is not read by proxyrunner; remove it, and set PROXYRUNNER_PUBLIC_URL in spec.env"),
    ("groupRef", "means nothing without the operator; remove it"),
    ("resourceOverrides", OVERRIDES),
    ("sessionStorage", REDIS),
    ("rateLimiting", "is not read by proxyrunner; remove it, and limit rates at the gateway"),
];
/// Metadata without labels and annotations; most of it is written by the API server.
const METADATA: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
];

impl Server {
    /// Reads a document.
    ///
    /// # Errors
    /// Every field that is unknown or unusable.
    pub fn read(root: &Map) -> Result<Server, Vec<String>> {
        let mut problems = Problems::default();
        let mut server = Server::default();
        for (key, _) in &root.entries {
            if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&&*key.text) {
                problems.note(&key.text, "is not a field that inject knows; remove it");
            }
        }
        let none = Map::default();
        server.metadata(root.map("metadata").unwrap_or(&none), &mut problems);
        server.spec(root.map("spec").unwrap_or(&none), &mut problems);
        if problems.lines.is_empty() { Ok(server) } else { Err(problems.lines) }
    }

    fn metadata(&mut self, map: &Map, problems: &mut Problems) {
        let known = [&METADATA[..], &["labels", "annotations", "finalizers"]].concat();
        let fields = Fields::new(map, "metadata", &known, problems);
        self.name = fields.required("name", problems).to_owned();
        if !self.name.is_empty() && !is_label(&self.name) {
            let reason = format!(
                "is {:?}, which no Service and StatefulSet can have; give at most {NAME} lower-case letters, digits and dashes",
                self.name
            );
            problems.note("metadata.name", &reason);
        }
        self.namespace = fields.text("namespace", problems).map(str::to_owned);
        self.labels = fields.texts("labels", problems);
        self.annotations = fields.texts("annotations", problems);
        let is_kept =
            |key: &str| !key.starts_with("kubectl.kubernetes.io/") && !key.starts_with("proxyrunner/");
        self.annotations.entries.retain(|(key, _)| is_kept(&key.text));
    }

    fn spec(&mut self, map: &Map, problems: &mut Problems) {
        let refused: Vec<_> = REFUSED.iter().map(|(key, _)| *key).collect();
        let fields = Fields::new(map, "spec", &[&READ[..], &refused].concat(), problems);
        for (key, reason) in REFUSED {
            if map.get(key).is_some_and(|value| !is_off(key, value)) {
                problems.note(&fields.at(key), reason);
            }
        }
        self.image = fields.required("image", problems).to_owned();
        if self.image.contains("://") {
            problems.note("spec.image", "names a package, not an image; build an image that contains it");
        }
        if let Some(transport) = fields.text("transport", problems).filter(|transport| *transport != "stdio")
        {
            let reason = match transport {
                "sse" | "streamable-http" => {
                    "so the server speaks HTTP itself; run it as a Deployment without proxyrunner"
                }
                _ => "which is no transport of ToolHive; give stdio",
            };
            problems.note("spec.transport", &format!("is {transport:?}, {reason}"));
        }
        if fields.text("trustProxyHeaders", problems).is_some_and(|value| value != "false") {
            problems.note(
                "spec.trustProxyHeaders",
                "is not read by proxyrunner; set PROXYRUNNER_PUBLIC_URL in spec.env",
            );
        }
        self.has_old_sse = fields.choice("proxyMode", &["streamable-http", "sse"], problems) == Some("sse");
        // The ports of servers that speak HTTP.
        for unused in ["mcpPort", "targetPort"] {
            fields.number(unused, 1, 65535, problems);
        }
        let old = fields.number("port", 1, 65535, problems);
        let port = fields.number("proxyPort", 1, 65535, problems).or(old);
        self.port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8080);
        self.affinity = fields
            .choice("sessionAffinity", &["ClientIP", "None"], problems)
            .unwrap_or("ClientIP")
            .to_owned();
        let proxies = fields.number("replicas", 0, 1000, problems);
        self.replicas = fields.number("backendReplicas", 0, 1000, problems).or(proxies);
        self.service_account = fields.text("serviceAccount", problems).map(str::to_owned);
        self.has_network = network(&fields, problems);
        self.container(&fields, problems);
        if fields.map("podTemplateSpec", &["metadata", "spec"], problems).is_some() {
            self.template = map.map("podTemplateSpec").cloned().unwrap_or_default();
        }
    }

    /// Reads the fields of the container.
    fn container(&mut self, fields: &Fields, problems: &mut Problems) {
        let args = fields.list("args", problems);
        self.args = args.iter().filter_map(Value::as_text).map(Value::text).collect();
        if self.args.len() < args.len() {
            problems.note("spec.args", "is not a list of single values; correct it");
        }
        for item in fields.maps("env", &["name", "value"], problems) {
            let name = item.required("name", problems);
            let value = item.text("value", problems).unwrap_or_default();
            self.env.push(Value::map([("name", Value::text(name)), ("value", Value::text(value))]));
        }
        for item in fields.maps("secrets", &["name", "key", "targetEnvName"], problems) {
            let (name, key) = (item.required("name", problems), item.required("key", problems));
            let variable = item.text("targetEnvName", problems).unwrap_or(key);
            let secret = Value::map([("name", Value::text(name)), ("key", Value::text(key))]);
            let from = Value::map([("secretKeyRef", secret)]);
            self.env.push(Value::map([("name", Value::text(variable)), ("valueFrom", from)]));
        }
        for item in fields.maps("volumes", &["name", "hostPath", "mountPath", "readOnly"], problems) {
            let name = item.required("name", problems);
            let path = Value::map([("path", Value::text(item.required("hostPath", problems)))]);
            self.volumes.push(Value::map([("name", Value::text(name)), ("hostPath", path)]));
            let place = item.required("mountPath", problems);
            let mut mount = Map::of([("name", Value::text(name)), ("mountPath", Value::text(place))]);
            if item.choice("readOnly", &["true", "false"], problems) == Some("true") {
                mount.set("readOnly", Value::bare(true));
            }
            self.mounts.push(Value::Map(mount));
        }
        if let Some(resources) = fields.map("resources", &["limits", "requests"], problems) {
            let mut both = Map::default();
            for key in ["limits", "requests"] {
                resources.map(key, &["cpu", "memory"], problems);
                let sizes = resources.texts(key, problems);
                if !sizes.entries.is_empty() {
                    both.set(key, Value::Map(sizes));
                }
            }
            self.resources = Some(both);
        }
    }
}

/// Returns whether the profile allows the network, as it does by default.
fn network(fields: &Fields, problems: &mut Problems) -> bool {
    let Some(profile) = fields.map("permissionProfile", &["type", "name", "key"], problems) else {
        return true;
    };
    match profile.required("type", problems) {
        "builtin" => {
            profile.choice("name", &["none", "network"], problems);
            profile.required("name", problems) != "none"
        }
        "configmap" => {
            let reason =
                "is in a ConfigMap, which inject cannot read; remove it, and edit the printed NetworkPolicy";
            problems.note("spec.permissionProfile", reason);
            false
        }
        _ => {
            profile.choice("type", &["builtin", "configmap"], problems);
            false
        }
    }
}

/// Returns whether a text can be the name of a Service between `mcp-` and `-proxy`, and of a StatefulSet.
fn is_label(name: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= NAME && name.bytes().all(is_known) && !name.starts_with('-') && !name.ends_with('-')
}

/// Returns whether a field asks for nothing: it is empty, or its default.
fn is_off(key: &str, value: &Value) -> bool {
    match value {
        Value::Scalar(_) => value.as_text() == Some(""),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.entries.iter().all(|(own, value)| {
            value.is_null()
                || matches!(
                    (key, &*own.text, value.as_text()),
                    ("audit", "enabled", Some("false")) | ("sessionStorage", "provider", Some("memory"))
                )
        }),
    }
}
