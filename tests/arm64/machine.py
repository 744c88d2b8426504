"""An emulated machine with arm64: QEMU, Debian's kernel for arm64, and a root file system in memory."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

LATEST = 600  # seconds to download, or to boot, on a loaded machine
OPTIONS = [
    "-machine", "virt", "-cpu", "cortex-a72", "-m", "768", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
    "-append", "console=ttyAMA0 panic=-1 quiet",
]  # fmt: skip


def output(*command: object, **options: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LATEST, **options)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return done.stdout


class Machine:
    """What a machine is made of: Debian's packages, unpacked into a folder; nothing is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.unpack()
            (folder / "complete").touch()
        (self.kernel,) = folder.glob("boot/vmlinuz-*")
        self.shell = folder / "bin" / "busybox"

    def unpack(self) -> None:
        found = output("apt-cache", "depends", "linux-image-arm64:arm64")
        kernel = re.search(r"linux-image-[\d.]+-\d+-arm64", found)[0]
        packages = [f"{kernel}:arm64", "busybox-static:arm64"]
        if not shutil.which("qemu-system-aarch64"):
            # With the libraries that are missing.
            plan = output("apt-get", "install", "--simulate", "--no-install-recommends", "qemu-system-arm")
            packages += re.findall(r"^Inst (\S+)", plan, re.M)
        downloads = self.folder / "downloads"
        downloads.mkdir(parents=True)
        # As root, apt would fetch as a user of its own, who may not write here.
        output("apt-get", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=downloads)
        for archive in downloads.iterdir():
            output("dpkg", "-x", archive, self.folder)
        shutil.rmtree(downloads)
        shutil.rmtree(self.folder / "lib" / "modules")

    def boots(self, files: Iterable[tuple[str, bytes]]) -> str:
        """Starts the machine with these files and a shell, whose `/init` ends it. Returns what it printed."""
        memory = self.folder / "initrd.gz"
        memory.write_bytes(gzip.compress(archive([("bin/busybox", self.shell.read_bytes()), *files]), 1))
        qemu, env = shutil.which("qemu-system-aarch64"), None
        data = []
        if not qemu:
            qemu, data = self.folder / "usr/bin/qemu-system-aarch64", ["-L", self.folder / "usr/share/qemu"]
            libraries = [str(self.folder / lib / "x86_64-linux-gnu") for lib in ("usr/lib", "lib")]
            env = {"LD_LIBRARY_PATH": ":".join(libraries)}
        return output(qemu, *data, *OPTIONS, "-kernel", self.kernel, "-initrd", memory, env=env)


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns the files as the kernel unpacks them (cpio, newc)."""
    folders = [(name, 0o40755, b"") for name in ("bin", "dev", "proc")]
    links = [("bin/sh", 0o120777, b"busybox")]
    programs = [(name, 0o100755, content) for name, content in files]
    parts = []
    for number, (name, mode, content) in enumerate([*folders, *programs, *links, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        parts += [head + b"\0" * (-len(head) % 4), content + b"\0" * (-len(content) % 4)]
    return b"".join(parts)
