"""Questions to the client in either era, and the suite's tools and prompt for multi-round-trip requests."""

from __future__ import annotations

import json

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequest,
    InputRequiredResult,
    InputResponse,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

REVISION = "2026-07-28"  # the first that has no requests from server to client

Answers = dict[str, InputResponse] | InputRequiredResult


def form(message: str, schema: dict) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def field(message: str, name: str, kind: str = "string") -> ElicitRequest:
    """A form of one required field."""
    return form(message, {"type": "object", "properties": {name: {"type": kind}}, "required": [name]})


def sample(prompt: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


async def ask(ctx: Context, state: str | None = None, **questions: InputRequest) -> Answers:
    """The client's answers by key, if it has given them all; else what to return so that it will.

    In the legacy era the questions are sent as requests, one after the other.
    """
    if ctx.protocol_version >= REVISION:
        answers = ctx.input_responses or {}
        if questions.keys() <= answers.keys():
            return answers
        return InputRequiredResult(input_requests=questions, request_state=state)
    return {key: await sent(ctx, question) for key, question in questions.items()}


async def sent(ctx: Context, question: InputRequest) -> InputResponse:
    match question:
        case ElicitRequest(params=params):
            return await ctx.session.elicit_form(params.message, params.requested_schema, ctx.request_id)
        case CreateMessageRequest(params=params):
            return await ctx.session.create_message(
                params.messages, max_tokens=params.max_tokens, related_request_id=ctx.request_id
            )
        case ListRootsRequest():
            return await ctx.session.list_roots()


def done(answers: Answers, text: str) -> str | InputRequiredResult:
    return answers if isinstance(answers, InputRequiredResult) else text


def register(mcp: MCPServer) -> None:
    """Adds the suite's tools and prompt, whose names all start alike."""
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
    mcp.add_tool(streaming_elicitation, name="test_streaming_elicitation")
    mcp.prompt(name="test_input_required_result_prompt")(prompt)


async def elicitation(ctx: Context) -> str | InputRequiredResult:
    """Asks the user for a name."""
    return done(await ask(ctx, user_name=field("What is your name?", "name")), "Hello!")


async def streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Asks the user on a stream that must carry no request."""
    return done(await ask(ctx, user_name=field("What is your name?", "name")), "Hello!")


async def sampling(ctx: Context) -> str | InputRequiredResult:
    """Asks the client's model."""
    return done(await ask(ctx, capital_question=sample("What is the capital of France?")), "Indeed.")


async def list_roots(ctx: Context) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    return done(await ask(ctx, client_roots=ListRootsRequest()), "Thanks for the roots.")


async def request_state(ctx: Context) -> str | InputRequiredResult:
    """Asks, and wants its state back."""
    if ctx.request_state == "nonce" and "confirm" in (ctx.input_responses or {}):
        return "state-ok"
    return InputRequiredResult(input_requests={"confirm": CONFIRM}, request_state="nonce")


async def multiple_inputs(ctx: Context) -> str | InputRequiredResult:
    """Asks the user, the model and for roots at once."""
    questions = {
        "user_name": field("What is your name?", "name"),
        "greeting": sample("Generate a greeting"),
        "client_roots": ListRootsRequest(),
    }
    return done(await ask(ctx, "asked", **questions), "All inputs received.")


async def multi_round(ctx: Context) -> str | InputRequiredResult:
    """Asks twice; the second question carries the first answer in its state."""
    state = json.loads(ctx.request_state) if ctx.request_state else None
    answers = ctx.input_responses or {}
    if state is not None and "step2" in answers:
        return f"{state['name']} likes {answers['step2'].content['color']}."
    if state is not None and "step1" in answers:
        question = field("Step 2: What is your favorite color?", "color")
        name = json.dumps({"name": answers["step1"].content["name"]})
        return InputRequiredResult(input_requests={"step2": question}, request_state=name)
    question = field("Step 1: What is your name?", "name")
    return InputRequiredResult(input_requests={"step1": question}, request_state="{}")


async def tampered_state(ctx: Context) -> str | InputRequiredResult:
    """Asks; the SDK seals the state, and refuses it when it comes back altered."""
    if ctx.request_state is not None:
        return f"state-ok: {ctx.request_state}"
    return InputRequiredResult(input_requests={"confirm": CONFIRM}, request_state="sealed")


async def capabilities(ctx: Context) -> str | InputRequiredResult:
    """Asks in every way that the client declares."""
    declared = ctx.client_capabilities
    questions: dict[str, InputRequest] = {}
    if declared is not None and declared.sampling is not None:
        questions["greeting"] = sample("Say hello")
    if declared is not None and declared.elicitation is not None:
        questions["user_name"] = field("What is your name?", "name")
    return done(await ask(ctx, "asked", **questions), "Asked what may be asked.")


async def prompt(ctx: Context) -> list[UserMessage] | InputRequiredResult:
    """A prompt that asks the user for its context."""
    answers = await ask(ctx, user_context=field("What context should the prompt use?", "context"))
    if isinstance(answers, InputRequiredResult):
        return answers
    return [UserMessage(TextContent(text=f"Context: {answers['user_context'].content['context']}"))]


CONFIRM = field("Please confirm", "ok", "boolean")
