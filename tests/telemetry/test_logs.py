"""Log lines: one of each exchange, where it belongs in its trace, and as many of the child's as may be."""

from __future__ import annotations

import sys

from running import CHILD
from spans import SERVER

FLOOD = 5_000
# What it writes before it serves: a flood, and what is no text.
SCRIPT = f"seq 1 {FLOOD} >&2; printf 'odd \\377\\033[31m\\001\\n' >&2; exec \"$@\""


def access(running) -> list[dict]:
    return running.lines("access")


def test_there_is_one_line_of_each_exchange(run, receive):
    receiver = receive()
    running = run("--access-log", env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"})
    for n in range(5):
        running.wire.call("echo", {"n": n})
    running.wire.call("fail", {"code": -32602})
    running.wire.ask("prompts/get", {"name": "p"})
    running.wire.ask("resources/read", {"uri": "a:"}, headers={"Mcp-Name": "a:"})
    running.wire.ask("nobody/knows")
    running.stop()
    lines = [line["fields"] for line in access(running)]
    said = [(line["method"], line.get("target"), line.get("error")) for line in lines]
    assert said == [
        *[("tools/call", "echo", None)] * 5,
        ("tools/call", "fail", "-32602"),
        ("prompts/get", "p", None),
        ("resources/read", "a:", None),
        ("nobody/knows", None, "-32601"),
    ]
    for line in lines:
        assert line["duration_ms"] >= line["child_ms"] >= 0 and line["queued_ms"] >= 0
        assert line["peer"].startswith("127.0.0.1:")
    served = {(span.trace, span.id) for span in receiver.spans if span.kind == SERVER}
    places = [(line["trace_id"], line["span_id"]) for line in access(running)]
    assert len(set(places)) == len(places) and set(places) <= served


def test_a_request_without_a_message_has_a_line_too(run):
    running = run("--access-log")
    connection = running.wire.connection
    connection.request("POST", "/mcp", "no json", {"Content-Type": "application/json"})
    status = connection.getresponse()
    status.read()
    connection.close()  # it was refused before its body was read
    connection.request("GET", "/nowhere?token=secret")
    connection.getresponse().read()
    running.stop()
    refused, lost = [line["fields"] for line in access(running) if "/health" not in line["fields"].get("path", "")]
    assert (refused["http_method"], refused["path"], refused["status"]) == ("POST", "/mcp", status.status)
    assert (lost["http_method"], lost["path"], lost["status"]) == ("GET", "/nowhere", 404)


def test_there_is_none_unless_asked_for(run):
    running = run()
    running.wire.call("echo")
    running.stop()
    assert access(running) == []


def test_a_long_name_is_cut(run):
    running = run("--access-log")
    running.wire.call("x" * 1_000)
    running.stop()
    (line,) = access(running)
    assert line["fields"]["target"] == "x" * 128


def test_a_flood_of_a_child_is_bounded_and_counted(run, receive):
    receiver = receive()
    metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{receiver.url}/v1/metrics"}
    running = run("--child-log-rate", "50", command=["sh", "-c", SCRIPT, "sh", *CHILD], env=metrics)
    assert "result" in running.wire.call("echo"), "it serves all the same"
    running.stop()
    lines = [line["fields"] for line in running.log if line["fields"].get("stream") == "stderr"]
    assert {line["child"] for line in lines} == {1}
    assert [line["message"] for line in lines[:50]] == [str(n) for n in range(1, 51)]
    left_out = running.lines("more lines than --child-log-rate")
    assert {(line["level"], line["fields"]["child"]) for line in left_out} == {("WARN", 1)}
    assert len(lines) + sum(line["fields"]["lines"] for line in left_out) == FLOOD + 1
    assert len(left_out) < 20, "it is told now and then"
    name = "proxyrunner_left_out_log_lines_total"
    (last,) = [metric for metric in receiver.store.items[-1].metrics if metric.name == name]
    assert last.sum.data_points[0].as_int == sum(line["fields"]["lines"] for line in left_out)


def test_all_lines_of_a_child_are_logged_where_that_is_wanted(run):
    running = run("--child-log-rate", "0", command=["sh", "-c", SCRIPT, "sh", *CHILD])
    running.stop()
    lines = [line["fields"]["message"] for line in running.log if line["fields"].get("stream") == "stderr"]
    assert lines[:FLOOD] == [str(n) for n in range(1, FLOOD + 1)]
    assert lines[FLOOD] == "odd �\x1b[31m\x01", "it is one line of JSON all the same"


def test_a_long_line_of_a_child_is_cut(run):
    long = "import sys; print('x' * 100_000, file=sys.stderr)"
    running = run(command=["sh", "-c", f'{sys.executable} -c "{long}"; exec "$@"', "sh", *CHILD])
    running.stop()
    (line,) = [line["fields"]["message"] for line in running.log if line["fields"].get("stream") == "stderr"]
    assert set(line.removesuffix("…")) == {"x"} and line.endswith("…") and len(line) < 20_000
