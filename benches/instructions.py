#!/usr/bin/env python3
"""Counts instructions of the whole process per request, by callgrind, and guards the recorded figures.

    benches/instructions.py check          compare each pairing of eras with benches/instructions.json; CI runs this
    benches/instructions.py record         write what was counted to benches/instructions.json
    benches/instructions.py telemetry      print the cost of telemetry, for docs/observability.md
    benches/instructions.py profile CASE   print the functions that execute the most instructions

`check` fails if a figure is more than 3 % above the recorded one. `--case` selects cases for it and for `record`.

One client calls a tool of a server that answers at once, on one connection. A figure is the median of three differences
between a run with many calls and a run with few that lasts as long, so that the costs of starting, stopping and timers
cancel out. proxyrunner runs with one worker thread, and in its default configuration unless stated otherwise. The client
sends each request in one segment. Client and server pause before they write, so that proxyrunner waits for every message:
otherwise it depends on the load of the machine how often it wakes up. Figures then differ by less than 0.5 %,
mostly because the heap is laid out differently in each run.

Needs valgrind, or the one that `VALGRIND` names, and the release binary: `cargo build --release`. `PROXYRUNNER_BIN` names
another binary. `profile` needs one with symbols: `cargo build --profile bench`.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent
RECORDED = Path(__file__).resolve().with_suffix(".json")
SERVER = Path(__file__).resolve().with_name("instructions_server.py")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VALGRIND = os.environ.get("VALGRIND", "valgrind")
BINARY = Path(os.environ.get("PROXYRUNNER_BIN", TARGET / "release" / "proxyrunner"))

FEW, MANY = 100, 600
REPEATS = 3
TOLERANCE = 0.03
START = 120  # seconds; ample under valgrind on a loaded machine
ANSWER = 60
# Seconds before each request. Enough for proxyrunner, under valgrind, to finish its work and wait.
PAUSE = 0.001

PAYLOAD = "the quick brown fox jumps over the lazy dog " * 5  # 220 bytes
MODERN = "2026-07-28"
LEGACY = "2025-06-18"
META = "io.modelcontextprotocol/"
INFO = {"name": "bench", "version": "1"}


@dataclass
class Case:
    """A client, a server, and a configuration of proxyrunner."""

    client: str
    server: str
    flags: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


CASES = {
    "legacy-legacy": Case("legacy", "legacy"),
    "modern-modern": Case("modern", "modern"),
    "modern-legacy": Case("modern", "legacy"),
    "legacy-modern": Case("legacy", "modern"),
}


class Failed(Exception):
    """Nothing could be counted, and why."""


class Client:
    """One connection with one session, which calls the tool in sequence."""

    def __init__(self, port: int, era: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.headers = ["Host: localhost", "Content-Type: application/json", "Accept: application/json, text/event-stream"]
        params = {"name": "echo", "arguments": {"text": PAYLOAD, "n": 7}}
        if era == "modern":
            envelope = {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": INFO}
            params["_meta"] = {META + key: value for key, value in envelope.items()}
            self.headers += [f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: tools/call", "Mcp-Name: echo"]
        else:
            params["_meta"] = {"progressToken": 7}
            self.open()
        self.request = self.encoded({"id": 7, "method": "tools/call", "params": params})

    def open(self) -> None:
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": INFO}
        head, _ = self.exchange(self.encoded({"id": 1, "method": "initialize", "params": hello}))
        session = re.search(rb"(?i)mcp-session-id: (\S+)", head)
        if not session:
            raise Failed(f"no session: {head!r}")
        self.headers += [f"Mcp-Session-Id: {session[1].decode()}", f"MCP-Protocol-Version: {LEGACY}"]
        self.exchange(self.encoded({"method": "notifications/initialized"}))

    def encoded(self, message: dict[str, object]) -> bytes:
        body = json.dumps({"jsonrpc": "2.0"} | message)
        lines = ["POST /mcp HTTP/1.1", *self.headers, f"Content-Length: {len(body)}", "", body]
        return "\r\n".join(lines).encode()

    def call(self, calls: int) -> None:
        for _ in range(calls):
            head, body = self.exchange(self.request)
            if not head.startswith(b"HTTP/1.1 200") or PAYLOAD.encode() not in body:
                raise Failed(f"a call failed: {head!r} {body!r}")

    def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Sends a request, and returns the head and the body of the response."""
        time.sleep(PAUSE)
        self.socket.sendall(request)
        while b"\r\n\r\n" not in self.received:
            self.receive()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        if b"chunked" in head:
            while b"0\r\n\r\n" not in self.received:
                self.receive()
            body, _, self.received = self.received.partition(b"0\r\n\r\n")
            return head, body
        length = re.search(rb"(?i)content-length: (\d+)", head)
        length = int(length[1]) if length else 0
        while len(self.received) < length:
            self.receive()
        body, self.received = self.received[:length], self.received[length:]
        return head, body

    def receive(self) -> None:
        received = self.socket.recv(1 << 16)
        if not received:
            raise Failed("proxyrunner closed the connection")
        self.received += received


def run(case: Case, calls: int, least: float = 0, output: str = "/dev/null") -> tuple[int, float]:
    """Returns the instructions of a whole run with this many calls, and how long it served, which is at least `least`."""
    valgrind = [VALGRIND, "--tool=callgrind", f"--callgrind-out-file={output}"]
    command = [BINARY, "--listen", "127.0.0.1:0", "--log-format", "json", *case.flags]
    child = [sys.executable, "-I", "-S", SERVER, case.server, PAYLOAD]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PROXYRUNNER_"))}
    clean["TOKIO_WORKER_THREADS"] = "1"
    process = subprocess.Popen(
        [str(word) for word in [*valgrind, *command, "--", *child]],
        env={**clean, **case.env},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(START + least + calls * 0.1, process.kill)
    watchdog.start()
    lines: list[str] = []
    try:
        port = 0
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r'"address":"127.0.0.1:(\d+)"', line):
                port = int(address[1])
            if '"ready"' in line:
                break
        reading = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reading.start()
        if not port:
            raise Failed("proxyrunner was not ready")
        begun = time.monotonic()
        Client(port, case.client).call(calls)
        time.sleep(max(0, begun + least - time.monotonic()))
        served = time.monotonic() - begun
        process.send_signal(signal.SIGTERM)
        process.wait()
        reading.join()
        return int(re.search(r"Collected : (\d+)", "".join(lines))[1]), served
    except (Failed, OSError, TypeError) as error:
        raise Failed(f"{error}; its log: {''.join(lines)}") from error
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def per_request(case: Case) -> int:
    return round(statistics.median(difference(case) for _ in range(REPEATS)) / (MANY - FEW))


def difference(case: Case) -> int:
    """Returns how many instructions more many calls take than few calls in the same time, which timers depend on."""
    more, served = run(case, MANY)
    less, _ = run(case, FEW, least=served)
    return more - less


def counted(cases: list[str]) -> Iterator[tuple[str, int]]:
    """Counts the instructions per request of each case, two cases at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield from zip(cases, pool.map(lambda name: per_request(CASES[name]), cases))


# What figures depend on, besides the program.


def versions() -> dict[str, str]:
    """Returns the versions of what the figures depend on, besides the source."""
    valgrind = subprocess.run([VALGRIND, "--version"], capture_output=True, text=True, check=True).stdout
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {"rustc": rustc.split()[1], "valgrind": valgrind.strip().removeprefix("valgrind-"), "cpu": cpu()}


def cpu() -> str:
    """Returns the vector instructions by which the C library and memchr choose among their implementations."""
    flags = set(re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.M)[0].split())
    return next((name for name in ("avx2", "avx", "sse4_2") if name in flags), "other")


# The commands.


def check(cases: list[str]) -> int:
    recorded = json.loads(RECORDED.read_text())
    now, then = versions(), recorded["versions"]
    failed = passed = 0
    for name, each in counted(cases):
        expected = recorded["instructions"].get(name)
        if expected is None:
            print(f"FAIL  {name}: {each:,} instructions per request, none recorded", flush=True)
            failed += 1
            continue
        change = each / expected - 1
        verdict = "FAIL" if change > TOLERANCE else "ok"
        print(f"{verdict:4}  {name}: {each:,} instructions per request, {expected:,} recorded, {change:+.2%}", flush=True)
        if change < -TOLERANCE:
            print("      record the lower figure: benches/instructions.py record")
        failed += change > TOLERANCE
        passed += change <= TOLERANCE
    if failed:
        print(f"The limit is {TOLERANCE:.0%} above the recorded figure. benches/instructions.py profile CASE shows which functions")
        print("execute the instructions. If the cost is intended, record it: benches/instructions.py record")
    for what in now:
        if now[what] != then.get(what):
            print(f"The figures were recorded with {what} {then.get(what)}; this is {what} {now[what]}, which may explain a difference.")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def record(cases: list[str]) -> int:
    recorded = json.loads(RECORDED.read_text())["instructions"] if RECORDED.exists() else {}
    for name, each in counted(cases):
        change = f", {each / recorded[name] - 1:+.2%}" if name in recorded else ""
        print(f"{name}: {each:,} instructions per request{change}", flush=True)
        recorded[name] = each
    kept = {"versions": versions(), "instructions": {name: recorded[name] for name in CASES if name in recorded}}
    RECORDED.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


class Collector(http.server.BaseHTTPRequestHandler):
    """Accepts every request and stores nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def telemetry() -> int:
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    export = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{collector.server_port}/v1/traces",
        "OTEL_TRACES_SAMPLER": "traceidratio",
    }
    base = 0
    for name, flags, env in [
        ("nothing", ["--metrics=false"], {}),
        ("metrics", [], {}),
        ("metrics, and 1 % of traces", [], export | {"OTEL_TRACES_SAMPLER_ARG": "0.01"}),
        ("metrics, and all traces", [], export | {"OTEL_TRACES_SAMPLER_ARG": "1"}),
        ("traces, none sampled", ["--metrics=false"], export | {"OTEL_TRACES_SAMPLER_ARG": "0"}),
        ("all traces", ["--metrics=false"], export | {"OTEL_TRACES_SAMPLER_ARG": "1"}),
    ]:
        each = per_request(Case("legacy", "legacy", flags, env))
        base = base or each
        print(f"{name}: {each:,} instructions per request, {each / base - 1:+.1%}", flush=True)
    return 0


def profile(name: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "callgrind"
        run(CASES[name], MANY, output=str(output))
        return subprocess.run(["callgrind_annotate", "--show-percs=yes", output]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "record"):
        command = commands.add_parser(name)
        command.add_argument("--case", action="append", choices=CASES, help="only this case; may be repeated")
    commands.add_parser("telemetry")
    commands.add_parser("profile").add_argument("case", choices=CASES)
    asked = parser.parse_args()
    if not shutil.which(VALGRIND):
        sys.exit("needs valgrind (Debian: valgrind)")
    if not BINARY.exists():
        sys.exit(f"no {BINARY}: cargo build --release")
    try:
        match asked.command:
            case "check":
                return check(asked.case or list(CASES))
            case "record":
                return record(asked.case or list(CASES))
            case "telemetry":
                return telemetry()
            case _:
                return profile(asked.case)
    except Failed as error:
        sys.exit(f"FAIL  {error}")


if __name__ == "__main__":
    sys.exit(main())
