"""The stock client of PyPI's `mcp` 1.x, and what it does to show each feature."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, AsyncIterator, Callable

import anyio
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

import plan

PATIENCE = 60  # seconds; no assertion, only the end of a hang
SAMPLED = "sampled, for this client only"


class Peer:
    """A connected client, and what has reached it outside of its calls' results."""

    def __init__(self) -> None:
        self.session: ClientSession
        self.server: types.InitializeResult
        self.notifications: list[Any] = []
        self.questions: list[Any] = []
        self.content: dict[str, Any] = {}  # what it answers to an elicitation
        self._arrival = anyio.Condition()

    async def call(self, entry: dict[str, Any], progress: Callable | None = None) -> str:
        """Calls the entry's tool, and gives the text it answers."""
        result = await self.session.call_tool(entry["tool"], entry["arguments"], progress_callback=progress)
        text = "".join(block.text for block in result.content if block.type == "text")
        assert not result.isError, text
        return text

    async def heard(self, kind: type) -> Any:
        """The first notification of this kind, waited for if need be."""
        async with self._arrival:
            while not (found := [n for n in self.notifications if isinstance(n, kind)]):
                await self._arrival.wait()
            return found[0]

    async def on_message(self, message: Any) -> None:
        if isinstance(message, Exception):
            return  # a cut connection is reported here too
        if isinstance(message, types.ServerNotification):
            async with self._arrival:
                self.notifications.append(message.root)
                self._arrival.notify_all()

    async def on_sampling(self, context: Any, params: types.CreateMessageRequestParams) -> Any:
        self.questions.append(params)
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def on_elicitation(self, context: Any, params: Any) -> types.ElicitResult:
        self.questions.append(params)
        return types.ElicitResult(action="accept", content=self.content)


def open_streams(url: str | list[str], transport: str) -> Any:
    """The transport to a URL, or to a command over stdio."""
    if transport == "stdio":
        return stdio_client(StdioServerParameters(command=url[0], args=url[1:]))
    return sse_client(url) if transport == "sse" else streamable_http_client(url)


@asynccontextmanager
async def connect(url: str | list[str], transport: str, asks: bool) -> AsyncIterator[Peer]:
    """An initialized client; one that `asks` declares sampling and elicitation."""
    peer = Peer()
    async with open_streams(url, transport) as (incoming, outgoing, *_):
        async with ClientSession(
            incoming,
            outgoing,
            read_timeout_seconds=timedelta(seconds=PATIENCE),
            message_handler=peer.on_message,
            sampling_callback=peer.on_sampling if asks else None,
            elicitation_callback=peer.on_elicitation if asks else None,
        ) as peer.session:
            peer.server = await peer.session.initialize()
            yield peer


async def show(feature: str, entry: dict[str, Any], url: str, transport: str, asks: bool) -> None:
    """Connects, shows one feature, and disconnects; raises if anything is not as it should be."""
    with anyio.fail_after(PATIENCE):
        async with connect(url, transport, asks) as peer:
            await FEATURES[feature](peer, entry)


async def initialize(peer: Peer, entry: dict[str, Any]) -> None:
    assert peer.server.serverInfo.name == entry["name"]
    assert peer.server.protocolVersion == types.LATEST_PROTOCOL_VERSION
    await peer.session.send_ping()


async def tools(peer: Peer, entry: dict[str, Any]) -> None:
    listed = (await peer.session.list_tools()).tools
    assert set(entry["names"]) <= {tool.name for tool in listed}
    assert all(tool.inputSchema["type"] == "object" for tool in listed)


async def call(peer: Peer, entry: dict[str, Any]) -> None:
    assert await peer.call(entry) == entry["answer"]


async def progress(peer: Peer, entry: dict[str, Any]) -> None:
    reports: list[float] = []

    async def report(done: float, total: float | None, message: str | None) -> None:
        reports.append(done)

    await peer.call(entry, report)
    assert reports == list(range(1, entry["reports"] + 1))


async def logging(peer: Peer, entry: dict[str, Any]) -> None:
    await peer.session.set_logging_level(entry["level"])
    await peer.call(entry)
    await peer.heard(types.LoggingMessageNotification)


async def sampling(peer: Peer, entry: dict[str, Any]) -> None:
    assert SAMPLED in await peer.call(entry)
    [question] = peer.questions
    assert entry["prompt"] in question.messages[0].content.text


async def elicitation(peer: Peer, entry: dict[str, Any]) -> None:
    peer.content = entry["content"]
    answer = await peer.call(entry)
    [question] = peer.questions
    assert set(entry["content"]) <= set(question.requestedSchema["properties"])
    assert "accept" in answer


async def resource(peer: Peer, entry: dict[str, Any]) -> None:
    assert (await peer.session.list_resources()).resources
    read = await peer.session.read_resource(AnyUrl(entry["uri"]))
    assert entry["answer"] in read.contents[0].text


async def subscription(peer: Peer, entry: dict[str, Any]) -> None:
    uri = AnyUrl(entry["uri"])
    await peer.session.subscribe_resource(uri)
    await peer.call(entry)
    updated = await peer.heard(types.ResourceUpdatedNotification)
    assert updated.params.uri == uri
    await peer.session.unsubscribe_resource(uri)


async def prompt(peer: Peer, entry: dict[str, Any]) -> None:
    assert entry["name"] in {prompt.name for prompt in (await peer.session.list_prompts()).prompts}
    filled = await peer.session.get_prompt(entry["name"], entry["arguments"])
    assert entry["answer"] in filled.messages[0].content.text


async def completion(peer: Peer, entry: dict[str, Any]) -> None:
    reference = types.PromptReference(type="ref/prompt", name=entry["prompt"])
    result = await peer.session.complete(reference, entry["argument"])
    assert result.completion.values == entry["values"]


async def cancellation(peer: Peer, entry: dict[str, Any]) -> None:
    async def ignore(done: float, total: float | None, message: str | None) -> None:
        """Asking for progress is what makes the SDK send a progress token."""

    before = await evidence(peer, entry)
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, entry, ignore)
        # The SDK uses the request's id as its progress token, and has no other way to learn the id.
        token = (await peer.heard(types.ProgressNotification)).params.progressToken
        params = types.CancelledNotificationParams(requestId=token, reason="no longer wanted")
        await peer.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        group.cancel_scope.cancel()
    while entry.get("evidence") and await evidence(peer, entry) == before:
        await anyio.sleep(0.05)
    await peer.session.send_ping()


async def evidence(peer: Peer, entry: dict[str, Any]) -> str | None:
    """What the server says of cancelled calls, if it says anything."""
    return await peer.call({"tool": entry["evidence"], "arguments": {}}) if "evidence" in entry else None


async def resumption(peer: Peer, entry: dict[str, Any], cut: Callable[[], None]) -> None:
    """Calls a slow tool, loses the connection at its first progress, and misses nothing all the same."""
    reports: list[float] = []

    async def report(done: float, total: float | None, message: str | None) -> None:
        reports.append(done)
        if len(reports) == 1:
            cut()

    assert entry["answer"] in await peer.call(entry, report)
    assert reports == list(range(1, entry["reports"] + 1))


async def resume(entry: dict[str, Any], url: str, cut: Callable[[], None]) -> None:
    """Shows `resumption` through a connection that `cut` ends."""
    with anyio.fail_after(PATIENCE):
        async with connect(url, "http", asks=False) as peer:
            await resumption(peer, entry, cut)


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
