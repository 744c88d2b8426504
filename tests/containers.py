#!/usr/bin/env python3
"""Builds images as docs/containers.md says, and runs them by podman and runc: as PID 1, read-only, without capabilities, as an
arbitrary user, with health checks, and as a pod. No registry is asked: a Debian root filesystem stands in for public images.

    tests/containers.py BINARY [CHECK ...]

Needs root. What is missing of podman, buildah, runc and debootstrap is installed by apt-get. Images and containers are kept
apart from those of the machine, in tests/.containers; the root filesystem is made once, and kept in tests/.rootfs.
Ends with one line, `N passed, N failed`, and exits with 1 if anything failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from endpoint import answers, free_port, until

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
STORE = TESTS / ".containers"
ROOTFS = TESTS / ".rootfs"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
PAGE = (ROOT / "docs" / "containers.md").read_text()

# Program, and the package that it comes with.
PROGRAMS = {"podman": "podman", "buildah": "buildah", "runc": "runc", "debootstrap": "debootstrap"}
PACKAGES = [*PROGRAMS.values(), "netavark", "aardvark-dns", "catatonit", "iptables"]
SUITE = "bookworm"
LATEST = 900  # seconds for a command

ARBITRARY = "1000680000:0"  # as OpenShift chooses
READ_ONLY = ["--read-only", "--read-only-tmpfs=false"]
HARDENED = [*READ_ONLY, "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", ARBITRARY]

# Sandboxes of CI forbid to raise limits, and have both versions of control groups, which crun does not take.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{store}/storage"
runroot = "{store}/run"
"""

# Takes the place of the compiler, which would take minutes.
CARGO = """\
#!/bin/sh
set -e
[ "$*" = "build --locked --release --target x86_64-unknown-linux-gnu" ]
[ "$RUSTFLAGS" = "-C target-feature=+crt-static" ]
[ -f src/main.rs ] && [ -f build.rs ] && [ -f Cargo.lock ]
mkdir -p target/x86_64-unknown-linux-gnu/release
cp /compiled/proxyrunner target/x86_64-unknown-linux-gnu/release/
"""

# Leaves orphans behind that end soon, and then becomes the server.
UNTIDY = """\
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.3)
        os._exit(0)
    os.wait()
os.execv(sys.executable, [sys.executable, "server.py"])
"""

NODE_SERVER = """\
const lines = require('node:readline').createInterface({ input: process.stdin });
const tools = [{ name: 'nothing', description: 'Does nothing', inputSchema: { type: 'object' } }];
lines.on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const results = {
    initialize: {
      protocolVersion: params?.protocolVersion,
      capabilities: { tools: {} },
      serverInfo: { name: 'node', version: '1' },
    },
    'tools/list': { tools },
    ping: {},
  };
  const answer = results[method] ? { result: results[method] } : { error: { code: -32601, message: 'no such method' } };
  console.log(JSON.stringify({ jsonrpc: '2.0', id, ...answer }));
});
"""

POD = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  PROXYRUNNER_LOG_FORMAT: json
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: wrapped
spec:
  replicas: 1
  selector:
    matchLabels: {{app: wrapped}}
  template:
    metadata:
      labels: {{app: wrapped}}
    spec:
      automountServiceAccountToken: false
      containers:
        - name: server
          image: localhost/python-server:latest
          imagePullPolicy: Never
          ports:
            - {{containerPort: 8080, hostPort: {port}, hostIP: 127.0.0.1}}
          envFrom:
            - configMapRef: {{name: settings}}
          resources:
            limits: {{memory: 256Mi, cpu: "1"}}
          securityContext:
            runAsNonRoot: true
            runAsUser: 65532
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
"""


def run(*command: object, **options: Any) -> str:
    """Runs a command that must succeed, and returns what it prints."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LATEST, **options)
    assert done.returncode == 0, f"{' '.join(words)} exited with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
    return done.stdout


def podman(*words: object) -> str:
    return run("podman", *words).strip()


def installed(name: str) -> bool:
    return subprocess.run(["podman", "image", "exists", name]).returncode == 0


# What the checks need.


def prepare() -> None:
    """Installs the programs, and makes the images that stand in for public ones."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    # Podman's own folder, not one of PATH.
    if missing or not Path("/usr/lib/podman/netavark").exists():
        print(f"installing {', '.join(PACKAGES)}", flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
        if subprocess.run(command, env=env, capture_output=True, timeout=LATEST).returncode != 0:
            run("apt-get", "update")
            run(*command, env=env)
    STORE.mkdir(exist_ok=True)
    for name, text in (("containers.conf", CONFIGURATION), ("storage.conf", STORAGE.format(store=STORE))):
        (STORE / name).write_text(text)
    os.environ["CONTAINERS_CONF"] = str(STORE / "containers.conf")
    os.environ["CONTAINERS_STORAGE_CONF"] = str(STORE / "storage.conf")
    # Its timers need systemd; the tests ask for each check themselves.
    os.environ["DISABLE_HC_SYSTEMD"] = "true"
    os.environ["BUILDAH_RUNTIME"] = "runc"
    root_filesystem()
    if not installed(BASE):
        archive = STORE / "rootfs.tar"
        run("tar", "--create", "--file", archive, "--directory", ROOTFS, ".")
        podman("import", archive, BASE)
        archive.unlink()


BASE = "localhost/debian-python:2"


def root_filesystem() -> None:
    """Unpacks Debian with Python and systemd."""
    if (ROOTFS / "usr/local/bin/python").is_symlink() and (ROOTFS / "usr/bin/systemctl").exists():
        return
    print("unpacking a Debian root filesystem", flush=True)
    new = ROOTFS.with_name(".rootfs-new")
    shutil.rmtree(new, ignore_errors=True)
    mirror = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]
    run("debootstrap", "--variant=minbase", "--include=python3,systemd,systemd-sysv", SUITE, new, mirror)
    shutil.rmtree(new / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(new / "var/lib/apt/lists", ignore_errors=True)
    (new / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.rmtree(ROOTFS, ignore_errors=True)
    new.rename(ROOTFS)


def build(folder: Path, tag: str, *options: object, file: str = "Containerfile") -> None:
    """Builds an image from a folder."""
    flags = ["--pull=never", "--network", "none", "--format", "docker", "--tag", tag, "--file", folder / file]
    run("buildah", "bud", *flags, *options, folder)


def blocks() -> dict[str, str]:
    """Returns the Containerfiles of the page, by the image that they start from."""
    found = re.findall(r"```dockerfile\n(FROM (\S+)\n.*?)```", PAGE, re.S)
    return {image: text for text, image in found}


class Running:
    """A container, and its first process as the machine sees it."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.state = json.loads(podman("inspect", name))[0]["State"]
        self.pid = self.state["Pid"]

    def status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def probe(self, what: str) -> int:
        return subprocess.run(["podman", "exec", self.name, "/proxyrunner", "probe", what], capture_output=True).returncode

    def states(self) -> list[tuple[str, str]]:
        """Returns name and state of every process in the container."""
        mine, found = os.readlink(f"/proc/{self.pid}/ns/pid"), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns/pid") == mine:
                    _, _, rest = (folder / "stat").read_text().partition("(")
                    name, _, state = rest.rpartition(") ")
                    found.append((name, state[0]))
            except OSError:
                continue
        return found


@contextmanager
def container(image: str, *options: object, command: list[object] | None = None) -> Iterator[Running]:
    port = free_port()
    name = f"proxyrunner-{port}"
    flags = ["--detach", "--pull", "never", "--name", name, "--publish", f"127.0.0.1:{port}:8080"]
    podman("run", *flags, *options, image, *(command or []))
    try:
        try:
            yield Running(name, port)
        except AssertionError as error:
            logs = subprocess.run(["podman", "logs", name], capture_output=True, text=True)
            raise AssertionError(f"{error}: {(logs.stdout + logs.stderr)[-2000:]}") from error
    finally:
        podman("rm", "--force", "--time", "5", name)


def stops(running: Running) -> None:
    """Checks that SIGTERM ends the container with 0, before it would be killed."""
    podman("stop", "--time", "10", running.name)
    state = json.loads(podman("inspect", running.name))[0]["State"]
    assert state["ExitCode"] == 0, f"exit code {state['ExitCode']}"
    assert not Path(f"/proc/{running.pid}").exists(), "its process is left"


def served(image: str, *options: object, **named: Any) -> str:
    """Runs an image hardened, and checks what holds for each."""
    with container(image, *HARDENED, *options, **named) as running:
        answers(running.port)
        until("it is ready", lambda: running.probe("ready") == 0, 60)
        assert running.probe("live") == 0 and running.probe("startup") == 0
        status = running.status()
        assert status["Name"] == "proxyrunner" and status["NSpid"].split()[-1] == "1", "it is not PID 1"
        assert status["Uid"].split()[0] == ARBITRARY.split(":")[0], status["Uid"]
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, "it has capabilities"
        assert status["NoNewPrivs"] == "1"
        stops(running)
    return f"as PID 1, user {ARBITRARY}, seccomp {'on' if status['Seccomp'] == '2' else 'off'}"


# The checks.


def image(context: Context) -> str:
    """Builds the image from sources, with a stand-in for the compiler."""
    compiler(context)
    build(ROOT, "proxyrunner", *compiled(context))
    return described("localhost/proxyrunner", context)


def example(context: Context) -> str:
    """Builds and runs the example of the README."""
    compiler(context)
    podman("tag", BASE, "docker.io/library/python:3.13-slim")
    build(ROOT, "example", *compiled(context), file="examples/Containerfile")
    return served("localhost/example")


def compiled(context: Context) -> list[str]:
    return ["--volume", f"{context.binary.parent}:/compiled:ro"]


def compiler(context: Context) -> None:
    """Makes an image that stands in for the compiler's."""
    name = "docker.io/library/rust:1.95-slim"
    fake = context.folder("compiler")
    (fake / "cargo").write_text(CARGO)
    (fake / "cargo").chmod(0o755)
    (fake / "Containerfile").write_text(f"FROM {BASE}\nCOPY cargo /usr/local/bin/cargo\n")
    build(fake, name)


def prebuilt(context: Context) -> str:
    """Builds the image from the release archive."""
    (archive,) = context.files().glob("*.tar.gz")
    place = context.folder("prebuilt")
    run("tar", "-xzf", archive, "-C", place)
    build(place / archive.name.removesuffix(".tar.gz"), "prebuilt")
    return described("localhost/prebuilt", context)


def described(name: str, context: Context) -> str:
    """Checks an image's content and its settings."""
    found = json.loads(podman("inspect", name))[0]
    config = found["Config"]
    assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/proxyrunner"], config
    assert found["Healthcheck"]["Test"] == ["CMD", "/proxyrunner", "probe", "live"], found.get("Healthcheck")
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION, labels
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0", labels
    id = podman("create", name)
    try:
        mount = Path(podman("mount", id))
        names = {str(path.relative_to(mount)) for path in mount.rglob("*") if path.is_file()}
        same = (mount / "proxyrunner").read_bytes() == context.binary.read_bytes()
    finally:
        podman("rm", id)
    assert same, "it contains another binary"
    names -= {"etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"}
    assert names - {"licenses/THIRD-PARTY.txt"} == {"proxyrunner", "licenses/LICENSE"}, names
    assert podman("run", "--rm", "--network", "none", *HARDENED, name, "--version").split()[-1].startswith(VERSION)
    return f"{found['Size'] / 1024 / 1024:.1f} MiB, {', '.join(sorted(names))}"


def alone(context: Context) -> str:
    """Runs the image itself, with the server and its interpreter mounted."""
    folders = {ROOTFS / "usr": "/usr", ROOTFS / "usr/lib": "/lib", ROOTFS / "usr/lib64": "/lib64", ROOT / "examples": "/srv"}
    options = [word for source, place in folders.items() for word in ("--volume", f"{source}:{place}:ro")]
    command = ["--listen", "[::]:8080", "--", "/usr/bin/python3", "/srv/server.py"]
    return served("localhost/proxyrunner", *options, command=command)


def python(context: Context) -> str:
    """Builds and runs the page's image for Python, also by its own user and with its health check."""
    folder = server_folder(context, "python", "python:3.12-slim")
    podman("tag", BASE, "docker.io/library/python:3.12-slim")
    build(folder, "python-server")
    with container("localhost/python-server", *READ_ONLY) as running:
        answers(running.port)
        until("it is healthy", lambda: subprocess.run(["podman", "healthcheck", "run", running.name]).returncode == 0, 60)
        assert running.status()["Uid"].split()[0] == "65532"
        stops(running)
    return served("localhost/python-server")


def node(context: Context) -> str:
    """Builds and runs the page's image for Node, with the machine's Node."""
    base = context.folder("node-base")
    # A link, or a copy if it is on another filesystem.
    shutil.copy2(Path(shutil.which("node")).resolve(), base / "node")
    (base / "Containerfile").write_text(f"FROM {BASE}\nCOPY node /usr/local/bin/node\n")
    build(base, "docker.io/library/node:22-slim")
    folder = server_folder(context, "node", "node:22-slim")
    build(folder, "node-server")
    return served("localhost/node-server")


def distroless(context: Context) -> str:
    """Builds and runs the page's image without a shell."""
    base = context.folder("distroless-base")
    (base / "Containerfile").write_text(f"FROM {BASE}\nRUN rm /usr/bin/sh /usr/bin/dash /usr/bin/bash\n")
    build(base, "gcr.io/distroless/python3-debian12:latest")
    folder = server_folder(context, "distroless", "gcr.io/distroless/python3-debian12")
    build(folder, "distroless-server")
    shell = ["podman", "run", "--rm", "--entrypoint", "sh", "localhost/distroless-server"]
    assert subprocess.run(shell, capture_output=True, timeout=60).returncode == 127, "it has a shell"
    return served("localhost/distroless-server")


def server_folder(context: Context, name: str, base: str) -> Path:
    """Makes the folder of an image of the page."""
    folder = context.folder(name)
    (folder / "Containerfile").write_text(blocks()[base])
    shutil.copy2(ROOT / "examples" / "server.py", folder)
    (folder / "server.js").write_text(NODE_SERVER)
    return folder


def reaps(context: Context) -> str:
    """A server leaves processes behind; none remains as a zombie, and all end with the container."""
    untidy = context.folder("untidy")
    (untidy / "untidy.py").write_text(UNTIDY)
    words = ["/proxyrunner", "--listen", "[::]:8080", "--", "python", "/untidy/untidy.py"]
    options = ["--volume", f"{untidy}:/untidy:ro", "--entrypoint", json.dumps(words)]
    with container("localhost/python-server", *HARDENED, *options) as running:
        answers(running.port)
        # Zombies would be called python, too.
        expected = ["guardian", "proxyrunner", "python"]
        until("the orphans are reaped", lambda: sorted(name for name, _ in running.states()) == expected, 30)
        stops(running)
    return f"processes: {', '.join(expected)}"


def gives_up(context: Context) -> str:
    """The container ends with the code of bad settings, and with 127 for a command that does not exist."""
    codes = []
    for words in (["--listen", "nonsense", "--", "python"], ["--", "/no/such/command"]):
        entrypoint = ["--entrypoint", json.dumps(["/proxyrunner", *words])]
        command = ["podman", "run", "--rm", "--network", "none", *HARDENED, *entrypoint, "localhost/python-server"]
        codes.append(subprocess.run(command, capture_output=True, timeout=60).returncode)
    assert codes[0] == 64 and codes[1] in (127,), codes
    return f"exit codes {codes}"


def pod(context: Context) -> str:
    """Runs a Deployment with a ConfigMap by `podman play kube`; podman runs no probes."""
    folder, port = context.folder("pod"), free_port()
    (folder / "pod.yaml").write_text(POD.format(port=port))
    play = ["play", "kube", "--build=false", "--network", "podman"]
    try:
        podman(*play, folder / "pod.yaml")
        answers(port)
        (name,) = (line for line in podman("ps", "--format", "{{.Names}}").splitlines() if line.startswith("wrapped"))
        running = Running(name, port)
        until("it is ready", lambda: running.probe("ready") == 0, 60)
        logs = subprocess.run(["podman", "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        assert logs.startswith("{"), f"the ConfigMap has no effect: {logs}"
        limit = json.loads(podman("inspect", name))[0]["HostConfig"]["Memory"]
        assert limit == 256 * 1024 * 1024, limit
        stops(running)
    finally:
        podman("play", "kube", "--down", folder / "pod.yaml")
    return "a pod of one container, 256 MiB"


def pair(context: Context) -> str:
    """Runs server and proxyrunner in two containers that share a folder; each may start again."""
    folder = context.folder("pair")
    folder.chmod(0o777)
    volume = ["--volume", f"{folder}:/run/mcp"]
    shim = ["shim", "--socket", "/run/mcp/mcp.sock", "--", "python", "server.py"]
    proxy = ["--listen", "[::]:8080", "--restart-backoff", "50ms", "--connect", "unix:/run/mcp/mcp.sock"]
    with container("localhost/proxyrunner", *HARDENED, *volume, command=proxy) as running:
        until("it lives", lambda: running.probe("live") == 0, 60)
        assert running.probe("ready") == 1, "it is ready without its server"
        server = container("localhost/python-server", *HARDENED, *volume, "--entrypoint", "/proxyrunner", command=shim)
        with server as serving:
            until("it is ready", lambda: running.probe("ready") == 0, 60)
            answers(running.port)
            podman("restart", "--time", "10", serving.name)
            until("it is ready again", lambda: running.probe("ready") == 0, 60)
            answers(running.port)
            podman("restart", "--time", "10", running.name)
            until("it answers again", lambda: running.probe("ready") == 0, 60)
            answers(running.port)
            stops(Running(serving.name, serving.port))
        stops(Running(running.name, running.port))
    return "two containers, each restarted"


INJECTED = """\
apiVersion: v1
kind: Pod
metadata:
  name: injected
  annotations:
    # Otherwise podman 4.3 removes the init container, and may do so before it notices its end.
    io.podman.annotations.init.container.type: always
spec:
  containers:
    - name: server
      image: localhost/plain-server:latest
      imagePullPolicy: Never
      command: [python3, /srv/server.py]
      ports:
        - {{name: mcp, containerPort: 8080, hostPort: {port}, hostIP: 127.0.0.1}}
      securityContext: {{runAsUser: 65532}}
"""


def injected(context: Context) -> str:
    """Runs a pod with an unmodified image, as `proxyrunner inject` prints it, by `podman play kube`."""
    folder, port = context.folder("injected"), free_port()
    shutil.copy2(ROOT / "examples" / "server.py", folder)
    (folder / "Containerfile").write_text(f"FROM {BASE}\nCOPY server.py /srv/\n")
    build(folder, "plain-server")
    (folder / "plain.yaml").write_text(INJECTED.format(port=port))
    printed = run(context.binary, "inject", "-f", folder / "plain.yaml", "--image", "localhost/proxyrunner:latest")
    assert "--copy-self" in printed and "/health/startup" in printed, printed
    (folder / "pod.yaml").write_text(printed)
    play = ["play", "kube", "--build=false", "--network", "podman"]
    try:
        podman(*play, folder / "pod.yaml")
        answers(port)
        name = "injected-server"
        probe = ["podman", "exec", name, "/opt/proxyrunner/proxyrunner", "probe", "ready"]
        until("it is ready", lambda: subprocess.run(probe, capture_output=True).returncode == 0, 60)
        stops(Running(name, port))
    finally:
        podman("play", "kube", "--down", folder / "pod.yaml")
    return "an init container copies the binary, and the server's container runs it"


SERVICE = """\
FROM {base}
COPY *.deb /tmp/
COPY example.yaml /etc/proxyrunner/
COPY server.py /srv/
RUN dpkg --install /tmp/*.deb && systemctl enable proxyrunner@example
ENTRYPOINT ["/sbin/init"]
"""


def service(context: Context) -> str:
    """Installs the Debian package, and runs its unit under a real systemd."""
    folder = context.folder("service")
    (package,) = context.files().glob("*.deb")
    shutil.copy2(package, folder)
    shutil.copy2(ROOT / "examples" / "server.py", folder)
    (folder / "example.yaml").write_text("command: [python3, /srv/server.py]\nlisten: :8080\n")
    (folder / "Containerfile").write_text(SERVICE.format(base=BASE))
    build(folder, "service")
    with container("localhost/service", "--privileged", "--systemd=always") as running:
        answers(running.port)

        def show(name: str) -> str:
            return podman("exec", running.name, "systemctl", "show", "--property", name, "--value", "proxyrunner@example")

        status = podman("exec", running.name, "cat", f"/proc/{show('MainPID')}/status")
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(found["Uid"].split()[0]) >= 61184, "it has no dynamic user"
        assert int(found["CapEff"], 16) == 0 and found["Seccomp"] == "2" and found["NoNewPrivs"] == "1", status
        podman("exec", running.name, "systemctl", "stop", "proxyrunner@example")
        ended = show("ActiveState"), show("Result"), show("ExecMainStatus")
        assert ended == ("inactive", "success", "0"), ended
    return f"user {found['Uid'].split()[0]}, no capabilities, seccomp on"


class Context:
    """Where the checks find the binary, and where they may write."""

    def __init__(self, binary: Path, scratch: Path) -> None:
        self.binary, self.scratch = binary, scratch

    def files(self) -> Path:
        """Makes the release files once, and returns their folder."""
        out = self.scratch / "files"
        if not out.exists():
            run(sys.executable, ROOT / "release" / "build", "--binary", self.binary, "--out", out)
        return out

    def folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return folder


CHECKS: list[Callable[[Context], str]] = [image, example, prebuilt, alone, python, reaps, gives_up, node, distroless, pod, pair, injected, service]


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    named, failed = sys.argv[2:], 0
    chosen = [check for check in CHECKS if not named or check.__name__ in named]
    with tempfile.TemporaryDirectory() as scratch:
        # Others than root look into it.
        os.chmod(scratch, 0o755)
        try:
            prepare()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"FAILED to prepare: {error}\n0 passed, {len(chosen)} failed")
            return 1
        context = Context(Path(sys.argv[1]).resolve(), Path(scratch))
        for check in chosen:
            try:
                print(f"{check.__name__}: {check(context)}", flush=True)
            except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"{check.__name__}: FAILED: {error}", flush=True)
        # What the tags of this run were taken from.
        subprocess.run(["podman", "image", "prune", "--force"], capture_output=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
