"""Runs proxyrunner with the settings of a pod, and asks what a kubelet, Prometheus and clients ask."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pods
from pods import MCP_PORT, METRICS_PORT, Document

ROOT = Path(__file__).resolve().parents[2]
START = 60  # seconds; ample on a loaded machine
NAMESPACE = "mcp-core"
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@contextmanager
def started(binary: str, container: Document) -> Iterator[tuple[int, int]]:
    """Runs proxyrunner as in the container, on free ports: the first for clients, the second for metrics."""
    with ExitStack() as taken:
        free = [taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
    env = {name: value.replace("$(POD_NAMESPACE)", NAMESPACE) for name, value in pods.environment(container).items()}
    env = {name: value for name, value in env.items() if name.startswith("PROXYRUNNER_")}
    for name, value in env.items():
        for port, other in zip((MCP_PORT, METRICS_PORT), free):
            # All interfaces, as there; this machine may have no IPv6.
            env[name] = value = value.replace(f"[::]:{port}", f"0.0.0.0:{other}")
    process = subprocess.Popen(
        [binary, "--", "python3", "examples/server.py"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], **env}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield free[0], free[1]
    finally:
        process.terminate()
        process.wait()


def asked(port: int, path: str, host: str, message: Document | None = None) -> int:
    """Returns the status of a request, 0 if nothing listens."""
    headers = {"Host": host, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START)
    try:
        connection.request("POST" if message else "GET", path, json.dumps(message) if message else None, headers)
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()


def problems(binary: str, pod: Document, service: str) -> list[str]:
    """What a pod's proxyrunner does not answer as its probes and clients need it."""
    container, found = pods.proxy(pod), []
    with started(binary, container) as (port, metrics):
        deadline = time.monotonic() + START
        while asked(port, container["startupProbe"]["httpGet"]["path"], "10.0.0.7") != 200:
            if time.monotonic() > deadline:
                return ["it does not start"]
            time.sleep(0.05)
        # A kubelet names the pod's address.
        requests = [(port, container[kind]["httpGet"]["path"], "10.0.0.7:8080", None, 200) for kind in PROBES]
        requests.append((metrics, "/metrics", "10.0.0.7:9090", None, 200))
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
        for host in (service, f"{service}.{NAMESPACE}", f"{service}.{NAMESPACE}.svc"):
            requests.append((port, "/mcp", f"{host}:8080", hello, 200))
        requests.append((port, "/mcp", "attacker.example:8080", hello, 403))
        for to, path, host, message, wanted in requests:
            status = asked(to, path, host, message)
            if status != wanted:
                found.append(f"{path} for {host}: {status}, not {wanted}")
    return found
