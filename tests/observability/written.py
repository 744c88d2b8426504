"""What is written in deploy/observability and docs/runbooks, held against each other and against the sources."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
RULES, RULES_TEST = FOLDER / "rules.yml", FOLDER / "rules_test.yml"
CONFIG, DASHBOARD = FOLDER / "prometheus.yml", FOLDER / "dashboard.json"
RUNBOOKS = ROOT / "docs" / "runbooks"

SEVERITIES = {"page", "ticket", "info"}
ROWS = ["Overview", "Per tool", "Gateway health", "Servers of a gateway", "Resources", "Sessions"]
BASE = "https://github.com/OWNER/proxyrunner/blob/main/docs/runbooks/"
# Metrics that Prometheus makes itself.
PROMETHEUS = {"up", "ALERTS"}
# Metrics that `proxyrunner probe call` exports; no scrape has them.
GOLDEN_PATH = {"mcp_golden_path_success", "mcp_golden_path_duration_seconds"}
# Levels that no scrape of this scene has, since their settings are not given.
UNSET = {
    "proxyrunner_tls_certificate_expiry_seconds",
    "proxyrunner_auth_keys_refreshed_time_seconds",
    "proxyrunner_policies_current",
    "proxyrunner_redis_connected",
}
METRIC = re.compile(r"\b(?:mcp|proxyrunner|process|instance|instance_tool)[_:][a-z0-9_:]*[a-z0-9]\b|\bup\b|\bALERTS\b")


@dataclass(frozen=True)
class Query:
    """A query and where it stands."""

    where: str
    expression: str
    exemplars: bool = False


class Board:
    """The dashboard."""

    def __init__(self) -> None:
        self.json = json.loads(DASHBOARD.read_text())
        self.panels = [panel for panel in self.json["panels"] if panel["type"] != "row"]

    def queries(self) -> list[Query]:
        """Every panel's, as they are written."""
        return [
            Query(f"{panel['title']} ({target['refId']})", target["expr"], target.get("exemplar", False))
            for panel in self.panels
            for target in panel["targets"]
        ]

    def variables(self) -> list[tuple[str, str, str]]:
        """A name, the series that it is filled from, and the label."""
        found = []
        for variable in self.json["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
                found.append((variable["name"], series, label))
        return found

    def linked(self) -> set[str]:
        """The runbooks that are linked from a panel."""
        return {link["url"].removeprefix(BASE).removesuffix(".md") for panel in self.panels for link in panel["links"]}


def names(expression: str) -> set[str]:
    """The metrics in a query: what is neither in braces, nor a label that it is grouped by, nor text."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    return set(METRIC.findall(bare))


def selectors(expression: str) -> set[str]:
    """What a query selects by: each metric with what is in its braces, if any."""
    full = r"\b[a-zA-Z_:][\w:]*\{[^{}]*\}"
    return set(re.findall(full, expression)) | names(re.sub(full, "", expression))


def exposed(scrape: str) -> set[str]:
    """The names of the series that an exposition can have, by its families, whether they have samples yet or not."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.M):
        found |= {name + suffix for suffix in ("_bucket", "_count", "_sum")} if kind == "histogram" else {name}
    return found


def unknown_names(rules: list[dict[str, Any]], scrape: str) -> list[str]:
    """Metrics that a rule, a panel or a runbook names and nobody has."""
    known = exposed(scrape) | PROMETHEUS | GOLDEN_PATH | UNSET | {rule["name"] for rule in rules if rule["type"] == "recording"}
    board = Board()
    used = [(rule["name"], rule["query"]) for rule in rules]
    used += [(query.where, query.expression) for query in board.queries()]
    used += [(name, series) for name, series, _ in board.variables()]
    used += [(book.name, query) for book in books() for query in promql(book.read_text())]
    problems = [f"{where}: {name}" for where, query in used for name in sorted(names(query) - known)]
    # In a runbook's words whole families are named, too.
    families = known | {re.sub(r"_(bucket|count|sum)$", "", name) for name in known}
    for book in books():
        words = re.findall(r"`([a-z_:]+)`", re.sub(r"```.*?```", "", book.read_text(), flags=re.S))
        named = {word for word in words if re.match(r"(mcp|proxyrunner|process|instance|instance_tool)[_:]", word)}
        problems += [f"{book.name}: {name}" for name in sorted(named - families)]
    return problems


def books() -> list[Path]:
    """The runbooks, without their list."""
    return sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")


def promql(text: str) -> list[str]:
    """The queries in a runbook: each block is one."""
    return [block.strip() for block in re.findall(r"```promql\n(.*?)```", text, re.S)]


def runbook_problems(alerts: list[dict[str, Any]]) -> list[str]:
    """Alerts without a runbook, runbooks without an alert, and what is not linked."""
    wanted, there = {alert["name"] for alert in alerts}, {book.stem for book in books()}
    problems = [f"{name} has no runbook" for name in sorted(wanted - there)]
    problems += [f"{name}.md is about no alert" for name in sorted(there - wanted)]
    listed = set(re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text()))
    problems += [f"README.md does not list {name}" for name in sorted(wanted - listed)]
    problems += [f"README.md lists {name}, which is not there" for name in sorted(listed - there)]
    linked = Board().linked()
    problems += [f"no panel links to {name}" for name in sorted(wanted - linked)]
    problems += [f"a panel links to {name}, which is not there" for name in sorted(linked - there)]
    for book in books():
        text = book.read_text()
        problems += [f"{book.name} has no part {part!r}" for part in PARTS if f"\n## {part}\n" not in text]
        problems += [f"{book.name} links to {to}" for to in links(text) if not (RUNBOOKS / to).exists()]
    return problems


# Each runbook answers these.
PARTS = ["Meaning", "Diagnosis", "Likely causes", "What to do", "Prevention"]


def links(text: str) -> list[str]:
    """Files that a text links to."""
    return [to for to in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in to]


def alert_problems(alerts: list[dict[str, Any]]) -> list[str]:
    """What an alert does not say that it should."""
    problems = []
    for alert in alerts:
        name, labels, said = alert["name"], alert["labels"], alert["annotations"]
        if labels.get("severity") not in SEVERITIES:
            problems.append(f"{name}: severity {labels.get('severity')}")
        if said.get("runbook_url") != f"{BASE}{name}.md":
            problems.append(f"{name}: runbook_url {said.get('runbook_url')}")
        if said.get("dashboard", "").partition(":")[0] not in ROWS:
            problems.append(f"{name}: dashboard {said.get('dashboard')}")
        if not said.get("summary") or "{{" not in said.get("description", ""):
            problems.append(f"{name}: summary and description")
    return problems


def untested(rules: list[dict[str, Any]]) -> list[str]:
    """Rules without a test, and alerts that are not tested to fire, to rest, and to say what they should."""
    text = RULES_TEST.read_text()
    problems = []
    for rule in rules:
        name = rule["name"]
        if rule["type"] == "recording":
            if not re.search(rf"expr: .*\b{re.escape(name)}\b", text):
                problems.append(f"{name} is not tested")
            continue
        said = re.search(rf"alertname: {name}\n.*\n +exp_alerts:\n +- exp_labels", text)
        moments = re.findall(rf'alertname="{name}".*\n +eval_time: .*\n +exp_samples:(.*)', text)
        if not said or "" not in moments or (" []" not in moments and name != "ProxyrunnerDown"):
            problems.append(f"{name} is not tested to fire, to rest, and to say what it should")
    return problems


def client_errors() -> list[str]:
    """What is the client's own doing must be the same everywhere."""
    text = RULES.read_text() + DASHBOARD.read_text().replace('\\"', '"')
    found = set(re.findall(r'error_type!?~"(cancelled[^"]*)"', text))
    return [] if len(found) == 1 else sorted(found)


def dashboard_problems() -> list[str]:
    """What makes a dashboard hard to read or to use."""
    board = Board()
    problems = list(layout_problems(board.json["panels"]))
    rows = [panel["title"] for panel in board.json["panels"] if panel["type"] == "row"]
    if rows != ROWS:
        problems.append(f"its rows are {rows}")
    titles = [panel["title"] for panel in board.panels]
    problems += [f"{title}: two of that name" for title in sorted(set(titles)) if titles.count(title) > 1]
    for panel in board.panels:
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        overridden = [one["id"] for override in panel["fieldConfig"]["overrides"] for one in override["properties"]]
        units = [defaults.get("unit"), panel["options"].get("yAxis", {}).get("unit"), "unit" in overridden]
        if not any(units):
            problems.append(f"{title}: no unit")
        if panel["datasource"]["uid"] != "${datasource}":
            problems.append(f"{title}: a data source of its own")
        for target in panel["targets"]:
            if panel["type"] in ("timeseries", "heatmap") and not target["legendFormat"]:
                problems.append(f"{title}: no legend")
            if "$instance" not in target["expr"] and "ALERTS" not in target["expr"]:
                problems.append(f"{title}: not of the chosen instance")
            # Of sessions and of a gateway's servers there are no traces, and a multiple of a latency is none.
            latency = panel["type"] == "timeseries" and defaults.get("unit") == "s" and "_bucket" in target["expr"]
            traced = not re.search("session|gateway_latency", target["expr"])
            if latency and traced and not target.get("exemplar"):
                problems.append(f"{title}: no exemplars")
    return problems


def layout_problems(panels: list[dict[str, Any]]) -> Iterator[str]:
    """Panels that lie on another, or have its number."""
    taken: dict[tuple[int, int], str] = {}
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have one id"
    for panel in panels:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if x >= 24 or taken.setdefault((x, y), panel["title"]) != panel["title"]:
                    yield f"{panel['title']} lies on {taken.get((x, y), 'the edge')}"
                    return


def untrue(sources: Path = ROOT / "src") -> list[str]:
    """Log lines that proxyrunner never writes, flags that it does not have: in runbooks, by its sources."""
    source = "\n".join(path.read_text() for path in sources.rglob("*.rs"))
    # Long texts are wrapped in the sources.
    source = re.sub(r"\\\n\s*", "", source)
    flags = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs" / "settings.md").read_text()))
    problems = []
    for path in [*books(), RUNBOOKS / "README.md", RULES]:
        text = path.read_text()
        lines = [line for block in re.findall(r"```log\n(.*?)```", text, re.S) for line in block.splitlines()]
        for line in lines:
            # What differs from line to line is written as …
            parts = [part.strip() for part in line.split("…") if part.strip()]
            problems += [f"{path.name}: nobody logs {part!r}" for part in parts if part not in source]
        own = re.sub(r"```sh\n.*?```", "", text, flags=re.S)
        problems += [f"{path.name}: no flag {flag}" for flag in sorted(set(re.findall(r"(?<![\w-])--[a-z-]+[a-z]", own)) - flags)]
    return problems
