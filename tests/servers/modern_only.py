"""Makes an SDK that serves both eras refuse the older one, as a server written for 2026-07-28 alone would."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, AsyncIterator

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError, JSONRPCRequest

VERSION = "io.modelcontextprotocol/protocolVersion"
REVISION = "2026-07-28"
UNSUPPORTED_PROTOCOL_VERSION = -32022
INVALID_PARAMS = -32602


@asynccontextmanager
async def refusing(incoming: Any, outgoing: Any) -> AsyncIterator[Any]:
    """The incoming messages without those of the legacy era, which are answered with an error here."""
    sender, admitted = anyio.create_memory_object_stream[SessionMessage | Exception]()

    async def sieve() -> None:
        async with sender:
            async for item in incoming:
                error = refusal(item.message) if isinstance(item, SessionMessage) else None
                if error is None:
                    await sender.send(item)
                else:
                    refused = JSONRPCError(jsonrpc="2.0", id=item.message.id, error=error)
                    await outgoing.send(SessionMessage(refused))

    async with anyio.create_task_group() as group:
        group.start_soon(sieve)
        yield admitted
        group.cancel_scope.cancel()


def refusal(message: Any) -> ErrorData | None:
    """What a request without the envelope gets."""
    if not isinstance(message, JSONRPCRequest) or VERSION in ((message.params or {}).get("_meta") or {}):
        return None
    if message.method != "initialize":
        return ErrorData(code=INVALID_PARAMS, message=f"_meta lacks {VERSION}")
    data = {"supported": [REVISION], "requested": (message.params or {}).get("protocolVersion")}
    return ErrorData(code=UNSUPPORTED_PROTOCOL_VERSION, message="The handshake is not served", data=data)
