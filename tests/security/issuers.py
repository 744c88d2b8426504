"""An issuer of the test's own: it serves metadata and a key set, or does whatever else issuers should not."""

from __future__ import annotations

import json
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from certificates import Certificate
from tokens import Key, claims, token

METADATA = "/.well-known/openid-configuration"
RFC8414 = "/.well-known/oauth-authorization-server"
KEYS = "/keys"


@dataclass(frozen=True)
class Reply:
    body: Any = b""  # bytes, or what is sent as JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    waits: bool = False  # until `release`, or the end


class Issuer:
    def __init__(self, *keys: Key, port: int = 0, certificate: Certificate | None = None) -> None:
        self.keys = list(keys) or [Key()]
        self.entries: list[dict[str, Any]] = []  # more entries of the key set
        self.replies: dict[str, Reply] = {}  # by path, instead of the usual ones
        self.asked: Counter[str] = Counter()
        self._gate = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.handle_error = lambda *_: None
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.file, certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def key(self) -> Key:
        return self.keys[0]

    def token(self, header: dict[str, Any] | None = None, key: Key | None = None, **changed: Any) -> str:
        """A good token of this issuer, with some members of its header and some claims changed."""
        key = key or self.key
        return token(key.header(**(header or {})), claims(self.url, **changed), key.sign)

    def release(self) -> None:
        """Lets go what waits, now and later."""
        self._gate.set()

    def reply(self, path: str) -> Reply:
        if path in self.replies:
            return self.replies[path]
        if path in (METADATA, RFC8414):
            return Reply({"issuer": self.url, "jwks_uri": self.url + KEYS})
        if path == KEYS:
            return Reply({"keys": [*(key.jwk() for key in self.keys), *self.entries]})
        return Reply(status=404)

    def stop(self) -> None:
        self._gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handler(issuer) -> type[BaseHTTPRequestHandler]:  # noqa: N805: the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                reply = issuer.reply(self.path)
                if reply.waits:
                    issuer._gate.wait()
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in (("Content-Length", str(len(body))), *reply.headers):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
