"""Messages as lists of parts, so that 60 MiB of filler exist only once, however often they are sent."""

from __future__ import annotations

from functools import lru_cache
from typing import Iterator, NamedTuple, Union

KIB, MIB = 1 << 10, 1 << 20
BLOCK = MIB


class Fill(NamedTuple):
    """A unit repeated many times."""

    unit: bytes
    count: int

    @property
    def size(self) -> int:
        return len(self.unit) * self.count


Part = Union[bytes, Fill]


def fill(size: int, unit: bytes = b"a") -> Fill:
    """Returns at least `size` bytes of whole units."""
    return Fill(unit, -(-size // len(unit)))


@lru_cache(maxsize=64)
def block(unit: bytes) -> memoryview:
    return memoryview(unit * max(1, BLOCK // len(unit)))


def size_of(parts: list[Part]) -> int:
    return sum(part.size if isinstance(part, Fill) else len(part) for part in parts)


def views(parts: list[Part]) -> Iterator[memoryview]:
    """Yields the bytes of all parts in pieces of at most about a MiB. Small neighbours are joined."""
    small = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            small += part
        elif part.size <= 16 * KIB:
            small += part.unit * part.count
        else:
            if small:
                yield memoryview(bytes(small))
                small.clear()
            left, whole = part.size, block(part.unit)
            while left > 0:
                piece = whole[: min(left, len(whole))]
                yield piece
                left -= len(piece)
    if small:
        yield memoryview(bytes(small))
