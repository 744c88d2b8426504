"""Unpacks Debian's packages into folders of the project; nothing is installed, and no root is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LATEST = 300  # seconds for a download


class Unavailable(Exception):
    """A package could not be had, and why."""


def unpack(package: str, folder: Path) -> None:
    """Downloads a package by apt-get, and unpacks it into the folder."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable("no apt-get to download it")
    print(f"downloading {package}", flush=True)
    unpacked = folder.with_name(f"{folder.name}-new")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    # As root, apt would fetch as a user of its own, who may not write here.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
    try:
        if subprocess.run(command, cwd=unpacked, capture_output=True, timeout=LATEST).returncode != 0:
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=LATEST)
            subprocess.run(command, cwd=unpacked, check=True, capture_output=True, timeout=LATEST)
        (archive,) = unpacked.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, unpacked], check=True, capture_output=True, timeout=LATEST)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise Unavailable(f"{error}: {said}") from error
    archive.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    unpacked.rename(folder)
