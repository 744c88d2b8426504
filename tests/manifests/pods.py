"""What must hold of manifests beyond their schemas. Each rule takes the documents of one overlay and returns what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "docs" / "settings.md"
OPERATING = ROOT / "docs" / "operating.md"

Document = dict[str, Any]
Rule = Callable[[list[Document]], Iterator[str]]

MCP_PORT, METRICS_PORT, GATEWAY_PORT = 8080, 9090, 8443
LEAST_START = 60  # seconds a server has to start
MARGIN = 2  # seconds between the last stage of shutdown and SIGKILL
# The options of proxyrunner's own commands, which are not settings.
COMMANDS = {"shim": {"--socket"}, "probe": {"--url"}, "gateway": set()}
# Options that belong to neither the settings nor a command.
OTHERS = {"--copy-self", "-f"}


def settings() -> dict[str, str]:
    """Returns each setting's flag and default."""
    rows = re.findall(r"^\| `(--[a-z-]+)[^`]*` \| ([^|]*) \|", SETTINGS.read_text(), re.M)
    assert len(rows) > 50, "docs/settings.md has no tables of settings"
    return {flag: default.strip() for flag, default in rows}


def endpoints() -> set[str]:
    """Returns the paths that proxyrunner serves."""
    table = OPERATING.read_text().partition("## Endpoints")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`/[^|]+) \|", table, re.M)
    paths = {path for row in rows for path in re.findall(r"`(/[^`]+)`", row)}
    assert {"/health", "/health/ready", "/health/startup", "/metrics"} <= paths, paths
    return paths


def templates(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yields each pod template with a name."""
    for document in documents:
        kind, spec = document.get("kind"), document.get("spec", {})
        name = f"{kind}/{document['metadata']['name']}"
        if kind in ("Deployment", "StatefulSet"):
            yield name, spec["template"]
        elif kind == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]
        elif kind == "Pod":
            yield name, document


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for name, template in templates(documents):
        yield name, template["spec"]


def servers(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yields the pods that serve MCP."""
    return ((name, pod) for name, pod in pods(documents) if not name.startswith("CronJob/"))


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def is_sidecar(container: Document) -> bool:
    return container.get("restartPolicy") == "Always"


def lasting(pod: Document) -> list[Document]:
    """Returns the containers that run as long as the pod."""
    return [*filter(is_sidecar, pod.get("initContainers", [])), *pod["containers"]]


def proxy(pod: Document) -> Document:
    """Returns the container in which proxyrunner listens."""
    return next(filter(is_sidecar, pod.get("initContainers", [])), pod["containers"][0])


def is_gateway(pod: Document) -> bool:
    return words(proxy(pod))[:1] == ["gateway"]


def client_port(pod: Document) -> int:
    """Returns the port for clients."""
    return GATEWAY_PORT if is_gateway(pod) else MCP_PORT


def words(container: Document) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


# Where replicas have the key that they share, and an address of a pod.
STATE_KEY, POD_IP = "/etc/proxyrunner/state/state", "10.0.0.7"


def environment(container: Document) -> dict[str, str]:
    def value(one: Document) -> str:
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        return one.get("value", POD_IP if field == "status.podIP" else "")

    return {one["name"]: value(one) for one in container.get("env", [])}


def options(container: Document) -> dict[str, str]:
    """Returns the settings of a container's proxyrunner, by flag: variables first, which flags override."""
    found = {
        "--" + name.removeprefix("PROXYRUNNER_").lower().replace("_", "-"): value
        for name, value in environment(container).items()
        if name.startswith("PROXYRUNNER_")
    }
    for flag, value in own_words(container):
        found[flag] = value
    return found


def own_words(container: Document) -> list[tuple[str, str]]:
    """Returns proxyrunner's own flags in a command, with the word that follows each: those in front of `--`."""
    given = words(container)
    if "--" in given:
        given = given[: given.index("--")]
    return [
        (word.partition("=")[0], word.partition("=")[2] or (given[at + 1] if at + 1 < len(given) else ""))
        for at, word in enumerate(given)
        if re.match(r"--?[a-z]", word)
    ]


def seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", text))


# The rules.


def hardened(documents: list[Document]) -> Iterator[str]:
    for name, pod in pods(documents):
        of_pod = pod.get("securityContext", {})
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                yield f"{name} has {key}"
        for container in containers(pod):
            where, own = f"{name}/{container['name']}", container.get("securityContext", {})
            if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
                yield f"{where} may run as root"
            if own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") != "RuntimeDefault":
                yield f"{where} has no seccomp profile"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where} may write to its root file system"
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where} may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{where} has capabilities"
            if own.get("privileged") or own.get("runAsUser") == 0:
                yield f"{where} is privileged"


def tokenless(documents: list[Document]) -> Iterator[str]:
    for name, pod in pods(documents):
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} mounts a token"
        if pod.get("enableServiceLinks") is not False:
            yield f"{name} has variables of Services, which may look like settings"
    for document in documents:
        if document["kind"] == "ServiceAccount" and document.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{document['metadata']['name']} gives a token"


def limited(documents: list[Document]) -> Iterator[str]:
    for name, pod in pods(documents):
        for container in containers(pod):
            for kind in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if not container.get("resources", {}).get(kind, {}).get(what):
                        yield f"{name}/{container['name']} has no {kind} of {what}"
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{name}: volume {volume['name']} has no limit"


def pinned(documents: list[Document]) -> Iterator[str]:
    for name, pod in pods(documents):
        images = [container["image"] for container in containers(pod)]
        images += [one["image"]["reference"] for one in pod.get("volumes", []) if "image" in one]
        for image in images:
            if not re.search(r":[\w.-]+$|@sha256:[0-9a-f]{64}$", image) or image.endswith(":latest"):
                yield f"{name}: image {image} has no version"


def probed(documents: list[Document]) -> Iterator[str]:
    known = endpoints()
    for name, pod in servers(documents):
        found: dict[str, str] = {}
        # A port number of any container serves, because they share one address.
        numbers = {port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
        for container in lasting(pod):
            names = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind)
                if not probe:
                    continue
                path, port = probe["httpGet"]["path"], probe["httpGet"]["port"]
                found[kind] = path
                if path not in known:
                    yield f"{name}: {kind} asks for {path}, which proxyrunner does not serve"
                # A gateway's clients speak TLS, and probes need not.
                wanted_port = METRICS_PORT if is_gateway(pod) else MCP_PORT
                if names.get(port, port) != wanted_port or wanted_port not in numbers:
                    yield f"{name}: {kind} asks port {port}, which is not {wanted_port}"
                if kind == "startupProbe" and is_sidecar(container):
                    # The kubelet starts the server after it, so it could never succeed.
                    yield f"{name}: the sidecar has a startup probe"
                allowed = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
                if kind == "startupProbe" and allowed < LEAST_START:
                    yield f"{name}: a server has only {allowed} s to start"
        wanted = {
            "startupProbe": "/health/startup", "livenessProbe": "/health", "readinessProbe": "/health/ready",
        }  # fmt: skip
        for kind, path in wanted.items():
            if found.get(kind) != path:
                yield f"{name}: {kind} asks for {found.get(kind)}, not {path}"


def listening(documents: list[Document]) -> Iterator[str]:
    for name, pod in servers(documents):
        if not any(flag.startswith("--listen") for flag in options(proxy(pod))):
            yield f"{name} does not say where to listen"
        address = options(proxy(pod)).get("--listen", "")
        if address not in (f"[::]:{client_port(pod)}", f"0.0.0.0:{client_port(pod)}"):
            yield f"{name} listens on {address!r}"


def existing(documents: list[Document]) -> Iterator[str]:
    """Flags and variables must be proxyrunner's."""
    known = settings()
    for name, pod in pods(documents):
        for container in containers(pod):
            given = words(container)
            command = next((word for word in given if word in COMMANDS), "")
            for flag, _ in own_words(container):
                if flag not in known and flag not in OTHERS and flag not in COMMANDS.get(command, ()):
                    yield f"{name}/{container['name']}: proxyrunner has no option {flag}"
            for variable in environment(container):
                flag = "--" + variable.removeprefix("PROXYRUNNER_").lower().replace("_", "-")
                if variable.startswith("PROXYRUNNER_") and flag not in known:
                    yield f"{name}/{container['name']}: proxyrunner has no variable {variable}"


def expanded(documents: list[Document]) -> Iterator[str]:
    """A variable that refers to another must follow it, or its text stays as it is."""
    for name, pod in pods(documents):
        for container in containers(pod):
            before: set[str] = set()
            for one in container.get("env", []):
                for variable in re.findall(r"\$\((\w+)\)", one.get("value", "")):
                    if variable not in before:
                        yield f"{name}/{container['name']}: {one['name']} refers to {variable}, which does not precede it"
                before.add(one["name"])


def graceful(documents: list[Document]) -> Iterator[str]:
    """All stages of shutdown must fit into the time that the kubelet gives."""
    known = settings()
    for name, pod in servers(documents):

        def stage(container: Document, flag: str) -> float:
            # A default in Kubernetes follows the general one.
            default = re.sub(r".*; ([\d.]+\w+) in Kubernetes", r"\1", known[flag])
            return seconds(options(container).get(flag, default))

        needed = sum(
            stage(proxy(pod), flag) for flag in ("--drain-delay", "--drain-timeout", "--close-grace", "--terminate-grace")
        )
        if proxy(pod) not in pod["containers"]:
            # The server is stopped first: its hook, then its graces by default.
            hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drains = seconds("5s") + seconds("17s")
            if hook < drains:
                yield f"{name}: the server is stopped after {hook} s, before requests are finished"
            needed += hook + seconds(known["--close-grace"]) + seconds(known["--terminate-grace"])
        given = pod.get("terminationGracePeriodSeconds", 30)
        if given < needed + MARGIN:
            yield f"{name} needs {needed + MARGIN:.0f} s to stop and gets {given}"


def mounted(documents: list[Document]) -> Iterator[str]:
    """Mounted volumes must exist, and those that exist must be mounted; binaries and sockets must be where they are sought."""
    for name, template in templates(documents):
        pod = template["spec"]
        there = {one["name"] for one in pod.get("volumes", [])}
        there |= {
            claim["metadata"]["name"]
            for one in documents
            if f"{one['kind']}/{one['metadata']['name']}" == name
            for claim in one["spec"].get("volumeClaimTemplates", [])
        }
        used = {mount["name"] for one in containers(pod) for mount in one.get("volumeMounts", [])}
        yield from (f"{name}: volume {one} does not exist" for one in sorted(used - there))
        yield from (f"{name}: volume {one} is not used" for one in sorted(there - used))
        for container in containers(pod):
            folders = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            # In its own image, the program is a file of this name.
            if "/proxyrunner" in folders:
                yield f"{name}/{container['name']}: a volume cannot be mounted at /proxyrunner"
            paths = [word.removeprefix("unix:") for word in [*words(container), *environment(container).values()]]
            for path in paths:
                if re.match(r"/(proxyrunner|opt/proxyrunner|etc/proxyrunner|run/mcp|adapterbin|config)/", path):
                    if not any(path.startswith(f"{folder}/") for folder in folders):
                        yield f"{name}/{container['name']}: nothing is mounted at {path}"


def kept(documents: list[Document]) -> Iterator[str]:
    """A gateway's keys are in Secrets, shared by all replicas; its files are read again, which a subPath would prevent."""
    for name, pod in servers(documents):
        if not is_gateway(pod):
            continue
        container, kinds = proxy(pod), {one["name"]: next(iter(set(one) - {"name"})) for one in pod.get("volumes", [])}
        folders = {mount["mountPath"]: kinds.get(mount["name"]) for mount in container.get("volumeMounts", [])}
        yield from (f"{name}: {mount['mountPath']} is a subPath" for mount in container["volumeMounts"] if "subPath" in mount)
        for flag, wanted in (
            ("--servers", "configMap"), ("--gateway-key", "secret"), ("--state-key-file", "secret"), ("--tls-cert", "secret"),
            ("--tls-key", "secret"),
        ):  # fmt: skip
            found = folders.get(str(Path(options(container).get(flag, "/")).parent))
            if found != wanted:
                yield f"{name}: {flag} is in a {found}, not in a {wanted}"
        if not {"--auth-issuer", "--auth-audience", "--public-url"} <= set(options(container)):
            yield f"{name} serves anybody"


RULES: list[Rule] = [hardened, tokenless, limited, pinned, probed, listening, existing, expanded, graceful, mounted, kept]
