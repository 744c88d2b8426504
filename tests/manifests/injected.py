"""What `proxyrunner inject` and the admission policy make of pods, compared with the overlays that do the same."""

from __future__ import annotations

import copy
import re
from typing import Any

import pods
from pods import Document

COPIER = "copy-proxyrunner"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# Platforms choose the ids.
IDS = ("runAsUser", "runAsGroup", "fsGroup")


def amount(quantity: Any) -> float | str:
    """Returns the amount of CPU that a quantity stands for; sizes stay as they are written."""
    text = str(quantity)
    number = re.fullmatch(r"([\d.]+)(m?)", text)
    return float(number[1]) / (1000 if number[2] else 1) if number else text


def resources(container: Document) -> dict[str, Any]:
    return {
        f"{kind} of {what}": amount(quantity)
        for kind, all_of_it in container.get("resources", {}).items()
        for what, quantity in all_of_it.items()
    }


def security(pod: Document, container: Document) -> dict[str, Any]:
    """Returns the security context that a container has with its pod's."""
    merged = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    return {key: value for key, value in merged.items() if key not in IDS}


def probe(container: Document, kind: str) -> dict[str, Any]:
    found = copy.deepcopy(container.get(kind, {}))
    names = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    if "httpGet" in found:
        found["httpGet"]["port"] = names.get(found["httpGet"]["port"], found["httpGet"]["port"])
    return found


def sizes(pod: Document, container: Document) -> dict[str, Any]:
    """Returns the limits of the empty volumes, by the folders at which they are mounted."""
    limits = {one["name"]: one["emptyDir"].get("sizeLimit") for one in pod.get("volumes", []) if "emptyDir" in one}
    mounts = container.get("volumeMounts", [])
    return {f"size of {one['mountPath']}": limits[one["name"]] for one in mounts if one["name"] in limits}


def essence(pod: Document, server: str) -> dict[str, Any]:
    """What proxyrunner's own decisions are, of the server's container and of the one that copies the binary."""
    found: dict[str, Any] = {}
    for container in pods.containers(pod):
        name = {server: "server", COPIER: "copier"}.get(container["name"])
        if name:
            parts = {**resources(container), **sizes(pod, container), "security": security(pod, container)}
            parts |= {kind: probe(container, kind) for kind in PROBES}
            found |= {f"{name}: {part}": value for part, value in parts.items()}
    return found


def differences(pod: Document, overlay: Document, of: str = "") -> list[str]:
    """Where a pod that was injected differs from an overlay's; of one container only, if its name is given."""
    one, other = essence(pod, pod["containers"][0]["name"]), essence(overlay, overlay["containers"][0]["name"])
    assert any(key.startswith("copier") for key in other), "the overlay copies nothing"
    return [
        f"{key} is {one.get(key)}, and {other.get(key)} in the overlay"
        for key in sorted({*one, *other})
        if key.startswith(of) and one.get(key) != other.get(key)
    ]
