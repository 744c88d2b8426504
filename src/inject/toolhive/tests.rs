//! Converts `MCPServer`s, and looks at the objects.

use super::super::read::documents;
use super::super::write::document;
use super::*;

const GITHUB: &str = r#"
apiVersion: toolhive.stacklok.dev/v1beta1
kind: MCPServer
metadata:
  name: github
  namespace: tools
  labels: {team: a}
  annotations: {owner: b, kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  image: registry.example/github-mcp-server
  transport: stdio
  proxyPort: 9090
  args: [stdio]
  secrets:
  - {name: github-token, key: token, targetEnvName: TOKEN}
  - {name: other, key: KEY}
  env:
  - {name: LOG_LEVEL, value: "1"}
  volumes:
  - {name: data, hostPath: /srv, mountPath: /data, readOnly: true}
  resources: {limits: {cpu: 200m, memory: 256Mi}}
"#;

fn map(text: &str) -> Map {
    match documents(text).expect("YAML").remove(0).content {
        Some(Value::Map(map)) => map,
        other => panic!("{other:?}"),
    }
}

fn options() -> Options {
    Options { command: Some(vec!["/server".to_owned()]), ..Options::default() }
}

fn converted(text: &str) -> Vec<Map> {
    let objects = convert(&map(text), &options()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let as_map = |value| match value {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    };
    objects.expect("objects").into_iter().map(as_map).collect()
}

fn refused(text: &str) -> Vec<String> {
    convert(&map(text), &options()).expect_err("a refusal")
}

fn of_kind<'a>(objects: &'a [Map], kind: &str) -> &'a Map {
    objects.iter().find(|object| object.text("kind") == Some(kind)).unwrap_or_else(|| panic!("no {kind}"))
}

fn shown(value: Option<&Map>) -> String {
    document(&Value::Map(value.expect("a map").clone()))
}

#[test]
fn a_server_becomes_its_objects() {
    let objects = converted(GITHUB);
    let kinds: Vec<_> = objects.iter().map(|object| object.text("kind").expect("a kind")).collect();
    let expected = [
        "ServiceAccount",
        "Service",
        "StatefulSet",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    ];
    assert_eq!(kinds, expected);
    for object in &objects {
        let metadata = object.map("metadata").expect("metadata");
        assert_eq!(metadata.text("namespace"), Some("tools"));
        let labels = metadata.map("labels").expect("labels");
        assert_eq!((labels.text("team"), labels.text("proxyrunner/server")), (Some("a"), Some("github")));
    }
    assert_eq!(of_kind(&objects, "ServiceAccount").text("automountServiceAccountToken"), Some("false"));
    let service = of_kind(&objects, "Service");
    assert_eq!(service.map("metadata").expect("metadata").text("name"), Some("mcp-github-proxy"));
    let shown_service = shown(service.map("spec"));
    assert!(shown_service.contains("port: 9090\n  targetPort: mcp\n"), "{shown_service}");
    assert!(shown_service.contains("sessionAffinity: ClientIP\n"), "{shown_service}");
    let set = shown(Some(of_kind(&objects, "StatefulSet")));
    assert!(set.contains("annotations:\n    owner: b\n") && !set.contains("last-applied"), "{set}");
    let scaler = shown(of_kind(&objects, "HorizontalPodAutoscaler").map("spec"));
    assert!(
        scaler.contains("name: mcp_tool_requests_per_second\n") && scaler.contains("minReplicas: 1\n"),
        "{scaler}"
    );
}

#[test]
fn the_container_is_filled_from_the_fields() {
    let set = shown(of_kind(&converted(GITHUB), "StatefulSet").map("spec"));
    for part in [
        "serviceName: mcp-github-proxy\n",
        "serviceAccountName: github\n",
        "automountServiceAccountToken: false\n",
        "image: registry.example/github-mcp-server\n",
        "- --\n      - /server\n      args:\n      - stdio\n",
        "- name: LOG_LEVEL\n        value: \"1\"\n",
        "- name: TOKEN\n        valueFrom:\n          secretKeyRef:\n            name: github-token\n            key: token\n",
        "- name: KEY\n        valueFrom:\n",
        "- name: data\n        mountPath: /data\n        readOnly: true\n",
        "- name: data\n      hostPath:\n        path: /srv\n",
        "memory: 256Mi\n",
        "- \"[::]:9090\"\n",
        "path: /health/ready\n",
        "name: copy-proxyrunner\n",
    ] {
        assert!(set.contains(part), "{part}\nis not in\n{set}");
    }
}

#[test]
fn older_releases_and_both_spellings_of_the_group_are_read() {
    for version in
        ["toolhive.stacklok.io/v1alpha1", "toolhive.stacklok.io/v1beta1", "toolhive.stacklok.dev/v1alpha1"]
    {
        let text = GITHUB.replace("toolhive.stacklok.dev/v1beta1", version).replace("proxyPort", "port");
        assert_eq!(converted(&text), converted(GITHUB));
    }
    assert!(refused(&GITHUB.replace("v1beta1", "v2"))[0].contains("unknown version"));
    assert!(refused(&GITHUB.replace("MCPServer", "MCPGroup"))[0].contains("remove the document"));
}

#[test]
fn optional_fields_change_the_objects() {
    let with = |fields: &str| converted(&format!("{GITHUB}{fields}"));
    let objects = with(
        "  proxyMode: sse\n  serviceAccount: own\n  backendReplicas: 3\n  replicas: 1\n  sessionAffinity: None\n",
    );
    assert!(objects.iter().all(|object| object.text("kind") != Some("ServiceAccount")));
    let set = shown(of_kind(&objects, "StatefulSet").map("spec"));
    assert!(set.contains("- --sse\n") && set.contains("serviceAccountName: own\n"), "{set}");
    assert!(!set.contains("automount") && !set.contains("replicas"), "{set}");
    let scaler = shown(of_kind(&objects, "HorizontalPodAutoscaler").map("spec"));
    assert!(scaler.contains("minReplicas: 3\nmaxReplicas: 12\n"), "{scaler}");
    assert!(shown(of_kind(&objects, "Service").map("spec")).contains("sessionAffinity: None\n"));
    assert!(shown(of_kind(&with("  replicas: 0\n"), "StatefulSet").map("spec")).contains("replicas: 0\n"));
    let policy = |objects: &[Map]| shown(of_kind(objects, "NetworkPolicy").map("spec"));
    assert!(policy(&with("  permissionProfile: {type: builtin, name: network}\n")).contains("0.0.0.0/0"));
    assert!(!policy(&with("  permissionProfile: {type: builtin, name: none}\n")).contains("0.0.0.0/0"));
    let low = converted(&GITHUB.replace("9090", "80"));
    assert!(shown(of_kind(&low, "StatefulSet").map("spec")).contains("[::]:8080"));
    assert!(shown(of_kind(&low, "Service").map("spec")).contains("port: 80\n"));
}

#[test]
fn the_pod_template_is_the_base() {
    let template = r#"
  podTemplateSpec:
    metadata: {labels: {x: y}, annotations: {proxyrunner/command: unused}}
    spec:
      nodeSelector: {disk: ssd}
      containers:
      - {name: log, image: l}
      - name: mcp
        command: [/own]
        env: [{name: LOG_LEVEL, value: "9"}, {name: MORE, value: z}]
        securityContext: {runAsUser: 1000}
"#;
    let objects = converted(&format!("{GITHUB}{}", &template[1..]));
    let set = shown(of_kind(&objects, "StatefulSet").map("spec"));
    for part in ["x: y\n", "disk: ssd\n", "- name: log\n", "- /own\n", "runAsUser: 1000\n", "- name: MORE\n"]
    {
        assert!(set.contains(part), "{part}\nis not in\n{set}");
    }
    assert!(!set.contains("value: \"9\"") && set.matches("LOG_LEVEL").count() == 1, "{set}");
    let wrong = format!("{GITHUB}  podTemplateSpec: {{spec: {{containers: 1}}}}\n");
    assert!(refused(&wrong)[0].contains("podTemplateSpec whose spec.containers is of the wrong type"));
    let done = format!(
        "{GITHUB}  podTemplateSpec: {{spec: {{containers: [{{name: mcp, command: [/proxyrunner]}}]}}}}\n"
    );
    assert!(refused(&done)[0].contains("runs proxyrunner already"));
}

#[test]
fn every_field_that_cannot_be_translated_is_named() {
    let lines = refused(&format!(
        "{GITHUB}  oidcConfigRef: {{name: x}}\n  audit: {{enabled: true}}\n  newField: 1\n  trustProxyHeaders: true\n  \
         permissionProfile: {{type: configmap, name: x}}\n"
    ));
    for part in [
        "spec.oidcConfigRef is not read by proxyrunner; remove it, and authenticate",
        "spec.audit is not read by proxyrunner",
        "spec.newField is not a field that inject knows",
        "spec.trustProxyHeaders is not read by proxyrunner",
        "spec.permissionProfile is in a ConfigMap",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}\nis not in\n{lines:#?}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for (from, to, part) in [
        ("transport: stdio", "transport: sse", "spec.transport is \"sse\", so the server speaks HTTP itself"),
        ("value: \"1\"", "valueFrom: x", "spec.env[0].valueFrom is not a field"),
        ("  name: github\n", "  generateName: x\n", "metadata.name is missing"),
        ("proxyPort: 9090", "proxyPort: 0", "spec.proxyPort is \"0\"; give a number from 1 to 65535"),
        ("args: [stdio]", "args: stdio", "spec.args is not a list"),
        ("args: [stdio]", "args: [[stdio]]", "spec.args is not a list of single values"),
        ("image: registry.example/github-mcp-server", "image: uvx://x", "names a package"),
        ("image: registry.example/github-mcp-server\n", "\n", "spec.image is missing"),
        ("hostPath: /srv, ", "", "spec.volumes[0].hostPath is missing"),
        ("{cpu: 200m", "{gpu: 200m", "spec.resources.limits.gpu is not a field"),
        ("transport: stdio", "transport: STDIO", "spec.transport is \"STDIO\", which is no transport"),
        ("image: registry.example/github-mcp-server", "image: ''", "spec.image is empty"),
        ("name: github\n", "name: git.hub\n", "metadata.name is \"git.hub\", which no Service"),
        ("name: github\n", "name: -github\n", "metadata.name is \"-github\""),
        ("args: [stdio]", "permissionProfile: {name: none}", "spec.permissionProfile.type is missing"),
        (
            "args: [stdio]",
            "permissionProfile: {type: x}",
            "spec.permissionProfile.type is \"x\"; give builtin or configmap",
        ),
        ("kind: MCPServer", "kind: MCPServer\nextra: 1", ": extra is not a field"),
    ] {
        assert!(GITHUB.contains(from), "{from}");
        let lines = refused(&GITHUB.replacen(from, to, 1));
        assert!(lines.iter().any(|line| line.contains(part)), "{part}\nis not in\n{lines:#?}");
    }
}

#[test]
fn each_problem_of_a_field_is_reported_once() {
    for profile in ["{}", "{type: x}", "{type: builtin}", "{type: builtin, name: x}", "{type: configmap}"] {
        let lines = refused(&format!("{GITHUB}  permissionProfile: {profile}\n"));
        assert_eq!(lines.len(), 1, "{profile}: {lines:?}");
    }
}

#[test]
fn names_leave_room_for_those_of_the_objects() {
    let named = |length: usize| GITHUB.replace("name: github\n", &format!("name: {}\n", "a".repeat(length)));
    let objects = converted(&named(52));
    let service = of_kind(&objects, "Service").map("metadata").and_then(|metadata| metadata.text("name"));
    assert!(service.expect("a name").len() <= 63);
    assert!(refused(&named(53))[0].contains("at most 52"));
}

#[test]
fn fields_that_ask_for_nothing_are_accepted() {
    let plain = converted(GITHUB);
    for field in [
        "audit: {enabled: false}",
        "audit: {}",
        "sessionStorage: {provider: memory}",
        "tools: []",
        "endpointPrefix: ''",
        "resourceOverrides: {}",
        "oidcConfig: ~",
        "trustProxyHeaders: false",
    ] {
        assert_eq!(converted(&format!("{GITHUB}  {field}\n")), plain, "{field}");
    }
    for field in ["audit: {enabled: true}", "sessionStorage: {provider: redis}", "rateLimiting: {shared: {}}"]
    {
        assert!(refused(&format!("{GITHUB}  {field}\n"))[0].starts_with(": spec."), "{field}");
    }
}

#[test]
fn arguments_and_variables_are_strings() {
    let text = GITHUB.replace("args: [stdio]", "args: [8080, yes]").replace("value: \"1\"", "value: 1");
    let set = shown(of_kind(&converted(&text), "StatefulSet").map("spec"));
    for part in ["- \"8080\"\n      - \"yes\"\n", "value: \"1\"\n"] {
        assert!(set.contains(part), "{part}\nis not in\n{set}");
    }
}

#[test]
fn a_port_named_mcp_of_the_pod_template_is_used() {
    let template =
        "  podTemplateSpec: {spec: {containers: [{name: mcp, ports: [{name: mcp, containerPort: 7000}]}]}}\n";
    let objects = converted(&format!("{GITHUB}{template}"));
    assert!(shown(of_kind(&objects, "StatefulSet").map("spec")).contains("- \"[::]:7000\"\n"));
    assert!(shown(of_kind(&objects, "Service").map("spec")).contains("port: 9090\n  targetPort: mcp\n"));
}

#[test]
fn a_server_without_an_entry_point_is_refused() {
    let problems = convert(&map(GITHUB), &Options::default()).expect_err("a refusal");
    assert!(problems[0].contains("--command") && problems[0].contains("registry.example/github-mcp-server"));
    let annotated = GITHUB.replace("owner: b", "proxyrunner/command: /annotated");
    let objects = convert(&map(&annotated), &Options::default()).expect("objects").expect("objects");
    assert!(objects.iter().any(|object| document(object).contains("- /annotated\n")));
}
