"""Whatever belongs to one principal is, for every other, as if it did not exist: the answer is that for an unknown id."""

from __future__ import annotations

import http.client
import json
from typing import Any, Callable, Iterator

import pytest

from caller import JSON, LEGACY, Answer, Caller, bearer, events
from issuers import Issuer
from running import MODERN, PAGED, SCRIPTED, Running, trusting
from tokens import Key

UNKNOWN = "f" * 32


@pytest.fixture(scope="module")
def second(keys: dict[str, Key]) -> Iterator[Issuer]:
    """An issuer that has an alice, too."""
    with Issuer(keys["ES256"]) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def legacy(issuer: Issuer, second: Issuer) -> Iterator[Running]:
    with Running("--sse", *trusting(issuer, second), command=SCRIPTED) as running:
        yield running


@pytest.fixture(scope="module")
def modern(issuer: Issuer, second: Issuer) -> Iterator[Running]:
    with Running(*trusting(issuer, second), command=MODERN) as running:
        yield running


@pytest.fixture
def strangers(issuer: Issuer, second: Issuer) -> dict[str, tuple[str, str]]:
    return {
        "another subject": bearer(issuer.token(sub="mallory")),
        "the same subject of another issuer": bearer(second.token(sub="alice")),
        "a subject of another case": bearer(issuer.token(sub="Alice")),
        "the owner as its own client": bearer(issuer.token(sub="test-client")),
    }


@pytest.fixture
def same(issuer: Issuer) -> dict[str, tuple[str, str]]:
    """Other tokens of the owner."""
    return {
        "a newer token": bearer(issuer.token(sub="alice")),
        "a token for another client": bearer(issuer.token(sub="alice", client_id="other")),
        "a token with more scopes": bearer(issuer.token(sub="alice", scope="mcp:read mcp:write more")),
    }


def alike(answer: Answer, unknown: Answer, *ids: str) -> bool:
    """Whether two answers differ at most in the ids that were asked for."""
    text = [each.body.decode() for each in (answer, unknown)]
    for id in ids:
        text = [each.replace(id, "…") for each in text]
    return answer.status == unknown.status and text[0] == text[1]


def test_a_session(issuer, legacy, strangers, same):
    alice = legacy.caller(bearer(issuer.token(sub="alice")))
    session = alice.open()

    def all_ways(caller: Caller, session: str) -> list[Answer]:
        own = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY)]
        stream = [*own, ("Accept", "text/event-stream")]
        return [
            caller.tell(session, id=5, method="tools/call", params={"name": "echo", "arguments": {}}),
            caller.tell(session, method="notifications/cancelled", params={"requestId": 5}),
            caller.tell(session, id=5, result={}),
            caller.send("GET", headers=stream),
            caller.send("GET", headers=[*stream, ("Last-Event-ID", "1")]),
            caller.send("DELETE", headers=own),
        ]

    for who, token in strangers.items():
        caller = legacy.caller(token)
        for answer, unknown in zip(all_ways(caller, session), all_ways(caller, UNKNOWN), strict=True):
            assert answer.status == 404, who
            assert alike(answer, unknown, session, UNKNOWN), who
    for who, token in same.items():
        assert legacy.caller(token).tell(session, id=6, method="ping").status == 200, who
    assert alice.tell(session, id=7, method="ping").status == 200


class Stream:
    """An event stream that stays open."""

    def __init__(self, caller: Caller, session: str, last: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", caller.port, timeout=60)
        headers = dict([*caller.headers, ("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY)])
        headers |= {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        self.connection.request("GET", "/mcp", headers=headers)
        self.response = self.connection.getresponse()

    def messages(self) -> Iterator[dict[str, Any]]:
        for line in iter(self.response.readline, b""):
            if line.startswith(b"data: ") and line.strip() != b"data:":
                yield json.loads(line[6:])


def test_events_of_a_stream(issuer, legacy, strangers):
    """Nobody else can have them sent again, not even with a session and an event of the same name."""
    alice = legacy.caller(bearer(issuer.token(sub="alice")))
    session = alice.open()
    id = progress(alice, session, "alices")
    assert first(Stream(alice, session, id))["params"]["progressToken"] == "alices"
    for who, token in strangers.items():
        stranger = legacy.caller(token)
        own = stranger.open()
        foreign, unknown = (Stream(stranger, own, each) for each in (id, "9-9"))
        assert (foreign.response.status, foreign.response.read()) == (unknown.response.status, unknown.response.read())
        assert foreign.response.status == 400, who
        assert progress(stranger, own, "own") == id
        assert first(Stream(stranger, own, id))["params"]["progressToken"] == "own", who


def progress(caller: Caller, session: str, token: str) -> str:
    """Makes a call that reports progress; the id of its first event."""
    params = {"name": "progress", "arguments": {"n": 3}, "_meta": {"progressToken": token}}
    shown = caller.tell(session, id=2, method="tools/call", params=params).body.decode()
    assert token in shown
    return next(line[3:].strip() for line in shown.splitlines() if line.startswith("id:"))


def first(stream: Stream) -> dict[str, Any]:
    """The first message."""
    assert stream.response.status == 200
    message = next(stream.messages())
    stream.connection.close()
    return message


def test_the_older_transport(issuer, legacy, strangers):
    token = bearer(issuer.token(sub="alice"))
    connection = http.client.HTTPConnection("127.0.0.1", legacy.port, timeout=60)
    connection.request("GET", "/sse", headers={"Accept": "text/event-stream", **dict([token])})
    opened = connection.getresponse()
    path = "/" + next(line[6:].strip().decode() for line in iter(opened.readline, b"") if line.startswith(b"data: "))
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    session = path.partition("=")[2]
    for who, foreign in strangers.items():
        stranger = legacy.caller(foreign)
        answer, unknown = (stranger.send("POST", f"/messages?sessionId={id}", JSON, ping) for id in (session, UNKNOWN))
        assert answer.status == 404 and alike(answer, unknown, session, UNKNOWN), who
    assert legacy.caller().send("POST", path, JSON, ping).status == 401
    assert legacy.caller(token).send("POST", path, JSON, ping).status == 202
    connection.close()


def test_a_parked_call(issuer, legacy, strangers, same):
    """A call that asks its client something is continued by its `requestState`."""
    question = {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {"type": "object", "properties": {}}}}
    call = {"name": "interview", "arguments": {"rounds": [[question]]}}
    alice = legacy.caller(bearer(issuer.token(sub="alice")))

    def park() -> tuple[str, dict[str, Any]]:
        (asked,) = [each["result"] for each in events(alice.ask("tools/call", call)) if "result" in each]
        assert asked["resultType"] == "input_required", asked
        answers = {key: {"action": "accept", "content": {}} for key in asked["inputRequests"]}
        return asked["requestState"], answers

    def go_on(caller: Caller, state: str, answers: dict[str, Any]) -> Answer:
        return caller.ask("tools/call", {**call, "requestState": state, "inputResponses": answers})

    state, answers = park()
    for who, token in strangers.items():
        stranger = legacy.caller(token)
        answer, unknown = (go_on(stranger, each, answers) for each in (state, "A" * len(state)))
        assert "error" in answer.json and alike(answer, unknown), (who, answer.body)
    (done,) = [each for each in events(go_on(alice, state, answers)) if "result" in each]
    assert done["result"]["heard"] == [{"action": "accept", "content": {}}]
    state, answers = park()
    (done,) = [each for each in events(go_on(legacy.caller(same["a newer token"]), state, answers)) if "id" in each]
    assert "result" in done, "the owner's next token continues it"


def test_a_task(issuer, modern, strangers, same):
    created = '{"jsonrpc": "2.0", "id": $ID, "result": {"resultType": "task", "taskId": "alices", "status": "working"}}'
    alice = modern.caller(bearer(issuer.token(sub="alice")))
    assert alice.ask("tools/call", {"name": "raw", "arguments": {"line": created}}).json["result"]["taskId"] == "alices"
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        for who, token in strangers.items():
            stranger = modern.caller(token)
            answer, unknown = (stranger.ask(method, {"taskId": id}) for id in ("alices", "nobodys"))
            assert "error" in answer.json and alike(answer, unknown, "alices", "nobodys"), (who, method)
        for who, token in same.items():
            assert "result" in modern.caller(token).ask(method, {"taskId": "alices"}).json, (who, method)


def test_a_subscription(issuer, modern, strangers):
    created = '{"jsonrpc": "2.0", "id": $ID, "result": {"resultType": "task", "taskId": "watched", "status": "working"}}'
    alice = modern.caller(bearer(issuer.token(sub="alice")))
    assert "result" in alice.ask("tools/call", {"name": "raw", "arguments": {"line": created}}).json
    for who, token in strangers.items():
        stranger = modern.caller(token)
        answer, unknown = (
            stranger.ask("subscriptions/listen", {"notifications": {"taskIds": [id]}}) for id in ("watched", "nobodys")
        )
        assert "error" in answer.json and alike(answer, unknown, "watched", "nobodys"), who


@pytest.mark.parametrize("era", [[], ["--modern"]], ids=["legacy", "modern"])
def test_a_cursor(issuer, second, strangers, same, era):
    """The server's cursors are the same for everybody, but each caller's are its own, in all of its sessions."""
    with Running(*trusting(issuer, second), command=[*PAGED, *era]) as paged:
        alice = paged.caller(bearer(issuer.token(sub="alice")))
        cursor = alice.ask("tools/list").json["result"]["nextCursor"]
        assert "page" not in cursor

        def both(caller: Caller, cursor: str) -> list[Answer]:
            params = {"cursor": cursor}
            return [caller.ask("tools/list", params), caller.tell(caller.open(), id=1, method="tools/list", params=params)]

        for who, token in strangers.items():
            stranger = paged.caller(token)
            for answer, unknown in zip(both(stranger, cursor), both(stranger, "A" * len(cursor)), strict=True):
                assert answer.json["error"]["code"] == -32602 and alike(answer, unknown), (who, answer.body)
        for who, token in same.items():
            for answer in both(paged.caller(token), cursor):
                assert [tool["name"] for tool in answer.json["result"]["tools"]] == ["two"], (who, answer.body)


def test_an_owners_session_ends_for_a_token_that_ends(issuer, legacy):
    """A session is no credential: its messages need a token that is valid now."""
    session = legacy.caller(bearer(issuer.token(sub="alice"))).open()
    expired = legacy.caller(bearer(issuer.token(sub="alice", exp=1)))
    narrowed = legacy.caller(bearer(issuer.token(sub="alice", scope="mcp:read")))
    assert expired.tell(session, id=2, method="ping").refusal == (401, "invalid_token")
    assert narrowed.tell(session, id=2, method="ping").refusal == (403, "insufficient_scope")
