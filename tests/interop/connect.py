#!/usr/bin/env python3
"""Puts every stock client over stdio in front of stock servers over HTTP, through `proxyrunner connect`.

    tests/interop/connect.py
    tests/interop/connect.py --client "npm 2" --server "PyPI 1"   these only
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Iterator

import matrix
import servers
from proxyrunner import MODERN_PYTHON, NODE_MODULES, PYTHON, RESULTS, TESTS, binary, node

START = 60  # seconds until a server listens

# An HTTP handler without sessions asks a legacy client nothing, and forgets its subscriptions and log level.
SESSIONS = {"elicitation", "sampling", "subscription", "logging", "cancellation"}


def http(server: str, port: int) -> tuple[list[str], dict[str, str]]:
    """How a server is started over HTTP, and its variables."""
    everything = NODE_MODULES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    on_node = [str(node()), str(TESTS / "interop" / "node_server.mjs")]
    return {
        "PyPI 1": ([str(PYTHON), str(TESTS / "servers" / "everything.py"), "--http", str(port)], {}),
        "npm 1": ([str(node()), str(everything), "streamableHttp"], {"PORT": str(port)}),
        "PyPI 2": ([str(MODERN_PYTHON), str(TESTS / "servers" / "dual.py"), "--http", str(port)], {}),
        "npm 2": ([*on_node, "--http", str(port)], {}),
        "npm 2, modern only": ([*on_node, "--modern-only", "--http", str(port)], {}),
    }[server]


@contextmanager
def running(server: str) -> Iterator[str]:
    """The URL of a server that runs meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, variables = http(server, port)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"connect-{server}.log", "wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            listening(process, port)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Waits until it accepts connections."""
    deadline = time.monotonic() + START
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args} does not listen; see tests/results") from None
            time.sleep(0.05)


def lacking(server: matrix.Server, client: matrix.Client) -> set[str]:
    """What the server itself does not show this client over HTTP."""
    # The SDK declares no subscriptions over HTTP, which a modern client depends on.
    without = {("npm 2", "legacy"): SESSIONS, ("PyPI 1", "modern"): {"subscription"}}
    return without.get((server.name, client.era), set())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--client", help="this client only, by its name in the table")
    parser.add_argument("--server", help="this server only")
    arguments = parser.parse_args()
    chosen = [c for c in matrix.clients() if arguments.client in (None, c.name)]
    names = ["PyPI 1", "npm 1", "PyPI 2", "npm 2", "npm 2, modern only"]
    against = [s for s in matrix.all_servers() if s.name in names and arguments.server in (None, s.name)]
    outcomes = {}
    for server in against:
        with running(server.name) as url:
            for client in chosen:
                begun = time.monotonic()
                command = [str(binary()), "connect", url, "--log-level", "warn"]
                outcome = matrix.show(server, client, command, lacking(server, client), "stdio")
                outcomes[server, client] = outcome
                seconds = time.monotonic() - begun
                failed = sum(error is not None for error in outcome.values())
                good = len(outcome) - failed
                print(f"{client.name} in front of {server.name}: {good} of {len(outcome)}, {seconds:.1f} s", flush=True)
    print(matrix.table(outcomes))
    for (server, client), outcome in outcomes.items():
        matrix.explain(server, client, outcome)
    errors = [error for outcome in outcomes.values() for error in outcome.values()]
    failed = sum(error is not None for error in errors)
    print(f"{len(errors) - failed} passed, {failed} failed")
    return 1 if failed or not errors else 0


if __name__ == "__main__":
    sys.exit(main())
