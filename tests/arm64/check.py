#!/usr/bin/env python3
"""Makes the release files for arm64 from a binary, and uses them: its program runs under QEMU, on an emulated machine with a kernel
for arm64. A user emulation is not enough: that of QEMU 7.2 lacks PR_SET_CHILD_SUBREAPER, which the server's guardian needs.

    tests/arm64/check.py BINARY

Needs qemu-user-static, npm, and apt-get with the packages of arm64. Ends with one line, `N passed, N failed`, and exits with 1 if
anything failed. `tests/run arm64` installs what it needs, and builds the binary.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import packages  # noqa: E402
from machine import Machine  # noqa: E402

ROOT = packages.ROOT
TARGET = "aarch64-unknown-linux-gnu"
FILES = packages.FILES = ROOT / "target" / "release-files-arm64"
EMULATOR = "qemu-aarch64-static"
ARM64 = 183  # e_machine of ELF


class Context:
    """The binary, and a folder to write to."""

    def __init__(self, binary: Path, scratch: Path) -> None:
        self.binary = binary
        self.scratch = scratch

    def folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        return folder

    def same(self, content: bytes) -> None:
        assert content == self.binary.read_bytes(), "it is another binary"


def files(context: Context) -> str:
    build = [sys.executable, ROOT / "release" / "build", "--target", TARGET, "--binary", context.binary, "--out", FILES]
    packages.run(*build)
    packages.run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=FILES)
    image = context.binary.read_bytes()
    assert image[:5] == b"\x7fELF\x02" and image[18] == ARM64, "the binary is not of arm64"
    assert b"/lib/ld-linux-aarch64.so.1" not in image, "the binary asks for an interpreter"
    properties = json.loads(packages.found("*.cdx.json").read_text())["metadata"]["properties"]
    assert properties == [{"name": "cargo:target", "value": TARGET}], properties
    return f"{len(list(FILES.iterdir()))} files"


def tarball(context: Context) -> str:
    """The binary of the archive serves a call through its guardian, and ends in order."""
    place = context.folder("tarball")
    with tarfile.open(packages.found(f"*-{TARGET}.tar.gz")) as archive:
        archive.extractall(place, filter="fully_trusted")
    (folder,) = place.iterdir()
    binary = folder / "proxyrunner"
    context.same(binary.read_bytes())
    version = packages.run(EMULATOR, binary, "--version").strip()
    assert version.endswith(packages.VERSION), version
    files = [("init", (HERE / "init").read_bytes()), ("server.sh", (HERE / "server.sh").read_bytes())]
    said = Machine(HERE / ".machine").boots([*files, ("proxyrunner", binary.read_bytes())])
    found = dict(re.findall(r"^(\w+): (.*?)\r?$", said, re.M))
    expected = {"machine": "aarch64", "version": version, "guardians": "1", "exit": "0", "left": "0"}
    assert expected.items() <= found.items() and found["call"].startswith("0 add succeeded"), said
    return f"{found['version']}: {found['call'][2:]}"


def debian_package(context: Context) -> str:
    file = packages.found("*.deb")
    assert packages.run("dpkg-deb", "--field", file, "Architecture").strip() == "arm64"
    place = context.folder("debian")
    packages.run("dpkg-deb", "--extract", file, place)
    context.same((place / "usr/bin/proxyrunner").read_bytes())
    return file.name


def wheel(context: Context) -> str:
    """pip takes the wheel for arm64, and on this machine it takes it for no other."""
    place, file = context.folder("wheel"), packages.found("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--find-links", FILES]
    for platform in ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "musllinux_1_1_aarch64"):
        target = place / platform
        packages.run(*pip, "--only-binary=:all:", "--platform", platform, "--target", target, "proxyrunner")
        context.same((target / "bin" / "proxyrunner").read_bytes())
    done = subprocess.run([*pip, "--target", place / "own", "proxyrunner"], capture_output=True, text=True)
    assert os.uname().machine == "aarch64" or done.returncode != 0, done
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    return file.name


def npm(context: Context) -> str:
    """npm refuses the package on machines of another kind."""
    place = context.folder("npm")
    quiet = ["--offline", "--no-audit", "--no-fund", f"--cache={context.scratch / 'npm-cache'}", f"--prefix={place}"]
    them = [packages.found("proxyrunner-linux-arm64-*.tgz"), packages.found(f"proxyrunner-{packages.VERSION}.tgz")]
    done = subprocess.run(["npm", "install", *quiet, *them], cwd=place, capture_output=True, text=True, timeout=packages.LATEST)
    assert os.uname().machine == "aarch64" or "EBADPLATFORM" in done.stderr, done
    packages.run("npm", "install", "--force", *quiet, *them)
    context.same((place / "node_modules/@proxyrunner/linux-arm64/bin/proxyrunner").read_bytes())
    return ", ".join(file.name for file in them)


CHECKS: list[Callable[[Context], str]] = [files, tarball, debian_package, wheel, npm]


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        context = Context(Path(sys.argv[1]).resolve(), Path(scratch))
        for check in CHECKS:
            try:
                print(f"{check.__name__}: {check(context)}", flush=True)
            except (AssertionError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"{check.__name__}: FAILED: {error}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
