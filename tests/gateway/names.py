"""A gateway whose servers are names: a name server of its own says where their replicas are, and changes its mind.

Runs in namespaces of its own, where it may bind port 53 and replace /etc/resolv.conf. That needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))

from proxyrunner import ROOT, binary

INSIDE = "--inside"
PATIENCE = 120  # seconds; no assertion, only the end of a hang
GATEWAY = "127.0.0.1:9000"
A, SRV = 1, 33
META = "io.modelcontextprotocol/"


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def service(priority: int, weight: int, port: int, host: str) -> bytes:
    return struct.pack("!HHH", priority, weight, port) + name(host)


class Names(threading.Thread):
    """A name server for the records that it is given, by name and type."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.records: dict[tuple[str, int], list[bytes]] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))

    def run(self) -> None:
        while True:
            question, asker = self.socket.recvfrom(512)
            labels, at = [], 12
            while length := question[at]:
                labels.append(question[at + 1 : at + 1 + length].decode().lower())
                at += 1 + length
            asked, kind = ".".join(labels), struct.unpack("!H", question[at + 1 : at + 3])[0]
            records = self.records  # as a whole, since the test replaces it
            found = records.get((asked, kind), [])
            code = 0 if any(known == asked for known, _ in records) else 3
            answer = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(found), 0, 0) + question[12 : at + 5]
            for data in found:
                answer += struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(data)) + data
            self.socket.sendto(answer, asker)


@contextlib.contextmanager
def running(*words: str) -> Iterator[None]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PROXYRUNNER_"))}
    process = subprocess.Popen([binary(), *words], env=env, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def sidecar(address: str, answer: str) -> Iterator[None]:
    """A sidecar of a server whose tool answers with this word."""
    server = [sys.executable, str(ROOT / "benches" / "instructions_server.py"), "modern", answer]
    with running("--log-level", "warn", "--listen", address, "--allow-host", "*.test", "--", *server):
        yield


def call(server: str) -> str:
    """Calls the tool of a server through the gateway; returns the answer's word, or the status of a refusal."""
    meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}, f"{META}clientInfo": {"name": "n", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}, "_meta": meta}}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "echo",
    }
    request = urllib.request.Request(f"http://{GATEWAY}/servers/{server}/mcp", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)["result"]["content"][0]["text"]
    except urllib.error.HTTPError as refused:
        return str(refused.code)


def until(what: str, server: str, wanted: set[str], calls: int = 20) -> None:
    """Waits until all of so many calls give these answers, and each of them occurs."""
    deadline = time.monotonic() + PATIENCE
    while (seen := {call(server) for _ in range(calls)}) != wanted:
        assert time.monotonic() < deadline, f"{what}: {seen} instead of {wanted}"
        time.sleep(0.2)
    print(f"ok    {what}", flush=True)


def checks(names: Names) -> None:
    headless = ("pods.test", A)
    hosts = {(f"{host}.test", A): [socket.inet_aton(address)] for host, address in (("one", "127.0.0.2"), ("two", "127.0.0.3"))}
    both = [socket.inet_aton("127.0.0.4"), socket.inet_aton("127.0.0.5")]
    spread = [service(1, 8, 8001, "one.test"), service(1, 1, 8002, "two.test"), service(2, 9, 8001, "nowhere.test")]

    def say(addresses: list[bytes], services: list[bytes]) -> None:
        names.records = hosts | {headless: addresses, ("_mcp._tcp.test", SRV): services}

    until("no replica before the name server knows one", "pods", {"503"}, 1)
    say(both, spread)
    until("every address of a name is a replica", "pods", {"four", "five"})
    until("every host of a service is a replica, at its port", "weighted", {"one", "two"}, 100)
    counts = Counter(call("weighted") for _ in range(400))
    # 356 and 44 are expected; five standard deviations are 31.
    assert 300 < counts["one"] < 390 and sum(counts.values()) == counts["one"] + counts["two"], counts
    print(f"ok    requests follow the weights 8 and 1: {counts['one']} and {counts['two']}", flush=True)
    say(both[:1], spread[1:])
    until("an address that is gone gets nothing", "pods", {"four"})
    until("a host that is gone gets nothing", "weighted", {"two"})
    say(both[1:], [*spread[1:], service(0, 0, 8001, "one.test")])
    until("the addresses are looked up again", "pods", {"five"})
    until("the hosts with the lowest priority come first", "weighted", {"one"})
    names.records = {}
    until("a name that is gone has no replicas", "pods", {"503"}, 1)
    until("a service that is gone has no replicas", "weighted", {"503"}, 1)


def inside() -> None:
    # The loopback interface of a new namespace is down.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        siocsifflags, up_and_running = 0x8914, 0x41
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", up_and_running))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = Path(folder) / "resolv.conf"
        config.write_text("nameserver 127.0.0.1\n")
        subprocess.run(["mount", "--bind", str(config), "/etc/resolv.conf"], check=True)
        servers = Path(folder) / "servers.json"
        urls = {"pods": "http://pods.test:8080/mcp", "weighted": "http://_mcp._tcp.test/mcp"}
        servers.write_text(json.dumps({"mcpServers": {server: {"dns": url} for server, url in urls.items()}}))
        names = Names()
        names.start()
        for address, answer in (("2:8001", "one"), ("3:8002", "two"), ("4:8080", "four"), ("5:8080", "five")):
            stack.enter_context(sidecar(f"127.0.0.{address}", answer))
        stack.enter_context(running("gateway", "--servers", str(servers), "--listen", GATEWAY, "--log-level", "error"))
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(GATEWAY.split(":")):
                break
            assert time.monotonic() < deadline, "the gateway does not start"
            time.sleep(0.05)
        checks(names)


if __name__ == "__main__":
    if INSIDE in sys.argv:
        inside()
    elif os.geteuid() != 0 or not shutil.which("unshare"):
        print("NAMES SKIPPED: root is needed for a name server at port 53 of a namespace")
    else:
        own = ["unshare", "--net", "--mount", "--fork", "--kill-child", sys.executable, __file__, INSIDE]
        sys.exit(subprocess.run(own).returncode)
