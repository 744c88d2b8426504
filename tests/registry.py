"""A registry of npm packages on this machine, for packages that are not published."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class Registry:
    """Serves package files, and what npm asks about them."""

    def __init__(self, files: list[Path]) -> None:
        self.requests = 0
        self.files = {file.name: file.read_bytes() for file in files}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests += 1
                kind, content = registry.answer(unquote(self.path).removeprefix("/"))
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.packages = dict(self.describe(file) for file in files)

    def describe(self, file: Path) -> tuple[str, dict[str, Any]]:
        """Returns the name of a package, and the document that a registry has of it."""
        with tarfile.open(file) as archive:
            manifest = json.load(archive.extractfile("package/package.json"))
        content = self.files[file.name]
        dist = {
            "tarball": f"{self.url}{file.name}",
            "integrity": f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}",
            "shasum": hashlib.sha1(content).hexdigest(),
        }
        name, version = manifest["name"], manifest["version"]
        return name, {"name": name, "dist-tags": {"latest": version}, "versions": {version: {**manifest, "dist": dist}}}

    def answer(self, path: str) -> tuple[str, bytes]:
        if path in self.files:
            return "application/octet-stream", self.files[path]
        if path in self.packages:
            return "application/json", json.dumps(self.packages[path]).encode()
        return "text/plain", b""

    def __enter__(self) -> Registry:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
