"""Stock clients, through proxyrunner, against stock servers."""

from __future__ import annotations

import anyio
import pytest

import python_client
import servers
from conftest import run_node
from relay import Relay

ISOLATIONS = ["auto", "shared", "session"]

CASES = [
    pytest.param(server, isolation, transport, feature, id=f"{server}-{isolation}-{transport}-{feature}")
    for server in servers.SERVERS
    for isolation, transport in [*((isolation, "http") for isolation in (*ISOLATIONS, "pair")), ("auto", "sse")]
    for feature in servers.features(server, isolation, transport)
    if feature != "resumption"
]


@pytest.mark.parametrize("server, isolation, transport, feature", CASES)
def test_python_client(proxyrunner, server, isolation, transport, feature):
    it = proxyrunner(server, isolation)
    url = it.sse_url if transport == "sse" else it.url
    entry, asks = servers.SERVERS[server][feature], servers.asks(server, feature)
    anyio.run(python_client.show, feature, entry, url, transport, asks)


@pytest.mark.parametrize("server, isolation, transport, feature", CASES)
def test_node_client(node_errors, server, isolation, transport, feature):
    error = node_errors(server, isolation, transport)[feature]
    assert error is None, error


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("server", servers.SERVERS)
def test_python_client_resumes_a_cut_stream(proxyrunner, server, isolation):
    with Relay(proxyrunner(server, isolation).port) as relay:
        anyio.run(python_client.resume, servers.SERVERS[server]["resumption"], relay.url, relay.cut)
        assert relay.cuts == 1


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("server", servers.SERVERS)
def test_node_client_resumes_a_cut_stream(proxyrunner, server, isolation):
    with Relay(proxyrunner(server, isolation).port) as relay:
        errors = run_node(relay.url, "http", server, ["resumption"], relay.cut)
        assert errors == {"resumption": None}, errors["resumption"]
        assert relay.cuts == 1


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("server", servers.SERVERS)
def test_python_clients_at_once(proxyrunner, server, isolation):
    """Every feature at the same time, twice where a child is shared, by clients that all count ids from 0."""
    url = proxyrunner(server, isolation).url
    features = [each for each in servers.features(server, isolation, "http") if each != "resumption"]

    async def crowd() -> None:
        async with anyio.create_task_group() as group:
            for feature in features * (1 if isolation == "session" else 2):
                entry, asks = servers.SERVERS[server][feature], servers.asks(server, feature)
                group.start_soon(python_client.show, feature, entry, url, "http", asks)

    anyio.run(crowd)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("server", servers.SERVERS)
def test_answers_go_to_the_client_that_asked(proxyrunner, server, isolation):
    """Many clients use the same ids at the same time, and each gets its own text back."""
    url = proxyrunner(server, isolation).url
    entry = servers.SERVERS[server]["call"]
    [argument] = entry["arguments"]

    async def talk(client: int) -> None:
        async with python_client.connect(url, "http", asks=False) as peer:
            for turn in range(20):
                text = f"client {client} turn {turn} " + "x" * (turn * 1000)
                assert text in await peer.call({"tool": entry["tool"], "arguments": {argument: text}})

    async def crowd() -> None:
        with anyio.fail_after(python_client.PATIENCE):
            async with anyio.create_task_group() as group:
                for client in range(6):
                    group.start_soon(talk, client)

    anyio.run(crowd)


def test_a_shared_child_is_told_of_no_capabilities(proxyrunner):
    """server-everything offers its sampling tools to clients that can sample; a shared child never may ask."""

    async def listed(isolation: str) -> set[str]:
        async with python_client.connect(proxyrunner("everything-npm", isolation).url, "http", asks=True) as peer:
            return {tool.name for tool in (await peer.session.list_tools()).tools}

    asking = {"trigger-sampling-request", "trigger-elicitation-request"}
    assert not asking & anyio.run(listed, "shared")
    assert asking <= anyio.run(listed, "auto")
