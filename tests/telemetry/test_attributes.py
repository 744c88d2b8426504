"""What spans say of messages of every kind, and of what went wrong with them."""

from __future__ import annotations

from typing import Iterator

import pytest

import spans
from receivers import Receiver
from running import Running
from spans import CLIENT, ERROR, SERVER, Span


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def running(receiver: Receiver) -> Iterator[Running]:
    with Running("--access-log", env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"}) as running:
        running.wire.ask("tools/list")
        yield running


@pytest.fixture
def after(running: Running, receiver: Receiver):
    """The spans of the messages that were sent since the test began."""
    before = {span.id for span in receiver.spans}

    def after(name: str, **wanted: object) -> list[Span]:
        """Both of the one of this name: proxyrunner's as a server, and as a client of its child."""

        def found(received: list[Span]) -> list[Span] | None:
            new = [span for span in received if span.id not in before and span.name == name]
            return new if {span.kind for span in new} >= {SERVER, CLIENT} else None

        new = receiver.wait_for_spans(found, name)
        return [spans.named(new, name, kind=kind) for kind in (SERVER, CLIENT)]

    return after


def test_a_resource_is_named_but_not_in_the_span_s_name(running, after):
    running.wire.ask("resources/read", {"uri": "a:1"}, headers={"Mcp-Name": "a:1"})
    for span in after("resources/read"):
        assert span.attributes["mcp.resource.uri"] == "a:1"
        assert span.status == 0


def test_an_error_of_json_rpc_is_told_by_its_code_and_words(running, after):
    running.wire.call("fail", {"code": -32001})
    for span in after("tools/call fail"):
        assert (span.status, span.error) == (ERROR, "failed")
        assert span.attributes["error.type"] == span.attributes["rpc.response.status_code"] == "-32001"


def test_a_long_error_is_cut(running, after):
    words = "\\u00e9" * 5_000  # as JSON has it
    running.wire.call("raw", {"line": f'{{"jsonrpc":"2.0","id":$ID,"error":{{"code":-1,"message":"{words}"}}}}'})
    for span in after("tools/call raw"):
        assert set(span.error) == {"é"} and len(span.error.encode()) <= 1_024


def test_a_prompt_is_named(running, after):
    running.wire.ask("prompts/get", {"name": "p"})
    for span in after("prompts/get p"):
        assert span.attributes["gen_ai.prompt.name"] == "p"
        assert "gen_ai.operation.name" not in span.attributes


def test_a_refused_message_never_reaches_the_child(running, receiver):
    answer = running.wire.call("echo", headers={"Mcp-Name": "other"})
    wait = lambda found: [span for span in found if span.attributes.get("error.type") == "-32020"]  # noqa: E731
    (span,) = receiver.wait_for_spans(wait, "the refused one")
    assert (span.kind, span.status, span.error) == (SERVER, ERROR, answer["error"]["message"])
    assert not spans.below(receiver.spans, span)


@pytest.mark.parametrize("id, said", [(7, "7"), ("seven", "seven"), ("", ""), (2**53, str(2**53))])
def test_a_request_is_known_by_its_id(running, after, id, said):
    running.wire.call("echo", id=id)
    served, asked = after("tools/call echo")
    assert served.attributes["jsonrpc.request.id"] == said
    assert asked.attributes["jsonrpc.request.id"].isdigit(), "the child has an id of its own for it"


@pytest.mark.parametrize("id", ['"quoted"', "é", "a\\b"])
def test_an_odd_id_is_told_as_it_is(running, after, id):
    running.wire.call("echo", id=id)
    assert after("tools/call echo")[0].attributes["jsonrpc.request.id"] == id


def test_what_another_message_names_is_no_resource(running, after):
    running.wire.ask("acme/extra", {"name": "somebody"})
    for span in after("_OTHER"):
        assert "mcp.resource.uri" not in span.attributes


def test_the_access_log_says_where_a_request_without_a_message_belongs(run, receive):
    receiver = receive()
    running = run("--access-log", env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"})
    running.wire.connection.request("POST", "/mcp", "no json", {"Content-Type": "application/json"})
    running.wire.connection.getresponse().read()
    running.stop()
    span = spans.named(receiver.spans, "POST /mcp")
    (line,) = [line for line in running.lines("access") if line["fields"].get("path") == "/mcp"]
    assert (line.get("trace_id"), line.get("span_id")) == (span.trace, span.id)


def test_tools_are_known_by_name_without_metrics_and_before_any_client_lists_them():
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with Running("--metrics=false", env=env) as running:

            def found(received: list[Span]) -> list[Span]:
                running.wire.call("fail", {"code": -1})
                return [span for span in received if span.name == "tools/call fail"]

            assert receiver.wait_for_spans(found, "a call by its tool's name")
