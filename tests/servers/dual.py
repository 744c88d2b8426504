"""The stdio server of both eras behind the conformance suite and the interop tests, on PyPI's `mcp` 2.x.

    dual.py                 whichever era the client opens with
    dual.py --modern-only   2026-07-28 alone; the handshake is refused
    dual.py --http PORT     the SDK's own HTTP transport, to tell this server's faults from the bridge's

It offers what the suite's scenarios call by name. Its names and answers are those of everything.py.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from typing import Annotated

import anyio
from mcp.server import NotificationOptions, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import Field

import input_required
import modern_only
from content import DEFAULTS_SCHEMA, DIALECT_SCHEMA, ENUMS_SCHEMA, PNG, USER_SCHEMA, WAV
from input_required import Answers, ask, form, sample

STEP = 0.05  # seconds between two log messages or two progress reports, as the suite asks
RECONNECTION = 1.5  # seconds: longer than the bridge's --sse-max-age, shorter than the suite's patience
DEPARTMENTS = ["Engineering", "Marketing", "Sales", "Support"]

mcp = MCPServer("everything", version="2.0.0", log_level="WARNING")
server = mcp._lowlevel_server  # MCPServer has no public way to legacy subscriptions and log levels
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
    return [ImageContent(data=PNG, mime_type="image/png")]


@mcp.tool()
def test_audio_content() -> list[AudioContent]:
    """Returns audio."""
    return [AudioContent(data=WAV, mime_type="audio/wav")]


@mcp.tool()
def test_embedded_resource() -> list[EmbeddedResource]:
    """Returns a resource inside its result."""
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@mcp.tool()
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Returns text, an image and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        TextContent(text="Multiple content types test:"),
        ImageContent(data=PNG, mime_type="image/png"),
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


@mcp.tool()
def json_schema_2020_12_tool() -> str:
    """Never called; it is there for its schema, which no Python type gives."""
    return ""


mcp._tool_manager.get_tool("json_schema_2020_12_tool").parameters = DIALECT_SCHEMA

Region = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]


@mcp.tool()
def test_x_mcp_header(region: Region = "") -> str:
    """Has an argument that clients repeat in the header Mcp-Param-Region."""
    return f"region={region}"


# Tools: messages while the call runs


@mcp.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Logs three times before it answers."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(text)
        await asyncio.sleep(STEP)
    return "Logged three times."


@mcp.tool()
async def test_logging_tool(ctx: Context) -> str:
    """Logs, which must reach only those who asked for it."""
    await ctx.info("test_logging_tool ran")
    return "Logged once."


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
    await asyncio.sleep(RECONNECTION)
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
async def test_sampling(prompt: str, ctx: Context) -> str | InputRequiredResult:
    """Asks the client's model."""
    answers = await ask(ctx, answer=sample(prompt))
    return answers if isinstance(answers, InputRequiredResult) else f"LLM response: {answers['answer'].content.text}"


@mcp.tool()
async def test_elicitation(message: str, ctx: Context) -> str | InputRequiredResult:
    """Asks the user for a name and an address."""
    return elicited(await ask(ctx, user=form(message, USER_SCHEMA)), "user")


@mcp.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str | InputRequiredResult:
    """Asks the user with a default for each primitive type."""
    return elicited(await ask(ctx, values=form("Please check these values", DEFAULTS_SCHEMA)), "values")


@mcp.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str | InputRequiredResult:
    """Asks the user with each kind of enumeration."""
    return elicited(await ask(ctx, choices=form("Please choose", ENUMS_SCHEMA)), "choices")


def elicited(answers: Answers, key: str) -> str | InputRequiredResult:
    if isinstance(answers, InputRequiredResult):
        return answers
    result = answers[key]
    return f"Elicitation completed: action={result.action}, content={json.dumps(result.content)}"


@mcp.tool()
def test_missing_capability(ctx: Context) -> str:
    """Refuses clients that cannot sample."""
    if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", data)
    return "The client can sample."


# Tools: changes


@mcp.tool()
async def test_trigger_tool_change(ctx: Context) -> str:
    """Changes the list of tools for a moment."""
    mcp.add_tool(lambda: "", name="test_dynamic_tool")
    mcp.remove_tool("test_dynamic_tool")
    await ctx.notify_tools_changed()
    if not modern(ctx):
        await ctx.session.send_tool_list_changed()
    return "The list of tools changed."


@mcp.tool()
async def test_trigger_prompt_change(ctx: Context) -> str:
    """Changes the list of prompts for a moment."""
    mcp.add_prompt(Prompt.from_function(lambda: "", name="test_dynamic_prompt"))
    mcp.remove_prompt("test_dynamic_prompt")
    await ctx.notify_prompts_changed()
    if not modern(ctx):
        await ctx.session.send_prompt_list_changed()
    return "The list of prompts changed."


@mcp.tool()
async def touch(uri: str, ctx: Context) -> str:
    """Says that a resource changed, to those who listen or have subscribed."""
    await ctx.notify_resource_updated(uri)
    if uri in subscriptions:
        await ctx.session.send_resource_updated(uri)
    return f"touched {uri}"


def modern(ctx: Context) -> bool:
    return ctx.protocol_version >= input_required.REVISION


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


async def subscribe(ctx: ServerRequestContext, params: SubscribeRequestParams) -> EmptyResult:
    subscriptions.add(str(params.uri))
    return EmptyResult()


async def unsubscribe(ctx: ServerRequestContext, params: UnsubscribeRequestParams) -> EmptyResult:
    subscriptions.discard(str(params.uri))
    return EmptyResult()


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
    return [UserMessage(ImageContent(data=PNG, mime_type="image/png")), said("Please analyze the image above.")]


@mcp.completion()
async def complete(ref: object, argument: object, context: object) -> Completion:
    values = [name for name in DEPARTMENTS if name.startswith(argument.value)]
    return Completion(values=values, total=len(values), has_more=False)


async def set_level(ctx: ServerRequestContext, params: SetLevelRequestParams) -> EmptyResult:
    """Accepted; in the legacy era every message is sent whatever the level."""
    return EmptyResult()


# How it is put together


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def said(text: str) -> UserMessage:
    return UserMessage(TextContent(text=text))


async def serve(refuse_handshake: bool) -> None:
    """Over stdio, until it ends."""
    changes = NotificationOptions(prompts_changed=True, tools_changed=True)
    options = server.create_initialization_options(changes)
    async with stdio_server() as (incoming, outgoing):
        if not refuse_handshake:
            return await server.run(incoming, outgoing, options)
        async with modern_only.refusing(incoming, outgoing) as admitted:
            await server.run(admitted, outgoing, options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--modern-only", action="store_true")
    parser.add_argument("--http", type=int, metavar="PORT")
    arguments = parser.parse_args()
    input_required.register(mcp)
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    if arguments.http is None:
        anyio.run(serve, arguments.modern_only)
    else:
        mcp.run("streamable-http", port=arguments.http)


if __name__ == "__main__":
    main()
