"""A fleet of processes: gateways with the same keys, sidecars in front of stock servers, and the files that they share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "interop"))

import servers
from proxyrunner import RESULTS, ROOT, binary

RECORDER = TESTS / "gateway" / "recorder.py"
START = 60  # seconds; ample on a loaded machine
# A sidecar fetches keys that it does not know 10 s after it has fetched the others, which it does at its start.
START_AND_PAUSE = 15
STOP = 60
ISSUER = "https://gateway.test"
CALLERS = ("ann", "bob", "eve")
# Files are read again this often, in place of 10 s.
RELOAD = ["--reload-interval", "200ms"]
# Time in which a process that is told to stop still serves, so that others notice: gateways probe sidecars each 5 s.
SIDECAR_DRAIN = ["--drain-delay", "6s", "--drain-timeout", "10s"]
GATEWAY_DRAIN = ["--drain-delay", "500ms", "--drain-timeout", "10s"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all of them are held until the last one is found."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def write(path: Path, text: str) -> None:
    """Replaces a file as a whole, as Kubernetes does."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def signing_key() -> str:
    """An Ed25519 key, as `openssl genpkey -algorithm ed25519` makes it."""
    from base64 import b64encode

    # RFC 8410, section 7: the key's own bytes follow a fixed beginning.
    der = bytes.fromhex("302e020100300506032b657004220420") + secrets.token_bytes(32)
    return f"-----BEGIN PRIVATE KEY-----\n{b64encode(der).decode()}\n-----END PRIVATE KEY-----\n"


class Member:
    """A proxyrunner at a port of its own, which it has again after a restart."""

    def __init__(self, name: str, port: int, *words: str, admin: int | None = None) -> None:
        self.name, self.port, self.words, self.admin = name, port, list(words), admin
        self.log = RESULTS / f"fleet-{name}.log"
        self.process: subprocess.Popen | None = None
        self.started = 0.0

    def start(self) -> None:
        """Starts it, without waiting."""
        self.started = time.monotonic()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PROXYRUNNER_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), *self.words], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stderr=log, stdout=log
            )

    def await_ready(self) -> None:
        deadline = time.monotonic() + START
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not become ready; see {self.log}")
            time.sleep(0.02)

    def logged(self, words: str) -> int:
        """How often it has logged this."""
        return self.log.read_text().count(words)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def await_served(self, server: str) -> None:
        """Waits until a gateway has a healthy replica of this server."""
        healthy = f'proxyrunner_gateway_replicas{{server="{server}",state="healthy"}} 1'
        self._await(lambda page: healthy in page)

    def await_replicas(self, count: int) -> None:
        """Waits until a gateway has so many healthy replicas."""
        healthy = re.compile(r'^proxyrunner_gateway_replicas\{.*state="healthy".*\} (\d+)$', re.M)
        self._await(lambda page: sum(map(int, healthy.findall(page))) == count)

    def _await(self, condition: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + START
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
                if condition(answer.read().decode()):
                    return
            assert time.monotonic() < deadline, f"{self.name} does not have the replicas that it should; see {self.log}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends it as a roll-out does."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} is still running {STOP} s after SIGTERM; see {self.log}") from None


class Bed:
    """Three gateways; three servers, two sidecars each; spare sidecars for one of the servers."""

    SERVERS = ("recorder", "npm", "pypi")
    REPLICAS, SPARE = 2, 4

    def __init__(self, folder: Path) -> None:
        RESULTS.mkdir(exist_ok=True)
        for old in RESULTS.glob("fleet-*.log"):
            old.unlink()
        self.folder = folder
        self.record = folder / "record"
        self.record.touch()
        self.servers_file, self.state_key = folder / "servers.json", folder / "state-key"
        self.gateway_key, self.api_keys = folder / "gateway-key.pem", folder / "api-keys.yaml"
        self.secrets = {name: f"prk_{secrets.token_urlsafe(32)}" for name in CALLERS}
        entries = [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in self.secrets.items()]
        write(self.api_keys, json.dumps(entries))
        write(self.state_key, secrets.token_hex(32) + "\n")
        write(self.gateway_key, signing_key())
        ports = iter(free_ports(6 + len(self.SERVERS) * self.REPLICAS + self.SPARE))
        self.gateways = [self._gateway(number, next(ports), next(ports)) for number in range(3)]
        self.sidecars = {
            server: [self._sidecar(server, number, next(ports)) for number in range(self.REPLICAS)] for server in self.SERVERS
        }
        self.spare = [self._sidecar("recorder", self.REPLICAS + number, next(ports)) for number in range(self.SPARE)]
        for spare in self.spare:
            # They end when no gateway knows them any more.
            spare.words[spare.words.index("--drain-delay") + 1] = "0s"
        self.extra: dict[str, dict] = {}
        self.write_servers()

    def _gateway(self, number: int, port: int, admin: int) -> Member:
        return Member(
            f"gateway-{number}", port, "gateway", "--servers", str(self.servers_file), "--listen", f"127.0.0.1:{port}",
            "--public-url", ISSUER, "--gateway-key", str(self.gateway_key), "--state-key-file", str(self.state_key),
            "--admin-listen", f"127.0.0.1:{admin}", *RELOAD, *GATEWAY_DRAIN, admin=admin,
        )  # fmt: skip

    def _sidecar(self, server: str, number: int, port: int) -> Member:
        name = f"{server}-{number}"
        stock = {"npm": "everything-npm", "pypi": "everything-pypi"}
        command = servers.command(stock[server]) if server in stock else [
            sys.executable, str(RECORDER), name, str(self.record),
        ]  # fmt: skip
        # The first gateways publish the keys of all of them.
        keys = f"http://127.0.0.1:{self.gateways[number % 3].port}/.well-known/jwks.json"
        return Member(
            name, port, "--listen", f"127.0.0.1:{port}", "--auth-issuer", f"{ISSUER} jwks={keys}",
            "--auth-audience", server, "--state-key-file", str(self.state_key), *RELOAD, *SIDECAR_DRAIN, "--", *command,
        )  # fmt: skip

    @property
    def members(self) -> list[Member]:
        return [*self.gateways, *(one for group in self.sidecars.values() for one in group), *self.spare]

    def write_servers(self, recorders: list[Member] | None = None) -> None:
        """Writes the file of servers; the recorders are the replicas of the server of this name."""
        chosen = self.sidecars | ({"recorder": recorders} if recorders else {})
        entries = {
            name: {"urls": [f"http://127.0.0.1:{one.port}/mcp" for one in group], "audience": name}
            for name, group in chosen.items()
        }
        write(self.servers_file, json.dumps({"mcpServers": entries | self.extra}))

    def start(self) -> None:
        used = [one for one in self.members if one not in self.spare]
        # Sidecars fetch the gateways' keys.
        for group in (self.gateways, [one for one in used if one not in self.gateways]):
            for member in group:
                member.start()
        for member in used:
            member.await_ready()

    def demand_keys(self) -> None:
        """From now on, callers need an API key."""
        for gateway in self.gateways:
            gateway.kill()
            gateway.words += ["--api-keys", str(self.api_keys)]
            gateway.start()
        for gateway in self.gateways:
            gateway.await_ready()

    def __enter__(self) -> Bed:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            if member.process and member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.process:
                try:
                    member.process.wait(STOP)
                except subprocess.TimeoutExpired:
                    member.kill()
