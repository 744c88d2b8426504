"""The static binary in the root of an image that is not its own: names are resolved, and nothing of the image is loaded.

glibc's own resolver, statically linked, loads the image's modules, and the process dies if they are of another glibc.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from pathlib import Path

import pytest

from proxyrunner import ROOT
from receivers import Receiver

FOREIGN = Path(__file__).with_name("foreign")
TARGET = "x86_64-unknown-linux-gnu"
NAME = "collector.of.this.root"

# As in a container: /dev and /proc are there, and gone with the process.
ENTER = 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or platform.machine() != "x86_64", reason="changing the root needs root, and the trap an x86-64"
)


@pytest.fixture(scope="module")
def binary() -> Path:
    """proxyrunner as it is released, but for the optimizer."""
    if named := os.environ.get("PROXYRUNNER_STATIC_BIN"):
        return Path(named)
    folder = ROOT / "target" / "static"
    env = {**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static", "CARGO_PROFILE_DEV_DEBUG": "0"}
    command = ["cargo", "build", "--locked", "--bin", "proxyrunner", "--target", TARGET, "--target-dir", folder]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    return folder / TARGET / "debug" / "proxyrunner"


@pytest.fixture
def root(binary: Path, tmp_path: Path) -> Path:
    """A root with names of its own, and modules that kill whoever loads them."""
    library = tmp_path / "lib" / "x86_64-linux-gnu"
    library.mkdir(parents=True)
    for module in ["myhostname", "files", "dns"]:
        compiled(library / f"libnss_{module}.so.2", FOREIGN / "module.c", "-shared", "-fPIC", "-nostdlib")
    compiled(tmp_path / "server", FOREIGN / "server.c", "-static")
    compiled(tmp_path / "resolves", FOREIGN / "resolves.c", "-static")
    (tmp_path / "proxyrunner").write_bytes(binary.read_bytes())
    (tmp_path / "proxyrunner").chmod(0o755)
    for folder in ["dev", "etc", "proc"]:
        (tmp_path / folder).mkdir()
    etc = tmp_path / "etc"
    (etc / "nsswitch.conf").write_text("hosts: myhostname files dns\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
    return tmp_path


def compiled(program: Path, source: Path, *words: str) -> None:
    # What glibc warns of here is what this is about.
    subprocess.run(["cc", "-O1", "-w", *words, "-o", program, source], check=True, capture_output=True)


def test_the_root_is_a_trap(root: Path) -> None:
    done = subprocess.run(["chroot", root, "/resolves", NAME], timeout=60)
    assert done.returncode == 42, "the image's module was loaded"


def test_a_name_of_a_foreign_root_is_resolved_without_its_modules(root: Path) -> None:
    with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2]
        env = {
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{NAME}:{port}/v1/traces",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        words = ["/proxyrunner", "--listen", "127.0.0.1:0", "--log-format", "json", "--", "/server"]
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c", ENTER, root, *words], env=env, stderr=subprocess.PIPE, text=True)
        try:
            receiver.wait_for_spans(lambda found: [it for it in found if it.name == "child.handshake"], "the handshake")
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert process.wait() == 0, log
        finally:
            process.kill()
            process.wait()
        assert not [line for line in log.splitlines() if json.loads(line)["level"] in ("WARN", "ERROR")], log
