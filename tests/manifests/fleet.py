"""The gateway of deploy/kubernetes/gateway and a server behind it, run as their containers would be: with the arguments, variables and
files of the manifests, of which only addresses and folders are others."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pods
from pods import GATEWAY_PORT, MCP_PORT, METRICS_PORT, Document

ROOT = Path(__file__).resolve().parents[2]
START = 30  # seconds; ample on a loaded machine
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
MODERN, META = "2026-07-28", "io.modelcontextprotocol/"


def openssl(*words: object, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An identity provider, as far as keys and tokens go."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.key, self.keys = url, folder / "idp.pem", folder / "idp.json"
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        public = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-32:]
        jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "use": "sig", "x": encoded(public)}
        self.keys.write_text(json.dumps({"keys": [jwk]}))

    def token(self, audience: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "sub": "ann", "iat": now, "exp": now + 300}
        parts = [encoded(json.dumps(one).encode()) for one in ({"alg": "EdDSA", "typ": "at+jwt", "kid": "1"}, claims)]
        with tempfile.NamedTemporaryFile() as file:
            # It reads Ed25519's input twice, so that a pipe will not do.
            Path(file.name).write_text(".".join(parts))
            signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.key, "-in", file.name)
        return ".".join([*parts, encoded(signature)])


def files_of(documents: list[Document], folder: Path, names: list[str]) -> None:
    """Writes what the volumes of the gateway and of the server have: the ConfigMap, and secrets as docs/kubernetes.md creates them."""
    for part in ("servers", "keys", "tls", "ca", "state"):
        (folder / part).mkdir()
    (config,) = [one for one in documents if one["kind"] == "ConfigMap"]
    for name, text in config["data"].items():
        (folder / "servers" / name).write_text(text)
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "keys" / "gateway.pem")
    state = openssl("rand", "-hex", "32")
    (folder / "keys" / "state").write_bytes(state)
    (folder / "state" / "state").write_bytes(state)
    authority, key = folder / "ca" / "ca.crt", folder / "ca.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", "-x509", *curve, "-keyout", key, "-out", authority, "-subj", "/CN=internal-ca")
    request = openssl("req", *curve, "-keyout", folder / "tls" / "tls.key", "-subj", "/CN=gateway")
    extension = folder / "extension"
    extension.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in [*names, "localhost"]) + "\n")
    words = ["x509", "-req", "-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", "2", "-extfile", extension]
    (folder / "tls" / "tls.crt").write_bytes(openssl(*words, data=request))


def free_ports(count: int) -> list[int]:
    with ExitStack() as taken:
        return [taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def started(binary: str, container: Document, words: list[str], changes: dict[str, str]) -> Iterator[Path]:
    """Runs proxyrunner as in the container, with each text replaced as `changes` says; yields its log."""
    env = {name: value for name, value in pods.environment(container).items() if name.startswith("PROXYRUNNER_")}
    for old, new in changes.items():
        env = {name: value.replace(old, new) for name, value in env.items()}
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [binary, *words], cwd=ROOT, env={"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": "10.0.0.1", **env},
            stdin=subprocess.DEVNULL, stderr=log, stdout=log,
        )  # fmt: skip
        try:
            yield Path(log.name)
        finally:
            # Not by SIGTERM: the stages of shutdown are as long as in Kubernetes.
            process.kill()
            process.wait()


def asked(port: int, path: str, message: Document | None = None, tls: ssl.SSLContext | None = None,
          host: str = "10.0.0.7", **headers: str) -> tuple[int, str]:  # fmt: skip
    """Returns status and body of an answer; 0 if nothing listens."""
    kind, more = (http.client.HTTPSConnection, {"context": tls}) if tls else (http.client.HTTPConnection, {})
    connection = kind("localhost" if tls else "127.0.0.1", port, timeout=START, **more)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if message:
        headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    try:
        body = json.dumps(message) if message else None
        connection.request("POST" if message else "GET", path, body, {"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def await_status(port: int, path: str, log: Path, wanted: int = 200) -> None:
    deadline = time.monotonic() + START
    while (status := asked(port, path)[0]) != wanted:
        assert time.monotonic() < deadline, f"{path} answers {status}, not {wanted}: {log.read_text()[-1000:]}"
        time.sleep(0.05)


def call(text: str) -> tuple[Document, dict[str, str]]:
    """A call of a tool at 2026-07-28, and its headers."""
    meta = {"protocolVersion": MODERN, "clientInfo": {"name": "test", "version": "1"}, "clientCapabilities": {}}
    params = {"name": "echo", "arguments": {"text": text}, "_meta": {META + name: value for name, value in meta.items()}}
    headers = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": "echo"}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers


def problems(binary: str, gateway: list[Document], server: list[Document]) -> list[str]:
    """What does not work of a gateway and a server behind it."""
    if not shutil.which("openssl"):
        return ["there is no openssl, by which docs/kubernetes.md makes keys"]
    ((_, its_pod),) = pods.servers(gateway)
    ((_, pod),) = pods.servers(server)
    own, behind = pods.proxy(its_pod), pods.proxy(pod)
    options = pods.options(own)
    (name,) = [name.rpartition("/")[2] for name in servers_of(gateway)]
    healthy = f'proxyrunner_gateway_replicas{{server="{name}",state="healthy"}} 1'
    host = options["--public-url"].removeprefix("https://")
    (certificate,) = [one for one in gateway if one["kind"] == "Certificate"]
    clients, metrics, servers, servers_metrics = free_ports(4)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        place = Path(folder)
        files_of(gateway, place, certificate["spec"]["dnsNames"])
        issuer = Issuer(options["--auth-issuer"], place)
        file = place / "servers" / "servers.json"
        # There is no DNS, so the only replica has its address.
        text, count = re.subn(r'"dns": "http://[^"/]+/mcp"', f'"url": "http://127.0.0.1:{servers}/mcp"', file.read_text())
        assert count == 1, "servers.json names no server by DNS"
        file.write_text(text)
        changes = {
            "/etc/proxyrunner": folder,
            f"[::]:{GATEWAY_PORT}": f"0.0.0.0:{clients}",
            f"[::]:{METRICS_PORT}": f"0.0.0.0:{metrics}",
            options["--auth-issuer"]: f"{issuer.url} jwks={issuer.keys}",
        }
        log = running.enter_context(started(binary, own, pods.words(own), changes))
        await_status(metrics, own["startupProbe"]["httpGet"]["path"], log)
        keys = re.search(r"jwks=https://([^/]+)/", pods.options(behind)["--auth-issuer"])[1]
        changes = {
            "$(POD_NAMESPACE)": "mcp-core",
            "/etc/proxyrunner": folder,
            f"[::]:{MCP_PORT}": f"0.0.0.0:{servers}",
            f"[::]:{METRICS_PORT}": f"0.0.0.0:{servers_metrics}",
            f"https://{keys}/": f"https://localhost:{clients}/",
        }
        command = ["--", sys.executable, str(ROOT / "examples" / "server.py")]
        log = running.enter_context(started(binary, behind, command, changes))
        await_status(servers, behind["startupProbe"]["httpGet"]["path"], log)
        # The gateway probes a replica that is not there each second.
        deadline = time.monotonic() + START
        while healthy not in asked(metrics, "/metrics")[1] and time.monotonic() < deadline:
            time.sleep(0.1)
        found = [] if keys in certificate["spec"]["dnsNames"] else [f"the certificate does not have {keys}"]
        found += [
            f"{kind} of the gateway: {asked(metrics, own[kind]['httpGet']['path'])}"
            for kind in PROBES
            if asked(metrics, own[kind]["httpGet"]["path"])[0] != 200
        ]
        tls = ssl.create_default_context(cafile=str(place / "ca" / "ca.crt"))
        token = f"Bearer {issuer.token(options['--auth-audience'])}"
        path = f"/servers/{name}/mcp"
        message, headers = call("naïve 世界")
        for what, got, wanted, words in (
            ("the key set", asked(clients, "/.well-known/jwks.json", tls=tls, host=keys), 200, '"OKP"'),
            ("metadata", asked(clients, f"/.well-known/oauth-protected-resource{path}", tls=tls, host=host), 200, issuer.url),
            ("a call without a token", asked(clients, path, message, tls, host, **headers), 401, ""),
            ("a call", asked(clients, path, message, tls, host, Authorization=token, **headers), 200, "naïve 世界"),
            ("a call that passes the gateway by", asked(servers, "/mcp", message, **headers), 401, ""),
            ("metrics on the port of clients", asked(clients, "/metrics", tls=tls, host=host, Authorization=token), 404, ""),
            ("metrics", asked(metrics, "/metrics"), 200, healthy),
        ):
            if got[0] != wanted or words not in got[1]:
                found.append(f"{what}: {got[0]}, not {wanted} with {words!r}: {got[1][-500:]}")
        if found:
            found += log.read_text().splitlines()[-5:]
    return found


def servers_of(gateway: list[Document]) -> dict[str, Document]:
    (config,) = [one for one in gateway if one["kind"] == "ConfigMap"]
    return json.loads(config["data"]["servers.json"])["mcpServers"]


def space_of(document: Document, release: str) -> str:
    """The namespace of a document, which a chart leaves to the release."""
    return document["metadata"].get("namespace", release)


def disagreements(gateway: list[Document], server: list[Document]) -> list[str]:
    """Where a gateway and a server behind it name different things, or shut each other out."""
    ((_, its_pod),) = pods.servers(gateway)
    ((_, pod),) = pods.servers(server)
    own, other = pods.options(pods.proxy(its_pod)), pods.options(pods.proxy(pod))
    (entry,) = servers_of(gateway).values()
    services = {one["metadata"]["name"]: one for one in server if one["kind"] == "Service"}
    name, space, *rest = entry["dns"].removeprefix("http://").split(".")
    headless = services.get(name)
    problems = []
    if other["--auth-issuer"].split()[0] != own["--public-url"]:
        problems.append(f"the server trusts {other['--auth-issuer']}, and the gateway is {own['--public-url']}")
    if other["--auth-audience"] != entry["audience"]:
        problems.append(f"the audience is {entry['audience']}, and the server's {other['--auth-audience']}")
    if not headless or headless["spec"].get("clusterIP") != "None" or space_of(headless, "mcp-core") != space:
        problems.append(f"{entry['dns']} names no headless Service")
    if rest != ["svc", "cluster", f"local:{MCP_PORT}/mcp"]:
        problems.append(f"{entry['dns']} is not a whole name")
    # Gateways look names up, and probe, each 5 s.
    if pods.seconds(other.get("--drain-delay", "5s")) < 6:
        problems.append("a server ends before gateways notice that it will")
    spaces = {space_of(one, "mcp-gateway") for one in gateway if one["kind"] == "Deployment"}
    admitted = {
        peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        for policy in server
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        if {"protocol": "TCP", "port": MCP_PORT} in rule["ports"]
    }
    if admitted != spaces:
        problems.append(f"{sorted(admitted)} may call the server, and the gateway is in {sorted(spaces)}")
    return problems
