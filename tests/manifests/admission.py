"""Evaluates the admission policies' CEL on pods, and applies what the mutating one answers.

There is no API server here. Types that the server would check are not checked: `Object.spec…{}` and `JSONPatch{}` are read as maps.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy import celtypes

Document = dict[str, Any]


def read(folder: Path) -> tuple[Document, Document]:
    """Returns the specs of the mutating and of the validating policy."""
    found = {}
    for file in ("mutating.yaml", "validating.yaml"):
        for document in yaml.safe_load_all((folder / file).read_text()):
            found[document["kind"]] = document["spec"]
    return found["MutatingAdmissionPolicy"], found["ValidatingAdmissionPolicy"]


def find_all(text: celtypes.StringType, pattern: celtypes.StringType) -> celtypes.ListType:
    return celtypes.ListType([celtypes.StringType(one.group(0)) for one in re.finditer(str(pattern), str(text))])


def substring(text: celtypes.StringType, begin: int, end: int) -> celtypes.StringType:
    return celtypes.StringType(str(text)[int(begin) : int(end)])


def replaced(text: celtypes.StringType, old: str, new: str) -> celtypes.StringType:
    return celtypes.StringType(str(text).replace(str(old), str(new)))


def unchanged(value: Any) -> Any:
    return value


# Kubernetes' own functions, which CEL itself does not have.
FUNCTIONS = {"findAll": find_all, "substring": substring, "replace": replaced, "dyn": unchanged}


def plain(expression: str) -> str:
    """Replaces typed objects by maps: `Object.spec{name: …}` by `{"name": …}`."""
    parts = re.split(r"(r?'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", expression)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"\b(?:JSONPatch|Object(?:\.\w+)*)\s*\{", "{", parts[at])
        parts[at] = re.sub(r"(?<=[{,\s])(\w+):(?=\s)", r'"\1":', parts[at])
    return "".join(parts)


def evaluated(expression: str, variables: Document) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(plain(expression)), functions=FUNCTIONS)
    return program.evaluate({name: celpy.json_to_cel(value) for name, value in variables.items()})


def native(value: Any) -> Any:
    """Returns a value of CEL as Python's own: CEL's booleans are no `bool`."""
    if isinstance(value, dict):
        return {str(key): native(item) for key, item in value.items()}
    if isinstance(value, list):
        return [native(item) for item in value]
    for kind, own in ((celtypes.BoolType, bool), (celtypes.IntType, int), (celtypes.StringType, str)):
        if isinstance(value, kind):
            return own(value)
    raise TypeError(f"{value!r} of {type(value)}")


def matched(policy: Document, pod: Document) -> bool:
    return all(bool(evaluated(one["expression"], {"object": pod})) for one in policy["matchConditions"])


def mutated(policy: Document, pod: Document) -> Document:
    """Returns the pod as the mutating policy leaves it."""
    if not matched(policy, pod):
        return pod
    known: Document = {"object": pod, "variables": {}}
    for variable in policy["variables"]:
        known["variables"][variable["name"]] = native(evaluated(variable["expression"], known))
    pod = copy.deepcopy(pod)
    for mutation in policy["mutations"]:
        for patch in native(evaluated(mutation["jsonPatch"]["expression"], known)):
            add(pod, patch)
    return pod


def add(document: Any, patch: Document) -> None:
    """Applies the operation `add` of a JSON patch."""
    assert patch["op"] == "add", patch
    *path, last = patch["path"].removeprefix("/").split("/")
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if isinstance(document, list):
        document.insert(len(document) if last == "-" else int(last), patch["value"])
    else:
        document[last] = patch["value"]


def refusals(policy: Document, pod: Document) -> list[str]:
    """Returns what the validating policy says of a pod."""
    if not matched(policy, pod):
        return []
    return [
        one["message"] for one in policy["validations"] if not bool(evaluated(one["expression"], {"object": pod}))
    ]
