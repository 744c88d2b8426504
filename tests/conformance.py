#!/usr/bin/env python3
"""Runs the official conformance suite against proxyrunner in front of the stdio everything-server.

Passes when every scored scenario of 2025-11-25 does, and the two unscored ones that are about
sessions and streams: one of them must also have seen its stream closed and resumed, since over
plain JSON it passes without testing anything.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "interop"))

from proxyrunner import NODE_MODULES, PYTHON, RESULTS, TESTS, Proxyrunner, node

REVISION = "2025-11-25"
SCORED = 30
UNSCORED = ["server-session-lifecycle", "server-sse-polling"]
RESUMED = ("server-sse-polling", "server-sse-disconnect-resume")

# The fixture's test_reconnection is quiet for 1.5 s: its stream must be open before, and closed within.
FLAGS = ["--sse-commit-after", "50ms", "--sse-max-age", "1s"]

PACKAGE = NODE_MODULES / "@modelcontextprotocol" / "conformance"


def main() -> int:
    output = RESULTS / "conformance"
    shutil.rmtree(output, ignore_errors=True)
    with Proxyrunner("conformance", [str(PYTHON), str(TESTS / "servers" / "everything.py")], *FLAGS) as it:
        # By this name, since the DNS rebinding scenario compares it.
        suite = run_suite(f"http://localhost:{it.port}/mcp", output)
    outcomes = {name: outcome(output, name) for name in scored() + UNSCORED}
    failed = 0
    for name, problems in outcomes.items():
        print(f"{'FAIL' if problems else 'ok':4}  {name}")
        for problem in problems:
            print(f"      {problem}")
        failed += bool(problems)
    if failed:
        print(f"the suite's own report is in {suite}, proxyrunner's log in {it.log}")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


def run_suite(url: str, output: Path) -> Path:
    """Runs every scenario; verdicts are read from the files it leaves in `output`."""
    command = [node(), PACKAGE / "dist" / "index.js", "server", "--url", url]
    report = RESULTS / "conformance.txt"
    with report.open("wb") as out:
        subprocess.run(
            [*command, "--requirements", REVISION, "--output-dir", output],
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
    return report


def scored() -> list[str]:
    """The scenarios that the suite says a server must pass."""
    text = (PACKAGE / "requirements" / f"{REVISION}.yaml").read_text()
    names = re.findall(r"^  - (\S+)$", re.search(r"^server:\n(.*?)\n\n", text, re.M | re.S)[1], re.M)
    assert len(names) == SCORED, f"the suite scores {len(names)} scenarios, not {SCORED}"
    return names


def outcome(output: Path, scenario: str) -> list[str]:
    """What is wrong with a scenario; nothing if it passed."""
    found = list(output.glob(f"server-{scenario}-[0-9]*/checks.json"))
    if len(found) != 1:
        return [f"ran {len(found)} times"]
    checks = json.loads(found[0].read_text())
    problems = [f"{c['id']}: {c.get('errorMessage')}" for c in checks if c["status"] == "FAILURE"]
    if not any(c["status"] == "SUCCESS" for c in checks):
        problems.append("no check succeeded")
    if scenario == RESUMED[0]:
        resumed = [c["status"] for c in checks if c["id"] == RESUMED[1]]
        if resumed != ["SUCCESS"]:
            problems.append(f"{RESUMED[1]} is {resumed or 'missing'}, not SUCCESS")
    return problems


if __name__ == "__main__":
    sys.exit(main())
