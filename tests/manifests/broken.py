"""Manifests that are broken on purpose. A check must notice each change, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pods
from pods import Document

Change = Callable[[list[Document]], None]


def the(them: list[Document], kind: str, name: str = "") -> Document:
    return next(one for one in them if one["kind"] == kind and one["metadata"]["name"].endswith(name))


def pod_of(them: list[Document]) -> Document:
    return next(pods.servers(them))[1]


def server(them: list[Document]) -> Document:
    return pod_of(them)["containers"][0]


def put(target: Callable[[list[Document]], Any], key: Any, value: Any = None) -> Change:
    """Returns a change that sets a key, or removes it."""

    def change(them: list[Document]) -> None:
        where = target(them)
        if value is None:
            del where[key]
        else:
            where[key] = value

    return change


def variable(name: str, value: str) -> Change:
    """Returns a change that sets a variable of the server's container."""

    def change(them: list[Document]) -> None:
        others = [one for one in server(them)["env"] if one["name"] != name]
        server(them)["env"] = [*others, {"name": name, "value": value}]

    return change


def arguments_of_the_check(them: list[Document]) -> list[str]:
    (container,) = the(them, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container["args"]


def egress(them: list[Document]) -> Document:
    return the(them, "NetworkPolicy", "-egress")["spec"]["egress"][0]


def ingress(them: list[Document]) -> Document:
    return the(them, "NetworkPolicy", "-ingress")["spec"]["ingress"][0]


# The overlay, what is broken, what a check says of it, and the change.
BROKEN: list[tuple[str, str, str, Change]] = [
    ("production", "root", "may run as root", put(lambda t: pod_of(t)["securityContext"], "runAsNonRoot", False)),
    ("production", "no seccomp", "no seccomp profile", put(lambda t: pod_of(t)["securityContext"], "seccompProfile")),
    ("production", "the host's network", "hostNetwork", put(pod_of, "hostNetwork", True)),
    ("production", "a writable root", "write to its root file system",
     put(lambda t: server(t)["securityContext"], "readOnlyRootFilesystem", False)),
    ("production", "privileges", "gain privileges",
     put(lambda t: server(t)["securityContext"], "allowPrivilegeEscalation")),
    ("production", "capabilities", "has capabilities",
     put(lambda t: server(t)["securityContext"], "capabilities", {"add": ["NET_ADMIN"]})),
    ("production", "a privileged copy", "is privileged",
     put(lambda t: pod_of(t)["initContainers"][0]["securityContext"], "privileged", True)),
    ("production", "a token", "mounts a token", put(pod_of, "automountServiceAccountToken")),
    ("production", "a token of the account", "gives a token",
     put(lambda t: the(t, "ServiceAccount"), "automountServiceAccountToken", True)),
    ("production", "service links", "variables of Services", put(pod_of, "enableServiceLinks", True)),
    ("production", "no limit", "no limits of memory", put(lambda t: server(t)["resources"]["limits"], "memory")),
    ("production", "an unlimited volume", "has no limit", put(lambda t: pod_of(t)["volumes"][0], "emptyDir", {})),
    ("production", "latest", "has no version", put(server, "image", "example-server:latest")),
    ("production", "no tag", "has no version", put(server, "image", "registry.example.com/example-server")),
    ("image-volume", "no tag of a volume", "has no version",
     put(lambda t: pod_of(t)["volumes"][0]["image"], "reference", "proxyrunner")),
    ("production", "no readiness", "readinessProbe asks for None", put(server, "readinessProbe")),
    ("production", "an unknown path", "does not serve",
     put(lambda t: server(t)["livenessProbe"]["httpGet"], "path", "/healthy")),
    ("production", "readiness as liveness", "not /health",
     put(lambda t: server(t)["livenessProbe"]["httpGet"], "path", "/health/ready")),
    ("production", "another port", "which is not 8080",
     put(lambda t: server(t)["readinessProbe"]["httpGet"], "port", 8081)),
    ("production", "a short start", "58 s to start", put(lambda t: server(t)["startupProbe"], "failureThreshold", 29)),
    ("sidecar-pair", "a startup probe of the sidecar", "has a startup probe",
     put(lambda t: pod_of(t)["initContainers"][1], "startupProbe", {"httpGet": {"path": "/health", "port": 8080}})),
    ("sidecar-pair", "a sidecar that ends", "livenessProbe asks for None",
     put(lambda t: pod_of(t)["initContainers"][1], "restartPolicy")),
    ("sidecar-pair", "no hook", "before requests are finished", put(server, "lifecycle")),
    ("sidecar-pair", "another socket", "nothing is mounted at",
     put(lambda t: pod_of(t)["initContainers"][1], "volumeMounts", [])),
    ("sidecar-pair", "a short grace", "to stop and gets", put(pod_of, "terminationGracePeriodSeconds", 30)),
    ("production", "loopback", "listens on", variable("PROXYRUNNER_LISTEN", "127.0.0.1:8080")),
    ("production", "a variable in front of another", "does not precede it",
     lambda t: server(t)["env"].insert(0, {"name": "A", "value": "$(POD_NAME)"})),
    ("production", "an unknown variable", "no variable PROXYRUNNER_LISTN", variable("PROXYRUNNER_LISTN", "[::]:8080")),
    ("production", "an unknown flag", "no option --lissten",
     put(server, "command", ["/opt/proxyrunner/proxyrunner", "--lissten=[::]:8080", "--"])),
    ("production", "an unknown flag of the check", "no option --uri",
     put(arguments_of_the_check, 2, "--uri")),
    ("production", "a short grace of a pod", "to stop and gets", put(pod_of, "terminationGracePeriodSeconds", 20)),
    ("production", "a long drain", "to stop and gets", variable("PROXYRUNNER_DRAIN_TIMEOUT", "60s")),
    ("production", "a volume that is not there", "does not exist",
     put(lambda t: pod_of(t)["volumes"][0], "name", "other")),
    ("production", "a binary that is not there", "nothing is mounted at",
     put(server, "command", ["/proxyrunner/proxyrunner", "--"])),
    ("production", "a Service that selects nothing", "selects nothing",
     put(lambda t: the(t, "Service")["spec"], "selector", {"app": "x"})),
    ("production", "a budget of nothing", "selects nothing",
     put(lambda t: the(t, "PodDisruptionBudget")["spec"]["selector"], "matchLabels", {"app": "x"})),
    ("production", "a policy of nothing", "selects nothing",
     put(lambda t: the(t, "NetworkPolicy", "-egress")["spec"]["podSelector"], "matchLabels", {"app": "x"})),
    ("production", "a monitor of nothing", "no Service has a port",
     put(lambda t: the(t, "ServiceMonitor")["spec"]["endpoints"][0], "port", "admin")),
    ("production", "another target port", "not to 8080",
     put(lambda t: the(t, "Service")["spec"]["ports"][0], "targetPort", "metrics")),
    ("production", "an autoscaler of nothing", "scales nothing",
     put(lambda t: the(t, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"], "name", "x")),
    ("production", "another metric", "reads",
     put(lambda t: the(t, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"], "name", "x")),
    ("production", "fixed replicas", "both set the number of replicas",
     put(lambda t: the(t, "Deployment")["spec"], "replicas", 2)),
    ("production", "no affinity", "without session affinity",
     put(lambda t: the(t, "Service")["spec"], "sessionAffinity")),
    ("production", "another account", "no ServiceAccount of its own", put(pod_of, "serviceAccountName", "default")),
    ("production", "open ingress", "any client may call it", put(ingress, "from")),
    ("production", "all ports", "any port", put(ingress, "ports")),
    ("production", "another namespace", "may call ports",
     put(lambda t: ingress(t)["from"][0]["namespaceSelector"]["matchLabels"], "kubernetes.io/metadata.name", "default")),
    ("production", "all namespaces", "may call ports", put(lambda t: ingress(t)["from"][0], "namespaceSelector", {})),
    ("production", "open egress", "may call everything", put(egress, "to")),
    ("production", "egress to the world", "may call everything",
     put(egress, "to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}])),
    ("production", "no policy of egress", "no policy limits Egress",
     put(lambda t: the(t, "NetworkPolicy", "-egress")["spec"], "policyTypes", ["Ingress"])),
    ("production", "a check of another Service", "where nothing listens",
     put(arguments_of_the_check, 3, "http://other:8080/mcp")),
    ("production", "a wrong type", "is not of type",
     put(lambda t: the(t, "Service")["spec"]["ports"][0], "port", "eighty")),
    ("production", "an unknown field", "'imagePolicy' was unexpected", put(server, "imagePolicy", "Always")),
    ("stateful", "no name of a Service", "'serviceNaem' was unexpected",
     put(lambda t: the(t, "StatefulSet")["spec"], "serviceNaem", "x")),
    ("production", "an unknown field of a monitor", "does not exist",
     put(lambda t: the(t, "ServiceMonitor")["spec"]["endpoints"][0], "ports", "metrics")),
    ("production", "a rule without a query", "expr is missing",
     put(lambda t: the(t, "PrometheusRule")["spec"]["groups"][0]["rules"][0], "expr")),
    ("gateway", "two gateways", "fewer than 3 gateways",
     put(lambda t: the(t, "HorizontalPodAutoscaler")["spec"], "minReplicas", 2)),
    ("gateway", "fixed gateways", "both set the number of replicas", put(lambda t: the(t, "Deployment")["spec"], "replicas", 3)),
    ("gateway", "no key of the gateway", "--gateway-key is in a None",
     lambda t: server(t)["env"].remove(next(one for one in server(t)["env"] if one["name"] == "PROXYRUNNER_GATEWAY_KEY"))),
    ("gateway", "a key that is no secret", "--state-key-file is in a configMap", variable("PROXYRUNNER_STATE_KEY_FILE",
     "/etc/proxyrunner/servers/state")),
    ("gateway", "a key that is nowhere", "nothing is mounted at", variable("PROXYRUNNER_GATEWAY_KEY", "/etc/proxyrunner/key/gateway.pem")),
    ("gateway", "a file that is never read again", "is a subPath", put(lambda t: server(t)["volumeMounts"][0], "subPath", "servers.json")),
    ("gateway", "no authentication", "serves anybody",
     lambda t: server(t)["env"].remove(next(one for one in server(t)["env"] if one["name"] == "PROXYRUNNER_AUTH_ISSUER"))),
    ("gateway", "probes by TLS", "which is not 9090", put(lambda t: server(t)["readinessProbe"]["httpGet"], "port", "https")),
    ("gateway", "clear text", "listens on", variable("PROXYRUNNER_LISTEN", "[::]:8080")),
    ("gateway", "open to all", "any client may call it", put(ingress, "from")),
    ("gateway", "open to servers' clients", "may call ports",
     put(lambda t: ingress(t)["from"][0]["namespaceSelector"]["matchLabels"], "kubernetes.io/metadata.name", "default")),
    ("gateway", "open egress of a gateway", "may call everything", put(egress, "to")),
    ("gateway", "a certificate without a secret", "secretName is missing", put(lambda t: the(t, "Certificate")["spec"], "secretName")),
    ("gateway", "a budget of no gateway", "selects nothing",
     put(lambda t: the(t, "PodDisruptionBudget")["spec"]["selector"], "matchLabels", {"app": "x"})),
    ("gateway", "a gateway's short grace", "to stop and gets", put(pod_of, "terminationGracePeriodSeconds", 20)),
    ("replicas", "no affinity and no forwarding", "without session affinity",
     lambda t: server(t)["env"].remove(next(one for one in server(t)["env"] if one["name"] == "PROXYRUNNER_FORWARD_SESSIONS"))),
    ("replicas", "one address for all replicas", "have the same address", variable("PROXYRUNNER_FORWARD_SESSIONS", "10.0.0.1")),
    ("replicas", "no key of the replicas", "replicas share no key",
     lambda t: server(t)["env"].remove(next(one for one in server(t)["env"] if one["name"] == "PROXYRUNNER_STATE_KEY_FILE"))),
    ("replicas", "replicas that may not be called", "may not reach each other (Ingress)",
     lambda t: the(t, "NetworkPolicy", "-ingress")["spec"]["ingress"].pop()),
    ("replicas", "replicas that may not call", "may not reach each other (Egress)",
     lambda t: the(t, "NetworkPolicy", "-egress")["spec"]["egress"].pop()),
    ("replicas", "metrics for replicas", "may call ports",
     put(lambda t: the(t, "NetworkPolicy", "-ingress")["spec"]["ingress"][-1]["ports"][0], "port", 9090)),
    ("resumed", "no Redis within reach", "may not reach its Redis", lambda t: the(t, "NetworkPolicy", "-egress")["spec"]["egress"].pop()),
    ("resumed", "a server without a name", "has no name at Redis",
     lambda t: server(t)["env"].remove(next(one for one in server(t)["env"] if one["name"] == "PROXYRUNNER_SERVER_NAME"))),
    ("gateway-redis", "no Redis for a gateway", "may not reach its Redis",
     lambda t: the(t, "NetworkPolicy", "-egress")["spec"]["egress"].pop()),
    ("behind-gateway", "another way to a server", "may call ports",
     put(lambda t: ingress(t)["from"][0]["namespaceSelector"]["matchLabels"], "kubernetes.io/metadata.name", "mcp-core")),
]  # fmt: skip
