"""The platforms that release files are made for, as each kind of package calls them."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """One platform."""

    target: str  # as Rust calls it
    words: str
    debian: str
    npm: str
    cpu: str  # as npm calls it
    # A static binary runs with every C library, and with none. The kernel is older than what these tags ask for.
    wheel: tuple[str, ...]
    compiler: str  # the C compiler on a machine of another kind

    @property
    def machine(self) -> str:
        return self.target.partition("-")[0]

    @property
    def is_native(self) -> bool:
        return platform.machine() == self.machine

    @property
    def emulator(self) -> list[str]:
        """The command in front of a binary that this machine cannot run by itself."""
        return [] if self.is_native else [f"qemu-{self.machine}-static"]

    def environment(self) -> dict[str, str]:
        """Returns the variables that cargo builds a static binary with."""
        env = {**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static"}
        if not self.is_native:
            name = self.target.replace("-", "_")
            env.setdefault(f"CC_{name}", self.compiler)
            env.setdefault(f"CARGO_TARGET_{name.upper()}_LINKER", self.compiler)
        return env


def wheel_tags(machine: str) -> tuple[str, ...]:
    return (f"manylinux_2_17_{machine}", f"manylinux2014_{machine}", f"musllinux_1_1_{machine}")


PLATFORMS = {
    one.target: one
    for one in (
        Platform(
            target="x86_64-unknown-linux-gnu",
            words="Linux on x86-64",
            debian="amd64",
            npm="linux-x64",
            cpu="x64",
            wheel=wheel_tags("x86_64"),
            compiler="x86_64-linux-gnu-gcc",
        ),
        Platform(
            target="aarch64-unknown-linux-gnu",
            words="Linux on arm64",
            debian="arm64",
            npm="linux-arm64",
            cpu="arm64",
            wheel=wheel_tags("aarch64"),
            compiler="aarch64-linux-gnu-gcc",
        ),
    )
}
