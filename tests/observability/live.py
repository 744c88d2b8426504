"""A real proxyrunner that sees traffic, and a real Prometheus that scrapes it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))

import traffic
from prometheus import Prometheus, QueryError
from proxyrunner import Gateway, Proxyrunner
from written import GOLDEN_PATH, RULES, UNSET, Board, Query, selectors

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3  # a counter must grow between two scrapes
PATIENCE = 60  # seconds, for Prometheus to have seen what was done
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

# Every span, log record and export of metrics is lost, as with a collector that is not there.
NO_COLLECTOR = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "OTEL_LOGS_EXPORTER": "otlp",
    # In milliseconds: it is told soon, and given up soon.
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    **{f"OTEL_{kind}_EXPORT_TIMEOUT": "1000" for kind in ("BSP", "BLRP", "METRIC")},
    **{f"OTEL_{kind}_SCHEDULE_DELAY": "500" for kind in ("BSP", "BLRP")},
}
# Nothing listens at port 1: neither a gateway nor a registry.
UNREGISTERED = ["--register", "http://127.0.0.1:1"]
SERIAL = ["--max-child-in-flight", "1", "--restart-limit", "100", "--restart-backoff", "50ms"]


@dataclass
class Scene:
    """What runs."""

    prometheus: Prometheus
    good: Proxyrunner
    bad: Proxyrunner
    gateway: Gateway

    @property
    def all(self) -> tuple[Proxyrunner, ...]:
        return self.good, self.bad, self.gateway

    @property
    def instances(self) -> str:
        return "|".join(re.escape(it.address) for it in self.all)

    def scrape(self, it: Proxyrunner, accept: str = "text/plain") -> str:
        """What an instance says of itself at this moment."""
        request = urllib.request.Request(f"http://{it.address}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=traffic.ANSWER) as response:
            return response.read().decode()


@contextlib.contextmanager
def scene(prometheus: str) -> Iterator[Scene]:
    """Two proxyrunners, in front of a server that works and of one that fails, and a gateway, after three rounds of traffic that
    Prometheus has seen."""
    good = [sys.executable, str(ROOT / "examples" / "server.py")]
    bad = [sys.executable, str(ROOT / "tests" / "observability" / "failing.py")]
    with (
        Proxyrunner("observability-good", good) as first,
        Proxyrunner("observability-bad", bad, *SERIAL, *UNREGISTERED, env=NO_COLLECTOR) as second,
        Gateway("observability-gateway", gateway_servers(good, first.url), *UNREGISTERED) as third,
        Prometheus(prometheus, RULES, [first.address, second.address, third.address]) as server,
    ):
        it = Scene(server, first, second, third)
        working = 'proxyrunner_gateway_replicas{server="works",state="healthy"} 1'
        assert until(lambda: working in it.scrape(third)), "the gateway does not start its server"
        await_scrape(it)
        for _ in range(ROUNDS):
            traffic.good(first.url)
            traffic.bad(second.url)
            traffic.passed(third.url_of("works"), third.url_of("dead"))
            await_scrape(it)
        yield it


def gateway_servers(command: list[str], url: str) -> dict[str, dict[str, Any]]:
    """A server that works, one without a replica that does, and one with a replica of two. Nothing listens at port 1."""
    dead = "http://127.0.0.1:1/mcp"
    return {
        "works": {"command": command[0], "args": command[1:]},
        "dead": {"url": dead},
        "half": {"urls": [url, dead]},
    }


def await_scrape(it: Scene) -> None:
    """Waits until everything until now has been scraped, from all."""
    now = time.time()

    def seen() -> bool:
        found = it.prometheus.query("timestamp(up) and up == 1")
        return len(found) == len(it.all) and all(stamp > now for _, stamp in found)

    assert until(seen), "Prometheus does not scrape"


def until(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def substituted(it: Scene, expression: str, tool: str = ".+") -> str:
    """A panel's query as Grafana sends it."""
    values = {
        "$__rate_interval": "1m",
        "$__interval": "15s",
        "$__range": "1h",
        "$job": "proxyrunner",
        # In a string of PromQL a backslash is written twice.
        "$instance": it.instances.replace("\\", "\\\\"),
        "$tool": tool,
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def without_data(it: Scene, queries: list[Query]) -> dict[str, str]:
    """Why each of these gives nothing, though there is time for it to come."""
    problems: dict[str, str] = {}

    def ask() -> bool:
        problems.clear()
        for query in queries:
            try:
                found = it.prometheus.query(query.expression)
            except QueryError as error:
                problems[query.where] = str(error)
                continue
            if not any(math.isfinite(value) for _, value in found):
                problems[query.where] = f"{'no number' if found else 'no data'}: {query.expression}"
        return not problems

    until(ask, PATIENCE / 2)
    return problems


def empty_selectors(it: Scene, rules: list[dict[str, Any]]) -> list[str]:
    """Parts of queries that select nothing, beside others that do: `or` would hide a label that is not there."""
    asked = {one: rule["name"] for rule in rules for one in selectors(rule["query"]) - GOLDEN_PATH}
    asked |= {one: query.where for query in panels(it) for one in selectors(query.expression)}
    asked = {one: where for one, where in asked.items() if one.partition("{")[0] not in UNSET}
    found = without_data(it, [Query(f"{where}: {one}", f"count({one})") for one, where in asked.items()])
    return list(found)


def badly_exposed(it: Scene, promtool: str) -> list[str]:
    """What promtool has to say of the names, the units and the helps of metrics."""
    problems = []
    for one in it.all:
        words = [promtool, "check", "metrics"]
        done = subprocess.run(words, input=it.scrape(one), capture_output=True, text=True, timeout=60)
        problems += (done.stdout + done.stderr).splitlines() or [str(done.returncode)] * (done.returncode != 0)
    return problems


def panels(it: Scene) -> list[Query]:
    """The dashboard's queries, of all tools."""
    return [Query(q.where, substituted(it, q.expression), q.exemplars) for q in Board().queries()]


def wrong_variables(it: Scene) -> list[str]:
    """The dashboard's variables whose choices are not what they should be."""
    instances = {one.address for one in it.all}
    known = {"_OTHER", "echo", "add", "now", "countdown", "refuse", "broken", "odd", "slow", "garbage", "die"}
    wanted = {"job": {"proxyrunner"}, "instance": instances, "tool": known}
    problems = []
    for name, series, label in Board().variables():
        found = {labels.get(label) for labels, _ in it.prometheus.query(substituted(it, series))}
        if found != wanted[name]:
            problems.append(f"${name}: {sorted(map(str, found))}, not {sorted(wanted[name])}")
    return problems


def miscounted(it: Scene) -> list[str]:
    """Numbers that are not those of what was done, though there is time for what was left undone to end."""
    echoes, failures = traffic.ECHOES * ROUNDS, traffic.FAILURES * 2 * ROUNDS
    unknown, slow = traffic.UNKNOWN * 2 * ROUNDS, traffic.SLOW * 2 * ROUNDS
    good, bad, gateway = (f'instance="{one.address}"' for one in it.all)
    passed = traffic.PASSED * ROUNDS
    wanted = {
        f'proxyrunner_gateway_requests_total{{{gateway},server="works",result="ok"}}': passed,
        f'sum(proxyrunner_gateway_requests_total{{{gateway},server="works"}})': passed,
        f'sum(proxyrunner_gateway_requests_total{{{gateway},server="dead",result=~"no_replica|unreachable"}})': passed,
        f'proxyrunner_gateway_latency_seconds_count{{{gateway},server="works"}}': passed,
        f'sum(proxyrunner_gateway_latency_seconds_count{{{gateway},server="dead"}})': 0,
        f'sum(proxyrunner_gateway_replicas{{{gateway},server="dead",state="unready"}})': 1,
        f'sum(proxyrunner_gateway_replicas{{{gateway},server="half",state="healthy"}})': 1,
        f'sum(proxyrunner_gateway_replicas{{{gateway},server="half"}})': 2,
        f'sum(mcp_tool_requests_total{{{good},tool="echo"}})': echoes,
        f'sum(mcp_tool_duration_seconds_count{{{good},tool="echo"}})': echoes,
        f'sum(mcp_tool_errors_total{{{good},tool="add",error_type="tool_error"}})': failures,
        # Whatever names clients make up, they are counted under one.
        f'sum(mcp_tool_requests_total{{{good},tool="_OTHER"}})': unknown,
        f'sum(mcp_tool_errors_total{{{good},tool="_OTHER",error_type="-32602"}})': unknown,
        f"count(mcp_tool_requests_total{{{good}}})": 5,
        # Two eras leave: in the older one, that cancels nothing.
        f'sum(mcp_tool_errors_total{{{good},tool="countdown",error_type="cancelled"}})': ROUNDS,
        f'sum(mcp_tool_requests_total{{{good},tool="countdown"}})': 3 * ROUNDS,
        f'sum(mcp_discovery_requests_total{{{good},method="initialize"}})': 3 * ROUNDS,
        # Once it is asked in the era that does not have it.
        f'sum(mcp_discovery_requests_total{{{good},method="server/discover"}})': 2 * ROUNDS,
        f'sum(mcp_discovery_failures_total{{{good},method="server/discover",error_type="-32601"}})': ROUNDS,
        f'sum(mcp_discovery_requests_total{{{good},method="tools/list"}})': 2 * ROUNDS,
        f"sum(mcp_discovery_failures_total{{{good}}})": ROUNDS,
        f"mcp_active_sessions{{{good}}}": ROUNDS,
        f"mcp_active_sessions{{{bad}}}": 0,
        f"mcp_session_duration_seconds_count{{{good}}}": 2 * ROUNDS,
        f'mcp_server_session_duration_seconds_count{{{good},mcp_protocol_version="{traffic.OLDER}"}}': ROUNDS,
        f'sum(mcp_tool_duration_seconds_bucket{{{bad},tool="slow",le="+Inf"}})': slow,
        # None of them is done sooner than it may.
        f'sum(mcp_tool_duration_seconds_bucket{{{bad},tool="slow",le="0.05"}})': 0,
        f"proxyrunner_queue_duration_seconds_count{{{bad}}} == bool proxyrunner_queued_requests_total": 1,
        f'sum(mcp_tool_errors_total{{{bad},tool="broken",error_type="-32603"}})': failures,
        f'sum(mcp_tool_errors_total{{{bad},tool="odd",error_type="_OTHER"}})': failures,
        f'sum(mcp_tool_errors_total{{{bad},tool="die",error_type="-32603"}})': ROUNDS,
        f'sum(mcp_discovery_failures_total{{{bad},method="resources/list",error_type="-32603"}})': failures,
        f"sum(proxyrunner_restarted_children_total{{{bad}}})": ROUNDS,
        f"sum(proxyrunner_malformed_frames_total{{{bad}}})": 2 * ROUNDS,
    }

    def wrong() -> list[str]:
        found = {query: it.prometheus.query(query) for query in wanted}
        values = {query: [value for _, value in samples] for query, samples in found.items()}
        return [f"{query} is {values[query]}, not {number}" for query, number in wanted.items() if values[query] != [number]]

    until(lambda: not wrong(), PATIENCE / 4)
    return wrong()


def silent_alerts(it: Scene) -> list[str]:
    """Alerts that should have noticed what happened, and have not: what waits for minutes is `pending`."""
    good, bad = it.good.address, it.bad.address
    wanted = {
        # A child ended in each round.
        ("ProxyrunnerChildRestarted", bad, None): "firing",
        # There is no collector.
        ("ProxyrunnerTelemetryLost", bad, "spans"): "pending",
        ("ProxyrunnerTelemetryLost", bad, "log records"): "pending",
        ("ProxyrunnerTelemetryLost", bad, "metric exports"): "pending",
        # Most of its calls fail.
        ("McpToolErrorBudgetFastBurn", bad, None): "pending",
        # A few requests of a few hundred fail, by a tool's words.
        ("McpErrorRateHigh", good, None): "pending",
        # Nothing but made-up names.
        ("McpClientMistakes", good, None): "pending",
        # It never gives its list of resources.
        ("McpDiscoverySuccessLow", bad, None): "pending",
        ("McpDiscoveryDown", bad, None): "pending",
        # One server without a healthy replica, and one with one of two.
        ("ProxyrunnerGatewayServerDown", it.gateway.address, None): "pending",
        ("ProxyrunnerGatewayErrorsHigh", it.gateway.address, None): "pending",
        ("ProxyrunnerGatewayReplicaDown", it.gateway.address, None): "pending",
        ("ProxyrunnerNotRegistered", bad, None): "pending",
        ("ProxyrunnerRegistryStale", it.gateway.address, None): "pending",
    }

    def missing() -> list[str]:
        alerts = it.prometheus.ask("alerts")["alerts"]
        states = {
            tuple(one["labels"].get(label) for label in ("alertname", "instance", "signal")): one["state"] for one in alerts
        }
        return [
            f"{alert} is {states.get(alert, 'inactive')}, not {state}"
            for alert, state in wanted.items()
            if states.get(alert) != state
        ]

    until(lambda: not missing(), PATIENCE / 2)
    return missing()


def wrong_alerts(it: Scene) -> list[str]:
    """Alerts that fire, or are about to, though nothing of the kind has happened."""
    never = {"ProxyrunnerDown", "ProxyrunnerAbsent", "ProxyrunnerNotReady", "ProxyrunnerCrashLoop"}
    never |= {"ProxyrunnerShedding", "ProxyrunnerInFlightHigh", "ProxyrunnerBufferedBytesHigh", "ProxyrunnerChildrenAtCap"}
    never |= {"ProxyrunnerGatewayEjecting", "ProxyrunnerGatewayRetrying"}

    def fired() -> list[str]:
        return sorted(never & {one["labels"]["alertname"] for one in it.prometheus.ask("alerts")["alerts"]})

    # A scrape may come too late on a loaded machine.
    until(lambda: not fired(), PATIENCE / 4)
    return fired()


def target_down(it: Scene) -> list[str]:
    """What is said of an instance that is gone; it is gone then."""
    it.good.stop()

    def noticed() -> bool:
        alerts = it.prometheus.ask("alerts")["alerts"]
        down = [one["labels"]["instance"] for one in alerts if one["labels"]["alertname"] == "ProxyrunnerDown"]
        return down == [it.good.address]

    return [] if until(noticed) else ["ProxyrunnerDown has not noticed"]


def without_exemplars(it: Scene) -> list[str]:
    """Panels that should show traces and do not."""
    if " # {" not in it.scrape(it.bad, OPENMETRICS):
        return ["/metrics has no exemplars"]
    now = time.time()

    def missing() -> list[str]:
        problems = []
        for query in (query for query in panels(it) if query.exemplars):
            found = it.prometheus.ask("query_exemplars", query=query.expression, start=now - 600, end=time.time() + 60)
            traces = [one["labels"].get("trace_id", "") for series in found for one in series["exemplars"]]
            if not traces or not all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces):
                problems.append(f"{query.where}: {json.dumps(found)[:200]}")
        return problems

    until(lambda: not missing(), PATIENCE / 2)
    return missing()
