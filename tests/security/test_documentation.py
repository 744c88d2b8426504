"""The commands of docs/authentication.md do what the page says, as they stand there, on other ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

from browser import visit
from proxyrunner import ROOT, binary, node
from running import free_port

HEADING = "## Try it with a test identity provider\n"
PATIENCE = 120  # seconds; no assertion, only the end of a hang
# Installed already. The blocks do not wait, as a person does who pastes one after the other.
INSTALL = re.compile(r"^npm ci .*\n", re.M)
READY = "until curl --silent --fail --output /dev/null http://127.0.0.1:8080/readyz; do sleep 0.1; done\n"


def test_the_page_can_be_pasted(tmp_path):
    section = (ROOT / "docs" / "authentication.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    start, login, agent, proof = re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)
    assert INSTALL.search(start)
    # With `set -m`, jobs are as in a terminal.
    begin = "set -em\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    script = begin + INSTALL.sub("", start) + READY + login + "echo between\n" + agent + proof
    for port in ("9400", "8080"):
        script = script.replace(port, str(free_port()))
    script = script.replace("/tmp/", f"{tmp_path}/").replace("proxyrunner --auth", 'proxyrunner --listen "127.0.0.1:$PORT" --auth')
    port = re.search(r"audience http://127.0.0.1:(\d+)/", script)[1]
    # `npx` would run npm of the Node of the tests, which has none that works.
    script = script.replace("npx --prefix tests/security mcp-inspector", "tests/security/node_modules/.bin/mcp-inspector")
    path = [str(binary().parent), str(node().parent), os.environ["PATH"]]
    env = {"HOME": str(tmp_path), "BROWSER": "true", "MCP_AUTO_OPEN_ENABLED": "true", "PATH": os.pathsep.join(path), "PORT": port}
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    hang = threading.Timer(PATIENCE, os.killpg, (shell.pid, signal.SIGKILL))
    hang.start()
    said: list[str] = []

    def read() -> None:
        for line in shell.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/auth\?\S+", line):
                visit(found[0])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    output = shell.stdout.read()
    shell.wait()
    hang.cancel()
    thread.join(10)
    by_login, _, by_token = output.partition("between\n")
    tools = [re.findall(r'"name": "(\w+)"', part) for part in (by_login, by_token)]
    assert tools == [["echo", "countdown"], ["echo"]], output + "".join(said)
    assert shell.returncode == 0 and "follow each other" in by_token, by_token
