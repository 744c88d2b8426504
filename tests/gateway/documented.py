"""Runs the failover drills of docs/operations.md as they are written."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from proxyrunner import RESULTS, ROOT, binary

PAGE = ROOT / "docs" / "operations.md"
PATIENCE = 150  # seconds for all of them; no assertion, only the end of a hang


def problems() -> tuple[int, list[str]]:
    """Returns how many calls there were, and those whose status is not that of their comment."""
    section = PAGE.read_text().partition("\n## Failover drills of the gateway\n")[2].partition("\n## ")[0]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.S))
    said = re.findall(r"^call \d+ # (\d+)$", script, re.M)
    # Each call prints its number, so that a missing one is seen.
    numbers = iter(range(len(said)))
    script = re.sub(r"^(call \d+) # \d+$", lambda found: f'echo "{next(numbers)} $({found[1]})"', script, flags=re.M)
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "proxyrunner").symlink_to(binary())
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PROXYRUNNER_"))}
        env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
        env["TMPDIR"] = folder
        with (RESULTS / "fleet-documented.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-eu", "-c", script], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
            try:
                said_by_it = process.communicate(timeout=PATIENCE)[0].decode()
            except subprocess.TimeoutExpired:
                return len(said), [f"no end within {PATIENCE} s; see {log.name}"]
            finally:
                # What the script has started is in its group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    got = dict(re.findall(r"^(\d+) (\d*)$", said_by_it, re.M))
    found = [
        f"call {number}: {got.get(str(number), 'not made')}, not {wanted}"
        for number, wanted in enumerate(said)
        if got.get(str(number)) != wanted
    ]
    if not said or process.returncode != 0:
        found.append(f"exit code {process.returncode}; see {log.name}")
    return len(said), found
