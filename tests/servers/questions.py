"""The suite's multi-round-trip tools and prompt, asked the legacy way: by requests to the client.

A bridge turns these requests into `input_required` results. The keys of those are the bridge's own, so
the one scenario that wants a certain key cannot pass in front of this server.
"""

from __future__ import annotations

import asyncio

from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.prompts.base import UserMessage
from mcp.types import ClientCapabilities, ElicitResult, SamplingCapability, SamplingMessage, TextContent


def register(mcp: FastMCP) -> None:
    """Adds the tools and the prompt under the suite's names."""
    for function in (
        elicitation,
        sampling,
        list_roots,
        request_state,
        multiple_inputs,
        multi_round,
        tampered_state,
        capabilities,
    ):
        mcp.add_tool(function, name=f"test_input_required_result_{function.__name__}")
    mcp.add_tool(elicitation, name="test_streaming_elicitation")
    mcp.add_tool(sampling, name="test_missing_capability")
    mcp.prompt(name="test_input_required_result_prompt")(prompt)


async def form(ctx: Context, message: str, name: str, kind: str = "string") -> ElicitResult:
    """The user's answer to a form of one required field."""
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return await ctx.session.elicit_form(message, schema, ctx.request_id)


async def sample(ctx: Context, prompt: str) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return answer.content.text


async def elicitation(ctx: Context) -> str:
    """Asks the user for a name."""
    return f"Hello, {(await form(ctx, 'What is your name?', 'name')).content}!"


async def sampling(ctx: Context) -> str:
    """Asks the client's model, whether or not the client has one."""
    return await sample(ctx, "What is the capital of France?")


async def list_roots(ctx: Context) -> str:
    """Asks for the client's roots."""
    return f"{len((await ctx.session.list_roots()).roots)} roots"


async def request_state(ctx: Context) -> str:
    """Asks, with no state but the call itself."""
    return f"state-ok: {(await form(ctx, 'Please confirm', 'ok', 'boolean')).action}"


async def multiple_inputs(ctx: Context) -> str:
    """Asks the user, the model and for roots at once."""
    await asyncio.gather(
        form(ctx, "What is your name?", "name"), sample(ctx, "Generate a greeting"), ctx.session.list_roots()
    )
    return "All inputs received."


async def multi_round(ctx: Context) -> str:
    """Asks twice, one after the other."""
    name = await form(ctx, "Step 1: What is your name?", "name")
    color = await form(ctx, "Step 2: What is your favorite color?", "color")
    return f"{name.content} likes {color.content}."


async def tampered_state(ctx: Context) -> str:
    """Asks; only the bridge has a state that could be tampered with."""
    return (await form(ctx, "Please confirm", "ok", "boolean")).action


async def capabilities(ctx: Context) -> str:
    """Asks the client's model if there is one, else the user."""
    if ctx.session.check_client_capability(ClientCapabilities(sampling=SamplingCapability())):
        return await sample(ctx, "Say hello")
    return (await form(ctx, "What is your name?", "name")).action


async def prompt(ctx: Context) -> list[UserMessage]:
    """A prompt that asks the user for its context."""
    answer = await form(ctx, "What context should the prompt use?", "context")
    return [UserMessage(TextContent(type="text", text=f"Context: {answer.content}"))]
