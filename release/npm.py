"""The npm packages: a launcher, and one package for each platform, of which npm installs the one that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entries import Entry, write_tar

if TYPE_CHECKING:
    from build import Release

HERE = Path(__file__).resolve().parent / "npm"
PLATFORM = "linux-x64"


def packages(release: Release, out: Path) -> None:
    """Writes both packages in the form that `npm pack` makes and `npm publish` takes."""
    common: dict[str, Any] = {"version": release.version, "license": "Apache-2.0"}
    scoped = f"@{release.name}/{PLATFORM}"
    main = {
        "name": release.name,
        **common,
        "description": release.description,
        "keywords": release.keywords,
        "bin": {release.name: "bin/proxyrunner.js"},
        "engines": {"node": ">=18"},
        "optionalDependencies": {scoped: release.version},
    }
    platform = {
        "name": scoped,
        **common,
        "description": f"The binary of {release.name} for Linux on x86-64.",
        "os": ["linux"],
        "cpu": ["x64"],
        # Yarn would leave it in a zip archive, where nothing can run it.
        "preferUnplugged": True,
    }
    launcher = Entry("bin/proxyrunner.js", (HERE / "proxyrunner.js").read_bytes(), executable=True)
    write(release, out, main, [launcher, Entry("README.md", release.page)])
    note = f"# {scoped}\n\n{platform['description']} Install `{release.name}`, which needs it.\n"
    binary = Entry("bin/proxyrunner", release.binary, executable=True)
    write(release, out, platform, [binary, Entry("README.md", note.encode()), Entry("THIRD-PARTY.txt", release.third_party)])


def write(release: Release, out: Path, manifest: dict[str, Any], entries: list[Entry]) -> None:
    text = json.dumps(manifest, indent=2).encode() + b"\n"
    name = manifest["name"].removeprefix("@").replace("/", "-")
    files = [Entry("package.json", text), Entry("LICENSE", release.license), *entries]
    write_tar(out / f"{name}-{release.version}.tgz", files, release.epoch, "package")
