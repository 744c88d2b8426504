"""Shapes of custom resources, as far as the manifests use them: Kubernetes' own schemas do not know them.

A shape is a type, a set of allowed texts, a list of one shape, or a dictionary of fields. A field with `!` is required. `ANY` is
checked elsewhere, within a pod that the operator would make of it.
"""

from __future__ import annotations

from typing import Any, Iterator

ANY = object()
TEXTS = {str: str}  # any key
METADATA = {"name!": str, "namespace": str, "labels": TEXTS, "annotations": TEXTS}
SELECTOR = {"matchLabels": TEXTS}

RULE = {"record": str, "alert": str, "expr!": str, "for": str, "labels": TEXTS, "annotations": TEXTS}
RELABELING = {
    "sourceLabels": [str], "separator": str, "targetLabel": str, "regex": str, "replacement": str, "action": str,
}

SHAPES: dict[tuple[str, str], Any] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {
        "selector!": SELECTOR,
        "namespaceSelector": {"any": bool, "matchNames": [str]},
        "endpoints!": [{"port!": str, "path": str, "interval": str, "scheme": str, "relabelings": [RELABELING]}],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups!": [{"name!": str, "interval": str, "rules!": [RULE]}]},
    ("cert-manager.io/v1", "Certificate"): {
        "secretName!": str, "dnsNames": [str], "duration": str, "renewBefore": str, "usages": [{"digital signature", "server auth"}],
        "privateKey": {
            "algorithm": {"RSA", "ECDSA", "Ed25519"}, "size": int, "encoding": {"PKCS1", "PKCS8"},
            "rotationPolicy": {"Never", "Always"},
        },
        "issuerRef!": {"name!": str, "kind": {"Issuer", "ClusterIssuer"}, "group": str},
    },
    ("kagent.dev/v1alpha1", "MCPServer"): {
        "transportType!": {"stdio", "http"},
        "stdioTransport": {},
        "deployment!": {
            "initContainer": {"image": str, "imagePullPolicy": {"Always", "Never", "IfNotPresent"}},
            "image!": str, "port": int, "cmd": str, "args": [str], "env": TEXTS,
        },
    },
    ("toolhive.stacklok.dev/v1beta1", "MCPServer"): {
        "image!": str, "transport!": {"stdio", "streamable-http", "sse"}, "proxyPort": int, "mcpPort": int,
        "args": [str], "podTemplateSpec": ANY,
    },
    ("mcp.x-k8s.io/v1beta1", "MCPServer"): {
        "source!": {
            "type!": {"ContainerImage"},
            "containerImage!": {"ref!": str, "pullPolicy": {"Always", "Never", "IfNotPresent"}},
        },
        "config!": {
            "port!": int, "path": str, "arguments": [str], "env": ANY,
            "storage": [{
                "path!": str, "permissions": {"ReadOnly", "ReadWrite", "RecursiveReadOnly"},
                "source!": {"type!": {"ConfigMap", "Secret", "EmptyDir"}, "emptyDir": ANY},
            }],
        },
        "runtime": {
            "replicas": int, "resources": ANY,
            "security": {"serviceAccountName": str, "podSecurityContext": ANY, "securityContext": ANY},
            "health": {"livenessProbe": ANY, "readinessProbe": ANY},
        },
        "mcp": {"stateless": bool},
        "network": {"ingressFrom": ANY, "egressTo": ANY, "egressPorts": ANY, "dnsEgressPeer": ANY},
    },
}


def known(document: dict[str, Any]) -> bool:
    return (document.get("apiVersion"), document.get("kind")) in SHAPES


def problems(document: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a custom resource."""
    shape = SHAPES[document["apiVersion"], document["kind"]]
    whole = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, "spec!": shape}
    return list(compared(document, whole, ""))


def compared(value: Any, shape: Any, path: str) -> Iterator[str]:
    if shape is ANY:
        return
    if isinstance(shape, set):
        if value not in shape:
            yield f"{path}: {value!r} is none of {sorted(shape)}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path}: no list"
            return
        for number, item in enumerate(value):
            yield from compared(item, shape[0], f"{path}[{number}]")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path}: no object"
        elif str in shape:
            for key, item in value.items():
                yield from compared(item, shape[str], f"{path}.{key}")
        else:
            yield from fields(value, shape, path)
    elif type(value) is not shape:
        yield f"{path}: {value!r} is no {shape.__name__}"


def fields(value: dict[str, Any], shape: dict[str, Any], path: str) -> Iterator[str]:
    names = {name.removesuffix("!"): inner for name, inner in shape.items()}
    for name in shape:
        if name.endswith("!") and name[:-1] not in value:
            yield f"{path}.{name[:-1]} is missing"
    for name, item in value.items():
        if name in names:
            yield from compared(item, names[name], f"{path}.{name}")
        else:
            yield f"{path}.{name} does not exist"
