"""A proxyrunner under test, and a client of it."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

from proxyrunner import TESTS, Proxyrunner
from receivers import Stopped
from wire import Wire

CHILD = [sys.executable, str(TESTS / "children" / "modern.py")]  # tells what it hears, and does what it is told
# Nothing waits for longer than tests need to have it in batches.
AT_ONCE = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_BLRP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "100"}

numbers = itertools.count(1)


class Running(Stopped):
    def __init__(self, *flags: str, command: list[str] = CHILD, env: dict[str, str] | None = None) -> None:
        self.proxyrunner = Proxyrunner(f"telemetry-{next(numbers)}", command, *flags, env={**AT_ONCE, **(env or {})})
        self.wire = Wire(self.proxyrunner.port)

    def stop(self) -> None:
        self.wire.connection.close()
        self.proxyrunner.stop()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its lines: all of them, once it has been stopped."""
        return [json.loads(line) for line in self.proxyrunner.log.read_text().splitlines()]

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Those that say this."""
        return [line for line in self.log if message in line["fields"]["message"]]
