"""Whatever a test starts is stopped at its end, and at the end of its module what the module shares."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable, Iterator

import pytest

from issuers import Issuer
from running import Provider, Running, trusting
from tokens import Key


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def run(started: ExitStack) -> Callable[..., Running]:
    """Starts a proxyrunner."""
    return lambda *args, **named: started.enter_context(Running(*args, **named))


@pytest.fixture(scope="session")
def keys() -> dict[str, Key]:
    """Keys by their algorithms, since new ones take long."""
    return {algorithm: Key(algorithm) for algorithm in ("RS256", "PS256", "ES256", "ES384", "EdDSA")}


@pytest.fixture(scope="module")
def issuer(keys: dict[str, Key]) -> Iterator[Issuer]:
    with Issuer(keys["RS256"], keys["ES256"], keys["PS256"], keys["ES384"], keys["EdDSA"]) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def running(issuer: Issuer) -> Iterator[Running]:
    """A proxyrunner that trusts the issuer."""
    with Running("--sse", *trusting(issuer)) as running:
        yield running


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()
