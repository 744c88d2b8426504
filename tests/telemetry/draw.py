"""Draws docs/trace.svg: one trace from a stock client into a stock server, as a stock collector stored it.

    tests/.venv-telemetry/bin/python tests/telemetry/draw.py [FILE]

What is long or short differs from one run to the other; what is drawn where does not.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "interop"))  # as pytest.ini does

import end_to_end  # noqa: E402: the path is set above
from proxyrunner import ROOT  # noqa: E402
from spans import ERROR, Span, below, named  # noqa: E402

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 960, 320, 84, 88, 24, 12
KINDS = {1: "internal", 2: "server", 3: "client"}
OWNERS = {"agent": "the client", "proxyrunner": "proxyrunner", "weather": "the server, its child"}
STYLE = """
  svg { background: #fff; font: 12px system-ui, sans-serif }
  text { fill: #24292f } .dim { fill: #57606a } .bold { font-weight: 600; font-size: 15px }
  .line { stroke: #d0d7de } .agent { fill: #0969da } .proxyrunner { fill: #bc4c00 } .weather { fill: #1a7f37 }
  .linked { fill: none; stroke: #bc4c00; stroke-width: 1.5; stroke-dasharray: 4 3 }
  .error { fill: none; stroke: #cf222e; stroke-width: 2 } .failed { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117 } text { fill: #e6edf3 } .dim { fill: #9198a1 } .line { stroke: #3d444d }
    .agent { fill: #4493f8 } .proxyrunner { fill: #f0883e } .weather { fill: #3fb950 } .linked { stroke: #f0883e }
    .error { stroke: #ff7b72 } .failed { fill: #ff7b72 }
  }
"""
ALT = (
    "The client's span holds four requests: server/discover, tools/list, a call of the tool forecast, and one of the "
    "tool fails. Each request is a client span of the client; below it a server span and a client span of proxyrunner, "
    "and below those a server span of the child. The HTTP request of each is linked. The call of fails is an error in "
    "all spans of proxyrunner and of the child."
)


def rows(spans: list[Span], span: Span, depth: int = 0) -> list[tuple[Span, int, bool]]:
    """The spans from this one down, each with its depth, and whether it is but linked; a linked one comes first."""
    linked = [other for link in span.links for other in spans if (other.trace, other.id) == link]
    found = [*((other, depth, True) for other in linked), (span, depth, False)]
    for inner in below(spans, span):
        found += rows(spans, inner, depth + 1)
    return found


def owner(span: Span, above: Span | None) -> str:
    """Whose it is: proxyrunner's tell of a network, the child's are below those, and the rest is the client's."""
    if "network.transport" in span.attributes or "http.route" in span.attributes:
        return "proxyrunner"
    return "weather" if above and "network.transport" in above.attributes or span.name == "look up" else "agent"


def draw(spans: list[Span], root: Span) -> str:
    listed = rows(spans, root)
    by_id = {span.id: span for span in spans}
    height = TOP + ROW * len(listed) + 40
    scale = (WIDTH - LEFT - RIGHT) / (root.end - root.begin)
    x = lambda at: LEFT + (at - root.begin) * scale  # noqa: E731: it is used like a function of mathematics

    lines = [text(20, 30, "One trace, from a client through proxyrunner into its child", "bold")]
    lines += legend()
    lines += axis((root.end - root.begin) / 1e6, height)
    for number, (span, depth, linked) in enumerate(listed):
        y = TOP + ROW * number
        whose = owner(span, by_id.get(span.parent))
        role = "linked" if linked else KINDS[span.kind]
        begin, width = x(span.begin), max((span.end - span.begin) * scale, 2)
        about = "\n".join(f"{key}: {value}" for key, value in sorted(span.attributes.items()))
        lines += [
            f"<g><title>{escape(f'{span.name}, {role}')}\n{escape(about)}</title>",
            text(20 + 14 * depth, y + BAR, span.name, "failed" if span.status == ERROR else ""),
            text(LEFT - 14, y + BAR, role, "dim", "end"),
            box(begin, y + 1, width, "linked" if linked else whose),
            *([box(begin, y + 1, width, "error")] if span.status == ERROR else []),
            text(begin + width + 6, y + BAR, f"{(span.end - span.begin) / 1e6:.2f} ms", "dim"),
            "</g>",
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            'role="img" aria-labelledby="title desc">',
            '<title id="title">One trace, from a client through proxyrunner into its child</title>',
            f'<desc id="desc">{escape(ALT)}</desc>',
            f"<style>{STYLE}</style>",
            *lines,
            "</svg>\n",
        ]
    )


def legend() -> list[str]:
    drawn = []
    for number, (whose, said) in enumerate([*OWNERS.items(), ("linked", "linked, in a trace of its own")]):
        left = 20 + 170 * number
        drawn += [box(left, 46, 16, whose), text(left + 24, 46 + BAR - 1, said, "dim")]
    return [*drawn, box(20 + 170 * 4 + 60, 46, 16, "error"), text(20 + 170 * 4 + 84, 46 + BAR - 1, "error", "dim")]


def axis(millis: float, height: int) -> list[str]:
    """A line for each step, of which there are at most ten."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000) if millis / step <= 10)
    drawn = []
    for n in range(int(millis / step) + 1):
        at = LEFT + n * step / millis * (WIDTH - LEFT - RIGHT)
        drawn.append(f'<path class="line" d="M{at:.1f} {TOP - 8}V{height - 32}"/>')
        drawn.append(text(at, height - 14, f"{n * step} ms", "dim", "middle"))
    return drawn


def box(x: float, y: float, width: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "trace.svg"
    seen = end_to_end.observe()
    file.write_text(draw(seen.spans, named(seen.spans, "ask, auto")))


if __name__ == "__main__":
    main()
