#!/usr/bin/env python3
"""Checks the static binary as it is released: what it needs, its size and its memory at rest; reports its start.

    tests/static.py BINARY [PLAIN]

PLAIN is the binary of `--no-default-features`: only its size and its start are checked.

Ends with one line, `N passed, N failed`, and exits with 1 if anything failed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MIB = 1024 * 1024
# Ratchets: lower them with each saving.
MOST_BYTES = 13.4 * MIB
MOST_PLAIN_BYTES = 9.0 * MIB  # without Cedar and the gateway
MOST_RESIDENT = 8 * MIB
MOST_PROPORTIONAL = 6.5 * MIB  # with the guardian
MOST_GUARDIAN_PRIVATE = 0.5 * MIB
STARTS = 20
REST = 5  # seconds

PT_DYNAMIC, PT_INTERP = 2, 3
DT_NEEDED = 1
# Names that glibc's functions for users, groups and hosts contain. They load modules of the image.
MODULES = [b"nsswitch.conf", b"libnss_"]
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "static", "version": "1"}}


def segments(image: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the type and the content of each program header's segment of an ELF64 file."""
    (offset,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for header in range(offset, offset + size * count, size):
        kind, _, begin, _, _, length = struct.unpack_from("<IIQQQQ", image, header)
        yield kind, image[begin : begin + length]


def needs_no_library(binary: Path) -> str:
    image = binary.read_bytes()
    assert image[:5] == b"\x7fELF\x02", "this is no ELF64 file"
    for kind, content in segments(image):
        assert kind != PT_INTERP, f"it asks for the interpreter {content!r}"
        if kind == PT_DYNAMIC:
            tags = [tag for tag, _ in struct.iter_unpack("<QQ", content)]
            assert DT_NEEDED not in tags, "it asks for a shared library"
    found = [name for name in MODULES if name in image]
    assert not found, f"it contains functions that load modules: {found}"
    return "no interpreter, no library, no module"


def is_small(binary: Path, most: float = MOST_BYTES) -> str:
    size = binary.stat().st_size
    assert size <= most, f"{size / MIB:.2f} MiB"
    return f"{size / MIB:.2f} MiB"


@contextmanager
def running(binary: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [binary, "--listen", f"127.0.0.1:{port}", "--", *command]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process, port
    finally:
        process.terminate()
        process.wait()


def starts(binary: Path) -> str:
    times = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        with running(binary, "sleep", "60") as (process, port):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, "it ended"
                    time.sleep(0.0002)
            times.append(time.perf_counter() - begun)
    times.sort()
    # Reported only: a time depends on what else the machine does.
    return f"{times[0] * 1e3:.1f} ms at best, {times[STARTS // 2] * 1e3:.1f} ms in the median"


def call(port: int) -> None:
    """Opens a session and makes a few calls."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def post(**message: object) -> http.client.HTTPResponse:
        connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **message}), headers)
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 202), response.status
        return response

    deadline = time.monotonic() + 30
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.01)
    headers["Mcp-Session-Id"] = post(id=1, method="initialize", params=HELLO).getheader("mcp-session-id")
    post(method="notifications/initialized")
    for number in range(2, 7):
        post(id=number, method="tools/list")


def memory(pid: int) -> dict[str, int]:
    """Returns a process's memory by kind, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}


def children(pid: int) -> list[int]:
    lists = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(lists).split()]


def takes_little_memory(binary: Path) -> str:
    with running(binary, sys.executable, "examples/server.py") as (process, port):
        call(port)
        # By then the code of the start is unmapped.
        time.sleep(REST)
        call(port)
        time.sleep(REST)
        own, (guardian,) = memory(process.pid), map(memory, children(process.pid))
    together = own["Pss"] + guardian["Pss"]
    shown = (
        f"{own['Rss'] / MIB:.2f} MiB resident, {together / MIB:.2f} MiB with the guardian in proportion,"
        f" of which {guardian['Private_Dirty'] / MIB:.2f} MiB are the guardian's own"
    )
    assert own["Rss"] <= MOST_RESIDENT and together <= MOST_PROPORTIONAL, shown
    assert guardian["Private_Dirty"] <= MOST_GUARDIAN_PRIVATE, shown
    return shown


CHECKS: list[Callable[[Path], str]] = [needs_no_library, is_small, starts, takes_little_memory]


def plain_is_small(binary: Path) -> str:
    return is_small(binary, MOST_PLAIN_BYTES)


def plain_has_no_cedar(binary: Path) -> str:
    done = subprocess.run([binary, "--policy", "x", "--", "true"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 64 and "--policy" in done.stderr, (done.returncode, done.stderr)
    with running(binary, sys.executable, "examples/server.py") as (_, port):
        call(port)
    return "it serves, and refuses --policy"


def main() -> int:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    binaries = [Path(name).resolve() for name in sys.argv[1:]]
    for binary in binaries:
        # Pages of a file just built count as dirty in each process that maps them, until they are on the disk.
        with binary.open("rb") as file:
            os.fsync(file)
    checks = [(check, binaries[0]) for check in CHECKS]
    checks += [(check, plain) for plain in binaries[1:] for check in (plain_is_small, plain_has_no_cedar)]
    failed = 0
    for check, binary in checks:
        try:
            print(f"{check.__name__}: {check(binary)}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"{check.__name__}: FAILED: {error}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
