"""The Python wheel: pip puts the binary on PATH, and no Python runs between the shell and it."""

from __future__ import annotations

import base64
import hashlib
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from entries import Entry

if TYPE_CHECKING:
    from build import Release


def package(release: Release, out: Path) -> None:
    """Writes the wheel: a zip archive of the binary and its metadata."""
    platforms = release.platform.wheel
    tag = f"py3-none-{'.'.join(platforms)}"
    base = f"{release.name}-{release.version}"
    info = f"{base}.dist-info"
    tags = "".join(f"Tag: py3-none-{platform}\n" for platform in platforms)
    entries = [
        Entry(f"{base}.data/scripts/proxyrunner", release.binary, executable=True),
        Entry(f"{info}/METADATA", metadata(release)),
        Entry(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: release/build\nRoot-Is-Purelib: false\n{tags}".encode()),
        Entry(f"{info}/licenses/LICENSE", release.license),
        Entry(f"{info}/licenses/THIRD-PARTY.txt", release.third_party),
        Entry(f"{info}/sboms/{release.name}.cdx.json", release.bom),
    ]
    record = "".join(f"{entry.path},sha256={digest(entry.content)},{len(entry.content)}\n" for entry in entries)
    entries.append(Entry(f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    with zipfile.ZipFile(out / f"{base}-{tag}.whl", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for entry in entries:
            member = zipfile.ZipInfo(entry.path, time.gmtime(release.epoch)[:6])
            member.create_system = 3  # Unix, whose modes follow
            member.external_attr = (0o100000 | entry.mode) << 16
            archive.writestr(member, entry.content, zipfile.ZIP_DEFLATED, 9)


def metadata(release: Release) -> bytes:
    fields = [
        ("Metadata-Version", "2.4"),
        ("Name", release.name),
        ("Version", release.version),
        ("Summary", release.description),
        ("Keywords", ",".join(release.keywords)),
        ("License-Expression", "Apache-2.0"),
        ("License-File", "LICENSE"),
        ("License-File", "THIRD-PARTY.txt"),
        ("Classifier", "Environment :: Console"),
        ("Classifier", "Operating System :: POSIX :: Linux"),
        ("Classifier", "Programming Language :: Rust"),
        ("Requires-Python", ">=3.8"),
        ("Description-Content-Type", "text/markdown"),
    ]
    head = "".join(f"{name}: {value}\n" for name, value in fields)
    return head.encode() + b"\n" + release.page


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
