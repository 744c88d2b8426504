#!/usr/bin/env python3
"""Checks deploy/kubernetes and deploy/helm: renders every overlay and every set of values, validates them against the schemas of
three Kubernetes versions, checks what schemas cannot say, and breaks manifests to see that the checks notice.

    tests/kubernetes.py [PROXYRUNNER]   all of it; settings and probes are tried if the binary is given
    tests/kubernetes.py --write         writes the copies of deploy/observability/rules.yml

`tests/run kubernetes` installs what it needs. No cluster is involved: a kubelet's probes, autoscaling, network policies and
admission are not run. Ends with one line, `N passed, N failed`, and exits with 1 if anything failed.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path += [str(TESTS / "manifests"), str(TESTS / "observability")]

RULES = ROOT / "deploy" / "observability" / "rules.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "proxyrunner"
GATEWAY_CHART = ROOT / "deploy" / "helm" / "proxyrunner-gateway"
PAGE = ROOT / "docs" / "kubernetes.md"
INJECT = ROOT / "docs" / "inject.md"
PRODUCED = ROOT / "target" / "kubernetes"
# The copies of the rules, and what stands in front of them.
COPIES = {
    KUBERNETES / "components" / "monitoring" / "prometheusrule.yaml": (
        "# Made from deploy/observability/rules.yml by `tests/kubernetes.py --write`. Do not edit.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: mcp-server\n"
        "  labels: {app.kubernetes.io/name: mcp-server}\nspec:\n",
        "  ",
    ),
    CHART / "files" / "rules.yml": (
        "# Made from deploy/observability/rules.yml by `tests/kubernetes.py --write`. Do not edit.\n",
        "",
    ),
}

VERSIONS = ["1.35", "1.36", "1.37"]
# What a version does not have yet, by the folder under deploy/kubernetes.
SINCE = {"admission": "1.36"}
# Checks of checkov that do not fit, and why.
ALLOWED = {
    "CKV_K8S_15": "images have fixed versions, so they need not be pulled each time",
    "CKV_K8S_43": "examples cannot name the digest of an image that you build",
    "CKV_K8S_35": "a server's secrets are variables, because stdio servers read them there",
    "CKV_K8S_21": "the base leaves the namespace to its overlays",
    "CKV_K8S_8": "init containers that copy need no liveness probe, and neither do jobs and servers beside their sidecar",
    "CKV_K8S_9": "as CKV_K8S_8, for readiness",
    "CKV_K8S_40": "OpenShift chooses the user",
}


class Tally:
    """What passed and failed so far."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, problems: list[str]) -> None:
        """Prints the verdict on one thing, and counts it."""
        print(f"{'FAIL' if problems else 'ok':4}  {name}", flush=True)
        for problem in problems[:20]:
            print(f"      {problem}", flush=True)
        self.passed += not problems
        self.failed += bool(problems)


def copied(front: str, indent: str) -> str:
    """Returns the rules as a copy has them: from `groups:` on, indented."""
    text = RULES.read_text()
    body = text[text.index("\ngroups:\n") + 1 :]
    return front + "".join(indent + line if line.strip() else line for line in body.splitlines(keepends=True))


def write() -> None:
    for path, (front, indent) in COPIES.items():
        path.write_text(copied(front, indent))


def outdated() -> list[str]:
    return [
        f"{path.relative_to(ROOT)} differs; run tests/kubernetes.py --write"
        for path, (front, indent) in COPIES.items()
        if path.read_text() != copied(front, indent)
    ]


if sys.argv[1:] == ["--write"]:
    write()
    sys.exit()

import helm_python  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

import admission  # noqa: E402
import annotated  # noqa: E402
import broken  # noqa: E402
import crds  # noqa: E402
import fleet  # noqa: E402
import injected  # noqa: E402
import networks  # noqa: E402
import operators  # noqa: E402
import pods  # noqa: E402
import prometheus  # noqa: E402
import running  # noqa: E402

Document = dict[str, Any]
# The manifests of each overlay and set of values.
Rendered = dict[str, list[Document]]


def kustomized(folder: Path) -> list[Document]:
    """Renders a folder by kubectl, whose version is pinned."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{folder.relative_to(ROOT)}: {done.stderr.strip()}"
    return documents(done.stdout)


def documents(text: str) -> list[Document]:
    return [one for one in yaml.safe_load_all(text) if one]


def charted(values: Document, of: Path = CHART) -> list[Document]:
    """Renders a chart by Helm's own SDK; it validates values against the chart's schema."""
    name, namespace = ("weather", "mcp-core") if of == CHART else ("proxyrunner-gateway", "mcp-gateway")
    with helm_python.Chart.load(str(of)) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=name, namespace=namespace)
    return [one for name, text in sorted(rendered.items()) if name.endswith(".yaml") for one in documents(text)]


def lint(values: Document, of: Path = CHART) -> list[str]:
    report = helm_python.lint(str(of), values, strict=True, kube_version=f"v{VERSIONS[0]}.0")
    warned = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] > 1]
    assert report["total_charts_linted"] == 1, report
    return warned + report["errors"]


# The checks.


def invalid(document: Document, versions: list[str]) -> list[str]:
    """What the schemas of Kubernetes, or of a custom resource, have to say."""
    name = f"{document.get('kind')}/{document['metadata']['name']}"
    if crds.known(document):
        return [f"{name}{problem}" for problem in crds.problems(document)]
    problems = []
    for version in versions:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{name}, {version}: {'.'.join(map(str, error.path))}: {error.message}")
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            problems.append(f"{name}, {version}: {error}")
    return problems


def all_invalid(them: list[Document], versions: list[str]) -> list[str]:
    return [problem for one in them for problem in invalid(one, versions)]


def broken_rules(them: list[Document], rules: list[pods.Rule] | None = None) -> list[str]:
    """What schemas cannot say."""
    problems = []
    for rule in rules or [*pods.RULES, *networks.RULES]:
        try:
            problems += rule(them)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as error:
            problems.append(f"{rule.__name__}: cannot be read: {error!r}")
    return problems


def check_overlays(tally: Tally, rendered: Rendered) -> None:
    """Overlays, and the folders that stand alone."""
    found = rendered
    for folder in sorted([*(KUBERNETES / "overlays").iterdir(), KUBERNETES / "base", KUBERNETES / "namespaces", KUBERNETES / "gateway"]):
        name = str(folder.relative_to(KUBERNETES))
        try:
            found[name] = kustomized(folder)
        except AssertionError as error:
            tally.check(f"{name} is rendered", [str(error)])
            continue
        tally.check(f"{name} is valid", all_invalid(found[name], VERSIONS))
        tally.check(f"{name} is sound", broken_rules(found[name]))
    used = "\n".join(path.read_text() for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
    components = [path.name for path in (KUBERNETES / "components").iterdir()]
    tally.check("each component is in an overlay", [one for one in components if f"components/{one}\n" not in used + "\n"
                and f"components/{one}]" not in used])  # fmt: skip


def pod_of(them: list[Document]) -> Document:
    """Returns the only pod that serves MCP."""
    ((_, pod),) = pods.servers(them)
    return pod


def check_inject(tally: Tally, rendered: Rendered) -> None:
    """What `proxyrunner inject` prints is as sound as the overlay that does the same, and has the same sizes and probes."""
    if len(sys.argv) < 2:
        return
    overlay = pod_of(rendered["overlays/init-container"])
    deployment = re.search(r"```yaml\n(apiVersion: apps/v1\n.*?)```", INJECT.read_text(), re.S)[1]
    server = (TESTS / "manifests" / "mcpserver.yaml").read_text()
    # Of the other rules, a Deployment fails those on parts that inject leaves alone.
    rules = [one for one in pods.RULES if one is not pods.tokenless]
    for name, text, words in (
        ("a Deployment", deployment, []),
        ("a Deployment, by image volume", deployment, ["--mode", "image-volume"]),
        ("ToolHive's MCPServer", server, ["--command", "/server/github-mcp-server"]),
    ):
        command = [sys.argv[1], "inject", *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        them = documents(done.stdout)
        tally.check(f"inject, {name}: is valid", all_invalid(them, VERSIONS) if them else [done.stderr])
        tally.check(f"inject, {name}: is sound", broken_rules(them, [*rules, networks.selecting]))
        # The MCPServer has limits of its own.
        if "image-volume" not in words and "MCPServer" not in name:
            tally.check(f"inject, {name}: is as the overlay", injected.differences(pod_of(them), overlay))


def check_admission(tally: Tally, rendered: Rendered) -> None:
    them = kustomized(KUBERNETES / "admission")
    since = [version for version in VERSIONS if version >= SINCE["admission"]]
    tally.check("admission is valid", all_invalid(them, since))
    before = [version for version in VERSIONS if version < SINCE["admission"]]
    tally.check("admission needs the version that is said", [] if all_invalid(them, before) else before)
    mutating, validating = admission.read(KUBERNETES / "admission")
    (example,) = documents((KUBERNETES / "recipes" / "annotated-pod.yaml").read_text())
    tally.check("recipes/annotated-pod is valid", all_invalid([example], VERSIONS))
    template = example["spec"]["template"]
    overlay = pod_of(rendered["overlays/init-container"])
    problems = annotated.injected(mutating, validating, template, overlay, lambda pod: invalid(pod, VERSIONS))
    tally.check("a pod with the annotation is injected", problems)
    tally.check("other pods stay as they are", annotated.untouched(mutating, validating, template))
    tally.check("commands are read as they are written", annotated.misread(mutating, template))
    tally.check("bad annotations are refused", annotated.unrefused(mutating, validating, template))
    bindings = [one["spec"] for one in them if one["kind"].endswith("Binding")]
    labels = {one["metadata"]["labels"].get("proxyrunner-injection") for one in kustomized(KUBERNETES / "namespaces")
              if one["kind"] == "Namespace"}  # fmt: skip
    selected = {one["matchResources"]["namespaceSelector"]["matchLabels"]["proxyrunner-injection"] for one in bindings}
    tally.check("the bindings select namespaces by the label that these have", [] if selected < labels else [str(labels)])


def check_recipes(tally: Tally, _: Rendered) -> None:
    for path in sorted((KUBERNETES / "recipes").glob("*.yaml")):
        (document,) = documents(path.read_text())
        if not crds.known(document):
            continue  # of the admission policy
        tally.check(f"recipes/{path.stem} is valid", invalid(document, VERSIONS))
        made = operators.rendered(document)
        assert made
        tally.check(f"recipes/{path.stem}: the operator's workload is valid", invalid(made, VERSIONS))
        # kmcp decides most of its pod itself, and the lifecycle operator the token.
        rules = {
            "kmcp": [pods.pinned, pods.existing, pods.mounted, pods.graceful],
            "mcp-lifecycle-operator": [one for one in pods.RULES if one is not pods.tokenless],
        }.get(path.stem, pods.RULES)
        if path.stem == "mcp-lifecycle-operator":
            # It has no startup probe.
            rules.remove(pods.probed)
        if path.stem == "kmcp":
            # What agents call, which proxyrunner does not serve unless it is told.
            host = f"{document['metadata']['name']}.{document['metadata']['namespace']}"
            given = pods.options(made["spec"]["template"]["spec"]["containers"][0]).get("--allow-host")
            tally.check("recipes/kmcp: agents are served", [] if given == host else [f"{given}, not {host}"])
        tally.check(f"recipes/{path.stem} is sound", broken_rules([made], rules))


def check_chart(tally: Tally, rendered: Rendered) -> None:
    for path in sorted((CHART / "ci").glob("*.yaml")):
        name, values = path.stem, yaml.safe_load(path.read_text())
        tally.check(f"chart, {name}: lint", lint(values))
        try:
            rendered[f"chart/{name}"] = them = charted(values)
        except helm_python.HelmError as error:
            tally.check(f"chart, {name}: is rendered", [str(error)])
            continue
        tally.check(f"chart, {name}: is valid", all_invalid(them, VERSIONS))
        tally.check(f"chart, {name}: is sound", broken_rules(them))
        if f"overlays/{name}" in rendered and name != "production":
            tally.check(f"chart, {name}: runs what the overlay runs", differences(them, rendered[f"overlays/{name}"]))
    check_refusals(tally, "chart", "refused", CHART)


def check_refusals(tally: Tally, name: str, folder: str, chart: Path) -> None:
    for path in sorted((TESTS / "manifests" / folder).glob("*.yaml")):
        said = "nothing"
        try:
            charted(yaml.safe_load(path.read_text()), chart)
        except helm_python.HelmError as error:
            said = str(error)
        wanted = path.read_text().partition("says: ")[2].splitlines()[0]
        tally.check(f"{name} refuses {path.stem}", [] if said != "nothing" and wanted in said else [said])


def check_gateway_chart(tally: Tally, rendered: Rendered) -> None:
    for called, file, folder in (
        ("chart-of-the-gateway", "gateway", "gateway"),
        ("chart-of-the-gateway-with-redis", "redis", "overlays/gateway-redis"),
    ):
        name = called.replace("-", " ")
        values = yaml.safe_load((GATEWAY_CHART / "ci" / f"{file}.yaml").read_text())
        tally.check(f"{name}: lint", lint(values, GATEWAY_CHART))
        rendered[called] = them = charted(values, GATEWAY_CHART)
        tally.check(f"{name}: is valid", all_invalid(them, VERSIONS))
        tally.check(f"{name}: is sound", broken_rules(them))
        tally.check(f"{name}: runs what the folder runs", differences(them, rendered[folder]))
    check_refusals(tally, "chart of the gateway", "refused-gateways", GATEWAY_CHART)


# Settings that contain the name of a release.
OF_A_NAME = {"PROXYRUNNER_ALLOW_HOST", "PROXYRUNNER_AUTH_AUDIENCE", "PROXYRUNNER_AUTH_RESOURCE", "PROXYRUNNER_SERVER_NAME"}


def differences(chart: list[Document], overlay: list[Document]) -> list[str]:
    """Where the chart's pod differs from the overlay's, but for names and labels."""

    def essence(them: list[Document]) -> dict[str, Any]:
        ((_, pod),) = pods.servers(them)
        found = {"grace": pod["terminationGracePeriodSeconds"], "security": pod["securityContext"]}
        found["volumes"] = {one["name"]: injected.sizes(pod, one) for one in pods.containers(pod)}
        for container in pods.containers(pod):
            for key in ("command", "args", "resources", "securityContext", "restartPolicy", "lifecycle", "ports"):
                found[f"{container['name']}.{key}"] = container.get(key)
            for key in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = copy.deepcopy(container.get(key))
                if probe:
                    port = str(probe["httpGet"]["port"])
                    probe["httpGet"]["port"] = port.replace("mcp", "8080").replace("metrics", "9090")
                found[f"{container['name']}.{key}"] = probe
            found[f"{container['name']}.settings"] = {
                name: value
                for name, value in pods.environment(container).items()
                if name.startswith("PROXYRUNNER_") and name not in OF_A_NAME
            }
            mounts = container.get("volumeMounts", [])
            found[f"{container['name']}.mounts"] = sorted(mount["mountPath"] for mount in mounts)
        return found

    one, other = essence(chart), essence(overlay)
    return [f"{key}: {one.get(key)} and {other.get(key)}" for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def check_adapter(tally: Tally, _: Rendered) -> None:
    """The adapter's query, on series as proxyrunner has them, by promtool."""
    values = yaml.safe_load((KUBERNETES / "components" / "hpa" / "prometheus-adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    problems = [] if re.search(rule["name"]["matches"], "mcp_tool_requests_total") else ["it matches no metric"]
    query = rule["metricsQuery"]
    for template, meaning in (
        ("<<.Series>>", "mcp_tool_requests_total"),
        ("<<.LabelMatchers>>", 'namespace="mcp-core",pod=~"a|b"'),
        ("<<.GroupBy>>", "pod"),
    ):
        problems += [f"it does not use {template}"] * (template not in query)
        query = query.replace(template, meaning)

    def series(namespace: str, pod: str, tool: str, step: int) -> dict[str, str]:
        labels = f'namespace="{namespace}",pod="{pod}",tool="{tool}"'
        return {"series": f"mcp_tool_requests_total{{{labels}}}", "values": f"0+{step}x10"}

    expected = [{"labels": '{pod="a"}', "value": 3}, {"labels": '{pod="b"}', "value": 1}]
    test = {
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("mcp-core", "a", "echo", 60), series("mcp-core", "a", "add", 120),
                series("mcp-core", "b", "echo", 60), series("other", "a", "echo", 600),
            ],
            "promql_expr_test": [{"expr": query, "eval_time": "10m", "exp_samples": expected}],
        }]
    }  # fmt: skip
    try:
        promtool = prometheus.install()["promtool"]
    except prometheus.Unavailable as error:
        tally.check("promtool is there", [str(error)])
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test.yml"
        file.write_text(json.dumps(test))
        done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60)
    problems += [done.stdout + done.stderr] * (done.returncode != 0)
    problems += ["the HPA reads another metric"] * (rule["name"]["as"] != "mcp_tool_requests_per_second")
    tally.check("prometheus-adapter's rule gives calls per second of a pod", problems)


def check_binary(tally: Tally, rendered: Rendered) -> None:
    """The binary itself accepts the settings, and has nothing to say of the time to stop."""
    if len(sys.argv) < 2:
        return
    binary = sys.argv[1]
    seen = set()
    PRODUCED.mkdir(parents=True, exist_ok=True)
    (key := PRODUCED / "state").write_text("k" * 64)
    for name, them in rendered.items():
        problems = []
        for _, pod in pods.servers(them):
            container = pods.proxy(pod)
            flags = [f"{flag}={value}" for flag, value in pods.options(container).items()]
            flags = [flag.replace("$(POD_NAMESPACE)", "mcp-core").replace(pods.STATE_KEY, str(key)) for flag in flags]
            # The contents of mounted files are not there; check_fleet runs them.
            flags = [flag for flag in flags if "=/etc/proxyrunner/" not in flag]
            if tuple(flags) in seen:
                continue
            seen.add(tuple(flags))
            if pods.is_gateway(pod):
                continue  # it reads its files; check_fleet runs it
            is_connected = any(flag.startswith("--connect=") for flag in flags)
            command = [binary, "--check", *flags, *([] if is_connected else ["--", "true"])]
            env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
            said = done.stdout + done.stderr
            if done.returncode != 0 or re.search(r"stopping may take|warn", said, re.I):
                problems.append(f"{' '.join(flags)}: {said.strip()[-300:]}")
        tally.check(f"{name}: proxyrunner accepts the settings", problems)


def check_running(tally: Tally, rendered: Rendered) -> None:
    """The binary answers what the probes of a pod ask, and clients by the names of its Service."""
    if len(sys.argv) < 2:
        return
    for name in ("overlays/wrapper", "chart/wrapper"):
        ((_, pod),) = pods.servers(rendered[name])
        (service,) = [one["metadata"]["name"] for one in rendered[name] if one["kind"] == "Service"]
        tally.check(f"{name}: probes and clients are answered", running.problems(sys.argv[1], pod, service))


def check_fleet(tally: Tally, rendered: Rendered) -> None:
    """A gateway and a server behind it agree, and work together."""
    for gateway, server in (("gateway", "overlays/behind-gateway"), ("chart-of-the-gateway", "chart/behind-gateway")):
        tally.check(f"{gateway} and {server} agree", fleet.disagreements(rendered[gateway], rendered[server]))
        if len(sys.argv) > 1:
            problems = fleet.problems(sys.argv[1], rendered[gateway], rendered[server])
            tally.check(f"{gateway} and {server}: as their containers, they serve a call", problems)


def check_checkov(tally: Tally, rendered: Rendered) -> None:
    """What checkov finds, but for what is allowed. What is allowed must be found."""
    shutil.rmtree(PRODUCED, ignore_errors=True)
    for name, them in rendered.items():
        path = PRODUCED / f"{name.replace('/', '-')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump_all(them))
    command = [Path(sys.executable).with_name("checkov"), "--directory", PRODUCED, "--framework", "kubernetes"]
    command += ["--compact", "--quiet", "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        tally.check("checkov runs", [done.stdout[-500:] + done.stderr[-500:]])
        return
    failed = report["results"]["failed_checks"]
    unexpected = {f"{one['check_id']} {one['check_name']}: {one['resource']}" for one in failed if one["check_id"] not in ALLOWED}
    tally.check("checkov finds nothing else", sorted(unexpected))
    needless = set(ALLOWED) - {one["check_id"] for one in failed}
    tally.check("what checkov may find is found", sorted(f"{one} is not needed" for one in needless))
    count = report["summary"]["passed"]
    tally.check(f"checkov checked something ({count} passed)", [] if count > 100 else [str(report["summary"])])


def check_page(tally: Tally, _: Rendered) -> None:
    """What the page names exists, and its blocks are valid."""
    text = PAGE.read_text()
    problems = []
    for path in re.findall(r"(?:apply -[kf]|kustomize|--values|install \S+|upgrade --install \S+) (deploy/[\w./-]+)", text):
        problems += [f"{path} does not exist"] * (not (ROOT / path).exists())
    table = text.partition("| component |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z-]+)`", re.sub(r"\|[^|]*\|[^|]*\|$", "", table, flags=re.M)))
    there = {path.name for path in (KUBERNETES / "components").iterdir()}
    problems += [f"component {one} is not explained" for one in sorted(there - named)]
    problems += [f"component {one} does not exist" for one in sorted(named - there)]
    for to in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        problems += [f"{to} does not exist"] * (not (PAGE.parent / to).exists())
    tally.check("docs/kubernetes.md names what exists", problems)
    blocks = [one for block in re.findall(r"```yaml\n(.*?)```", text, re.S) for one in documents(block)]
    whole = [one for one in blocks if isinstance(one, dict) and "apiVersion" in one and "kustomize" not in one["apiVersion"]]
    tally.check("docs/kubernetes.md: its manifests are valid", all_invalid(whole, VERSIONS))
    flags = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", re.sub(r"```.*?```", "", text, flags=re.S)))
    own = {flag for options in pods.COMMANDS.values() for flag in options} | pods.OTHERS | {"--copy-self"}
    tally.check("docs/kubernetes.md names flags that exist", sorted(flags - set(pods.settings()) - own))


def check_breakage(tally: Tally, rendered: Rendered) -> None:
    unnoticed = []
    for overlay, what, wanted, change in broken.BROKEN:
        them = copy.deepcopy(rendered[overlay if overlay in rendered else f"overlays/{overlay}"])
        change(them)
        found = all_invalid(them, VERSIONS[-1:]) + broken_rules(them)
        if not any(wanted in problem for problem in found):
            unnoticed.append(f"{overlay}, {what}: {found}")
    tally.check(f"{len(broken.BROKEN)} broken manifests are noticed", unnoticed)


def main() -> int:
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    tally = Tally()
    tally.check("the copies of the rules are copies", outdated())
    rendered: Rendered = {}
    for check in (check_overlays, check_inject, check_admission, check_recipes, check_chart, check_gateway_chart, check_adapter, check_binary,
                  check_running, check_fleet, check_checkov, check_page, check_breakage):  # fmt: skip
        try:
            check(tally, rendered)
        except Exception as error:  # whatever a broken manifest leads to
            tally.check(check.__name__.replace("_", " "), [f"{error!r} at line {error.__traceback__.tb_next.tb_lineno}"])
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
