"""Starts and stops the release binary in front of the hostile server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
START, STOP = 30, 15  # seconds
TAIL = 64 * 1024

# All timeouts are a few seconds, so that any memory left at the end of a round is a leak.
FLAGS = """
    --listen 127.0.0.1:0 --log-format json --sse --max-buffered 64MiB --session-idle 4s --request-timeout 6s
    --cancel-grace 1s --park-timeout 4s --evict-after 3s --close-grace 300ms --terminate-grace 300ms --drain-timeout 1s
    --restart-limit 100000 --restart-backoff 20ms --restart-backoff-max 200ms
""".split()


class Proxy:
    """A proxyrunner process and the end of its log."""

    def __init__(self, binary: Path, era: str, isolation: str, limits: dict[str, int]) -> None:
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
        server = [sys.executable, str(HERE / "hostile.py"), "--era", era]
        self.process = subprocess.Popen(
            [binary, *FLAGS, "--isolation", isolation, *settings, "--", *server],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.tail = bytearray()
        self.logged = 0
        self.port = 0
        self.listening = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        try:
            self.await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self) -> None:
        """Drains the log and keeps its end."""
        assert self.process.stderr
        while data := self.process.stderr.read1(1 << 20):
            self.logged += len(data)
            self.tail = (self.tail + data)[-TAIL:]
            if not self.port and (found := re.search(rb"127\.0\.0\.1:(\d+)", self.tail)):
                self.port = int(found[1])
                self.listening.set()
        self.listening.set()

    def await_ready(self) -> None:
        self.listening.wait(START)
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None and self.port:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"proxyrunner is not ready:\n{self.tail[-4000:].decode(errors='replace')}")

    def last_words(self, lines: int = 4) -> str:
        """Returns the last distinct warnings and errors of the log, shortened."""
        found: dict[str, str] = {}
        for line in bytes(self.tail).split(b"\n")[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and str(record.get("level")).upper() in ("WARN", "ERROR"):
                message = str((record.get("fields") or record).get("message"))
                found[message] = line[:240].decode(errors="replace")
        return "\n".join(list(found.values())[-lines:])

    def stop(self) -> int:
        """Stops proxyrunner and returns its exit code. Its guardians end all processes that it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -signal.SIGKILL
        finally:
            self.reader.join(5)
