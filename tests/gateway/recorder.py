"""examples/server.py with tools that record each call in a file, so that a call that was carried out twice is seen.

    python3 recorder.py NAME FILE

Answers and lines begin with NAME, which tells the replica that has carried a call out.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from server import Call, Server, tool

NAME, FILE = sys.argv[1:3]


def record(text: str) -> str:
    line = f"{NAME} {text}"
    file = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # One write, so that lines of several processes do not mix.
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
    return line


@tool(text={"type": "string"})
def echo(call: Call, text: str) -> str:
    """Records the text, and says it with the name of this replica."""
    return record(text)


@tool(text={"type": "string"}, seconds={"type": "number"})
def slowly(call: Call, text: str, seconds: float) -> str:
    """Does the same, after a while."""
    time.sleep(seconds)
    return record(text)


if __name__ == "__main__":
    Server(sys.stdin.buffer, sys.stdout.buffer).run()
