#!/usr/bin/env python3
"""Breaks the code in every way that cargo-mutants knows, and looks which unit tests notice.

    tests/mutants.py            the parts where an unnoticed one would matter most: more than an hour
    tests/mutants.py era mux    these alone

Each part is built for itself, with the rooms that it imports and none above them: that takes a few seconds where the
whole takes half a minute. A mutant passes if the part's own tests fail with it, or don't end. Those that nobody can
notice are in mutants.txt, each as often as it is found, with the reason; one of them that is noticed all the same is a
failure too. Needs cargo-mutants, which `tests/run mutants` installs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SOURCES = ROOT / "src"
TREE = ROOT / "target" / "mutants" / "tree"
PARTS = ("framing", "jsonrpc", "mux", "admission", "lifecycle", "era")
# Seconds after which tests that usually take two or three will not end any more.
TIMEOUT = 12
# What cargo-mutants calls what came of one.
NOTICED, ENDLESS, SURVIVES, UNVIABLE = "CaughtMutant", "Timeout", "MissedMutant", "Unviable"
# What of the repository the lower rooms are built without.
LEFT_OUT = re.compile(r"tests/[^/]*\.rs|benches/.*|src/(main|app)\.rs")


def imports(room: str) -> set[str]:
    """The rooms that a room names."""
    files = [*SOURCES.glob(f"{room}.rs"), *SOURCES.glob(f"{room}/**/*.rs")]
    text = "\n".join(file.read_text() for file in files)
    named = re.findall(r"\bcrate::(?:(\w+)|\{([^;]*)\})", text)
    words = {word for one, several in named for word in [one, *re.findall(r"\w+", several)]}
    return {word for word in words if (SOURCES / word).is_dir() or (SOURCES / f"{word}.rs").is_file()}


def with_what_it_imports(part: str) -> list[str]:
    found, left = set(), {part}
    while left:
        room = left.pop()
        found.add(room)
        left |= imports(room) - found
    return sorted(found)


def grow(rooms: list[str]) -> None:
    """A copy of the repository with these rooms for a library."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if not LEFT_OUT.fullmatch(name) and (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)
    (TREE / "src" / "lib.rs").write_text("//! A part.\n" + "".join(f"pub mod {room};\n" for room in rooms))
    manifest = (TREE / "Cargo.toml").read_text()
    manifest = re.sub(r"^\[\[\w+\]\]\n(?:[^\[\n].*\n|\n)*", "", manifest, flags=re.MULTILINE)
    (TREE / "Cargo.toml").write_text(f"{manifest}\n[lib]\ndoctest = false\n\n[workspace]\n")


def mutate(part: str) -> dict[str, list[str]]:
    """What came of the part's mutants: their names by their outcomes."""
    grow(with_what_it_imports(part))
    found = TREE.parent / part
    shutil.rmtree(found, ignore_errors=True)
    tests = [f"src/{part}/**/*tests.rs", f"src/{part}_tests.rs"]
    options = ["--in-place", "--no-times", "--colors", "never", "--timeout", str(TIMEOUT), "--output", str(found)]
    files = ["-f", f"src/{part}/**", *(word for pattern in tests for word in ("-e", pattern))]
    environment = {
        "CARGO_TARGET_DIR": str(TREE.parent / "build"),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CARGO_PROFILE_TEST_DEBUG": "0",
    }
    command = ["cargo", "mutants", *options, *files, "--", "--lib", f"{part}::"]
    ended = subprocess.run(command, cwd=TREE, env={**os.environ, **environment}).returncode
    # All were noticed, or some were missed or did not end.
    if ended not in (0, 2, 3):
        raise RuntimeError(f"{part}: cargo mutants ended with {ended}")
    return outcomes_in(found / "mutants.out")


def outcomes_in(folder: Path) -> dict[str, list[str]]:
    outcomes: dict[str, list[str]] = {summary: [] for summary in (NOTICED, ENDLESS, SURVIVES, UNVIABLE)}
    for outcome in json.loads((folder / "outcomes.json").read_text())["outcomes"]:
        if outcome["scenario"] != "Baseline":
            name = re.sub(r":\d+:\d+: ", ": ", outcome["scenario"]["Mutant"]["name"], count=1)
            outcomes[outcome["summary"]].append(name)
    wanted = len(json.loads((folder / "mutants.json").read_text()))
    if not wanted or sum(map(len, outcomes.values())) != wanted:
        raise RuntimeError(f"{folder}: not all of {wanted} mutants were tried")
    return outcomes


def explained(part: str) -> tuple[Counter[str], Counter[str]]:
    """The part's mutants that nobody can notice, and those that are noticed sometimes."""
    lines = (TESTS / "mutants.txt").read_text().splitlines()
    prefix = f"src/{part}/"
    never = Counter(line for line in lines if line.startswith(prefix))
    return never, Counter(line.removeprefix("? ") for line in lines if line.startswith(f"? {prefix}"))


def judge(part: str, outcomes: dict[str, list[str]]) -> tuple[int, int]:
    """Shows what came of a part's mutants; gives how many passed and failed."""
    never, sometimes = explained(part)
    survive = Counter(outcomes[SURVIVES])
    unexplained = survive - never - sometimes
    wrong = [f"survives: {name}" for name in unexplained.elements()]
    wrong += [f"is noticed, though mutants.txt says it can't be: {name}" for name in (never - survive).elements()]
    for line in sorted(wrong):
        print(f"{part}: {line}", flush=True)
    tried = sum(map(len, outcomes.values()))
    print(
        f"{part}: {tried} tried, {len(outcomes[UNVIABLE])} do not compile, {len(outcomes[NOTICED])} noticed, "
        f"{len(outcomes[ENDLESS])} without end, {survive.total()} survive",
        flush=True,
    )
    return tried - len(outcomes[UNVIABLE]) - unexplained.total(), len(wrong)


def main() -> int:
    parts = sys.argv[1:] or PARTS
    unknown = set(parts) - set(PARTS)
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    passed = failed = 0
    for part in parts:
        good, bad = judge(part, mutate(part))
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
