"""What the admission policies make of pods with and without the annotation."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import admission
import pods
from injected import differences
from pods import Document

Check = Callable[[Document], list[str]]


def as_pod(template: Document) -> Document:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}, "spec": template["spec"]}


def injected(
    mutating: Document, validating: Document, template: Document, overlay: Document, invalid: Check
) -> list[str]:
    """A pod that the policy changed must be as sound as the others."""
    bare = as_pod(template)
    pod = admission.mutated(mutating, bare)
    problems = [f"refused: {one}" for one in admission.refusals(validating, pod)]
    problems += invalid(pod)
    problems += differences(pod["spec"], overlay, "copier")
    problems += [problem for rule in pods.RULES if rule is not pods.tokenless for problem in rule([pod])]
    twice = admission.mutated(mutating, pod)
    problems += ["a pod that was injected is injected again"] * (twice != pod)
    own = copy.deepcopy(bare)
    container = own["spec"]["containers"][0]
    container["readinessProbe"] = {"exec": {"command": ["true"]}}
    container["args"] = ["--verbose"]
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    own["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    own["spec"]["initContainers"] = [{"name": "first", "image": "a:1"}]
    after = admission.mutated(mutating, own)["spec"]
    kept = [
        after["containers"][0]["readinessProbe"] == container["readinessProbe"],
        after["containers"][0]["args"] == ["--verbose"],
        [one["name"] for one in after["containers"][0]["volumeMounts"]] == ["data", "proxyrunner"],
        [one["name"] for one in after["volumes"]] == ["data", "proxyrunner"],
        [one["name"] for one in after["initContainers"]] == ["copy-proxyrunner", "first"],
    ]
    return problems + ([] if all(kept) else [f"what a pod has is not kept: {kept}"])


def untouched(mutating: Document, validating: Document, template: Document) -> list[str]:
    pod = as_pod(copy.deepcopy(template))
    del pod["metadata"]["annotations"]
    changed = admission.mutated(mutating, pod) != pod
    return ["it was changed"] * changed + admission.refusals(validating, pod)


def misread(mutating: Document, template: Document) -> list[str]:
    problems = []
    for command in (
        ["python", "server.py"], ["a b", "--name=it's", ""], ["ü", "日本", "[x]", ","],
        ['say "hi"', "back\\slash", '\\"', "\\\\"],
    ):  # fmt: skip
        pod = as_pod(copy.deepcopy(template))
        pod["metadata"]["annotations"]["proxyrunner/command"] = json.dumps(command, ensure_ascii=False)
        found = admission.mutated(mutating, pod)["spec"]["containers"][0]["command"]
        if found[found.index("--") + 1 :] != command:
            problems.append(f"{command} became {found}")
    return problems


def unrefused(mutating: Document, validating: Document, template: Document) -> list[str]:
    problems = []
    for text in ("", "python server.py", "[]", '[""]', '["python", 1]', '["a\\n"]', '["a"', '["a",]', '{"a": "b"}', '["\\u0041"]'):
        pod = as_pod(copy.deepcopy(template))
        pod["metadata"]["annotations"]["proxyrunner/command"] = text
        if not admission.refusals(validating, admission.mutated(mutating, pod)):
            problems.append(f"{text!r} is accepted")
    pod = as_pod(copy.deepcopy(template))
    pod["spec"]["containers"].append({"name": "other", "image": "other:1"})
    if admission.mutated(mutating, pod) != pod or not admission.refusals(validating, pod):
        problems.append("a pod with two containers is accepted")
    return problems
