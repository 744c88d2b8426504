"""One stock client through proxyrunner to one stock server, in each era, and what a stock collector stored of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import spans
from receivers import Tap
from running import Running
from spans import Span

PEERS = Path(__file__).resolve().parent / "peers"
MODES = ("auto", "legacy")  # the first finds out that all are modern
CLIENT_PATIENCE = 120  # seconds; no assertion, only the end of a hang


@dataclass(frozen=True)
class Seen:
    """Everything that arrived."""

    spans: list[Span]
    records: list[dict]
    log: list[dict]

    def trace(self, mode: str) -> list[Span]:
        """The spans of the trace that the client began."""
        root = spans.named(self.spans, f"ask, {mode}")
        return [span for span in self.spans if span.trace == root.trace]


def observe() -> Seen:
    """Has each client talk to the server, and waits until all of them have exported what they have."""
    with Tap() as tap:
        exported = {"OTEL_EXPORTER_OTLP_ENDPOINT": tap.url, "OTEL_LOGS_EXPORTER": "otlp", "COLLECTOR": tap.url}
        with Running("--access-log", command=[sys.executable, str(PEERS / "server.py")], env=exported) as running:
            for mode in MODES:
                ask(running.proxyrunner.url, mode, tap.url)
        # Whoever was asked has exported by now; what was exported last is stored last.
        tap.store.wait(lambda items: told(tap.spans_of(items)), "both traces, to their ends")
        return Seen(tap.spans, tap.records, running.log)


def ask(url: str, mode: str, collector: str) -> None:
    command = [sys.executable, PEERS / "client.py", url, mode]
    subprocess.run(command, env={**os.environ, "COLLECTOR": collector}, check=True, timeout=CLIENT_PATIENCE)


def told(received: list[Span]) -> bool:
    """Whether each client's root has ended, with all that proxyrunner and the server did for it."""
    roots = [span for span in received if span.name.startswith("ask, ")]
    ended = [span for span in received if span.name == "tools/call fails" and span.trace in {r.trace for r in roots}]
    # Of that call, proxyrunner has two spans and the server one.
    return len(roots) == len(MODES) and len(ended) == 3 * len(MODES)
