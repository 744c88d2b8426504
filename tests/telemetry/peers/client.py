"""A stock client whose spans are exported: lists the tools and calls two, within one span of its own.

    client.py URL MODE          MODE is `auto`, or `legacy`
"""

from __future__ import annotations

import sys

import anyio
import tracing
from mcp import Client


async def main(url: str, mode: str) -> None:
    with tracing.span(f"ask, {mode}"):
        async with Client(url, mode=mode) as client:
            await client.list_tools()
            result = await client.call_tool("forecast", {"city": "Rome"})
            assert not result.is_error, result
            result = await client.call_tool("fails", {})
            assert result.is_error, result


with tracing.exported("agent"):
    anyio.run(main, *sys.argv[1:])
