"""What must not be seen is in no span, no log line, no log record and no metric."""

from __future__ import annotations

import http.client
import json

import pytest

from receivers import Receiver
from running import Running

ARGUMENTS = {"city": "Rome", "note": "argument-secret", "api_key": "key-secret", "deep": [{"password": "deep-secret"}]}
HEADERS = {
    "Authorization": "Bearer header-secret",
    "Cookie": "session=cookie-secret",
    "X-Api-Key": "other-secret",
    "Proxy-Authorization": "Basic proxy-secret",
}


@pytest.fixture
def seen(receive):
    """Everything that can be seen of a proxyrunner, once it has ended."""

    def seen(running: Running, receiver: Receiver) -> str:
        metrics = running.wire.metrics()
        running.stop()
        exports = [str(export.message) for export in receiver.store.items]
        assert len(exports) > 2 and "mcp_server" in metrics
        return "\n".join([metrics, running.proxyrunner.log.read_text(), *exports])

    return seen


def start(run, receiver: Receiver, *flags: str) -> Running:
    return run("--access-log", *flags, env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_LOGS_EXPORTER": "otlp"})


def test_headers_arguments_and_results_are_not_seen(run, receive, seen):
    receiver = receive()
    running = start(run, receiver)
    running.wire.call("echo", ARGUMENTS, headers=HEADERS)
    running.wire.ask("prompts/get", {"name": "p", "arguments": {"note": "prompt-secret"}}, headers=HEADERS)
    everything = seen(running, receiver)
    assert "tools/call" in everything and "echo" in everything
    assert "secret" not in everything


def test_even_in_the_most_detailed_log_they_are_not_seen(run, receive):
    env = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20own-secret"}
    for protocol in ("http/protobuf", "grpc"):
        where = {"OTEL_EXPORTER_OTLP_ENDPOINT": receive().url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        running = run("--log-level", "trace", env=env | where)
        running.wire.call("echo", ARGUMENTS, headers=HEADERS)
        running.stop()
        log = running.proxyrunner.log.read_text()
        assert "TRACE" in log and "secret" not in log


def test_what_is_captured_is_redacted(run, receive, seen):
    receiver = receive()
    running = start(run, receiver, "--trace-arguments", "--trace-results", "--redact", "note")
    running.wire.call("echo", ARGUMENTS, headers=HEADERS)
    everything = seen(running, receiver)
    assert "secret" not in everything
    redacted = "<redacted>"
    shown = {"city": "Rome", "note": redacted, "api_key": redacted, "deep": [{"password": redacted}]}
    (called,) = [span for span in receiver.spans if "gen_ai.tool.call.arguments" in span.attributes]
    assert json.loads(called.attributes["gen_ai.tool.call.arguments"]) == shown
    assert json.loads(called.attributes["gen_ai.tool.call.result"])["structuredContent"] == shown


def test_a_session_s_id_is_not_seen(run, receive, seen):
    receiver = receive()
    running = start(run, receiver)
    session = begin_session(running.proxyrunner.port)
    assert session not in seen(running, receiver)
    assert [span for span in receiver.spans if span.attributes.get("mcp.session.id", session) != session]


def begin_session(port: int) -> str:
    """Opens a legacy session, lists its tools, and ends it; its id."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def send(verb: str, **message: object) -> http.client.HTTPResponse:
        body = json.dumps({"jsonrpc": "2.0", **message}) if message else None
        connection.request(verb, "/mcp", body, headers)
        response = connection.getresponse()
        response.read()
        assert response.status < 300, response.status
        return response

    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    opened = send("POST", id=1, method="initialize", params=client)
    headers |= {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-06-18"}
    send("POST", method="notifications/initialized")
    send("POST", id=2, method="tools/list")
    send("DELETE")
    connection.close()
    return headers["Mcp-Session-Id"]


def test_a_query_is_not_seen(run, receive, seen):
    receiver = receive()
    running = start(run, receiver)
    connection = running.wire.connection
    connection.request("GET", "/mcp?token=query-secret", headers={"Accept": "text/event-stream"})
    connection.getresponse().read()
    assert "secret" not in seen(running, receiver)
