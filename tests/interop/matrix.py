#!/usr/bin/env python3
"""Puts every stock client in front of every stock server, old and new, through proxyrunner.

    tests/interop/matrix.py                                  all of them; writes docs/interop.md
    tests/interop/matrix.py --client "npm 2" --server "PyPI 1"   these only; writes nothing

Each pair has a proxyrunner of its own, with its default settings.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass

import servers
from proxyrunner import MODERN_PYTHON, PYTHON, ROOT, TESTS, Proxyrunner, node

INTEROP = TESTS / "interop"
REPORT = ROOT / "docs" / "interop.md"
PATIENCE = 150  # seconds for one pair; no assertion, only the end of a hang
LONGEST_ERROR = 600  # characters of it that are printed

# The features in the order of the table, with their columns' names.
FEATURES = {
    "tools": "list",
    "call": "call",
    "progress": "progress",
    "cancellation": "cancel",
    "elicitation": "elicit",
    "sampling": "sample",
    "subscription": "subscribe",
    "resource": "resource",
    "prompt": "prompt",
    "completion": "complete",
    "logging": "log",
    "initialize": "identity",
}


@dataclass(frozen=True, eq=False)
class Client:
    name: str
    package: str
    era: str
    command: list[str]


@dataclass(frozen=True, eq=False)
class Server:
    name: str
    package: str
    era: str  # legacy, modern, or both
    command: list[str]
    entries: dict[str, dict]

    def features(self, client: Client) -> list[str]:
        """What this client can be shown by this server."""
        # server-everything logs from a timer. At 2026-07-28 a message belongs to a request.
        lacking = {"logging"} if client.era == "modern" and self.entries is servers.EVERYTHING_NPM else set()
        return [feature for feature in FEATURES if feature in self.entries and feature not in lacking]


def clients() -> list[Client]:
    here = lambda program, file: [str(program), str(INTEROP / file)]
    return [
        Client("PyPI 1", pypi("requirements.txt"), "legacy", here(PYTHON, "python_client.py")),
        Client("npm 1", npm("sdk"), "legacy", here(node(), "node_client.mjs")),
        Client("PyPI 2", pypi("requirements2.txt"), "modern", here(MODERN_PYTHON, "modern_python_client.py")),
        Client("npm 2", npm("client"), "modern", here(node(), "modern_node_client.mjs")),
    ]


def all_servers() -> list[Server]:
    dual = [str(MODERN_PYTHON), str(TESTS / "servers" / "dual.py")]
    dual_node = [str(node()), str(INTEROP / "node_server.mjs")]
    mcp, package = pypi("requirements2.txt"), npm("server")
    own = servers.EVERYTHING_PYPI
    on_node = own | {"tools": {"names": ["echo", "test_sampling", "touch"]}}
    return [
        Server("PyPI 1", pypi("requirements.txt"), "legacy", servers.command("everything-pypi"), own),
        Server("npm 1", npm("server-everything"), "legacy", servers.command("everything-npm"), servers.EVERYTHING_NPM),
        Server("PyPI 2", mcp, "both", dual, own),
        Server("npm 2", package, "both", dual_node, on_node),
        Server("PyPI 2, modern only", mcp, "modern", [*dual, "--modern-only"], own),
        Server("npm 2, modern only", package, "modern", [*dual_node, "--modern-only"], on_node),
    ]


def pypi(requirements: str) -> str:
    """The pinned mcp package."""
    return re.search(r"^mcp==(\S+)$", (INTEROP / requirements).read_text(), re.M).expand(r"mcp \1")


def npm(name: str) -> str:
    """A pinned npm package."""
    package = f"@modelcontextprotocol/{name}"
    return f"{package} {json.loads((INTEROP / 'package.json').read_text())['dependencies'][package]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--client", help="this client only, by its name in the table")
    parser.add_argument("--server", help="this server only")
    arguments = parser.parse_args()
    chosen = [c for c in clients() if arguments.client in (None, c.name)]
    against = [s for s in all_servers() if arguments.server in (None, s.name)]
    outcomes = {(server, client): try_out(server, client) for server in against for client in chosen}
    text = table(outcomes)
    print(text)
    errors = [error for pair in outcomes.values() for error in pair.values()]
    for (server, client), pair in outcomes.items():
        explain(server, client, pair)
    if arguments.client is None and arguments.server is None:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(document(outcomes, text))
    failed = sum(error is not None for error in errors)
    print(f"{len(errors) - failed} passed, {failed} failed")
    return 1 if failed or not errors else 0


Outcome = dict[str, "str | None"]  # by feature; no error is None
Outcomes = dict[tuple[Server, Client], Outcome]


def try_out(server: Server, client: Client) -> Outcome:
    """Has a client show all features of a server at once, through a proxyrunner of its own."""
    name = re.sub(r"\W+", "-", f"matrix-{client.name}-in-front-of-{server.name}").lower()
    try:
        with Proxyrunner(name, server.command) as it:
            outcome = show(server, client, it.url)
    except Exception as error:
        outcome = {feature: f"proxyrunner: {error}" for feature in server.features(client)}
    failed = sum(error is not None for error in outcome.values())
    print(f"{client.name} in front of {server.name}: {len(outcome) - failed} of {len(outcome)}", flush=True)
    return outcome


def explain(server: Server, client: Client, outcome: Outcome) -> None:
    """Prints each error once, with the features that it broke."""
    for error in dict.fromkeys(filter(None, outcome.values())):
        broken = ", ".join(FEATURES[feature] for feature, its in outcome.items() if its == error)
        print(f"FAILED: {client.name} in front of {server.name}: {broken}: {error[:LONGEST_ERROR]}")


def show(
    server: Server, client: Client, url: str | list[str], lacking: Collection[str] = (), transport: str = "http"
) -> Outcome:
    """What the client sees of each feature that the server has for it, without those that are lacking on the way."""
    features = [feature for feature in server.features(client) if feature not in lacking]
    plan = {
        "url": url,
        "transport": transport,
        "features": {feature: server.entries[feature] for feature in features},
        "asks": [feature for feature in features if asks(server, client, feature)],
    }
    process = subprocess.Popen(client.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hang = threading.Timer(PATIENCE, process.kill)
    hang.start()
    process.stdin.write(json.dumps(plan).encode())
    process.stdin.close()
    outcome: Outcome = {feature: "did not finish" for feature in features}
    for line in map(json.loads, process.stdout):
        outcome[line["feature"]] = line.get("error")
    process.wait()
    hang.cancel()
    return outcome


def asks(server: Server, client: Client, feature: str) -> bool:
    """Whether the client declares sampling and elicitation. A modern one then leases a child for each call,
    where a legacy one has a child of its own for all of its session."""
    own_child = feature in servers.NEED_OWN_CHILD
    return own_child or (client.era == "legacy" and bool(server.entries[feature].get("exclusive")))


def table(outcomes: Outcomes) -> str:
    """One row per pair, one column per feature."""
    rows = [["server", "client", *FEATURES.values()], ["---"] * (len(FEATURES) + 2)]
    for (server, client), outcome in outcomes.items():
        marks = ["–" if f not in outcome else "✗" if outcome[f] is not None else "✓" for f in FEATURES]
        rows.append([server.name, client.name, *marks])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def document(outcomes: Outcomes, text: str) -> str:
    """docs/interop.md."""
    packages = {f"- {kind} {one.name}: `{one.package}`" for pair in outcomes for kind, one in zip(KINDS, pair)}
    return PAGE.format(ways=four_ways(outcomes), table=text, packages="\n".join(sorted(packages)))


def four_ways(outcomes: Outcomes) -> str:
    """How many features work, by the eras of client and server."""
    rows = ["| | legacy server | server of both eras | modern server |", "| --- | --- | --- | --- |"]
    for client_era in ("legacy", "modern"):
        cells = []
        for server_era in ("legacy", "both", "modern"):
            group = [o for (s, c), o in outcomes.items() if (s.era, c.era) == (server_era, client_era)]
            errors = [error for outcome in group for error in outcome.values()]
            cells.append(f"{errors.count(None)} of {len(errors)}")
        rows.append(f"| {client_era} client | {' | '.join(cells)} |")
    return "\n".join(rows)


KINDS = ("server", "client")
PAGE = """# Interoperability

`tests/run eras` generates this page. It connects every client below to every server below, through proxyrunner with its
default settings. Do not edit.

*Legacy* means protocol revisions up to 2025-11-25, *modern* means 2026-07-28. A modern client detects the server's era by
itself, and must arrive at 2026-07-28 with every server.

Working features:

{ways}

By feature: ✓ works, ✗ fails, – does not exist for this pair.

{table}

Packages:

{packages}
"""


if __name__ == "__main__":
    sys.exit(main())
