"""Trace context as clients bring it, well-formed or not: what spans and the child make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import pytest

from receivers import Receiver
from running import Running
from spans import CLIENT, SERVER, Span, traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OTHER_TRACE, OTHER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = f"00-{OTHER_TRACE}-{OTHER_SPAN}-01"


@dataclass(frozen=True)
class Heard:
    """What came of one call."""

    meta: dict[str, Any]  # what the child was given
    http: Span
    served: Span
    asked: Span


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def running(receiver: Receiver) -> Iterator[Running]:
    with Running("--allow-baggage", "tier", env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as running:
        yield running


@pytest.fixture
def hear(running: Running, receiver: Receiver):
    """Makes a call, and finds its spans by the one that the child was told of."""

    def hear(**more: Any) -> Heard:
        meta = running.wire.heard(**more)
        _, id, _ = traceparent(meta["traceparent"])

        def found(received: list[Span]) -> Heard | None:
            by_id = {span.id: span for span in received}
            asked = by_id.get(id)
            served = asked and by_id.get(asked.parent)
            related = {served.parent, *(link for _, link in served.links)} if served else set()
            http = next((by_id[each] for each in related if each in by_id), None)
            return Heard(meta, http, served, asked) if http else None

        return receiver.wait_for_spans(found, f"the spans of {meta}")

    return hear


def is_one_trace(heard: Heard) -> bool:
    """Whether the child's context is that of the span of its request, below the message's."""
    trace, id, flags = traceparent(heard.meta["traceparent"])
    return (
        (trace, id) == (heard.asked.trace, heard.asked.id)
        and heard.asked.flags & 0xFF == flags
        and (heard.asked.trace, heard.asked.parent) == (heard.served.trace, heard.served.id)
        and [heard.http.kind, heard.served.kind, heard.asked.kind] == [SERVER, SERVER, CLIENT]
    )


def is_below_http(heard: Heard) -> bool:
    """Whether the message brought no context of its own."""
    return (heard.served.trace, heard.served.parent, heard.served.links) == (heard.http.trace, heard.http.id, [])


def test_without_any_context_the_http_request_is_the_root(hear):
    heard = hear()
    assert is_one_trace(heard) and is_below_http(heard)
    assert heard.http.parent == ""
    assert traceparent(heard.meta["traceparent"])[2] & 1, "it is recorded"
    assert heard.meta.keys() == {"traceparent"}


def test_a_header_is_the_parent_of_the_http_request(hear):
    heard = hear(headers={"traceparent": PARENT, "tracestate": "rojo=1,congo=2"})
    assert is_one_trace(heard) and is_below_http(heard)
    assert (heard.http.trace, heard.http.parent) == (TRACE, SPAN)
    assert heard.meta["tracestate"] == "rojo=1,congo=2"
    assert {heard.http.state, heard.served.state, heard.asked.state} == {"rojo=1,congo=2"}


def test_a_message_has_its_own_parent_and_a_link(hear):
    heard = hear(meta={"traceparent": PARENT, "tracestate": "rojo=1"})
    assert is_one_trace(heard)
    assert (heard.served.trace, heard.served.parent) == (TRACE, SPAN)
    assert heard.served.links == [(heard.http.trace, heard.http.id)]
    assert heard.http.parent == "" and heard.http.trace != TRACE
    assert heard.meta["tracestate"] == "rojo=1"
    assert (heard.http.state, heard.served.state, heard.asked.state) == ("", "rojo=1", "rojo=1")


def test_a_message_comes_before_its_header(hear):
    both = {"traceparent": PARENT}, {"traceparent": OTHER, "tracestate": "other=1"}
    heard = hear(meta=both[0], headers=both[1])
    assert is_one_trace(heard)
    assert (heard.served.trace, heard.served.parent) == (TRACE, SPAN)
    assert (heard.http.trace, heard.http.parent) == (OTHER_TRACE, OTHER_SPAN)
    assert heard.served.links == [(heard.http.trace, heard.http.id)]
    assert "tracestate" not in heard.meta, "the header's belongs to another trace"


def test_a_later_version_is_read_and_answered_in_ours(hear):
    heard = hear(meta={"traceparent": f"cc{PARENT[2:]}-what-ever"})
    assert is_one_trace(heard)
    assert (heard.served.trace, heard.served.parent) == (TRACE, SPAN)


MALFORMED = {
    "version ff": f"ff{PARENT[2:]}",
    "a trace of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a span of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "upper case": PARENT.upper(),
    "too long": f"{PARENT}-{'x' * 10_000}",
    "a later version, too long": f"cc{PARENT[2:]}-{'x' * 10_000}",
    "too short": PARENT[:-1],
    "not hexadecimal": PARENT.replace("4b", "zz"),
    "two": f"{PARENT},{OTHER}",
    "empty": "",
    "another format": f"{TRACE}-{SPAN}-1",
    "an injection": f'{PARENT}"}},"x":{{"y":"',
}
NO_STRINGS = {"a number": 1, "null": None, "an object": {"traceparent": PARENT}, "an array": [PARENT], "a flag": True}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_ignored(hear, value):
    heard = hear(headers={"traceparent": value, "tracestate": "a=1"})
    assert is_one_trace(heard) and is_below_http(heard)
    assert heard.http.parent == "" and heard.http.trace != TRACE
    assert heard.meta.keys() == {"traceparent"}, "without a parent, its state means nothing"


@pytest.mark.parametrize("value", [*MALFORMED.values(), *NO_STRINGS.values()], ids=[*MALFORMED, *NO_STRINGS])
def test_a_malformed_message_is_a_child_of_its_http_request(hear, value):
    heard = hear(meta={"traceparent": value, "tracestate": "a=1"})
    assert is_one_trace(heard) and is_below_http(heard)
    assert heard.http.parent == "" and heard.http.trace != TRACE
    assert heard.meta.keys() == {"traceparent"}, "what was malformed is replaced, and its state goes with it"


STATES = {
    "10 KB": ",".join(f"k{n}=v" for n in range(1_400)),
    "one of 10 KB": f"k={'v' * 10_000}",
    "33 members": ",".join(f"k{n}=v" for n in range(33)),
    "a key twice": "a=1,a=2",
    "no member": "secret",
    "a key in upper case": "A=1",
}


@pytest.mark.parametrize("value", [*STATES.values(), 7, {"a": 1}], ids=[*STATES, "a number", "an object"])
def test_malformed_state_is_left_out(hear, value):
    heard = hear(meta={"traceparent": PARENT, "tracestate": value})
    assert is_one_trace(heard)
    assert (heard.served.trace, heard.served.parent) == (TRACE, SPAN), "its parent counts all the same"
    assert heard.meta.keys() == {"traceparent"}
    assert (heard.served.state, heard.asked.state) == ("", "")
    if isinstance(value, str):
        heard = hear(headers={"traceparent": PARENT, "tracestate": value})
        assert heard.meta.keys() == {"traceparent"} and heard.http.state == ""


BAGGAGE = "tier=gold,password=hunter2-secret,user=alice-secret;note=p-secret"


@pytest.mark.parametrize("place", ["meta", "headers"])
def test_of_baggage_only_what_is_allowed_passes(hear, place):
    heard = hear(**{place: {"traceparent": PARENT, "baggage": BAGGAGE}})
    assert heard.meta["baggage"] == "tier=gold"
    assert "secret" not in heard.http.says + heard.served.says + heard.asked.says


@pytest.mark.parametrize("place", ["meta", "headers"])
def test_baggage_that_is_not_allowed_leaves_nothing(hear, place):
    heard = hear(**{place: {"baggage": "password=hunter2-secret"}})
    assert heard.meta.keys() == {"traceparent"}
    assert "secret" not in heard.http.says + heard.served.says + heard.asked.says


@pytest.mark.parametrize("value", ["secret", f"tier={'x' * 9_000}", 'tier="a"'])
def test_malformed_baggage_in_a_header_is_left_out(hear, value):
    assert "baggage" not in hear(headers={"baggage": value}).meta


@pytest.mark.parametrize(
    "value",
    [
        "password=secret,",
        'password="secret"',
        f"password={'x' * 9_000}",
        ",".join(f"password{n}=secret" for n in range(65)),
        ["password=secret"],
        {"password": "secret"},
    ],
    ids=["a comma more", "quotes", "9 KB", "65 members", "an array", "an object"],
)
def test_malformed_baggage_in_a_message_is_left_out(hear, value):
    assert "baggage" not in hear(meta={"baggage": value}).meta


def test_baggage_that_is_said_twice_is_left_out(hear):
    heard = hear(more=', "baggage": "tier=gold", "baggage": "password=secret"')
    assert "secret" not in str(heard.meta)


def test_a_context_that_is_said_twice_is_none(hear):
    heard = hear(more=f', "traceparent": "{PARENT}", "traceparent": "{OTHER}"')
    assert is_one_trace(heard) and is_below_http(heard)


def test_a_parent_that_is_not_recorded_is_passed_on(running, receiver, hear):
    meta = running.wire.heard(meta={"traceparent": f"{PARENT[:-2]}00"})
    trace, id, flags = traceparent(meta["traceparent"])
    assert (trace, flags) == (TRACE, 0)
    assert id != SPAN, "the child's request is a span of its own"
    hear()  # by now that of the former would have come, too
    assert not [span for span in receiver.spans if span.id == id]


def test_none_of_it_is_in_the_log(running):
    running.stop()
    assert "secret" not in running.proxyrunner.log.read_text()
