"""The npm packages: a launcher, and one package for each platform, of which npm installs the one that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entries import Entry, write_tar
from platforms import PLATFORMS

if TYPE_CHECKING:
    from build import Release

HERE = Path(__file__).resolve().parent / "npm"


def packages(release: Release, out: Path) -> None:
    """Writes the launcher and the package of a platform in the form that `npm pack` makes and `npm publish` takes."""
    common: dict[str, Any] = {"version": release.version, "license": "Apache-2.0"}
    scoped = f"@{release.name}/{release.platform.npm}"
    main = {
        "name": release.name,
        **common,
        "description": release.description,
        "keywords": release.keywords,
        "bin": {release.name: "bin/proxyrunner.js"},
        "engines": {"node": ">=18"},
        # The same whatever platforms are made, since it is published once.
        "optionalDependencies": {f"@{release.name}/{one.npm}": release.version for one in PLATFORMS.values()},
    }
    platform = {
        "name": scoped,
        **common,
        "description": f"The binary of {release.name} for {release.platform.words}.",
        "os": ["linux"],
        "cpu": [release.platform.cpu],
        # Yarn would leave it in a zip archive, where nothing can run it.
        "preferUnplugged": True,
    }
    supported = ", ".join(f"'{one.npm}'" for one in PLATFORMS.values())
    script = (HERE / "proxyrunner.js").read_text().replace("'@SUPPORTED@'", supported)
    launcher = Entry("bin/proxyrunner.js", script.encode(), executable=True)
    write(release, out, main, [launcher, Entry("README.md", release.page)])
    note = f"# {scoped}\n\n{platform['description']} Install `{release.name}`, which needs it.\n"
    binary = Entry("bin/proxyrunner", release.binary, executable=True)
    write(release, out, platform, [binary, Entry("README.md", note.encode()), Entry("THIRD-PARTY.txt", release.third_party)])


def write(release: Release, out: Path, manifest: dict[str, Any], entries: list[Entry]) -> None:
    text = json.dumps(manifest, indent=2).encode() + b"\n"
    name = manifest["name"].removeprefix("@").replace("/", "-")
    files = [Entry("package.json", text), Entry("LICENSE", release.license), *entries]
    write_tar(out / f"{name}-{release.version}.tgz", files, release.epoch, "package")
