"""The stock client of PyPI's `mcp` 2.x at 2026-07-28, and what it does to show each feature."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Callable

import anyio
from mcp import Client, types
from mcp.client.stdio import StdioServerParameters, stdio_client

import plan

PATIENCE = 60  # seconds; no assertion, only the end of a hang
REVISION = "2026-07-28"
SAMPLED = "sampled, for this client only"


class Peer:
    """A client, and what has reached it outside of its calls' results."""

    def __init__(self) -> None:
        self.client: Client
        self.questions: list[Any] = []
        self.content: dict[str, Any] = {}  # what it answers to an elicitation
        self.logged = anyio.Event()

    async def call(self, entry: dict[str, Any], progress: Callable | None = None) -> str:
        """Calls the entry's tool, and gives the text it answers."""
        result = await self.client.call_tool(entry["tool"], entry["arguments"], progress_callback=progress)
        text = "".join(block.text for block in result.content if block.type == "text")
        assert not result.is_error, text
        return text

    async def on_log(self, params: Any) -> None:
        self.logged.set()

    async def on_sampling(self, context: Any, params: Any) -> types.CreateMessageResult:
        self.questions.append(params)
        content = types.TextContent(text=SAMPLED)
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def on_elicitation(self, context: Any, params: Any) -> types.ElicitResult:
        self.questions.append(params)
        return types.ElicitResult(action="accept", content=self.content)


@asynccontextmanager
async def connect(url: str | list[str], asks: bool, level: str | None) -> AsyncIterator[Peer]:
    """A client that found out the server's era itself; one that `asks` declares sampling and elicitation."""
    peer = Peer()
    server = stdio_client(StdioServerParameters(command=url[0], args=url[1:])) if isinstance(url, list) else url
    async with Client(
        server,
        read_timeout_seconds=PATIENCE,
        log_level=level,
        logging_callback=peer.on_log,
        sampling_callback=peer.on_sampling if asks else None,
        elicitation_callback=peer.on_elicitation if asks else None,
    ) as peer.client:
        assert peer.client.protocol_version == REVISION, peer.client.protocol_version
        yield peer


async def show(feature: str, entry: dict[str, Any], url: str, transport: str, asks: bool) -> None:
    """Connects, shows one feature, and disconnects; raises if anything is not as it should be."""
    with anyio.fail_after(PATIENCE):
        async with connect(url, asks, entry.get("level")) as peer:
            await FEATURES[feature](peer, entry)


async def initialize(peer: Peer, entry: dict[str, Any]) -> None:
    assert peer.client.server_info.name == entry["name"]


async def tools(peer: Peer, entry: dict[str, Any]) -> None:
    listed = (await peer.client.list_tools()).tools
    assert set(entry["names"]) <= {tool.name for tool in listed}
    assert all(tool.input_schema["type"] == "object" for tool in listed)


async def call(peer: Peer, entry: dict[str, Any]) -> None:
    assert await peer.call(entry) == entry["answer"]


async def progress(peer: Peer, entry: dict[str, Any]) -> None:
    reports: list[float] = []

    async def report(done: float, total: float | None, message: str | None) -> None:
        reports.append(done)

    await peer.call(entry, report)
    assert reports == list(range(1, entry["reports"] + 1)), reports


async def logging(peer: Peer, entry: dict[str, Any]) -> None:
    await peer.call(entry)
    await peer.logged.wait()


async def sampling(peer: Peer, entry: dict[str, Any]) -> None:
    assert SAMPLED in await peer.call(entry)
    [question] = peer.questions
    assert entry["prompt"] in question.messages[0].content.text


async def elicitation(peer: Peer, entry: dict[str, Any]) -> None:
    peer.content = entry["content"]
    answer = await peer.call(entry)
    [question] = peer.questions
    assert set(entry["content"]) <= set(question.requested_schema["properties"])
    assert "accept" in answer


async def resource(peer: Peer, entry: dict[str, Any]) -> None:
    assert (await peer.client.list_resources()).resources
    read = await peer.client.read_resource(entry["uri"])
    assert entry["answer"] in read.contents[0].text


async def subscription(peer: Peer, entry: dict[str, Any]) -> None:
    async with peer.client.listen(resource_subscriptions=[entry["uri"]]) as changes:
        assert changes.honored.resource_subscriptions == [entry["uri"]], changes.honored
        await peer.call(entry)
        assert (await anext(changes)).uri == entry["uri"]


async def prompt(peer: Peer, entry: dict[str, Any]) -> None:
    assert entry["name"] in {prompt.name for prompt in (await peer.client.list_prompts()).prompts}
    filled = await peer.client.get_prompt(entry["name"], entry["arguments"])
    assert entry["answer"] in filled.messages[0].content.text


async def completion(peer: Peer, entry: dict[str, Any]) -> None:
    result = await peer.client.complete(types.PromptReference(name=entry["prompt"]), entry["argument"])
    assert result.completion.values == entry["values"]


async def cancellation(peer: Peer, entry: dict[str, Any]) -> None:
    """Gives up the call at its first progress; the SDK then closes the response's stream."""
    before = await evidence(peer, entry)
    async with anyio.create_task_group() as group:

        async def give_up(done: float, total: float | None, message: str | None) -> None:
            group.cancel_scope.cancel()

        group.start_soon(peer.call, entry, give_up)
    while entry.get("evidence") and await evidence(peer, entry) == before:
        await anyio.sleep(0.05)
    await peer.client.list_tools(cache_mode="refresh")


async def evidence(peer: Peer, entry: dict[str, Any]) -> str | None:
    """What the server says of cancelled calls, if it says anything."""
    return await peer.call({"tool": entry["evidence"], "arguments": {}}) if "evidence" in entry else None


FEATURES = {
    function.__name__: function
    for function in (
        initialize,
        tools,
        call,
        progress,
        logging,
        sampling,
        elicitation,
        resource,
        subscription,
        prompt,
        completion,
        cancellation,
    )
}


if __name__ == "__main__":
    plan.run(show)
