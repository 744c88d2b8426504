"""The stock clients of PyPI's `mcp`, 1.x and 2.x: each logs in, adds scopes, refreshes its token, and calls a tool.

Reads one JSON object from stdin: {name, url}. Writes one: {tools, text, tokens, revision}, or {error}.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from browser import visit
from plan import leaves

try:
    import httpx2 as httpx
    from mcp import Client
    from mcp.shared.auth import AuthorizationCodeResult
except ImportError:
    import httpx
    from mcp import ClientSession

    Client = None

CALLBACK = "http://127.0.0.1:9/callback"  # nothing listens there: the browser stops before
PATIENCE = 60  # seconds; no assertion, only the end of a hang


class Storage:
    """Keeps in memory what an application keeps for its user."""

    def __init__(self) -> None:
        self.saved: list[Any] = []  # every set of tokens
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.saved[-1] if self.saved else None

    async def set_tokens(self, tokens: Any) -> None:
        self.saved.append(tokens)

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client: Any) -> None:
        self.client = client


class Login:
    """Visits the authorization server as the user's browser does."""

    def __init__(self) -> None:
        self.answer: dict[str, str] = {}

    async def redirect(self, address: str) -> None:
        redirect = await anyio.to_thread.run_sync(visit, address, CALLBACK)
        self.answer = {name: values[0] for name, values in parse_qs(urlsplit(redirect).query).items()}

    async def callback(self) -> Any:
        code, state = self.answer["code"], self.answer.get("state")
        return AuthorizationCodeResult(code=code, state=state, iss=self.answer.get("iss")) if Client else (code, state)


Session = tuple[Callable[[], Any], Callable[[str, dict], Any], "str | None"]


@asynccontextmanager
async def connected(url: str, auth: OAuthClientProvider) -> AsyncIterator[Session]:
    async with httpx.AsyncClient(auth=auth, timeout=PATIENCE) as http_client:
        transport = streamable_http_client(url, http_client=http_client)
        if Client:
            async with Client(transport) as client:
                yield client.list_tools, client.call_tool, client.protocol_version
        else:
            async with transport as (reading, writing, _), ClientSession(reading, writing) as session:
                opened = await session.initialize()
                yield session.list_tools, session.call_tool, opened.protocolVersion


async def use(name: str, url: str, auth: OAuthClientProvider, storage: Storage) -> dict[str, Any]:
    async with connected(url, auth) as (list_tools, call_tool, _):
        tools = [tool.name for tool in (await list_tools()).tools]
        logins = len(storage.saved)
        end = time.monotonic() + PATIENCE
        while True:
            text = (await call_tool("echo", {"text": name})).content[0].text
            # It refreshes its token once that has expired.
            if len(storage.saved) > logins or time.monotonic() > end:
                break
            await anyio.sleep(0.25)
    # A refusal while it finds out the server's revision makes a client go back to an older one.
    async with connected(url, auth) as (*_, revision):
        return {"tools": tools, "text": text, "revision": revision}


async def show(name: str, url: str) -> dict[str, Any]:
    storage, login = Storage(), Login()
    metadata = OAuthClientMetadata(
        client_name=name,
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        token_endpoint_auth_method="none",
    )
    auth = OAuthClientProvider(url, metadata, storage, login.redirect, login.callback)
    for attempt in range(3):
        try:
            shown = await use(name, url, auth, storage)
            break
        except Exception as error:
            # A 403 directly after a login ends the connection; the next one adds the scopes.
            if attempt == 2 or not storage.saved:
                raise
            print(f"{name} connects again: {leaves(error)}", file=sys.stderr)
    tokens = [{"scope": each.scope, "refresh": each.refresh_token is not None} for each in storage.saved]
    return {**shown, "tokens": tokens}


def main() -> None:
    plan = json.load(sys.stdin)
    try:
        outcome = anyio.run(show, plan["name"], plan["url"])
    except Exception as error:
        outcome = {"error": "; ".join(leaves(error))}
    print(json.dumps(outcome))


main()
