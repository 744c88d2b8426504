"""A stdio MCP server with the deviations of real servers; each has a flag.

It reads and answers one message at a time. The tool `say` writes lines unchanged, with the id of the call for $ID, and
answers last unless told not to.
"""

import argparse
import json
import os
import sys

from plumbing import await_file, complain, encoded, keep, write

flags = argparse.ArgumentParser()
flags.add_argument("--ids", choices=["string", "float"], help="return ids and progress tokens in this type")
flags.add_argument("--nulls", action="store_true", help="write every member of a message, null where it has none")
flags.add_argument("--answer-notifications", type=int, help="answer each notification with this error")
flags.add_argument("--id-member", action="store_true", help="with \"id\":null rather than without")
flags.add_argument("--strict", action="store_true", help="refuse requests before notifications/initialized")
flags.add_argument("--only", help="speak this revision only; refuse others with an error that lists it")
flags.add_argument("--exit-over-revision", action="store_true", help="exit over another revision than --only")
flags.add_argument("--exit-after-refusal", action="store_true", help="exit once a revision or the lock was refused by an error")
flags.add_argument("--terse", action="store_true", help="list no revision in that error")
flags.add_argument("--lock", help="exit unless this directory can be made, and remove it at the end")
flags.add_argument("--first-line", help="write this line first")
flags.add_argument("--headers", action="store_true", help="frame messages by Content-Length")
flags.add_argument("--indent", action="store_true", help="write messages over several lines")
flags.add_argument("--flood", type=int, help="write so many lines of text first")
flags.add_argument("--refuse-discover", action="store_true", help="answer server/discover by an error, and nothing else")
flags.add_argument("--nan", action="store_true", help="answer initialize with NaN, which is no JSON")
flags.add_argument("--hold", help="answer the first notification's error once this file exists")
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags = flags.parse_args()

initialized = False


def spelled(wire_id):
    if isinstance(wire_id, int):
        return {"string": str(wire_id), "float": float(wire_id)}.get(flags.ids, wire_id)
    return wire_id


def line(message):
    if flags.nulls:
        message = {"id": None, "method": None, "params": None, "result": None, "error": None, **message}
    text = json.dumps(message, indent=2 if flags.indent else None).encode()
    write(b"Content-Length: %d\r\n\r\n%s" % (len(text), text) if flags.headers else text + b"\n")


def result(wire_id, value):
    line({"jsonrpc": "2.0", "id": spelled(wire_id), "result": value})


def error(wire_id, code, message, **more):
    line({"jsonrpc": "2.0", "id": spelled(wire_id), "error": {"code": code, "message": message, **more}})


def initialize(wire_id, params):
    asked = params["protocolVersion"]
    if flags.only and asked != flags.only:
        if flags.exit_over_revision:
            complain("unknown revision")
            sys.exit(4)
        if flags.terse:
            return error(wire_id, -32602, "Unsupported protocol version")
        data = {"supported": ["1999-01-01", flags.only], "requested": asked}
        error(wire_id, -32602, "Unsupported protocol version", data=data)
        return sys.exit(1) if flags.exit_after_refusal else None
    capabilities = {"tools": {}}
    info = {"name": "habits", "version": float("nan") if flags.nan else "1"}
    result(wire_id, {"protocolVersion": asked, "capabilities": capabilities, "serverInfo": info})


def call(wire_id, params):
    args = params.get("arguments", {})
    if "progress" in args:
        token = spelled(params["_meta"]["progressToken"])
        line({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    for text in args.get("lines", []):
        write(encoded(text.replace("$ID", str(wire_id))) + b"\n")
    if args.get("answer", True):
        result(wire_id, {"pid": os.getpid(), "initialized": initialized})


def notified(method):
    global initialized
    initialized |= method == "notifications/initialized"
    if flags.answer_notifications:
        if flags.hold:
            await_file(flags.hold)
        fault = {"code": flags.answer_notifications, "message": "no such request"}
        line({"jsonrpc": "2.0", **({"id": None} if flags.id_member else {}), "error": fault})


def receive(message):
    method, wire_id, params = message.get("method"), message.get("id"), message.get("params", {})
    if wire_id is None:
        notified(method)
    elif method == "initialize":
        if not flags.refuse_discover:
            initialize(wire_id, params)
    elif method == "server/discover":
        error(wire_id, -32601, "no such method")
    elif flags.strict and not initialized:
        error(wire_id, -32600, "not initialized")
    elif method == "tools/call":
        call(wire_id, params)
    else:
        result(wire_id, {"tools": []} if method == "tools/list" else {})


def main():
    if flags.lock:
        try:
            os.mkdir(flags.lock)
        except FileExistsError:
            complain("another instance is running")
            if flags.exit_after_refusal:
                error(json.loads(sys.stdin.readline())["id"], -32000, "another instance is running")
            sys.exit(1)
    if flags.first_line:
        write(flags.first_line.encode() + b"\n")
    for n in range(flags.flood or 0):
        write(b"noise %d\n" % n)
    for raw in os.fdopen(0, "rb", buffering=1 << 16):
        keep(flags.journal, raw.rstrip(b"\n"))
        receive(json.loads(raw))
    if flags.lock:
        os.rmdir(flags.lock)


main()
