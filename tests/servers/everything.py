"""The stdio server behind the conformance suite and the interop tests, on PyPI's `mcp` 1.x.

    everything.py               over stdio, where official everything-servers speak HTTP only
    everything.py --http PORT   the SDK's own HTTP transport, to tell this server's faults from the bridge's

It offers what the suite's scenarios call by name, those of 2026-07-28 included, and a few tools that let
a test see what reached the server. It knows the legacy era only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from typing import Annotated

from mcp.server import NotificationOptions
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.prompts.base import UserMessage
from mcp.server.stdio import stdio_server
from mcp.types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)
from pydantic import AnyUrl, Field

import questions
from content import DEFAULTS_SCHEMA, DIALECT_SCHEMA, ENUMS_SCHEMA, PNG, USER_SCHEMA, WAV

STEP = 0.05  # seconds between two log messages or two progress reports, as the suite asks
RECONNECTION = 1.5  # seconds: longer than the bridge's --sse-max-age, shorter than the suite's patience
DEPARTMENTS = ["Engineering", "Marketing", "Sales", "Support"]

mcp = FastMCP("everything", log_level="WARNING")
server = mcp._mcp_server  # FastMCP has no public way to subscriptions, log levels and raw schemas
subscriptions: set[str] = set()
cancellations: list[str] = []


# Tools: one kind of content each


@mcp.tool()
def test_simple_text() -> str:
    """Returns text."""
    return "This is a simple text response for testing."


@mcp.tool()
def test_image_content() -> list[ImageContent]:
    """Returns an image."""
    return [ImageContent(type="image", data=PNG, mimeType="image/png")]


@mcp.tool()
def test_audio_content() -> list[AudioContent]:
    """Returns audio."""
    return [AudioContent(type="audio", data=WAV, mimeType="audio/wav")]


@mcp.tool()
def test_embedded_resource() -> list[EmbeddedResource]:
    """Returns a resource inside its result."""
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@mcp.tool()
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Returns text, an image and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PNG, mimeType="image/png"),
        embedded("test://mixed-content-resource", "application/json", data),
    ]


@mcp.tool()
def test_error_handling() -> str:
    """Always fails."""
    raise RuntimeError("This tool intentionally returns an error for testing")


@mcp.tool()
def echo(text: str) -> str:
    """Returns what it is given."""
    return text


Region = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]


@mcp.tool()
def test_x_mcp_header(region: Region = "") -> str:
    """Has an argument that clients of 2026-07-28 repeat in the header Mcp-Param-Region."""
    return f"region={region}"


# Tools: messages while the call runs


@mcp.tool()
async def test_logging_tool(ctx: Context) -> str:
    """Logs, which must reach only those who asked for it."""
    await ctx.info("test_logging_tool ran")
    return "Logged once."


@mcp.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Logs three times before it answers."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(text)
        await asyncio.sleep(STEP)
    return "Logged three times."


@mcp.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    """Reports progress at 0, 50 and 100."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(STEP)
    return "Reported three times."


@mcp.tool()
async def test_reconnection(ctx: Context) -> str:
    """Is quiet for so long that the bridge closes the stream, then answers."""
    await ctx.info("Before disconnect")
    await asyncio.sleep(RECONNECTION)
    await ctx.info("After reconnect")
    return "Reconnection test completed"


@mcp.tool()
async def count(ctx: Context, steps: int, pause: float) -> str:
    """Counts slowly with progress, and remembers when it is cancelled."""
    try:
        for step in range(steps):
            await asyncio.sleep(pause)
            await ctx.report_progress(step + 1, steps)
    except asyncio.CancelledError:
        cancellations.append(ctx.request_id)
        raise
    return f"Counted to {steps}."


@mcp.tool()
def cancelled() -> str:
    """Tells how many calls of `count` were cancelled."""
    return str(len(cancellations))


# Tools: questions to the client


@mcp.tool()
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Asks the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return f"LLM response: {answer.content.text}"


@mcp.tool()
async def test_elicitation(message: str, ctx: Context) -> str:
    """Asks the user for a name and an address."""
    return await elicited(ctx, message, USER_SCHEMA)


@mcp.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Asks the user with a default for each primitive type."""
    return await elicited(ctx, "Please check these values", DEFAULTS_SCHEMA)


@mcp.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Asks the user with each kind of enumeration."""
    return await elicited(ctx, "Please choose", ENUMS_SCHEMA)


async def elicited(ctx: Context, message: str, schema: dict) -> str:
    result = await ctx.session.elicit(message, schema, related_request_id=ctx.request_id)
    return f"Elicitation completed: action={result.action}, content={json.dumps(result.content)}"


# Tools: changes


@mcp.tool()
async def test_trigger_tool_change(ctx: Context) -> str:
    """Says that the list of tools changed, and changed back."""
    await ctx.session.send_tool_list_changed()
    return "The list of tools changed."


@mcp.tool()
async def test_trigger_prompt_change(ctx: Context) -> str:
    """Says that the list of prompts changed, and changed back."""
    await ctx.session.send_prompt_list_changed()
    return "The list of prompts changed."


# Resources


@mcp.resource("test://static-text", description="Text that never changes", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@mcp.resource("test://static-binary", description="A picture of one pixel", mime_type="image/png")
def static_binary() -> bytes:
    return base64.b64decode(PNG)


@mcp.resource("test://watched-resource", description="What to subscribe to", mime_type="text/plain")
def watched() -> str:
    return "Watched resource content"


@mcp.resource("test://template/{id}/data", description="Data by id", mime_type="application/json")
def template(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@mcp.tool()
async def touch(uri: str, ctx: Context) -> str:
    """Says that a resource changed, if it is subscribed to."""
    if uri in subscriptions:
        await ctx.session.send_resource_updated(AnyUrl(uri))
    return f"{'touched' if uri in subscriptions else 'nobody watches'} {uri}"


@server.subscribe_resource()
async def subscribe(uri: AnyUrl) -> None:
    subscriptions.add(str(uri))


@server.unsubscribe_resource()
async def unsubscribe(uri: AnyUrl) -> None:
    subscriptions.discard(str(uri))


# Prompts, completion, logging


@mcp.prompt()
def test_simple_prompt() -> list[UserMessage]:
    """A prompt without arguments."""
    return [said("This is a simple prompt for testing.")]


@mcp.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    """A prompt with two arguments."""
    return [said(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


@mcp.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    """A prompt with a resource in it."""
    resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
    return [UserMessage(resource), said("Please process the embedded resource above.")]


@mcp.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image in it."""
    image = ImageContent(type="image", data=PNG, mimeType="image/png")
    return [UserMessage(image), said("Please analyze the image above.")]


@mcp.completion()
async def complete(ref: object, argument: object, context: object) -> Completion:
    values = [name for name in DEPARTMENTS if name.startswith(argument.value)]
    return Completion(values=values, total=len(values), hasMore=False)


@server.set_logging_level()
async def set_level(level: str) -> None:
    """Accepted; every message is sent whatever the level."""


# How it is put together


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    contents = TextResourceContents(uri=AnyUrl(uri), mimeType=mime_type, text=text)
    return EmbeddedResource(type="resource", resource=contents)


def said(text: str) -> UserMessage:
    return UserMessage(TextContent(type="text", text=text))


async def tools() -> list[Tool]:
    """FastMCP derives schemas from Python types; one tool has a schema that no type gives."""
    derived = await mcp.list_tools()
    return [*derived, Tool(name="json_schema_2020_12_tool", description="Never called", inputSchema=DIALECT_SCHEMA)]


async def serve() -> None:
    """Over stdio, until it ends."""
    options = server.create_initialization_options(NotificationOptions(prompts_changed=True, tools_changed=True))
    # The SDK says `false` even where a subscription handler is registered.
    options.capabilities.resources.subscribe = True
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, metavar="PORT")
    arguments = parser.parse_args()
    questions.register(mcp)
    server.list_tools()(tools)
    if arguments.http is None:
        asyncio.run(serve())
    else:
        mcp.settings.port = arguments.http
        mcp.run("streamable-http")


if __name__ == "__main__":
    main()
