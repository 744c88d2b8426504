"""Collectors for tests: stock ones as they are, and one that misbehaves on demand."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from oteltest.sink import GrpcSink
from oteltest.sink.handler import RequestHandler

import spans
from spans import Span

PATIENCE = 60  # seconds for what is on its way; no assertion, only the end of a hang
SPANS = "opentelemetry.proto.collector.trace.v1.TraceService"
PATHS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stopped:
    """Something that is stopped at the end of a `with`."""

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Store:
    """What was received so far, and whoever waits for more."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    @property
    def items(self) -> list[Any]:
        with self._changed:
            return list(self._items)

    def wait(self, found: Callable[[list[Any]], Any], what: str) -> Any:
        """Waits until `found` finds something in all that was received, and gives it."""
        with self._changed:
            if not self._changed.wait_for(lambda: found(self._items), PATIENCE):
                raise AssertionError(f"not received within {PATIENCE} s: {what}")
            return found(self._items)


class Tap(Stopped):
    """A stock oteltap, over HTTP; it prints each span, metric and log record that it stores."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.store = Store()
        program = Path(sys.executable).with_name("oteltap")
        self.process = subprocess.Popen(
            [program, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._listens(port)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _listens(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.process.kill()
                    raise
                time.sleep(0.05)

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith(b"{"):
                self.store.put(json.loads(line))

    @staticmethod
    def spans_of(items: list[dict]) -> list[Span]:
        return [spans.of_json(item) for item in items if "parentSpanId" in item]

    @property
    def spans(self) -> list[Span]:
        return self.spans_of(self.store.items)

    @property
    def records(self) -> list[dict]:
        """Log records, in OTLP's JSON."""
        return [item for item in self.store.items if "body" in item]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@dataclass(frozen=True)
class Export:
    """One request to a collector."""

    headers: dict[str, str]  # names in lower case
    message: Any  # of OpenTelemetry's own classes

    @property
    def resources(self) -> list[dict[str, str]]:
        return [spans.attributes_of(each.resource.attributes) for each in self._of_resources()]

    def _of_resources(self) -> list[Any]:
        return [each for field, value in self.message.ListFields() for each in value]

    def _leaves(self, kind: type, scopes: str, leaves: str) -> list[Any]:
        if not isinstance(self.message, kind):
            return []
        found = (scope for each in self._of_resources() for scope in getattr(each, scopes))
        return [leaf for scope in found for leaf in getattr(scope, leaves)]

    @property
    def spans(self) -> list[Span]:
        leaves = self._leaves(ExportTraceServiceRequest, "scope_spans", "spans")
        return [spans.of_message(leaf) for leaf in leaves]

    @property
    def metrics(self) -> list[Any]:
        return self._leaves(ExportMetricsServiceRequest, "scope_metrics", "metrics")

    @property
    def records(self) -> list[Any]:
        return self._leaves(ExportLogsServiceRequest, "scope_logs", "log_records")


class Exports(Stopped):
    """What a receiver of this process has stored."""

    def __init__(self) -> None:
        self.store = Store()

    @property
    def spans(self) -> list[Span]:
        return self.spans_of(self.store.items)

    @staticmethod
    def spans_of(exports: list[Export]) -> list[Span]:
        """Each once: who sends by OTLP may send again what it does not know to have arrived."""
        return list({span.id: span for export in exports for span in export.spans}.values())

    def wait_for_spans(self, found: Callable[[list[Span]], Any], what: str) -> Any:
        return self.store.wait(lambda exports: found(self.spans_of(exports)), what)


class Sink(Exports, RequestHandler):
    """The sink of oteltest, over gRPC: what its command `otelsink` runs, but on a port of its own."""

    def __init__(self, port: int | None = None) -> None:
        super().__init__()
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._sink = GrpcSink(self, logging.getLogger("sink"), port=port)
        self._sink.start()

    def handle(self, request: Any, headers: dict[str, str]) -> None:
        self.store.put(Export(headers, request))

    handle_trace = handle_metrics = handle_logs = handle

    def stop(self) -> None:
        self._sink.stop()


class Refusing(Stopped):
    """A collector over gRPC that answers with an error, as long as it is to."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code: grpc.StatusCode | None = code
        self.store = Store()  # of the requests' bytes
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{port}"
        methods = {"Export": grpc.unary_unary_rpc_method_handler(self._take)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SPANS, methods),))
        self._server.start()

    def _take(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.store.put(request)
        if self.code:
            context.abort(self.code, "not now")
        return b""

    def stop(self) -> None:
        self._server.stop(grace=None).wait()


@dataclass(frozen=True)
class Answer:
    """What a collector answers."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    hangs: bool = False  # until the receiver is stopped


class Receiver(Exports):
    """A collector over HTTP that answers as it is told."""

    def __init__(self, answer: Answer = Answer(), port: int = 0) -> None:
        super().__init__()
        self.answer = answer
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        # Whoever ends in the middle of a request leaves it cut, which is no news.
        self._server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805: the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.answer
                receiver.store.put(Export(headers, PATHS[self.path].FromString(body)))
                if answer.hangs:
                    receiver._stopped.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
