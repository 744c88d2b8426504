"""How the matrix tells a Python client what to show, and hears of it; node clients read and write the same.

On stdin one JSON object, {url, transport, features: {name: entry}, asks: [name]}; on stdout one JSON line
per feature, {feature, error?}. For the transport `stdio`, `url` is a list: a command and its arguments. All features are shown at once, each by a client of its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Awaitable, Callable

import anyio

Show = Callable[[str, dict[str, Any], str, str, bool], Awaitable[None]]


def run(show: Show) -> None:
    """Carries out the plan on stdin."""
    plan = json.load(sys.stdin)

    async def report(feature: str, entry: dict[str, Any]) -> None:
        line = {"feature": feature}
        try:
            await show(feature, entry, plan["url"], plan["transport"], feature in plan["asks"])
        except Exception as error:
            line["error"] = "; ".join(leaves(error))
        print(json.dumps(line), flush=True)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for feature, entry in plan["features"].items():
                group.start_soon(report, feature, entry)

    anyio.run(all_at_once)


def leaves(error: BaseException) -> list[str]:
    """The errors in a group, without the group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [f"{type(error).__name__}: {error}"]
