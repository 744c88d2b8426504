"""A proxyrunner that authenticates its callers, a stock identity provider, and stock clients."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import subprocess
import sys
import urllib.request
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from browser import visit
from caller import Caller
from issuers import Issuer
from proxyrunner import RESULTS, ROOT, TESTS, Proxyrunner, node
from tokens import AUDIENCE, SCOPES, encoded

SECURITY = TESTS / "security"
MODERN = [sys.executable, str(TESTS / "children" / "modern.py")]  # tells what it hears, and does what it is told
SCRIPTED = [sys.executable, str(TESTS / "children" / "scripted.py")]  # of a legacy revision
PAGED = [sys.executable, str(TESTS / "children" / "paged.py")]  # its lists have pages
EXAMPLE = [sys.executable, str(ROOT / "examples" / "server.py")]

numbers = itertools.count(1)


def trusting(*issuers: Issuer | str, audience: str = AUDIENCE, scopes: list[str] = SCOPES) -> list[str]:
    """The flags by which tokens of these issuers are accepted."""
    urls = [issuer if isinstance(issuer, str) else issuer.url for issuer in issuers]
    flags = [word for url in urls for word in ("--auth-issuer", url)] + ["--auth-audience", audience]
    return flags + [word for scope in scopes for word in ("--auth-scopes", scope)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running(Proxyrunner):
    def __init__(
        self, *flags: str, command: list[str] = MODERN, env: dict[str, str] | None = None, probes: int | None = None
    ) -> None:
        """With `probes`, these are at a port of their own."""
        self.probes = probes
        own = ["--admin-listen", f"127.0.0.1:{probes}"] if probes else []
        super().__init__(f"security-{next(numbers)}", command, *own, *flags, env=env)

    @property
    def probe_address(self) -> str:
        return f"127.0.0.1:{self.probes}" if self.probes else self.address

    def caller(self, *headers: tuple[str, str]) -> Caller:
        return Caller(self.port, *headers)


class Provider:
    """The stock identity provider, in a process of its own."""

    def __init__(self, *flags: str) -> None:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / "security-provider.log").open("wb") as log:
            self.process = subprocess.Popen(
                [node(), SECURITY / "idp.mjs", "--until-eof", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self.url = json.loads(self.process.stdout.readline())["issuer"]

    def control(self, **changes: Any) -> dict[str, Any]:
        """Changes its state, and gives it with what has happened."""
        data = json.dumps(changes).encode() if changes else None
        with urllib.request.urlopen(f"{self.url}/control", data, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, client: str = "agent", **form: str) -> dict[str, Any]:
        """Posts a form as a confidential client."""
        credentials = b64encode(f"{client}:{client}-secret".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        request = urllib.request.Request(self.url + path, urlencode(form).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"{}")

    def token(self, resource: str = AUDIENCE, client: str = "agent", scope: str = " ".join(SCOPES)) -> str:
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        return self.post("/token", client, **form)["access_token"]

    def login(self, user: str, resource: str = AUDIENCE, scope: str = " ".join(SCOPES)) -> str:
        """Logs a user in at a client of the test's own; the access token."""
        callback, verifier = "http://127.0.0.1:9/callback", "v" * 43
        metadata = {"client_name": "own", "redirect_uris": [callback], "token_endpoint_auth_method": "none"}
        request = urllib.request.Request(
            f"{self.url}/reg", json.dumps(metadata).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            client = json.load(response)["client_id"]
        challenge = encoded(hashlib.sha256(verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": client,
            "redirect_uri": callback,
            "scope": scope,
            "resource": resource,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        self.control(user=user)
        answer = parse_qs(urlsplit(visit(f"{self.url}/auth?{urlencode(query)}", callback)).query)
        grant = {"grant_type": "authorization_code", "code": answer["code"][0], "redirect_uri": callback}
        form = urlencode({**grant, "client_id": client, "code_verifier": verifier, "resource": resource})
        with urllib.request.urlopen(f"{self.url}/token", form.encode(), timeout=60) as response:
            return json.load(response)["access_token"]

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
