//! Injects pod specifications and checks every change.

use super::super::read::documents;
use super::super::write::document;
use super::*;

fn map(text: &str) -> Map {
    match documents(text).expect("YAML").remove(0).content {
        Some(Value::Map(map)) => map,
        other => panic!("{other:?}"),
    }
}

fn wish() -> Wish<'static> {
    Wish {
        container: None,
        command: None,
        image: "proxyrunner:1",
        mode: Mode::Init,
        port: None,
        flags: Vec::new(),
    }
}

fn injected(spec: &str, wish: &Wish) -> Map {
    let mut spec = map(spec);
    assert_eq!(inject(&mut spec, wish), Ok(Outcome::Injected));
    spec
}

fn refused(spec: &str, wish: &Wish) -> String {
    inject(&mut map(spec), wish).expect_err("a refusal")
}

fn server(spec: &Map) -> &Map {
    match &spec.list("containers").expect("a list")[0] {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

fn words(value: Option<&[Value]>) -> Vec<&str> {
    value.expect("a list").iter().map(|word| word.as_text().expect("text")).collect()
}

#[test]
fn the_whole_of_an_injection() {
    let spec =
        injected("containers:\n- name: a\n  image: x\n  command: [python3]\n  args: [server.py]\n", &wish());
    let expected = r#"containers:
- name: a
  image: x
  command:
  - /opt/proxyrunner/proxyrunner
  - --listen
  - "[::]:8080"
  - --
  - python3
  args:
  - server.py
  ports:
  - name: mcp
    containerPort: 8080
  livenessProbe:
    httpGet:
      path: /health
      port: 8080
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    httpGet:
      path: /health/ready
      port: 8080
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  startupProbe:
    httpGet:
      path: /health/startup
      port: 8080
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 150
  resources:
    limits:
      cpu: 1000m
      memory: 512Mi
    requests:
      cpu: 100m
      memory: 128Mi
  securityContext:
    runAsNonRoot: true
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop:
      - ALL
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
  - name: proxyrunner
    mountPath: /opt/proxyrunner
    readOnly: true
  - name: proxyrunner-tmp
    mountPath: /tmp
volumes:
- name: proxyrunner
  emptyDir:
    sizeLimit: 32Mi
- name: proxyrunner-tmp
  emptyDir:
    sizeLimit: 64Mi
initContainers:
- name: copy-proxyrunner
  image: proxyrunner:1
  command:
  - /proxyrunner
  - --copy-self
  - /opt/proxyrunner/proxyrunner
  resources:
    limits:
      cpu: 100m
      memory: 32Mi
    requests:
      cpu: 10m
      memory: 16Mi
  securityContext:
    runAsNonRoot: true
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop:
      - ALL
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
  - name: proxyrunner
    mountPath: /opt/proxyrunner
"#;
    let written = document(&Value::Map(spec.clone()));
    assert_eq!(map(&written), spec);
    assert_eq!(spec, map(expected), "{written}");
}

#[test]
fn a_container_without_a_command_needs_its_entry_point() {
    let spec = "containers: [{name: a, image: x, args: [b]}]";
    let told = refused(spec, &wish());
    assert!(told.contains("entry point is not inherited") && told.contains("--command"), "{told}");
    assert_eq!(refused("containers: [{name: a, image: x, command: []}]", &wish()), told);
    let command = Some(vec!["python3".to_owned(), "1e3".to_owned()]);
    let found = injected(spec, &Wish { command: command.clone(), ..wish() });
    let own = server(&found);
    assert_eq!(words(own.list("command"))[3..], ["--", "python3", "1e3"]);
    assert_eq!(own.list("command").expect("a list")[5], Value::text("1e3"), "a string stays a string");
    assert_eq!(words(own.list("args")), ["b"]);
    let keys: Vec<_> = own.entries.iter().map(|(key, _)| &*key.text).take(4).collect();
    assert_eq!(keys, ["name", "image", "command", "args"]);
    let with = injected("containers: [{name: a, command: [own]}]", &Wish { command, ..wish() });
    assert_eq!(words(server(&with).list("command"))[3..], ["--", "own"], "the document's own precedes");
}

#[test]
fn the_container_is_named_or_the_only_one() {
    let two = "containers: [{name: a, command: [x]}, {name: b, command: [y]}]";
    let told = refused(two, &wish());
    assert!(told.contains("2 containers (a, b)") && told.contains("--container"), "{told}");
    let told = refused(two, &Wish { container: Some("c"), ..wish() });
    assert!(told.contains("no container \"c\""), "{told}");
    let spec = injected(two, &Wish { container: Some("b"), ..wish() });
    let containers = spec.list("containers").expect("a list");
    assert_eq!(containers[0], Value::Map(map("{name: a, command: [x]}")));
    assert_ne!(containers[1], Value::Map(map("{name: b, command: [y]}")));
}

#[test]
fn unusable_pods_are_refused_by_name() {
    for (spec, reason) in [
        ("{}", "has no container"),
        ("containers: []", "has no container"),
        ("containers: ~", "has no container"),
        ("containers: {name: a}", "containers that are not a list"),
        ("containers: [a]", "a container that is not a map"),
        ("containers: [{command: x}]", "a command that is not a list"),
        ("containers: [{command: [x], ports: 1}]", "ports that are not a list"),
        ("containers: [{command: [x], ports: [1]}]", "a port that is not a map"),
        ("containers: [{command: [x], volumeMounts: 1}]", "volumeMounts that are not a list"),
        ("containers: [{command: [x], securityContext: 1}]", "a securityContext that is not a map"),
        ("{containers: [{command: [x]}], volumes: 1}", "volumes that are not a list"),
        ("{containers: [{command: [x]}], initContainers: 1}", "initContainers that are not a list"),
        (
            "{containers: [{command: [x]}], volumes: [{name: proxyrunner}]}",
            "has a volume named \"proxyrunner\"",
        ),
        ("{containers: [{command: [x]}], volumes: [{name: proxyrunner-tmp}]}", "has a volume named"),
        (
            "{containers: [{command: [x]}], initContainers: [{name: copy-proxyrunner}]}",
            "an init container named",
        ),
        ("containers: [{name: copy-proxyrunner, command: [x]}]", "a container named"),
        (
            "{containers: [{command: [x]}], ephemeralContainers: [{name: copy-proxyrunner}]}",
            "an ephemeral container",
        ),
        ("{containers: [{command: [x]}], nodeSelector: {kubernetes.io/os: windows}}", "a Windows pod"),
        ("{containers: [{command: [x]}], os: {name: windows}}", "a Windows pod"),
        ("containers: [{command: [x], volumeMounts: [{mountPath: /opt/proxyrunner/}]}]", "mounted at"),
        ("containers: [{command: [x], volumeMounts: [{mountPath: /opt//proxyrunner/a}]}]", "mounted at"),
        (
            "containers: [{command: [x], ports: [{name: mcp, containerPort: 1, protocol: UDP}]}]",
            "not a TCP port",
        ),
        (
            "containers: [{command: [x], ports: [{name: mcp, containerPort: 65536}]}]",
            "named mcp without a containerPort",
        ),
        ("containers: [{command: [x], ports: [{name: mcp}]}]", "named mcp without a containerPort"),
        ("containers: [{name: a, args: [x]}]", "has no command in container \"a\""),
        ("containers: [{name: a, args: [x]}]", "the entry point of its image by"),
    ] {
        let told = refused(spec, &wish());
        assert!(told.contains(reason), "{spec}: {told}");
    }
}

#[test]
fn a_wrapped_pod_is_left_as_it_is() {
    for program in ["/opt/proxyrunner/proxyrunner", "/proxyrunner", "proxyrunner"] {
        let text = format!("containers: [{{name: a, command: [{program}, --, x]}}, {{name: b}}]");
        let mut spec = map(&text);
        assert_eq!(inject(&mut spec, &wish()), Ok(Outcome::AlreadyInjected));
        assert_eq!(spec, map(&text));
    }
}

#[test]
fn a_chosen_container_is_injected_although_another_runs_proxyrunner() {
    let text = "containers: [{name: a, command: [/proxyrunner, probe, live]}, {name: b, command: [x]}]";
    let chosen = Wish { container: Some("b"), ..wish() };
    let mut spec = injected(text, &chosen);
    let once = spec.clone();
    assert_eq!(inject(&mut spec, &chosen), Ok(Outcome::AlreadyInjected));
    assert_eq!(spec, once);
    let first = injected(
        "containers: [{name: a, command: [x]}, {name: b, command: [x]}]",
        &Wish { container: Some("a"), ..wish() },
    );
    let told = inject(&mut first.clone(), &chosen).expect_err("a refusal");
    assert!(told.contains("of an earlier injection"), "{told}");
}

#[test]
fn the_port_is_that_named_mcp_or_the_given_or_8080() {
    let port = |ports: &str, given| {
        let text = format!("containers: [{{command: [x], ports: {ports}}}]");
        let spec = injected(&text, &Wish { port: given, ..wish() });
        let own = server(&spec);
        let listens = words(own.list("command"))[2].to_owned();
        (listens, document(&Value::List(own.list("ports").expect("a list").to_vec())))
    };
    assert_eq!(port("[]", Some(9000)), ("[::]:9000".into(), "- name: mcp\n  containerPort: 9000\n".into()));
    let named = "- name: mcp\n  containerPort: 3000\n";
    assert_eq!(port("[{name: mcp, containerPort: 3000}]", None), ("[::]:3000".into(), named.into()));
    assert_eq!(port("[{containerPort: 8080}]", None).1, "- containerPort: 8080\n  name: mcp\n");
    assert_eq!(port("[{name: http, containerPort: 8080}]", None).1, "- name: http\n  containerPort: 8080\n");
    let other = "containers: [{command: [x], ports: [{name: mcp, containerPort: 3000}]}]";
    assert!(refused(other, &Wish { port: Some(1), ..wish() }).contains("leave out --port 1"));
    let taken = "containers: [{name: a, command: [x]}, {name: b, ports: [{containerPort: 8080}]}]";
    let told = refused(taken, &Wish { container: Some("a"), ..wish() });
    assert!(told.contains("at container \"b\"") && told.contains("--port"), "{told}");
    let sidecar = |policy: &str, port: &str| {
        format!("{{containers: [{{command: [x]}}], initContainers: [{{name: c, {policy}ports: [{port}]}}]}}")
    };
    for port in ["{containerPort: 8080}", "{name: mcp, containerPort: 1}"] {
        assert!(refused(&sidecar("restartPolicy: Always, ", port), &wish()).contains("at container \"c\""));
        injected(&sidecar("", port), &wish());
    }
    injected(&sidecar("restartPolicy: Always, ", "{containerPort: 8080, protocol: UDP}"), &wish());
}

#[test]
fn only_the_folder_itself_is_reserved() {
    for path in ["/opt", "/opt/proxyrunner2", "/proxyrunner", "/"] {
        injected(&format!("containers: [{{command: [x], volumeMounts: [{{mountPath: {path}}}]}}]"), &wish());
    }
}

#[test]
fn an_image_volume_replaces_the_init_container() {
    let spec = injected("containers: [{command: [x]}]", &Wish { mode: Mode::ImageVolume, ..wish() });
    assert!(spec.get("initContainers").is_none());
    let Value::Map(volume) = &spec.list("volumes").expect("a list")[0] else { panic!("a map") };
    assert_eq!(volume.map("image").and_then(|image| image.text("reference")), Some("proxyrunner:1"));
}

#[test]
fn everything_else_stays() {
    let text = "nodeSelector: {a: b}\ncontainers:\n- name: a\n  command: [x]\n  env: [{name: N, value: \"007\"}]\n  \
                volumeMounts: [{name: v, mountPath: /tmp/}]\n  readinessProbe: {exec: {command: [y]}}\n  \
                resources: {limits: {cpu: 2, memory: 1Gi}}\nvolumes: [{name: v, emptyDir: {}}]\n\
                initContainers: [{name: first}]\nhostNetwork: false\n";
    let (before, after) = (map(text), injected(text, &wish()));
    for key in ["nodeSelector", "hostNetwork"] {
        assert_eq!(after.get(key), before.get(key));
    }
    for key in ["name", "env", "readinessProbe", "resources"] {
        assert_eq!(server(&after).get(key), server(&before).get(key), "{key}");
    }
    let names = |key: &str| -> Vec<String> {
        let name = |item: &Value| match item {
            Value::Map(map) => map.text("name").expect("a name").to_owned(),
            other => panic!("{other:?}"),
        };
        after.list(key).expect("a list").iter().map(name).collect()
    };
    assert_eq!(names("volumes"), ["v", "proxyrunner"], "/tmp is there already");
    assert_eq!(names("initContainers"), ["copy-proxyrunner", "first"]);
}

#[test]
fn limits_of_the_pod_suffice() {
    let spec = injected("{resources: {limits: {cpu: 1}}, containers: [{command: [x]}]}", &wish());
    assert!(server(&spec).get("resources").is_none());
}
