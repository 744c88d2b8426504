"""The workloads that operators make of the recipes' custom resources, as far as the recipes decide them."""

from __future__ import annotations

from typing import Any


def workload(kind: str, document: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """Wraps a pod as its operator would."""
    name = document["metadata"]["name"]
    labels = {"app.kubernetes.io/name": name}
    spec = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        **({"serviceName": name} if kind == "StatefulSet" else {}),
    }
    metadata = {"name": name, "namespace": document["metadata"]["namespace"], "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def kmcp(document: dict[str, Any]) -> dict[str, Any]:
    """kmcp 0.3.0: the adapter copies itself, and reads its configuration from a file."""
    deployment = document["spec"]["deployment"]
    binary = {"name": "binary", "mountPath": "/adapterbin"}
    return workload("Deployment", document, {
        "initContainers": [{
            "name": "copy-binary", "image": deployment["initContainer"]["image"],
            "args": ["--copy-self", "/adapterbin/agentgateway"], "volumeMounts": [binary],
        }],
        "containers": [{
            "name": "mcp-server", "image": deployment["image"],
            "command": ["/adapterbin/agentgateway"], "args": ["-f", "/config/local.yaml"],
            "env": [{"name": name, "value": value} for name, value in deployment.get("env", {}).items()],
            "ports": [{"name": "http", "containerPort": deployment["port"]}],
            "volumeMounts": [binary, {"name": "config", "mountPath": "/config"}],
        }],
        "volumes": [
            {"name": "binary", "emptyDir": {}},
            {"name": "config", "configMap": {"name": document["metadata"]["name"]}},
        ],
    })  # fmt: skip


def toolhive(document: dict[str, Any]) -> dict[str, Any]:
    """ToolHive 0.44: the container `mcp` gets the image, the arguments and the port, and the template the rest."""
    spec = document["spec"]
    pod = dict(spec["podTemplateSpec"]["spec"])
    own = {
        "name": "mcp", "image": spec["image"], "args": spec["args"],
        "ports": [{"name": "http", "containerPort": spec["mcpPort"]}],
    }  # fmt: skip
    pod["containers"] = [own | one if one["name"] == "mcp" else one for one in pod["containers"]]
    return workload("StatefulSet", document, pod)


def lifecycle(document: dict[str, Any]) -> dict[str, Any]:
    """mcp-lifecycle-operator, v1beta1: an image, and what a container needs."""
    spec = document["spec"]
    source, config, runtime = spec["source"]["containerImage"], spec["config"], spec["runtime"]
    storage = config.get("storage", [])
    return workload("Deployment", document, {
        "securityContext": runtime["security"]["podSecurityContext"],
        "containers": [{
            "name": "mcp-server", "image": source["ref"], "imagePullPolicy": source["pullPolicy"],
            "args": config.get("arguments", []), "env": config["env"],
            "ports": [{"name": "mcp", "containerPort": config["port"]}],
            "resources": runtime["resources"], "securityContext": runtime["security"]["securityContext"],
            **runtime["health"],
            "volumeMounts": [
                {"name": f"storage-{number}", "mountPath": one["path"]} for number, one in enumerate(storage)
            ],
        }],
        "volumes": [
            {"name": f"storage-{number}", "emptyDir": one["source"]["emptyDir"]} for number, one in enumerate(storage)
        ],
    })  # fmt: skip


RENDERED = {"kagent.dev/v1alpha1": kmcp, "toolhive.stacklok.dev/v1beta1": toolhive, "mcp.x-k8s.io/v1beta1": lifecycle}


def rendered(document: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the workload of a custom resource, or None if an operator has nothing to do with it."""
    make = RENDERED.get(document["apiVersion"])
    return make(document) if make else None
