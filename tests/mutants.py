#!/usr/bin/env python3
"""Breaks the code in every way that cargo-mutants knows, and looks which unit tests notice.

    tests/mutants.py            the parts where an unnoticed one would matter most: an hour and a half
    tests/mutants.py era mux    these alone

Each part is built for itself, with the rooms that it imports and none above them: that takes a few seconds where the
whole takes half a minute. A mutant passes if the part's own tests fail with it, or don't end. Those that nobody can
notice are in mutants.txt, each with the reason; one of them that is noticed all the same is a failure too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SOURCES = ROOT / "src"
TREE = ROOT / "target" / "mutants" / "tree"
PARTS = ("framing", "jsonrpc", "mux", "admission", "lifecycle", "era")
# Seconds after which tests that usually take two or three will not end any more.
TIMEOUT = 12
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
    # It fails where one was missed, too.
    subprocess.run(command, cwd=TREE, env={**os.environ, **environment})
    outcomes: dict[str, list[str]] = {}
    for outcome in json.loads((found / "mutants.out" / "outcomes.json").read_text())["outcomes"]:
        if outcome["scenario"] == "Baseline":
            if outcome["summary"] != "Success":
                raise RuntimeError(f"{part}: its tests fail as it is")
            continue
        name = re.sub(r":\d+:\d+: ", ": ", outcome["scenario"]["Mutant"]["name"], count=1)
        outcomes.setdefault(outcome["summary"], []).append(name)
    return outcomes


def explained(part: str) -> tuple[set[str], set[str]]:
    """The part's mutants that nobody can notice, and those that are noticed sometimes."""
    lines = (TESTS / "mutants.txt").read_text().splitlines()
    prefix = f"src/{part}/"
    never = {line for line in lines if line.startswith(prefix)}
    return never, {line.removeprefix("? ") for line in lines if line.startswith(f"? {prefix}")}


def main() -> int:
    parts = sys.argv[1:] or PARTS
    unknown = set(parts) - set(PARTS)
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    passed = failed = 0
    for part in parts:
        outcomes = mutate(part)
        never, sometimes = explained(part)
        missed, noticed = outcomes.get("MissedMutant", []), outcomes.get("CaughtMutant", [])
        endless = outcomes.get("Timeout", [])
        wrong = [f"survives: {name}" for name in missed if name not in never | sometimes]
        wrong += [f"is noticed, though mutants.txt says it can't be: {name}" for name in never - set(missed)]
        for line in sorted(wrong):
            print(f"{part}: {line}", flush=True)
        tried = sum(map(len, outcomes.values()))
        unviable = len(outcomes.get("Unviable", []))
        print(
            f"{part}: {tried} tried, {unviable} do not compile, {len(noticed)} noticed, {len(endless)} without end, "
            f"{len(missed)} survive",
            flush=True,
        )
        passed += tried - unviable - len([line for line in wrong if line.startswith("survives")])
        failed += len(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
