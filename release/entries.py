"""Writes archives that depend on nothing but their content."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file of a package."""

    path: str
    content: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        return 0o755 if self.executable else 0o644


def write_tar(archive: Path, entries: Iterable[Entry], epoch: int, folder: str) -> None:
    """Writes a compressed tar archive: sorted, owned by root, and all of one date."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in sorted(entries, key=lambda entry: entry.path):
            info = tarfile.TarInfo(f"{folder}/{entry.path}")
            info.size, info.mtime, info.mode = len(entry.content), epoch, entry.mode
            info.uname = info.gname = "root"
            tar.addfile(info, io.BytesIO(entry.content))
    archive.write_bytes(compress(plain.getvalue()))


def compress(content: bytes) -> bytes:
    """Compresses by gzip, without a name and a date."""
    return gzip.compress(content, compresslevel=9, mtime=0)
