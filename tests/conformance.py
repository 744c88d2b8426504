#!/usr/bin/env python3
"""Runs the official conformance suite against proxyrunner in front of the stdio everything-servers.

    tests/conformance.py             2025-11-25 and 2026-07-28, at one URL, in front of each server
    tests/conformance.py --gateway   the same, through a gateway at /servers/NAME/mcp
    tests/conformance.py --combined  the same, through a gateway at /mcp, which has one server
    tests/conformance.py --direct    each server over its own SDK's HTTP, to tell its faults from proxyrunner's

A run passes when every scored scenario of its revision does, and a few unscored ones that are about what
proxyrunner does itself. A warning counts as a failure. What a legacy server cannot pass under 2026-07-28
is in expected-failures.yml, check by check; an entry that passes all the same is a failure too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

sys.path[:0] = [str(Path(__file__).resolve().parent / folder) for folder in ("interop", "gateway")]

from proxyrunner import MODERN_PYTHON, NODE_MODULES, PYTHON, RESULTS, START, TESTS, Proxyrunner, node

LEGACY, MODERN = "2025-11-25", "2026-07-28"
SCORED = {LEGACY: 30, MODERN: 37}
UNSCORED = {
    LEGACY: ["server-session-lifecycle", "server-sse-polling", "json-schema-2020-12"],
    MODERN: ["http-header-validation", "http-custom-header-server-validation", "json-schema-2020-12"],
}
# Every message must be valid under its revision's schema, also in scenarios that are not judged otherwise.
SCHEMA = "wire-schema-"
# Over plain JSON this scenario passes without testing anything, so this check of it must be there.
RESUMED = ("server-sse-polling", "server-sse-disconnect-resume")

# The servers' test_reconnection is quiet for 1.5 s: its stream must be open before, and closed within.
# Roots are withheld unless the operator opts in, and the suite scores them. It waits 600 ms for the first event of a call
# that has a server to itself; on a loaded machine none starts in that time.
FLAGS = ["--sse-commit-after", "50ms", "--sse-max-age", "1s", "--forward-roots", "--warm", "1"]

PACKAGE = NODE_MODULES / "@modelcontextprotocol" / "conformance"
SERVERS = TESTS / "servers"
EXPECTED = TESTS / "expected-failures.yml"


@dataclass(frozen=True)
class Run:
    """One pass of the suite: a server's name, how it is started, and the revision it is held to."""

    server: str
    command: list[str]
    revision: str
    unscored: list[str] = field(default_factory=list)

    @property
    def expected(self) -> set[str]:
        """The checks that may fail, as `scenario:check`."""
        if (self.server, self.revision) != ("legacy", MODERN):
            return set()
        return set(re.findall(r"^  - (\S+:\S+)$", EXPECTED.read_text(), re.M))

    @property
    def output(self) -> Path:
        return RESULTS / "conformance" / self.server / self.revision


CHILDREN = {
    "legacy": [str(PYTHON), str(SERVERS / "everything.py")],
    "dual": [str(MODERN_PYTHON), str(SERVERS / "dual.py")],
    "modern": [str(MODERN_PYTHON), str(SERVERS / "dual.py"), "--modern-only"],
}
# Each server at the revisions it speaks by itself; its SDK leaves polling to a store of events.
DIRECT = {"legacy": [LEGACY], "dual": [LEGACY, MODERN]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--direct", action="store_true", help="without proxyrunner")
    parser.add_argument("--gateway", action="store_true", help="through a gateway")
    parser.add_argument("--combined", action="store_true", help="through a gateway's endpoint of all servers")
    parser.add_argument("--server", choices=CHILDREN, help="this server only")
    arguments = parser.parse_args()
    shutil.rmtree(RESULTS / "conformance", ignore_errors=True)
    passed = failed = 0
    for server in [arguments.server] if arguments.server else CHILDREN:
        try:
            for run in runs(server, arguments):
                good, bad = report(run)
                passed, failed = passed + good, failed + bad
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(f"FAIL  the {server} server: {error}")
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def runs(server: str, arguments: argparse.Namespace) -> Iterator[Run]:
    """Runs the suite in front of a server, started once, at each revision."""
    command, direct = CHILDREN[server], arguments.direct
    revisions = DIRECT.get(server, []) if direct else [LEGACY, MODERN]
    if not revisions:
        return
    if direct:
        way = served_directly(server)
    elif arguments.gateway or arguments.combined:
        way = served_by_gateway(server, command, "/mcp" if arguments.combined else f"/servers/{server}/mcp")
    else:
        way = served(server, command)
    with way as (port, path):
        for revision in revisions:
            unscored = UNSCORED[revision] if not direct or revision == MODERN else []
            if arguments.combined:
                # A gateway has no option for the age of streams.
                unscored = [scenario for scenario in unscored if scenario != "server-sse-polling"]
            run = Run(server, command, revision, unscored)
            # By this name, since the DNS rebinding scenario compares it.
            run_suite(f"http://localhost:{port}{path}", run)
            yield run


@contextlib.contextmanager
def served(server: str, command: list[str]) -> Iterator[tuple[int, str]]:
    """The port and the path of proxyrunner in front of a server."""
    with Proxyrunner(f"conformance-{server}", command, *FLAGS) as it:
        yield it.port, "/mcp"


@contextlib.contextmanager
def served_by_gateway(server: str, command: list[str], at: str) -> Iterator[tuple[int, str]]:
    """The port and the path of a gateway in front of proxyrunner in front of a server."""
    from bed import Member, free_ports

    with served(server, command) as (port, path), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "servers.json"
        file.write_text(json.dumps({"mcpServers": {server: {"url": f"http://127.0.0.1:{port}{path}"}}}))
        (own,) = free_ports(1)
        gateway = Member(f"conformance-{server}", own, "gateway", "--servers", str(file), "--listen", f"127.0.0.1:{own}")
        gateway.start()
        try:
            gateway.await_ready()
            yield own, at
        finally:
            gateway.stop()


@contextlib.contextmanager
def served_directly(server: str) -> Iterator[tuple[int, str]]:
    """The port and the path of a server that speaks HTTP itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"conformance-{server}-direct.log").open("wb") as log:
        process = subprocess.Popen([*CHILDREN[server], "--http", str(port)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{server} does not listen; see {log.name}")
                time.sleep(0.05)
            yield port, "/mcp"
        finally:
            process.terminate()
            process.wait()


def run_suite(url: str, run: Run) -> None:
    """Runs every scenario; verdicts are read from the files it leaves in the run's folder."""
    command = [node(), PACKAGE / "dist" / "index.js", "server", "--url", url]
    run.output.mkdir(parents=True)
    with (run.output / "suite.txt").open("wb") as out:
        subprocess.run(
            [*command, "--requirements", run.revision, "--output-dir", run.output],
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=900,
        )


def report(run: Run) -> tuple[int, int]:
    """Prints the verdict on each scenario, and gives how many passed and failed."""
    outcomes = {name: outcome(run, name) for name in scored(run.revision) + run.unscored}
    outcomes["every message, by the schema"] = invalid(run)
    failed = 0
    print(f"{run.revision} in front of the {run.server} server")
    for name, problems in outcomes.items():
        print(f"{'FAIL' if problems else 'ok':4}  {name}")
        for problem in problems:
            print(f"      {problem}")
        failed += bool(problems)
    if failed:
        print(f"the suite's own report is in {run.output / 'suite.txt'}")
    return len(outcomes) - failed, failed


def scored(revision: str) -> list[str]:
    """The scenarios that the suite says a server must pass."""
    text = (PACKAGE / "requirements" / f"{revision}.yaml").read_text()
    names = re.findall(r"^  - (\S+)$", re.search(r"^server:\n(.*?)\n\n", text, re.M | re.S)[1], re.M)
    assert len(names) == SCORED[revision], f"the suite scores {len(names)} scenarios, not {SCORED[revision]}"
    return names


def outcome(run: Run, scenario: str) -> list[str]:
    """What is wrong with a scenario; nothing if it passed, or failed where that is expected."""
    found = list(run.output.glob(f"server-{scenario}-[0-9]*/checks.json"))
    if len(found) != 1:
        return [f"ran {len(found)} times"]
    checks = json.loads(found[0].read_text())
    failing = {c["id"]: c.get("errorMessage") for c in checks if c["status"] in ("FAILURE", "WARNING")}
    passing = {c["id"] for c in checks if c["status"] == "SUCCESS"} - failing.keys()
    expected = {entry.partition(":")[2] for entry in run.expected if entry.startswith(f"{scenario}:")}
    problems = [f"{check}: {message}" for check, message in failing.items() if check not in expected]
    problems += [f"{check}: passes, though {EXPECTED.name} says it fails" for check in expected & passing]
    if not passing:
        problems.append("no check succeeded")
    if scenario == RESUMED[0] and RESUMED[1] not in passing:
        problems.append(f"{RESUMED[1]} did not succeed")
    return problems


def invalid(run: Run) -> list[str]:
    """What the suite found that the revision's schema forbids, in any scenario, judged or not."""
    problems, seen = [], 0
    for found in sorted(run.output.glob("server-*/checks.json")):
        checks = [c for c in json.loads(found.read_text()) if c["id"].startswith(SCHEMA)]
        seen += bool(checks)
        bad = (c for c in checks if c["status"] != "SUCCESS")
        problems += [f"{found.parent.name}: {c['id']}: {c.get('errorMessage') or c.get('details')}" for c in bad]
    return problems if seen else ["the suite checked no message"]


if __name__ == "__main__":
    sys.exit(main())
