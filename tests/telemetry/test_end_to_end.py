"""One trace from a stock client through proxyrunner into a stock server, as a stock collector stored it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

import draw
import end_to_end
import spans
from end_to_end import Seen
from spans import CLIENT, ERROR, INTERNAL, SERVER, Span, below

REVISIONS = {"auto": "2026-07-28", "legacy": "2025-11-25"}


@pytest.fixture(scope="module")
def seen() -> Seen:
    return end_to_end.observe()


@pytest.fixture(params=end_to_end.MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def way(seen: Seen, mode: str, method: str) -> list[Span]:
    """The spans of one request: the client's, proxyrunner's two, the server's."""
    trace = seen.trace(mode)
    sent = spans.named(trace, f"MCP send {method}", kind=CLIENT)
    served = spans.named(below(trace, sent), method, kind=SERVER)
    asked = spans.named(below(trace, served), method, kind=CLIENT)
    answered = spans.named(below(trace, asked), method, kind=SERVER)
    return [sent, served, asked, answered]


@pytest.mark.parametrize("method", ["tools/list", "tools/call forecast", "tools/call fails"])
def test_each_request_is_one_chain(seen, mode, method):
    chain = way(seen, mode, method)
    for above, inner in zip(chain, chain[1:]):
        assert above.begin <= inner.begin <= inner.end <= above.end, (above, inner)


def test_the_innermost_span_is_that_of_the_tool(seen, mode):
    answered = way(seen, mode, "tools/call forecast")[-1]
    (inner,) = below(seen.spans, answered)
    assert (inner.name, inner.kind) == ("look up", INTERNAL)


def test_a_call_says_what_it_is_about(seen, mode):
    _, served, asked, answered = way(seen, mode, "tools/call forecast")
    both = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "forecast",
        "mcp.protocol.version": REVISIONS[mode],
    }
    client = {key: served.attributes[key] for key in ("jsonrpc.request.id", "client.port")}
    session = {"mcp.session.id": served.attributes["mcp.session.id"]} if mode == "legacy" else {}
    assert served.attributes == both | client | session | {
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
    }
    assert asked.attributes == both | {
        "network.transport": "pipe",
        "proxyrunner.child.number": asked.attributes["proxyrunner.child.number"],
        # The child has an id of its own for it.
        "jsonrpc.request.id": answered.attributes["jsonrpc.request.id"],
    }
    for span in (served, asked):
        assert (span.status, span.error) == (0, "")


def test_the_client_knows_its_call_by_the_same_id(seen, mode):
    sent, served, *_ = way(seen, mode, "tools/call forecast")
    assert served.attributes["jsonrpc.request.id"] == sent.attributes["jsonrpc.request.id"]


def test_a_session_is_told_by_a_digest(seen, mode):
    told = {span.attributes.get("mcp.session.id") for span in seen.trace(mode)} - {None}
    if mode == "legacy":
        (digest,) = told
        assert re.fullmatch(r"[0-9a-f]{6}…", digest)
    else:
        assert told == set(), "2026-07-28 has none"


def test_a_failed_tool_is_an_error_all_the_way(seen, mode):
    _, *inner = way(seen, mode, "tools/call fails")
    for span in inner:
        assert (span.status, span.attributes["error.type"]) == (ERROR, "tool_error"), span
        assert "rpc.response.status_code" not in span.attributes, "it is no error of JSON-RPC"


def test_each_request_is_linked_to_its_http_span(seen, mode):
    for method in ("tools/list", "tools/call forecast", "tools/call fails"):
        served = way(seen, mode, method)[1]
        ((trace, id),) = served.links
        http = spans.named(seen.spans, "POST /mcp", trace=trace, id=id)
        assert trace != served.trace, "the client's HTTP library is not instrumented"
        assert (http.kind, http.parent, http.status) == (SERVER, "", 0)
        assert http.begin <= served.begin and served.end <= http.end
        assert http.attributes["http.request.method"] == "POST"
        assert http.attributes["http.response.status_code"] == "200"
        assert http.attributes["http.route"] == http.attributes["url.path"] == "/mcp"
        assert http.attributes["client.port"] == served.attributes["client.port"]


def test_whose_parent_is_elsewhere_says_so(seen, mode):
    _, served, asked, _ = way(seen, mode, "tools/call forecast")
    known, remote, sampled, random = 0x100, 0x200, 1, 2
    assert served.flags & ~random == known | remote | sampled
    assert asked.flags & ~random == known | sampled


def test_a_child_starts_in_spans(seen):
    first, later = (
        sorted((span for span in seen.spans if span.name == name), key=lambda span: span.begin)
        for name in ("child.start", "child.handshake")
    )
    assert len(first) == len(later) == 2
    for start, handshake in zip(first, later):
        assert (start.kind, handshake.kind) == (INTERNAL, INTERNAL)
        assert (handshake.trace, handshake.parent) == (start.trace, start.id)
        assert [span.name for span in below(seen.spans, handshake)] in (["server/discover"], ["initialize"])
    assert [start.attributes["proxyrunner.child.era"] for start in first] == ["modern", "legacy"]
    assert first[0].parent == "", "it was started before anybody asked"
    cause = spans.named(seen.trace("legacy"), "initialize", id=first[1].parent)
    assert cause.kind == SERVER, "the one of a session is started because of its client"


def test_a_handshake_is_one_trace_too(seen):
    cause = spans.named(seen.trace("legacy"), "child.handshake")
    (asked,) = below(seen.spans, cause)
    (answered,) = below(seen.spans, asked)
    assert (answered.name, answered.kind) == ("initialize", SERVER)


def test_the_access_log_has_a_line_of_each_message_in_its_span(seen, mode):
    lines = [line for line in seen.log if line["fields"]["message"] == "access"]
    for method in ("tools/list", "tools/call forecast", "tools/call fails"):
        served = way(seen, mode, method)[1]
        (line,) = [line for line in lines if line.get("span_id") == served.id]
        assert line["trace_id"] == served.trace
        assert f"{line['fields']['method']} {line['fields'].get('target', '')}".strip() == method
        assert line["fields"].get("error") == ("tool_error" if method.endswith("fails") else None)


def test_log_records_are_in_the_same_span(seen, mode):
    served = way(seen, mode, "tools/call forecast")[1]
    (record,) = [each for each in seen.records if each["spanId"] == served.id]
    assert (record["traceId"], record["body"]) == (served.trace, {"stringValue": "access"})


def test_the_picture_shows_each_span(seen, mode):
    """What draw.py makes of it is a picture that anything can read, and the same each time."""
    root = spans.named(seen.spans, f"ask, {mode}")
    drawn = draw.draw(seen.spans, root)
    assert drawn == draw.draw(seen.spans, root)
    groups = ElementTree.fromstring(drawn).findall("{http://www.w3.org/2000/svg}g")
    trace = seen.trace(mode)
    assert len(groups) == len(trace) + sum(len(span.links) for span in trace)
