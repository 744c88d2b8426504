"""`proxyrunner probe call` exports whether a golden path works, and how long it takes."""

import os
import subprocess

import pytest
from proxyrunner import binary
from receivers import Answer, Receiver, Sink


def call(running, tool: str, **env: str) -> subprocess.CompletedProcess:
    url = f"http://127.0.0.1:{running.proxyrunner.port}/mcp"
    words = [binary(), "probe", "call", tool, "--url", url]
    return subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, timeout=30)


def points(receiver) -> dict[str, tuple[float, str]]:
    """Each metric's only value, and its tool."""
    found = {}
    for export in receiver.store.items:
        for metric in export.metrics:
            (point,) = metric.gauge.data_points
            (tool,) = (pair.value.string_value for pair in point.attributes if pair.key == "tool")
            found[metric.name] = (point.as_int if point.WhichOneof("value") == "as_int" else point.as_double, tool)
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_call_exports_its_success_and_its_duration(run, started, protocol):
    running = run()
    for tool, code, success in (("echo", 0, 1), ("no-such-tool", 1, 0)):
        receiver = Sink() if protocol == "grpc" else Receiver()
        started.callback(receiver.stop)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        done = call(running, tool, **env, OTEL_SERVICE_NAME="golden")
        assert done.returncode == code, done
        found = points(receiver)
        assert found["mcp.golden_path.success"] == (success, tool)
        duration, of = found["mcp.golden_path.duration"]
        assert 0 < duration < 30 and of == tool
        assert receiver.store.items[0].resources[0]["service.name"] == "golden"


def test_the_exit_code_tells_about_the_tool_and_not_about_the_collector(run, receive):
    running = run()
    receiver = receive(Answer(status=400))
    done = call(running, "echo", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.returncode == 0, done
    assert "the metrics are not exported" in done.stderr and "400" in done.stderr, done
