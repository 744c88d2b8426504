"""Proxyrunners and collectors for one test each; whatever it starts is stopped at its end."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, Iterator

import pytest

from receivers import Receiver
from running import Running


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def run(started: ExitStack) -> Callable[..., Running]:
    """Starts a proxyrunner."""
    return lambda *args, **named: started.enter_context(Running(*args, **named))


@pytest.fixture
def receive(started: ExitStack) -> Callable[..., Receiver]:
    """Starts a collector that answers as it is told."""
    return lambda *args: started.enter_context(Receiver(*args))
