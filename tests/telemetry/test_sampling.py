"""Which traces are recorded, by OpenTelemetry's variables, and what the child is told of them either way."""

from __future__ import annotations

import pytest

from spans import traceparent

SPAN = "00f067aa0ba902b7"
# By their last 63 bits, a ratio of 0.5 takes the first and leaves the second.
LOW, HIGH = "4bf92f3577b34da60000000000000001", "4bf92f3577b34da6fffffffffffffffe"

CASES = [
    # sampler, argument, trace, its flags (none: without a parent), whether it is recorded
    ("always_on", None, LOW, "00", True),
    ("always_off", None, LOW, "01", False),
    ("always_off", None, None, None, False),
    ("traceidratio", "0", LOW, "01", False),
    ("traceidratio", "0", None, None, False),
    ("traceidratio", "1", HIGH, "00", True),
    ("traceidratio", "0.5", LOW, "00", True),
    ("traceidratio", "0.5", HIGH, "01", False),
    ("parentbased_always_on", None, LOW, "00", False),
    ("parentbased_always_on", None, None, None, True),
    ("parentbased_always_off", None, LOW, "01", True),
    ("parentbased_always_off", None, None, None, False),
    ("parentbased_traceidratio", "0", HIGH, "01", True),
    ("parentbased_traceidratio", "0", None, None, False),
    ("parentbased_traceidratio", "1", LOW, "00", False),
]


@pytest.mark.parametrize("sampler, argument, trace, flags, recorded", CASES)
def test_a_sampler_decides(run, receive, sampler, argument, trace, flags, recorded):
    receiver = receive()
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces", "OTEL_TRACES_SAMPLER": sampler}
    running = run(env=env if argument is None else {**env, "OTEL_TRACES_SAMPLER_ARG": argument})
    parent = {"traceparent": f"00-{trace}-{SPAN}-{flags}"} if trace else {}
    told = traceparent(running.wire.heard(meta=parent, headers=parent)["traceparent"])
    running.stop()
    found = [span for span in receiver.spans if (span.trace, span.id) == told[:2]]
    assert (len(found), told[2] & 1) == (int(recorded), int(recorded)), "the child is told whether it is recorded"
    assert told[1] != SPAN
    if trace:
        assert told[0] == trace, "the trace goes on, recorded or not"
    if not recorded:
        assert not [span for span in receiver.spans if span.trace == told[0]]


PARENT = f"00-{LOW}-{SPAN}-01"
OFF = {"OTEL_SDK_DISABLED": "true"}


@pytest.mark.parametrize("place", ["meta", "headers"])
def test_what_is_disabled_is_passed_through(run, receive, place):
    receiver = receive()
    running = run(env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_LOGS_EXPORTER": "otlp", **OFF})
    heard = running.wire.heard(**{place: {"traceparent": PARENT, "tracestate": "a=1"}})
    assert heard == {"traceparent": PARENT, "tracestate": "a=1"}
    assert running.wire.heard() == {}, "nobody begins a trace"
    running.stop()
    assert receiver.store.items == []


def test_what_is_disabled_is_counted_all_the_same(run):
    running = run(env=OFF)
    running.wire.call("echo")
    assert running.wire.metric("mcp_server_operation_duration_seconds_count") == 1


def test_logs_name_the_clients_trace_where_nothing_is_exported(run):
    running = run("--access-log")
    running.wire.call("echo", meta={"traceparent": PARENT})
    running.stop()
    (line,) = running.lines("access")
    assert (line["trace_id"], line["span_id"]) == (LOW, SPAN)


@pytest.mark.parametrize("propagators", ["none", "baggage"])
def test_without_a_propagator_traces_end_here(run, receive, propagators):
    receiver = receive()
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces", "OTEL_PROPAGATORS": propagators}
    running = run(env=env)
    assert running.wire.heard(headers={"traceparent": PARENT}) == {}
    running.stop()
    (called, *_) = [span for span in receiver.spans if span.name == "tools/call heard"]
    assert called.trace != LOW
