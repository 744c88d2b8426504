"""What must hold between manifests: selectors, names, ports and network policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pods import GATEWAY_PORT, MCP_PORT, METRICS_PORT, Document, Rule, containers, is_gateway, own_words, pods, servers, templates

# Namespaces that may call tools, and that may scrape.
GATEWAY, MONITORING = {"mcp-gateway"}, {"monitoring"}
# Namespaces of the clients of a gateway.
INGRESS = {"ingress"}
# Servers are in namespaces with this label; they fetch the gateway's keys.
TRUST = [{"key": "mcp-trust", "operator": "Exists"}]
LEAST_GATEWAYS = 3
NAMESPACE = "kubernetes.io/metadata.name"


def of_kind(documents: list[Document], *kinds: str) -> Iterator[Document]:
    return (document for document in documents if document["kind"] in kinds)


def called(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def labels_of(documents: list[Document]) -> list[dict[str, str]]:
    return [template["metadata"]["labels"] for _, template in templates(documents)]


def serving(documents: list[Document]) -> list[dict[str, str]]:
    return [template["metadata"]["labels"] for name, template in templates(documents) if not name.startswith("CronJob/")]


# The rules.


def selecting(documents: list[Document]) -> Iterator[str]:
    """Each selector selects pods, or Services, that exist."""
    labels = labels_of(documents)
    for document in of_kind(documents, "Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment", "StatefulSet"):
        spec = document["spec"]
        selector = spec.get("selector", spec.get("podSelector", {}))
        selector = selector.get("matchLabels", {} if "podSelector" in spec else selector)
        chosen = [one for one in labels if matches(selector, one)]
        if document["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            chosen = [one for one in serving(documents) if matches(selector, one)]
            if any(matches(selector, one) for one in labels if one not in serving(documents)):
                yield f"{called(document)} selects checks, too"
        if selector and not chosen:
            yield f"{called(document)} selects nothing by {selector}"
    services = list(of_kind(documents, "Service"))
    for monitor in of_kind(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        chosen = [one for one in services if matches(wanted, one["metadata"]["labels"])]
        names = {port["name"] for one in chosen for port in one["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in names:
                yield f"{called(monitor)}: no Service has a port {endpoint['port']}"


def reachable(documents: list[Document]) -> Iterator[str]:
    """Ports of Services exist in the pods, with the numbers that are said everywhere."""
    for service in of_kind(documents, "Service"):
        for port in service["spec"]["ports"]:
            wanted = {"mcp": MCP_PORT, "metrics": METRICS_PORT, "https": GATEWAY_PORT}.get(port["name"])
            found = [
                one["containerPort"]
                for _, pod in servers(documents)
                for container in containers(pod)
                for one in container.get("ports", [])
                if port["targetPort"] in (one.get("name"), one["containerPort"])
            ]
            if wanted not in found:
                yield f"{called(service)}: port {port['name']} leads to {found}, not to {wanted}"


def scaled(documents: list[Document]) -> Iterator[str]:
    """The autoscaler's target exists, and leaves the number of replicas to it."""
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = [one for one in documents if called(one) == f"{target['kind']}/{target['name']}"]
        if not found:
            yield f"{called(scaler)} scales nothing"
        if any("replicas" in one["spec"] for one in found):
            yield f"{called(scaler)} and its target both set the number of replicas"
        if any(is_gateway(pod) for _, pod in pods(found)):
            # Its sessions are sealed, so that any replica serves them.
            if [one["resource"]["name"] for one in scaler["spec"]["metrics"]] != ["cpu"]:
                yield f"{called(scaler)} reads something else than the CPU"
            if scaler["spec"]["minReplicas"] < LEAST_GATEWAYS:
                yield f"{called(scaler)}: fewer than {LEAST_GATEWAYS} gateways"
            continue
        metrics = [one["pods"]["metric"]["name"] for one in scaler["spec"]["metrics"]]
        if metrics != ["mcp_tool_requests_per_second"]:
            yield f"{called(scaler)} reads {metrics}"
        affine = [one["spec"].get("sessionAffinity") == "ClientIP" for one in of_kind(documents, "Service")]
        if not all(affine) and not all(forwards(pod) for _, pod in servers(documents)):
            yield f"{called(scaler)}: several replicas, and a Service without session affinity"


def forwards(pod: dict[str, Any]) -> bool:
    """Whether replicas pass requests of each other's sessions on."""
    names = [one["name"] for container in containers(pod) for one in container.get("env", [])]
    return "PROXYRUNNER_FORWARD_SESSIONS" in names


def sharing(documents: list[Document]) -> Iterator[str]:
    """Replicas that pass requests on know their own addresses, have one key, and may reach each other."""
    for name, template in templates(documents):
        pod = template["spec"]
        if not forwards(pod):
            continue
        (own,) = [one for container in containers(pod) for one in container.get("env", []) if one["name"] == "PROXYRUNNER_FORWARD_SESSIONS"]
        if own.get("valueFrom") != {"fieldRef": {"fieldPath": "status.podIP"}}:
            yield f"{name}: replicas have the same address, {own}"
        if not any(one["name"] == "PROXYRUNNER_STATE_KEY_FILE" for container in containers(pod) for one in container.get("env", [])):
            yield f"{name}: replicas share no key"
        labels = template["metadata"]["labels"]
        policies = [one["spec"] for one in of_kind(documents, "NetworkPolicy")]
        chosen = [spec for spec in policies if matches(spec["podSelector"].get("matchLabels", {}), labels)]
        for direction, rules, peers in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
            limits = [spec for spec in chosen if direction in spec["policyTypes"]]
            reached = [
                rule
                for spec in limits
                for rule in spec.get(rules, [])
                if any(is_own(peer, labels) for peer in rule.get(peers, [])) and MCP_PORT in [port["port"] for port in rule.get("ports", [])]
            ]
            if limits and not reached:
                yield f"{name}: replicas may not reach each other ({direction})"


def remembered(documents: list[Document]) -> Iterator[str]:
    """What uses Redis may reach it, and has a name there if it keeps sessions."""
    for name, template in templates(documents):
        names = {one["name"]: one.get("value", "") for container in containers(template["spec"]) for one in container.get("env", [])}
        if "PROXYRUNNER_REDIS" not in names:
            continue
        if "PROXYRUNNER_RESUME_SESSIONS" in names and not names.get("PROXYRUNNER_SERVER_NAME"):
            yield f"{name} has no name at Redis"
        port = int(names["PROXYRUNNER_REDIS"].rpartition(":")[2].partition("/")[0])
        labels = template["metadata"]["labels"]
        policies = [one["spec"] for one in of_kind(documents, "NetworkPolicy")]
        limits = [spec for spec in policies if matches(spec["podSelector"].get("matchLabels", {}), labels) and "Egress" in spec["policyTypes"]]
        ports = [each["port"] for spec in limits for rule in spec.get("egress", []) for each in rule.get("ports", [])]
        if limits and port not in ports:
            yield f"{name} may not reach its Redis"


def is_own(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a peer of a network policy is the pods with these labels, in their own namespace."""
    wanted = (peer.get("podSelector") or {}).get("matchLabels")
    return "namespaceSelector" not in peer and bool(wanted) and matches(wanted, labels)


def accounts(documents: list[Document]) -> Iterator[str]:
    there = {one["metadata"]["name"] for one in of_kind(documents, "ServiceAccount")}
    if there:
        for name, pod in pods(documents):
            if pod.get("serviceAccountName") not in there:
                yield f"{name} has no ServiceAccount of its own"


def closed(documents: list[Document]) -> Iterator[str]:
    """Where there are network policies, they admit the gateway and Prometheus only, and no pod may call everything."""
    policies = list(of_kind(documents, "NetworkPolicy"))
    if not policies:
        return
    for name, template in templates(documents):
        labels = template["metadata"]["labels"]
        own = [one["spec"] for one in policies if matches(one["spec"]["podSelector"].get("matchLabels", {}), labels)]
        for direction in ("Ingress", "Egress"):
            if not any(direction in spec["policyTypes"] for spec in own):
                yield f"{name}: no policy limits {direction}"
        for rule in (rule for spec in own for rule in spec.get("ingress", [])):
            own_port = GATEWAY_PORT if is_gateway(template["spec"]) else MCP_PORT
            siblings = labels if forwards(template["spec"]) else {}
            yield from (f"{name}: {problem}" for problem in admitted(rule, documents, own_port, siblings))
        for rule in (rule for spec in own for rule in spec.get("egress", [])):
            if not rule.get("to"):
                yield f"{name} may call everything"
            for peer in rule.get("to", []):
                if peer.get("namespaceSelector") == {"matchExpressions": TRUST}:
                    continue
                if not any((peer.get(key) or {}).get("matchLabels") for key in ("namespaceSelector", "podSelector")):
                    if "ipBlock" not in peer or peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0"):
                        yield f"{name} may call everything: {peer}"


def admitted(rule: dict[str, Any], documents: list[Document], own_port: int, siblings: dict[str, str]) -> Iterator[str]:
    """What a rule of ingress admits that it should not."""
    ports = {port["port"] for port in rule.get("ports", [])}
    if not rule.get("from") or not ports:
        yield "any client may call it, or any port"
    for peer in rule.get("from", []):
        space = (peer.get("namespaceSelector") or {}).get("matchLabels", {}).get(NAMESPACE)
        pod = (peer.get("podSelector") or {}).get("matchLabels", {})
        clients = GATEWAY if own_port == MCP_PORT else INGRESS
        if space in clients and ports == {own_port} or space in MONITORING and ports == {METRICS_PORT}:
            continue
        if own_port == GATEWAY_PORT and peer == {"namespaceSelector": {"matchExpressions": TRUST}} and ports == {own_port}:
            continue
        if is_own(peer, siblings) and ports == {MCP_PORT}:
            continue
        check = [t["metadata"]["labels"] for name, t in templates(documents) if name.startswith("CronJob/")]
        if not (space is None and pod and ports == {MCP_PORT} and any(matches(pod, one) for one in check)):
            yield f"{peer} may call ports {sorted(ports)}"


def checks(documents: list[Document]) -> Iterator[str]:
    """A golden path calls a Service that exists."""
    there = {
        f"http://{one['metadata']['name']}:{port['port']}/mcp"
        for one in of_kind(documents, "Service")
        for port in one["spec"]["ports"]
        if port["name"] == "mcp"
    }
    for cron in of_kind(documents, "CronJob"):
        (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        urls = [value for flag, value in own_words(container) if flag == "--url"]
        if not set(urls) & there:
            yield f"{called(cron)} calls {urls}, where nothing listens"
        if container["args"][:2] != ["probe", "call"]:
            yield f"{called(cron)} runs {container['args']}"


RULES: list[Rule] = [selecting, reachable, scaled, sharing, remembered, accounts, closed, checks]
