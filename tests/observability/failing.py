"""examples/server.py with tools that fail, one for each way that is told apart in metrics and alerts."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from server import INTERNAL_ERROR, Call, Failure, Server, tool

ODD = 4711  # a code that means nothing to anybody but us


@tool()
def refuse(call: Call) -> str:
    """Says of its result that it is an error."""
    raise RuntimeError("refused")


@tool()
def broken(call: Call) -> str:
    """Is answered with an internal error."""
    raise AssertionError("is not run")


@tool()
def odd(call: Call) -> str:
    """Is answered with a code of our own."""
    raise AssertionError("is not run")


@tool(seconds={"type": "number"})
def slow(call: Call, seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "done"


@tool()
def garbage(call: Call) -> str:
    """Writes a line that is no message, then answers."""
    with call.server.writing:
        call.server.outgoing.write(b"Debug: this belongs on stderr\n")
        call.server.outgoing.flush()
    return "done"


@tool()
def die(call: Call) -> str:
    """Ends the process."""
    os._exit(3)


class Failing(Server):
    """Fails by the tool's name, and has no list of resources to give."""

    CODES = {"broken": INTERNAL_ERROR, "odd": ODD}

    def __init__(self, *pipes: object) -> None:
        super().__init__(*pipes)
        self.methods["resources/list"] = self.lost

    def lost(self, params: dict, call: Call) -> dict:
        raise Failure(INTERNAL_ERROR, "the list is lost")

    def call_tool(self, params: dict, call: Call) -> dict:
        if code := self.CODES.get(params.get("name")):
            raise Failure(code, "failed")
        return super().call_tool(params, call)


if __name__ == "__main__":
    Failing(sys.stdin.buffer, sys.stdout.buffer).run()
