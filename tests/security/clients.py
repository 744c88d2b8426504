"""Stock clients that are programs of their own, and log in as their user tells them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

from browser import visit
from proxyrunner import node
from running import SECURITY, Provider

PATIENCE = 120  # seconds; no assertion, only the end of a hang
PACKAGES = SECURITY / "node_modules"


def logging_in(process: subprocess.Popen, provider: Provider) -> tuple[list[str], threading.Thread]:
    """Visits the address to log in at that a client prints for its user; gives what it prints, and who reads it."""
    said: list[str] = []

    def read() -> None:
        for line in process.stderr:
            said.append(line)
            if found := re.search(rf"{re.escape(provider.url)}/auth\?\S+", line):
                said.append(f"visited {visit(found[0])}\n")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return said, thread


def inspect(provider: Provider, folder: Path, url: str, *flags: str) -> tuple[int, dict[str, Any] | None, str]:
    """Runs the inspector's command line; gives its exit code, its result, and what it said."""
    program = PACKAGES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
    own_flags = ["--format", "json", "--callback-url", "http://127.0.0.1:0/oauth/callback"]
    # It would open a browser: this one does nothing.
    own = {"HOME": str(folder), "BROWSER": "true", "MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "file"}
    process = subprocess.Popen(
        [node(), program, "--cli", url, "--transport", "http", *own_flags, *flags],
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    hang = threading.Timer(PATIENCE, process.kill)
    hang.start()
    said, thread = logging_in(process, provider)
    output = process.stdout.read()
    code = process.wait()
    thread.join()
    hang.cancel()
    return code, json.loads(output) if output.strip() else None, "".join(said)
