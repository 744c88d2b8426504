"""The Debian package, made by dpkg-deb from a folder that holds its files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from entries import Entry, compress

if TYPE_CHECKING:
    from build import Release

HERE = Path(__file__).resolve().parent / "debian"
MAINTAINER = "proxyrunner authors <packages@proxyrunner.invalid>"
SCRIPTS = ("postinst", "prerm", "postrm")


def package(release: Release, out: Path, scratch: Path) -> None:
    """Writes the package, from files that are laid out in a folder of their own."""
    files = contents(release)
    control = {
        "Package": release.name,
        "Version": release.version,
        "Architecture": release.platform.debian,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(sum(-(-len(file.content) // 1024) for file in files)),
        "Section": "net",
        "Priority": "optional",
        # The first line is a summary; the others are indented.
        "Description": "\n ".join([release.description.rstrip("."), *(HERE / "description").read_text().splitlines()]),
    }
    text = "".join(f"{name}: {value}\n" for name, value in control.items())
    files.sort(key=lambda file: file.path)
    sums = "".join(f"{hashlib.md5(file.content).hexdigest()}  {file.path}\n" for file in files)
    files += [Entry("DEBIAN/control", text.encode()), Entry("DEBIAN/md5sums", sums.encode())]
    files += [Entry(f"DEBIAN/{script}", (HERE / script).read_bytes(), executable=True) for script in SCRIPTS]
    tree = scratch / "tree"
    # The administrator's settings go here.
    (tree / "etc" / "proxyrunner").mkdir(parents=True)
    for file in files:
        path = tree / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (release.epoch, release.epoch))
    archive = out / f"{release.name}_{release.version}_{release.platform.debian}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, archive]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(release.epoch)}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


def contents(release: Release) -> list[Entry]:
    documentation = f"usr/share/doc/{release.name}"
    changes = (
        f"{release.name} ({release.version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
        f" -- {MAINTAINER}  {formatdate(release.epoch)}\n"
    )
    return [
        Entry("usr/bin/proxyrunner", release.binary, executable=True),
        Entry("usr/lib/systemd/system/proxyrunner@.service", (HERE / "proxyrunner@.service").read_bytes()),
        Entry("usr/share/man/man1/proxyrunner.1.gz", compress(release.man)),
        Entry("usr/share/bash-completion/completions/proxyrunner", release.completions["bash"]),
        Entry("usr/share/zsh/vendor-completions/_proxyrunner", release.completions["zsh"]),
        Entry("usr/share/fish/vendor_completions.d/proxyrunner.fish", release.completions["fish"]),
        Entry(f"{documentation}/changelog.gz", compress(changes.encode())),
        Entry(f"{documentation}/copyright", (HERE / "copyright").read_bytes()),
        Entry(f"{documentation}/third-party.txt.gz", compress(release.third_party)),
        Entry(f"{documentation}/examples/example.yaml", (HERE / "example.yaml").read_bytes()),
        Entry("usr/share/lintian/overrides/proxyrunner", (HERE / "lintian-overrides").read_bytes()),
    ]
