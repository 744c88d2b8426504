#!/usr/bin/env python3
"""Checks deploy/observability and docs/runbooks: by promtool, against each other and the sources, and on a real Prometheus
that scrapes a real proxyrunner.

    tests/observability/check.py            all of it
    tests/observability/check.py --written  promtool's part only, which needs no proxyrunner

`PROXYRUNNER_BIN` names another binary than target/debug/proxyrunner.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import live
import prometheus
import written
from written import Query


class Tally:
    """What passed and failed so far."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, problems: list[str]) -> None:
        """Prints the verdict on one thing, and counts it."""
        print(f"{'FAIL' if problems else 'ok':4}  {name}", flush=True)
        for problem in problems:
            print(f"      {problem}", flush=True)
        self.passed += not problems
        self.failed += bool(problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--written", action="store_true", help="promtool's part only")
    arguments = parser.parse_args()
    tally = Tally()
    try:
        programs = prometheus.install()
    except prometheus.Unavailable as error:
        tally.check("Prometheus is there", [str(error)])
        print(f"{tally.passed} passed, {tally.failed} failed")
        return 1
    check_by_promtool(tally, programs["promtool"])
    tally.check("logs and flags that runbooks name are there", written.untrue())
    tally.check("what is the client's own doing is the same everywhere", written.client_errors())
    tally.check("the dashboard is laid out, with units and legends", written.dashboard_problems())
    if not arguments.written:
        try:
            with live.scene(programs["prometheus"]) as it:
                check_live(tally, it, programs["promtool"])
        except (AssertionError, OSError) as error:
            tally.check("proxyrunner and Prometheus run", [str(error)])
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


def check_by_promtool(tally: Tally, promtool: str) -> None:
    for name, *words in (
        ("promtool check rules", "check", "rules", "--lint-fatal", written.RULES),
        ("promtool test rules", "test", "rules", written.RULES_TEST),
        ("promtool check config", "check", "config", "--lint-fatal", written.CONFIG),
    ):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=300)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        tally.check(name, said if done.returncode != 0 else [])


def check_live(tally: Tally, it: live.Scene, promtool: str) -> None:
    rules: list[dict[str, Any]] = [rule for group in it.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    recorded = [rule for rule in rules if rule["type"] == "recording"]
    assert alerts and recorded, "Prometheus has no rules"
    tally.check("each rule is tested", written.untested(rules))
    tally.check("each alert says what it should", written.alert_problems(alerts))
    tally.check("each alert has its runbook, and each runbook its alert", written.runbook_problems(alerts))
    tally.check("promtool check metrics", live.badly_exposed(it, promtool))
    tally.check("each metric that is named is there", written.unknown_names(rules, it.scrape(it.good)))
    tally.check("what is counted is what was done", live.miscounted(it))
    tally.check("the dashboard's variables", live.wrong_variables(it))

    # A name may be recorded once only, so that it tells them apart.
    asked = [Query(f"rule {rule['name']}", rule["query"]) for rule in recorded]
    asked += [Query(f"recorded {rule['name']}", rule["name"]) for rule in recorded]
    shown = [query for query in live.panels(it) if not any(name in query.expression for name in written.UNSET)]
    asked += [Query(f"panel {query.where}", query.expression) for query in shown]
    problems = live.without_data(it, asked)
    for query in asked:
        tally.check(query.where, [problems[query.where]] if query.where in problems else [])
    tally.check("each part of a query selects something", live.empty_selectors(it, rules))
    check_other_queries(tally, it, alerts)
    tally.check("latency panels show traces", live.without_exemplars(it))
    failing = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    tally.check("each rule is evaluated", failing)
    tally.check("alerts notice what happened", live.silent_alerts(it))
    tally.check("alerts notice nothing that did not", live.wrong_alerts(it))
    tally.check("an instance that is gone is noticed", live.target_down(it))


def check_other_queries(tally: Tally, it: live.Scene, alerts: list[dict[str, Any]]) -> None:
    """Queries that need not give anything: alerts that have no reason to fire, and what a runbook asks in a bad hour."""
    wrong = []
    asked = [(alert["name"], alert["query"]) for alert in alerts]
    asked += [(book.name, query) for book in written.books() for query in written.promql(book.read_text())]
    for where, query in asked:
        try:
            it.prometheus.query(query)
        except prometheus.QueryError as error:
            wrong.append(f"{where}: {error}: {query}")
    tally.check("the queries of alerts and runbooks are valid", wrong)


if __name__ == "__main__":
    sys.exit(main())
