"""The stock clients of PyPI's `mcp`, 1.x and 2.x, with an API key: each lists what it sees, and calls a tool.

Reads one JSON object from stdin: {url, key, call}. Writes one: {tools, prompts, resources, text}, or {error} with {tools}.
"""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator

import anyio
from mcp.client.streamable_http import streamable_http_client

from plan import leaves

try:
    import httpx2 as httpx
    from mcp import Client
except ImportError:
    import httpx
    from mcp import ClientSession

    Client = None

PATIENCE = 60  # seconds; no assertion, only the end of a hang


@asynccontextmanager
async def connected(url: str, key: str) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(headers={"X-API-Key": key}, timeout=PATIENCE) as http_client:
        transport = streamable_http_client(url, http_client=http_client)
        if Client:
            async with Client(transport) as client:
                yield client
        else:
            async with transport as (reading, writing, _), ClientSession(reading, writing) as session:
                await session.initialize()
                yield session


async def show(url: str, key: str, call: str) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    try:
        async with connected(url, key) as client:
            shown["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            shown["prompts"] = [prompt.name for prompt in (await client.list_prompts()).prompts]
            shown["resources"] = [str(resource.uri) for resource in (await client.list_resources()).resources]
            shown["text"] = (await client.call_tool(call, {"text": "hello"})).content[0].text
    except Exception as error:
        shown["error"] = "; ".join(leaves(error))
    return shown


plan = json.load(sys.stdin)
print(json.dumps(anyio.run(show, plan["url"], plan["key"], plan["call"])))
