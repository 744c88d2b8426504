#!/usr/bin/env python3
"""Prints the cost of telemetry: instructions of the whole process per request, counted by callgrind.

    cargo build --profile bench && benches/telemetry.py

One client calls a tool of a legacy server that answers at once: without telemetry, with metrics, and with traces of no,
1 % or all requests. Each figure is the median of three differences of two runs, so that costs that occur
once per run cancel out. One thread does the work: with several threads, wake-ups vary, and runs differ by two in a
hundred, where these differ by a few in a thousand. Needs valgrind.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("PROXYRUNNER_BIN", ROOT / "target" / "release" / "proxyrunner")
FEW, MANY = 500, 2_500
REPEATS = 3

ECHO = """
import json, sys
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = {
        "initialize": lambda: {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "echo", "version": "1"},
        },
        "tools/list": lambda: {"tools": TOOLS},
        "tools/call": lambda: {"content": [{"type": "text", "text": asked["params"]["arguments"]["text"]}]},
    }.get(asked["method"], dict)()
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
ARGUMENTS = {"text": "the quick brown fox jumps over the lazy dog " * 8, "n": 7}
CALL = {"name": "echo", "arguments": ARGUMENTS, "_meta": {"progressToken": 7}}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}


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


def instructions(calls: int, flags: list[str], env: dict[str, str]) -> int:
    """Returns the instructions of a whole run with this many calls."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    served = [BINARY, "--listen", "127.0.0.1:0", "--log-format", "json", *flags, "--", sys.executable, "-c", ECHO]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    clean["TOKIO_WORKER_THREADS"] = "1"
    process = subprocess.Popen(
        [str(word) for word in [*valgrind, *served]], env={**clean, **env}, stderr=subprocess.PIPE, text=True
    )
    port = 0
    for line in process.stderr:
        if address := re.search(r'"address":"127.0.0.1:(\d+)"', line):
            port = int(address[1])
        if '"ready"' in line:
            break
    rest: list[str] = []
    reading = threading.Thread(target=lambda: rest.extend(process.stderr), daemon=True)
    reading.start()
    call(port, calls)
    process.send_signal(signal.SIGTERM)
    process.wait()
    reading.join()
    return int(re.search(r"Collected : (\d+)", "".join(rest))[1])


def call(port: int, calls: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def post(message: dict[str, object]) -> http.client.HTTPResponse:
        connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0"} | message), headers)
        response = connection.getresponse()
        response.read()
        return response

    headers["Mcp-Session-Id"] = post({"id": 1, "method": "initialize", "params": HELLO}).getheader("mcp-session-id")
    post({"method": "notifications/initialized"})
    for _ in range(calls):
        assert post({"id": 7, "method": "tools/call", "params": CALL}).status == 200


def main() -> None:
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
        differences = [instructions(MANY, flags, env) - instructions(FEW, flags, env) for _ in range(REPEATS)]
        each = round(statistics.median(differences) / (MANY - FEW))
        base = base or each
        print(f"{name}: {each} instructions per request, {each / base - 1:+.1%}", flush=True)


if __name__ == "__main__":
    main()
