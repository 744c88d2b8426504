"""Credentials end at proxyrunner: the child, logs, spans, metrics and answers never have them."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator

import pytest

from caller import Answer, bearer
from running import EXAMPLE, MODERN, SCRIPTED, Running, trusting
from tokens import Key

COOKIE = "cookie-secret-1"
PROXY = "proxy-secret-2"
DPOP = "dpop-secret-3"
EMAIL = "claim-secret-4@example.org"
QUERY = "query-secret-5"
HEADERS = (("Cookie", f"session={COOKIE}"), ("Proxy-Authorization", f"Basic {PROXY}"), ("DPoP", DPOP))


class Collector:
    """Keeps the bytes of everything that is exported to it by HTTP."""

    def __init__(self) -> None:
        collector = self
        self.received = b""
        self.paths: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                collector.received += body
                collector.paths.add(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def pieces(token: str) -> list[str]:
    """The parts of a token by which it would be found."""
    return [part for part in token.split(".") if part]


def found(secrets: list[str], *where: bytes) -> list[str]:
    return [secret for secret in secrets if any(secret.encode() in each for each in where)]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_credentials_end_here(run, issuer, collector, tmp_path, era):
    journal = tmp_path / "journal"
    command = [*(MODERN if era == "modern" else SCRIPTED), "--journal", str(journal)]
    exports = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BLRP_SCHEDULE_DELAY": "20",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    audit = tmp_path / "audit"
    flags = ["--access-log", "--log-level", "trace", "--child-identity", "meta", "--audit", str(audit), "--audit-content"]
    running = run(*flags, *trusting(issuer), command=command, env=exports)
    good, bad = issuer.token(email=EMAIL), issuer.token(key=Key("ES256"), email=EMAIL)
    answers: list[Answer] = []
    for token in (good, bad, good + ".", "malformed secret-6"):
        caller = running.caller(bearer(token), *HEADERS)
        answers.append(caller.ask("tools/call", {"name": "echo", "arguments": {}}))
        answers.append(caller.ask(path=f"/mcp?access_token={QUERY}"))
        answers.append(caller.send("GET", f"/mcp?access_token={QUERY}", [("Accept", "text/event-stream")]))
    answers.append(running.caller(("X-API-Key", "key-secret-7")).ask())
    session = running.caller(bearer(good), *HEADERS)
    answers.append(session.tell(session.open(), id=2, method="tools/list"))
    assert [answer.status for answer in answers].count(200) == 2
    running.stop()
    log = running.log.read_bytes()
    assert b"TRACE" in log and b"a caller was refused" in log
    assert journal.read_bytes() and {"/v1/traces", "/v1/logs", "/v1/metrics"} <= collector.paths
    secrets = [COOKIE, PROXY, DPOP, EMAIL, QUERY, "secret-6", "key-secret-7", *pieces(good)[1:], *pieces(bad)[1:]]
    assert b'"denied"' in audit.read_bytes()
    # The audit log names the user by the claims `name`, `preferred_username` or `email`.
    assert found([secret for secret in secrets if secret != EMAIL], audit.read_bytes()) == []
    assert found(secrets, log) == []
    assert found(secrets, journal.read_bytes()) == []
    assert found(secrets, collector.received) == []
    assert found(secrets, *(answer.body + str(answer.headers).encode() for answer in answers)) == []


def test_the_child_learns_the_listed_claims_only_and_no_forged_ones(run, issuer):
    claims = ["--child-identity-claims", "sub", "--child-identity-claims", "department"]
    running = run("--child-identity", "meta", *claims, *trusting(issuer))
    forged = {"proxyrunner/identity": {"sub": "root"}, "proxyrunner/other": 1, "other": 1}
    token = issuer.token(sub="alice", department="sales", email=EMAIL)
    heard = running.caller(bearer(token)).ask("tools/call", {"name": "heard", "_meta": forged}).json
    meta = heard["result"]["structuredContent"]["params"]["_meta"]
    own = {key: value for key, value in meta.items() if not key.startswith("io.modelcontextprotocol/")}
    own.pop("traceparent", None)
    identity = {"iss": issuer.url, "sub": "alice", "department": "sales"}
    assert own == {"proxyrunner/identity": identity, "other": 1}


def test_the_child_has_neither_the_credentials_nor_the_settings(run, issuer, tmp_path):
    """Its environment and arguments are asked for while a caller with a token uses it."""
    shows = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(repr(dict(os.environ))); os.execv(sys.executable, [sys.executable, sys.argv[2]])"
    seen = tmp_path / "environment"
    running = run(*trusting(issuer), command=[EXAMPLE[0], "-c", shows, str(seen), EXAMPLE[1]])
    token = issuer.token()
    called = running.caller(bearer(token), *HEADERS).ask("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    assert called.status == 200
    assert found([COOKIE, PROXY, DPOP, *pieces(token)[1:], issuer.url], seen.read_bytes()) == []
