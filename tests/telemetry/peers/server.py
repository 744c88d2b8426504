"""A stock server of both eras whose spans are exported: one tool works, with a span of its own, and one fails."""

from __future__ import annotations

import tracing
from mcp.server.mcpserver import MCPServer

server = MCPServer("weather")


@server.tool()
def forecast(city: str) -> str:
    with tracing.span("look up"):
        return f"sunny in {city}"


@server.tool()
def fails() -> str:
    raise ValueError("no")


with tracing.exported("weather"):
    server.run("stdio")
