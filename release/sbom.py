"""The bill of materials (CycloneDX 1.6) and the licenses of the crates that the binary contains."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tomllib
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platforms import Platform

LICENSE_FILES = re.compile(r"^(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", re.I)


@dataclass
class Materials:
    """The components of the binary, and which of them proxyrunner itself needs."""

    components: list[Component]
    direct: list[str]


@dataclass
class Component:
    """A crate, or a library that the compiler links."""

    name: str
    version: str
    license: str
    purl: str
    shipped: bool  # whether the binary contains it; otherwise it is only used to build
    checksum: str = ""
    description: str = ""
    folder: Path | None = None
    depends_on: list[str] = field(default_factory=list)


def collect(root: Path, platform: Platform) -> Materials:
    """Collects the crates of the binary for a platform, and the libraries that come with the compiler."""
    target = platform.target
    shipped = crates(root, target, "normal,no-proc-macro")
    used = crates(root, target, "normal,build")
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(output(root, *command))
    locked = tomllib.loads((root / "Cargo.lock").read_text())["package"]
    checksums = {(crate["name"], crate["version"]): crate.get("checksum", "") for crate in locked}
    key_of = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
    edges = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    found, direct = toolchain(root, platform), []
    direct += [component.purl for component in found]
    for package in metadata["packages"]:
        key = key_of[package["id"]]
        depends_on = dependencies(edges[package["id"]], key_of, used)
        if package["id"] == metadata["resolve"]["root"]:
            direct += depends_on
            continue
        if key not in used:
            continue
        found.append(
            Component(
                name=key[0],
                version=key[1],
                # An old form of "or".
                license=(package["license"] or "NOASSERTION").replace("/", " OR "),
                purl=purl(*key),
                shipped=key in shipped,
                checksum=checksums[key],
                description=(package["description"] or "").strip(),
                folder=Path(package["manifest_path"]).parent,
                depends_on=depends_on,
            )
        )
    return Materials(sorted(found, key=lambda component: component.purl), sorted(direct))


def crates(root: Path, target: str, edges: str) -> set[tuple[str, str]]:
    """Returns names and versions of the crates that cargo tree reaches from proxyrunner."""
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", edges, "--prefix", "none", "--format", "{p}"]
    lines = output(root, *command).splitlines()
    return {(words[0], words[1].removeprefix("v")) for line in lines if len(words := line.split()) >= 2}


def dependencies(edges: list[dict[str, Any]], key_of: dict[str, tuple[str, str]], used: set[tuple[str, str]]) -> list[str]:
    """Returns the crates that a crate needs to be built or to run, not those of its tests."""
    wanted = [edge["pkg"] for edge in edges if any(kind["kind"] != "dev" for kind in edge["dep_kinds"])]
    return sorted({purl(*key_of[id]) for id in wanted if key_of[id] in used})


def toolchain(root: Path, platform: Platform) -> list[Component]:
    """Returns the libraries that are linked without being crates of Cargo.lock, in the versions of this machine."""
    rust = re.search(r"^release: (\S+)$", output(root, os.environ.get("RUSTC", "rustc"), "-vV"), re.M)[1]
    found = [
        ("rust-std", rust, "MIT OR Apache-2.0", "Rust standard library"),
        ("glibc", libc(root, platform), "LGPL-2.1-or-later", "GNU C library, linked statically"),
    ]
    return [
        Component(name, version, license, f"pkg:generic/{name}@{version}", shipped=True, description=description)
        for name, version, license, description in found
    ]


def libc(root: Path, platform: Platform) -> str:
    """Returns the version of the C library: this machine's, or that of the compiler for another platform."""
    if platform.is_native:
        return output(root, "getconf", "GNU_LIBC_VERSION").split()[1]
    compiler = platform.environment()[f"CC_{platform.target.replace('-', '_')}"]
    macros = output(root, compiler, "-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null")
    return ".".join(re.search(rf"^#define {name} (\d+)$", macros, re.M)[1] for name in ("__GLIBC__", "__GLIBC_MINOR__"))


def document(package: dict[str, Any], materials: Materials, binary: bytes, target: str, epoch: int) -> bytes:
    """Returns the bill of materials as JSON."""
    own = purl(package["name"], package["version"])
    digest = hashlib.sha256(binary).hexdigest()
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": package["name"],
                "version": package["version"],
                "description": package["description"],
                "licenses": [{"expression": package["license"]}],
                "purl": own,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [described(component) for component in materials.components],
        "dependencies": [
            {"ref": own, "dependsOn": materials.direct},
            *({"ref": component.purl, "dependsOn": component.depends_on} for component in materials.components),
        ],
    }
    # The same content has the same number.
    text = json.dumps(content, sort_keys=True)
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, text)}"
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def described(component: Component) -> dict[str, Any]:
    content = {
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "description": component.description,
        "scope": "required" if component.shipped else "excluded",
        "licenses": [{"expression": component.license}],
        "purl": component.purl,
    }
    if component.checksum:
        content["hashes"] = [{"alg": "SHA-256", "content": component.checksum}]
    return content


def third_party(materials: Materials) -> bytes:
    """Returns the license texts of all crates in the binary, equal texts once."""
    users: dict[str, list[str]] = {}
    for component in filter(lambda component: component.shipped, materials.components):
        for text in license_texts(component) or [f"License: {component.license}. The crate contains no copy of it."]:
            users.setdefault(text, []).append(f"{component.name} {component.version} ({component.license})")
    line = "-" * 80
    parts = ["proxyrunner contains the following libraries. Their licenses follow."]
    for text, names in sorted(users.items(), key=lambda item: item[1]):
        parts.append("\n".join([line, *sorted(set(names)), line]) + f"\n\n{text}")
    return ("\n\n".join(parts) + "\n").encode()


def license_texts(component: Component) -> list[str]:
    if component.folder is None:
        return []
    files = [path for path in component.folder.iterdir() if path.is_file() and LICENSE_FILES.match(path.name)]
    texts = [path.read_text(errors="replace") for path in sorted(files)]
    return ["\n".join(line.rstrip() for line in text.strip().splitlines()) for text in texts]


def purl(name: str, version: str) -> str:
    return f"pkg:cargo/{name}@{version}"


def output(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
