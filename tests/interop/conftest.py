"""Running proxyrunners, one per server and isolation, kept for the whole session."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Callable, Iterator

import pytest

import servers
from proxyrunner import RESULTS, ROOT, STOP, TESTS, Proxyrunner, binary, node

NODE_PATIENCE = 120  # seconds for all features of one server; no assertion, only the end of a hang


@pytest.fixture(scope="session")
def proxyrunner() -> Iterator[Callable[[str, str], Proxyrunner]]:
    """Gives the proxyrunner in front of a server, isolated as asked, starting it at first."""
    running: dict[tuple[str, str], Proxyrunner] = {}
    broken: dict[tuple[str, str], str] = {}  # not tried again: each try may take a minute
    shims: list[subprocess.Popen] = []

    def give(server: str, isolation: str) -> Proxyrunner:
        key = server, isolation
        if key in broken:
            pytest.fail(f"did not start: {broken[key]}")
        if key not in running:
            try:
                name = f"interop-{server}-{isolation}"
                if isolation == "pair":
                    socket = RESULTS / f"{name}.sock"
                    shims.append(shim(socket, servers.command(server)))
                    running[key] = Proxyrunner(name, [], *flags("auto"), "--connect", f"unix:{socket}")
                else:
                    running[key] = Proxyrunner(name, servers.command(server), *flags(isolation))
            except Exception as error:
                broken[key] = str(error)
                raise
        return running[key]

    yield give
    for each in running.values():
        each.stop()
    assert [each.exit_code for each in running.values()] == [0] * len(running)
    for each in shims:
        each.terminate()
    assert [each.wait(STOP) for each in shims] == [0] * len(shims)


def shim(socket: Path, command: list[str]) -> subprocess.Popen:
    """Serves the server on a socket, as in a container of its own."""
    RESULTS.mkdir(exist_ok=True)
    socket.unlink(missing_ok=True)
    return subprocess.Popen([binary(), "shim", "--socket", socket, "--", *command], cwd=ROOT, stdin=subprocess.DEVNULL)


def flags(isolation: str) -> list[str]:
    """How proxyrunner is started for these tests."""
    return ["--isolation", isolation, "--sse"]


Errors = dict[str, "str | None"]


@pytest.fixture(scope="session")
def node_errors(proxyrunner: Callable) -> Callable[[str, str, str], Errors]:
    """Has the Node client show all features of a server at once, and gives its errors by feature."""
    shown: dict[tuple[str, str, str], Errors] = {}

    def give(server: str, isolation: str, transport: str) -> Errors:
        key = server, isolation, transport
        if key not in shown:
            it = proxyrunner(server, isolation)
            names = [name for name in servers.features(*key) if name != "resumption"]
            shown[key] = run_node(it.sse_url if transport == "sse" else it.url, transport, server, names)
        return shown[key]

    return give


def run_node(
    url: str, transport: str, server: str, features: list[str], in_flight: Callable[[], None] = lambda: None
) -> Errors:
    """Runs the Node client, and calls `in_flight` when it says that a call has begun."""
    plan = {
        "url": url,
        "transport": transport,
        "features": {feature: servers.SERVERS[server][feature] for feature in features},
        "asks": [feature for feature in features if servers.asks(server, feature)],
    }
    client = subprocess.Popen(
        [node(), TESTS / "interop" / "node_client.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    hang = threading.Timer(NODE_PATIENCE, client.kill)
    hang.start()
    client.stdin.write(json.dumps(plan).encode())
    client.stdin.close()
    errors: Errors = {feature: "did not finish" for feature in features}
    for line in map(json.loads, client.stdout):
        if line.get("event") == "in-flight":
            in_flight()
        else:
            errors[line["feature"]] = line.get("error")
    client.wait()
    hang.cancel()
    return errors
