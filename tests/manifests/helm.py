"""Lints and renders a chart by Helm's own SDK, in an interpreter of its own. Reads requests and prints answers, as JSON.

    helm.py CHART < [{"name": …, "values": {…}}, …]
"""

from __future__ import annotations

import json
import sys

import helm_python


def answer(chart: str, name: str, values: dict[str, object]) -> dict[str, object]:
    """Returns the rendered manifests, or the reason why there are none."""
    try:
        return {"rendered": helm_python.Chart.load(chart).render(values=values, name=name)}
    except Exception as error:  # the SDK's own classes
        return {"refused": str(error)}


def main() -> None:
    chart = sys.argv[1]
    requests = json.load(sys.stdin)
    json.dump([answer(chart, one["name"], one["values"]) for one in requests], sys.stdout, default=str)


if __name__ == "__main__":
    main()
