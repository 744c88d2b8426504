"""The servers that proxyrunner is put in front of, and what each is asked to show, feature by feature.

Both stock clients, in Python and in Node, read these same entries. A feature that a server lacks has
no entry.
"""

from __future__ import annotations

import sys

from proxyrunner import NODE_MODULES, PYTHON, ROOT, TESTS, node

# What a bridge that decodes text and writes it again tends to lose.
TEXT = "naïve 世界 \u00a0\u3000\u200d\u2028 \\u0041 \"quoted\" 🚀\ttab"

EXAMPLE = {
    "initialize": {"name": "example"},
    "tools": {"names": ["add", "countdown", "echo", "now"]},
    "call": {"tool": "echo", "arguments": {"text": TEXT}, "answer": TEXT},
    "progress": {"tool": "countdown", "arguments": {"start": 3, "pause": 0.02}, "reports": 3},
    "logging": {"level": "info", "tool": "countdown", "arguments": {"start": 1, "pause": 0.02}, "answer": "1…"},
    "resource": {"uri": "demo://greeting", "answer": "こんにちは"},
    "prompt": {"name": "summarize", "arguments": {"topic": TEXT}, "answer": TEXT},
    "cancellation": {"tool": "countdown", "arguments": {"start": 3000, "pause": 0.02}},
    "resumption": {
        "tool": "countdown",
        "arguments": {"start": 20, "pause": 0.1},
        "reports": 20,
        "answer": "Lift-off!",
    },
}

# Its tools start timers for the whole process, so those calls want a child of their own.
EVERYTHING_NPM = {
    "initialize": {"name": "mcp-servers/everything"},
    "tools": {"names": ["echo", "get-sum", "trigger-long-running-operation"]},
    "call": {"tool": "echo", "arguments": {"message": TEXT}, "answer": f"Echo: {TEXT}"},
    "progress": {
        "tool": "trigger-long-running-operation",
        "arguments": {"duration": 0.1, "steps": 4},
        "reports": 4,
    },
    "logging": {"level": "debug", "tool": "toggle-simulated-logging", "arguments": {}, "answer": "essage"},
    "sampling": {"tool": "trigger-sampling-request", "arguments": {"prompt": TEXT}, "prompt": "naïve 世界"},
    "elicitation": {"tool": "trigger-elicitation-request", "arguments": {}, "content": {"name": "Ada 世界"}},
    "resource": {"uri": "demo://resource/dynamic/text/7", "answer": "Resource 7"},
    "subscription": {
        "uri": "demo://resource/dynamic/text/1",
        "tool": "toggle-subscriber-updates",
        "arguments": {},
        "exclusive": True,
    },
    "prompt": {"name": "args-prompt", "arguments": {"city": "Zürich"}, "answer": "Zürich"},
    "completion": {
        "prompt": "completable-prompt",
        "argument": {"name": "department", "value": "S"},
        "values": ["Sales", "Support"],
    },
    "cancellation": {"tool": "trigger-long-running-operation", "arguments": {"duration": 10, "steps": 500}},
    "resumption": {
        "tool": "trigger-long-running-operation",
        "arguments": {"duration": 2, "steps": 20},
        "reports": 20,
        "answer": "completed",
    },
}

EVERYTHING_PYPI = {
    "initialize": {"name": "everything"},
    "tools": {"names": ["test_sampling", "json_schema_2020_12_tool", "touch"]},
    "call": {"tool": "echo", "arguments": {"text": TEXT}, "answer": TEXT},
    "progress": {"tool": "count", "arguments": {"steps": 5, "pause": 0.02}, "reports": 5},
    "logging": {"level": "info", "tool": "test_tool_with_logging", "arguments": {}, "answer": "completed"},
    "sampling": {"tool": "test_sampling", "arguments": {"prompt": TEXT}, "prompt": TEXT},
    "elicitation": {
        "tool": "test_elicitation",
        "arguments": {"message": TEXT},
        "content": {"username": "Ada 世界", "email": "ada@example.org"},
    },
    "resource": {"uri": "test://template/42/data", "answer": "Data for ID: 42"},
    "subscription": {
        "uri": "test://watched-resource",
        "tool": "touch",
        "arguments": {"uri": "test://watched-resource"},
    },
    "prompt": {
        "name": "test_prompt_with_arguments",
        "arguments": {"arg1": TEXT, "arg2": "world"},
        "answer": TEXT,
    },
    "completion": {
        "prompt": "test_prompt_with_arguments",
        "argument": {"name": "arg1", "value": "S"},
        "values": ["Sales", "Support"],
    },
    "cancellation": {
        "tool": "count",
        "arguments": {"steps": 3000, "pause": 0.02},
        "evidence": "cancelled",
    },
    "resumption": {
        "tool": "count",
        "arguments": {"steps": 20, "pause": 0.1},
        "reports": 20,
        "answer": "Counted to 20.",
    },
}

SERVERS = {"example": EXAMPLE, "everything-npm": EVERYTHING_NPM, "everything-pypi": EVERYTHING_PYPI}

# A child with several clients cannot say whom it asks or tells: there these are withheld, by design.
NEED_OWN_CHILD = {"logging", "sampling", "elicitation"}


def command(server: str) -> list[str]:
    """How the server is started, over stdio."""
    everything = NODE_MODULES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return {
        "example": [sys.executable, str(ROOT / "examples" / "server.py")],
        "everything-npm": [str(node()), str(everything), "stdio"],
        "everything-pypi": [str(PYTHON), str(TESTS / "servers" / "everything.py")],
    }[server]


def features(server: str, isolation: str, transport: str) -> list[str]:
    """What is shown in front of this server, isolated like this, over this transport."""
    withheld = NEED_OWN_CHILD if isolation == "shared" else set()
    return [
        feature
        for feature, entry in SERVERS[server].items()
        if feature not in withheld
        and not (isolation == "shared" and entry.get("exclusive"))
        and not (transport == "sse" and feature == "resumption")
    ]


def asks(server: str, feature: str) -> bool:
    """Whether the client declares sampling and elicitation, which gives it a child of its own."""
    return feature in NEED_OWN_CHILD or SERVERS[server][feature].get("exclusive", False)
