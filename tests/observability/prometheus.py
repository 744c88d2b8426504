"""Gets a real Prometheus with its promtool, from Debian's package, and runs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(TESTS))

import debian
from debian import Unavailable

ROOT = TESTS.parent
FOLDER = TESTS / ".prometheus"
SCRATCH = ROOT / "target" / "observability"
RESULTS = TESTS / "results"

START = 60  # seconds; ample on a loaded machine
ANSWER = 30


def install() -> dict[str, str]:
    """Where `prometheus` and `promtool` are: in our folder, downloaded if need be; or wherever the machine has them."""
    names = ("prometheus", "promtool")
    own = {name: FOLDER / "usr" / "bin" / name for name in names}
    try:
        if not all(path.exists() for path in own.values()):
            debian.unpack("prometheus", FOLDER)
        return {name: str(path) for name, path in own.items()}
    except Unavailable as error:
        found = {name: shutil.which(name) for name in names}
        if not all(found.values()):
            raise Unavailable(f"no prometheus and promtool on PATH, and {error}") from error
        return found


class Prometheus:
    """A running Prometheus that scrapes these addresses as the job `proxyrunner`, by these rules, each second.

    Its log is kept in tests/results. Used as a context manager, it is ended.
    """

    def __init__(self, program: str, rules: Path, targets: list[str]) -> None:
        shutil.rmtree(SCRATCH, ignore_errors=True)
        SCRATCH.mkdir(parents=True)
        RESULTS.mkdir(exist_ok=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "proxyrunner", "static_configs": [{"targets": targets}]}],
        }
        # JSON is YAML.
        (SCRATCH / "prometheus.yml").write_text(json.dumps(config))
        self.log = RESULTS / "prometheus.log"
        self.process: subprocess.Popen | None = None
        try:
            self._start(program)
        except BaseException:
            self.stop()
            raise

    def _start(self, program: str) -> None:
        # A port that was free may be taken a moment later, by anybody.
        for _ in range(3):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [
                        program,
                        f"--config.file={SCRATCH / 'prometheus.yml'}",
                        f"--storage.tsdb.path={SCRATCH / 'data'}",
                        f"--web.listen-address={self.url.removeprefix('http://')}",
                        "--enable-feature=exemplar-storage",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "GOMAXPROCS": "2"},
                )
            deadline = time.monotonic() + START
            while self.process.poll() is None:
                try:
                    with urllib.request.urlopen(f"{self.url}/-/ready", timeout=ANSWER):
                        return
                except OSError:  # refused, or not ready
                    assert time.monotonic() < deadline, f"Prometheus is not ready; see {self.log}"
                    time.sleep(0.05)
        raise AssertionError(f"Prometheus ended:\n{self.log.read_text()[-2000:]}")

    def ask(self, path: str, **parameters: object) -> Any:
        """What the API says."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=ANSWER) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error)["error"]) from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the value of each series that there is now."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class QueryError(Exception):
    """A query that is wrong."""
