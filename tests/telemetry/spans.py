"""A span as a receiver stored it, whichever receiver that was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2


@dataclass(frozen=True)
class Span:
    name: str
    kind: int
    trace: str
    id: str
    parent: str  # empty of a root
    flags: int
    state: str  # tracestate
    begin: int  # Unix nanoseconds
    end: int
    attributes: dict[str, str]
    links: list[tuple[str, str]]  # trace and span
    status: int
    error: str  # what the status says

    @property
    def says(self) -> str:
        """Everything in it that somebody else may have put there."""
        return repr(self)


def of_json(span: dict) -> Span:
    """One as oteltap prints it: OTLP's JSON, with an unset status as null."""
    status = span["status"] or {}
    return Span(
        name=span["name"],
        kind=span["kind"],
        trace=span["traceId"],
        id=span["spanId"],
        parent=span["parentSpanId"],
        flags=span["flags"],
        state=span["traceState"],
        begin=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes={each["key"]: str(*each["value"].values()) for each in span["attributes"]},
        links=[(link["traceId"], link["spanId"]) for link in span["links"]],
        status=status.get("code", 0),
        error=status.get("message", ""),
    )


def of_message(span: object) -> Span:
    """One as OpenTelemetry's own classes for OTLP have it."""
    return Span(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        flags=span.flags,
        state=span.trace_state,
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=attributes_of(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        status=span.status.code,
        error=span.status.message,
    )


def attributes_of(pairs: Iterable) -> dict[str, str]:
    """The values as texts, whatever they are."""
    return {pair.key: str(getattr(pair.value, pair.value.WhichOneof("value"))) for pair in pairs}


def named(spans: Iterable[Span], name: str, **wanted: object) -> Span:
    """The one of this name, and with these properties."""
    found = [s for s in spans if s.name == name and all(getattr(s, key) == value for key, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} spans {name!r} with {wanted} among {sorted({s.name for s in spans})}"
    return found[0]


def below(spans: Iterable[Span], parent: Span) -> list[Span]:
    """Its children, oldest first."""
    return sorted((s for s in spans if (s.trace, s.parent) == (parent.trace, parent.id)), key=lambda s: s.begin)


def traceparent(text: str) -> tuple[str, str, int]:
    """Its trace, its span and its flags."""
    version, trace, span, flags = text.split("-")
    assert version == "00"
    return trace, span, int(flags, 16)
