"""Collectors that are gone or misbehave: nobody waits for them, it is told once, and what is lost is counted."""

from __future__ import annotations

import socket

import pytest
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from receivers import PATIENCE, Answer, Export, Receiver, Refusing, Sink, free_port
from running import Running
from spans import SERVER

CALLS = 40
SPANS = 3 * CALLS  # of a call: the HTTP request's, the message's, the child's
# No delivery is tried for long, and none holds many.
BOUNDS = {
    "OTEL_BSP_EXPORT_TIMEOUT": "50",
    "OTEL_BLRP_EXPORT_TIMEOUT": "50",
    "OTEL_METRIC_EXPORT_TIMEOUT": "50",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
    "OTEL_LOGS_EXPORTER": "otlp",
}
LOST = {
    "spans": "proxyrunner_dropped_spans_total",
    "log records": "proxyrunner_dropped_log_records_total",
    "metrics": "proxyrunner_failed_metric_exports_total",
}
PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message="one is too many")
).SerializeToString()

GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
PROTOCOLS = ["http/protobuf", "grpc"]
IMPATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "100"}

BAD = {
    "hangs": (Answer(hangs=True), "no response within 0.1 s"),
    "busy": (Answer(429, headers=(("Retry-After", "3600"),)), "the collector answered 429"),
    "broken": (Answer(500), "the collector answered 500"),
    "unavailable": (Answer(503), "the collector answered 503"),
    "elsewhere": (Answer(302, headers=(("Location", "http://127.0.0.1:1/"),)), "the collector answered 302"),
}


def is_lost(wire, name: str, at_least: float) -> None:
    """Waits until so much is counted as lost; each look is a request that is answered."""
    while wire.metric(name) < at_least:
        assert wire.call("echo", {"still": "answered"})["result"]["structuredContent"] == {"still": "answered"}


def call_and_lose(running) -> None:
    """Calls are answered while their telemetry is being lost, and the loss of each signal is counted."""
    for n in range(CALLS):
        assert running.wire.call("echo", {"n": n})["result"]["structuredContent"] == {"n": n}
    is_lost(running.wire, LOST["spans"], SPANS)
    is_lost(running.wire, LOST["log records"], 2)
    is_lost(running.wire, LOST["metrics"], 2)


def told_once(running, why: str) -> None:
    for things in LOST:
        (line,) = running.lines(f"{things} are not delivered")
        assert line["level"] == "WARN" and why in line["fields"]["message"]


@pytest.mark.parametrize("answer, why", BAD.values(), ids=BAD)
def test_nobody_waits_for_a_bad_collector(run, receive, answer, why):
    patience = IMPATIENT if answer.hangs else {}
    running = run(env={**BOUNDS, **patience, "OTEL_EXPORTER_OTLP_ENDPOINT": receive(answer).url})
    call_and_lose(running)
    running.stop()
    told_once(running, why)
    assert running.proxyrunner.exit_code == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_waits_for_a_collector_that_is_gone(run, protocol):
    url = f"http://127.0.0.1:{free_port()}"
    running = run(env={**BOUNDS, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    call_and_lose(running)
    running.stop()
    told_once(running, url)
    assert running.proxyrunner.exit_code == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_is_told_why_a_collector_is_not_reached(run, protocol):
    url = f"http://127.0.0.1:{free_port()}"
    running = run(env={**BOUNDS, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    call_and_lose(running)
    running.stop()
    told_once(running, "refused")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_is_not_there_yet_loses_nothing(run, started, protocol):
    """Its first connection is cut; the next one is taken by the collector itself."""
    with socket.create_server(("127.0.0.1", 0)) as early:
        port = early.getsockname()[1]
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces"}
        running = run(env=env | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
        running.wire.call("echo")
        early.settimeout(PATIENCE)
        early.accept()[0].close()
    receiver = started.enter_context(Sink(port) if protocol == "grpc" else Receiver(port=port))
    # The end has one attempt more.
    running.stop()
    assert {"child.start", "child.handshake", "tools/call echo"} <= {span.name for span in receiver.spans}


def test_grpc_at_a_server_of_http_is_lost(run, receive):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receive().url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    running = run(env=BOUNDS | env)
    call_and_lose(running)
    running.stop()
    told_once(running, env["OTEL_EXPORTER_OTLP_ENDPOINT"])


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.ABORTED])
def test_over_grpc_what_may_succeed_later_is_tried_again(run, started, code):
    refusing = started.enter_context(Refusing(code))
    running = run(env=GRPC | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": refusing.url})
    first, second = refusing.store.wait(lambda requests: len(requests) > 1 and requests[:2], "a second attempt")
    assert first == second
    refusing.code = None
    running.stop()
    assert running.lines("not delivered") == []


@pytest.mark.parametrize("code", [StatusCode.INVALID_ARGUMENT, StatusCode.UNIMPLEMENTED, StatusCode.RESOURCE_EXHAUSTED])
def test_over_grpc_what_would_fail_again_is_lost(run, started, code):
    refusing = started.enter_context(Refusing(code))
    running = run(env=GRPC | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": refusing.url})
    running.wire.call("echo")
    is_lost(running.wire, LOST["spans"], 3)
    sent = refusing.store.items
    assert len(set(sent)) == len(sent), "nothing was sent twice"
    running.stop()
    (line,) = running.lines("spans are not delivered")
    assert "not now" in line["fields"]["message"]


GARBAGE = {
    "bytes": b"\xff" * 100,
    "text": b"<html>",
    "a field of 4 GB": b"\x0a\xff\xff\xff\xff\x0f",
    "much": b"x" * 100_000,
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_a_success_in_other_words_is_one(run, receive, body):
    receiver = receive(Answer(body=body))
    running = run(env={**BOUNDS, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
    running.wire.call("echo")
    receiver.wait_for_spans(lambda spans: [s for s in spans if s.name == "tools/call echo"], "the call's span")
    assert running.wire.metric(LOST["spans"]) == 0
    running.stop()
    assert running.lines("not delivered") == []


def test_what_a_collector_rejects_is_counted_and_told_once(run, receive):
    receiver = receive(Answer(body=PARTIAL))
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"}
    running = run(env=BOUNDS | traces | {"OTEL_LOGS_EXPORTER": "none"})
    is_lost(running.wire, LOST["spans"], 3)
    running.stop()
    (line,) = running.lines("not delivered")
    assert "rejected 1 of the spans" in line["fields"]["message"] and "one is too many" in line["fields"]["message"]


def test_a_collector_that_comes_back_is_told_of(run, receive):
    receiver = receive(Answer(500))
    running = run(env={**BOUNDS, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
    is_lost(running.wire, LOST["spans"], 1)
    receiver.answer = Answer()
    running.wire.call("heard")
    receiver.wait_for_spans(lambda spans: [s for s in spans if s.name == "tools/call heard"], "the call's span")
    running.stop()
    assert len(running.lines("spans are not delivered")) == 1
    assert len(running.lines("delivering spans again")) == 1


def with_call(exports: list[Export]) -> list[Export]:
    return [each for each in exports if any(s.name == "tools/call heard" and s.kind == SERVER for s in each.spans)]


@pytest.fixture
def begun(run, receive) -> tuple[Running, Receiver]:
    """A proxyrunner whose start a good collector has taken, so that nothing is before what a test does next."""
    receiver = receive()
    running = run(env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"})
    receiver.wait_for_spans(lambda spans: [span for span in spans if span.name == "child.start"], "its start")
    return running, receiver


def test_a_collector_that_is_busy_for_a_while_loses_nothing(begun):
    running, receiver = begun
    receiver.answer = Answer(429)
    running.wire.call("heard")
    first, second = receiver.store.wait(lambda e: len(with_call(e)) > 1 and with_call(e)[:2], "a second attempt")
    assert first.message == second.message, "the same again"
    receiver.answer = Answer()
    running.stop()
    assert running.lines("not delivered") == []


def test_a_collector_that_asks_for_no_pause_is_not_pressed(run, receive):
    receiver = receive(Answer(429, headers=(("Retry-After", "0"),)))
    bounds = {"OTEL_BSP_EXPORT_TIMEOUT": "1000"}
    running = run(env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces", **bounds})
    is_lost(running.wire, LOST["spans"], 1)
    attempts = [each for each in receiver.store.items if each.message == receiver.store.items[0].message]
    assert len(attempts) < 20


def test_a_collector_that_asks_for_an_eternity_is_left_alone(begun):
    running, receiver = begun
    receiver.answer = Answer(429, headers=(("Retry-After", str(2**64 - 1)),))
    running.wire.call("heard")
    receiver.store.wait(with_call, "the call's span")
    receiver.answer = Answer()
    running.wire.call("echo")
    running.stop()
    assert [span for span in receiver.spans if span.name == "tools/call echo"]


def test_what_does_not_fit_is_counted(run, receive):
    """Whoever records never waits: behind a delivery that takes forever, the queue is bounded."""
    bounds = {"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16"}
    receiver = receive(Answer(hangs=True))
    running = run(env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces", **bounds})
    for _ in range(CALLS):
        running.wire.call("echo")
    # One batch is on its way, and one waits.
    is_lost(running.wire, LOST["spans"], SPANS - 32)
    assert len(receiver.store.items) == 1
    # Its end does not wait for its collector, which hangs for longer.
    running.stop()
    assert running.proxyrunner.exit_code == 0


def test_what_is_under_way_at_the_end_is_not_sent_again(begun):
    running, receiver = begun
    receiver.answer = Answer(hangs=True)
    running.wire.call("heard")
    receiver.store.wait(with_call, "the call's span")
    running.stop()
    assert len(with_call(receiver.store.items)) == 1
