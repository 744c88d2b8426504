"""Spans, metrics and log records reach stock collectors, by either protocol, with what the operator says of them."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain

import pytest

from receivers import Export, Exports, Receiver, Sink, Tap
from spans import SERVER

SAID = {
    "OTEL_SERVICE_NAME": "weather",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=test%20bed,team=blue",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue,authorization=Bearer%20hunter2-secret",
    "OTEL_LOGS_EXPORTER": "otlp",
}


def by_signal(exports: list[Export]) -> dict[str, list[Export]]:
    """The exports of each signal, oldest first."""
    names = ("spans", "metrics", "records")
    return {name: found for name in names if (found := [export for export in exports if getattr(export, name)])}


@pytest.fixture(params=["http", "http, gzip", "grpc", "grpc, gzip"])
def way(request):
    return request.param


@pytest.fixture
def exported(way, run, started: ExitStack):
    """The exports of each signal of one call, and the proxyrunner that made them."""
    receiver: Exports = started.enter_context(Sink() if way.startswith("grpc") else Receiver())
    protocol = "grpc" if way.startswith("grpc") else "http/protobuf"
    compression = "gzip" if way.endswith("gzip") else "none"
    chosen = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
    running = run("--access-log", env={**SAID, **chosen, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
    running.wire.call("echo")
    running.stop()
    return by_signal(receiver.store.items), running


def test_every_signal_arrives_with_its_resource_and_headers(way, exported):
    found, running = exported
    assert found.keys() == {"spans", "metrics", "records"}
    for export in chain.from_iterable(found.values()):
        (resource,) = export.resources
        assert resource["service.name"] == "weather", "OTEL_SERVICE_NAME comes first"
        assert resource["deployment.environment.name"] == "test bed"
        assert resource["team"] == "blue"
        assert resource["process.pid"] == str(running.proxyrunner.process.pid)
        assert {"service.version", "service.instance.id", "telemetry.sdk.name"} <= resource.keys()
        assert export.headers["x-tenant"] == "blue"
        assert export.headers["authorization"] == "Bearer hunter2-secret"
        assert export.headers["user-agent"].startswith("proxyrunner/")
        if way.startswith("http"):
            assert export.headers["content-type"] == "application/x-protobuf"
            assert export.headers.get("content-encoding") == ("gzip" if way.endswith("gzip") else None)
    assert "secret" not in running.proxyrunner.log.read_text()


def test_what_arrives_is_what_happened(exported):
    found, running = exported
    spans = Exports.spans_of(found["spans"])
    (called,) = [span for span in spans if span.name == "tools/call echo" and span.kind == SERVER]
    records = [record for export in found["records"] for record in export.records]
    told = {(each.trace_id.hex(), each.body.string_value) for each in records if each.span_id.hex() == called.id}
    assert told == {(called.trace, "access")}
    # They are summed up, so that the last export says all.
    metrics = {metric.name: metric for metric in found["metrics"][-1].metrics}
    duration = metrics["mcp.server.operation.duration"]
    assert (duration.unit, list(duration.histogram.data_points[0].explicit_bounds)[:3]) == ("s", [0.01, 0.02, 0.05])
    points = duration.histogram.data_points
    assert [point.count for point in points if "tools/call" in str(point.attributes)] == [1]
    (exemplar,) = [e for point in points if "tools/call" in str(point.attributes) for e in point.exemplars]
    assert exemplar.span_id.hex() == called.id


def test_a_stock_collector_over_http_stores_every_signal(run, started: ExitStack):
    """What a test's own collector reads, a stock one reads too, compressed or not."""
    tap = started.enter_context(Tap())
    running = run(env={**SAID, "OTEL_EXPORTER_OTLP_ENDPOINT": tap.url})
    running.wire.call("echo")
    running.stop()
    tap.store.wait(lambda items: any(item.get("name") == "tools/call echo" for item in items), "the call's span")
    tap.store.wait(lambda items: any(item.get("name") == "proxyrunner_ready" for item in items), "a metric")
    tap.store.wait(lambda items: any("body" in item for item in items), "a log record")


def test_nothing_is_exported_unless_asked_for(run, receive):
    receiver = receive()
    env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    running = run(env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **env})
    running.wire.call("echo")
    running.stop()
    assert receiver.store.items == []


def test_each_signal_may_have_its_own_collector(run, receive):
    spans, metrics, logs = receive(), receive(), receive()
    running = run(
        env={
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{spans.url}/v1/traces",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{metrics.url}/v1/metrics",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{logs.url}/v1/logs",
        }
    )
    running.wire.call("echo")
    running.stop()
    for receiver, name in ((spans, "spans"), (metrics, "metrics"), (logs, "records")):
        assert by_signal(receiver.store.items).keys() == {name}


def test_the_export_of_log_records_makes_none(run, receive):
    receiver = receive()
    logs = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{receiver.url}/v1/logs"}
    running = run("--log-level", "debug", env=logs)
    running.wire.call("echo")
    running.stop()
    records = [record.body.string_value for export in receiver.store.items for record in export.records]
    assert "listening" in records
    assert not [record for record in records if "idle connection" in record]
