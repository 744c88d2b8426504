"""Whatever names clients and children make up, what is counted by them stays bounded, and so do the names of spans."""

from __future__ import annotations

import re
import sys

import pytest

from running import Running
from spans import CLIENT, SERVER

NAMES = 5_000
SOME = 200
OTHER = "_OTHER"
# The smallest server of tools that tells of none.
TOOLLESS = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        version, info = asked["params"]["protocolVersion"], {"name": "toolless", "version": "1"}
        said = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
    elif asked.get("method") == "tools/list":
        said = {"result": {"tools": []}}
    else:
        said = {"error": {"code": -32601, "message": "no"}}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)
"""


def series(running: Running) -> set[str]:
    """Those at /metrics, without their values."""
    lines = running.wire.metrics().splitlines()
    return {line.rpartition(" ")[0].partition(" # ")[0] for line in lines if not line.startswith("#")}


def make_up(running: Running, begin: int, end: int) -> None:
    """Uses names that nobody knows, for everything that clients and children name."""
    for n in range(begin, end):
        running.wire.call(f"tool-{n}")
        if n % (NAMES // SOME) == 0:
            running.wire.ask(f"method/{n}", headers={"User-Agent": f"agent/{n}"})
            running.wire.ask("prompts/get", {"name": f"prompt-{n}"})
            running.wire.ask("resources/read", {"uri": f"a:{n}"}, headers={"Mcp-Name": f"a:{n}"})
            running.wire.call("fail", {"code": -n})


@pytest.fixture
def made_up(run, receive):
    receiver = receive()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "60000"}
    running = run("--allow-baggage", "*", env=env)
    running.wire.ask("tools/list")
    make_up(running, 0, 51)
    early = series(running)
    make_up(running, 51, NAMES)
    late = series(running)
    dropped = running.wire.metric("proxyrunner_dropped_spans_total")
    running.stop()
    return receiver, early, late, dropped


def test_whatever_is_made_up_is_counted_as_other(made_up):
    receiver, early, late, dropped = made_up
    assert late == early
    text = "\n".join(late)
    assert not re.search(r"(tool|prompt|method|agent)[-/]\d|a:\d", text)
    assert f'gen_ai_tool_name="{OTHER}"' in text and f'mcp_method_name="{OTHER}"' in text

    (last,) = [export.metrics for export in receiver.store.items[-3:] if export.metrics]
    durations = [metric for metric in last if metric.name == "mcp.server.operation.duration"]
    assert not re.search(r"tool-\d|prompt-\d|method/\d", str(durations))

    named = {span.name for span in receiver.spans if span.kind in (SERVER, CLIENT)}
    assert {"tools/call", "tools/call fail"} <= named
    assert not [name for name in named if re.search(r"\d", name)]

    # All were exported, or counted: of each request three spans, and those of the start.
    requests = NAMES + 4 * SOME + 1
    arrived = [span for span in receiver.spans if span.name in named]
    assert len(arrived) + dropped >= 3 * requests
    tools = {span.attributes.get("gen_ai.tool.name") for span in receiver.spans}
    assert dropped or {f"tool-{n}" for n in range(NAMES)} <= tools, "a span may say what was asked for"


def test_names_are_made_up_where_no_tool_is_listed(run, receive):
    receiver = receive()
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"}
    running = run(command=[sys.executable, "-u", "-c", TOOLLESS], env=traces)
    for n in range(3):
        running.wire.call(f"tool-{n}")
    running.stop()
    named = {span.name for span in receiver.spans if span.attributes.get("mcp.method.name") == "tools/call"}
    assert named == {"tools/call"}
