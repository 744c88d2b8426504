"""A stdio MCP server of 2026-07-28 that misbehaves on command; flags add or simulate the legacy era.

Commands are the name and arguments of `tools/call`, or flags if they must take effect before the first call.
"""

import argparse
import json
import os
import threading

from lists import Lists
from plumbing import await_file, complain, encoded, keep, write

META = "io.modelcontextprotocol/"
VERSION = "2026-07-28"

flags = argparse.ArgumentParser()
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags.add_argument("--dual", action="store_true", help="serve both eras: each process the one it is spoken to first")
flags.add_argument("--loose", action="store_true", help="with --dual: server/discover decides nothing yet")
flags.add_argument("--gate", help="read nothing until this file exists")
flags.add_argument("--discover-gate", help="answer server/discover once this file exists")
flags.add_argument("--legacy", choices=["mute", "exit", "error"], help="know initialize only, and so take discover")
flags.add_argument("--fragile", action="store_true", help="exit when sent initialize")
flags.add_argument("--versions", default=VERSION, help="supportedVersions, by commas")
flags.add_argument("--ttl", type=int, default=0, help="ttlMs of lists")
flags.add_argument("--scope", default="private", help="cacheScope of lists")
flags.add_argument("--nameless", action="store_true", help="leave serverInfo out")
flags.add_argument("--static", action="store_true", help="declare no listChanged")
flags = flags.parse_args()

stdin = os.fdopen(0, "rb", buffering=1 << 16)
era = None
listens = {}  # wire id: filter
cancelled = {}
gates = {}


def gate(name):
    return gates.setdefault(name, threading.Event())


def line(value):
    write(encoded(value) + b"\n")


def answer(wire_id, **result):
    if era != "legacy":
        result.setdefault("resultType", "complete")
        if not flags.nameless:
            info = {"name": "modern", "version": "2", "title": "Modern"}
            result.setdefault("_meta", {})[META + "serverInfo"] = info
    line({"jsonrpc": "2.0", "id": wire_id, "result": result})


def error(wire_id, code, message, data=None):
    body = {"code": code, "message": message} | ({} if data is None else {"data": data})
    line({"jsonrpc": "2.0", "id": wire_id, "error": body})


def notify(method, **params):
    line({"jsonrpc": "2.0", "method": method, "params": params})


def capabilities():
    changes = {} if flags.static else {"listChanged": True}
    return {
        "tools": changes,
        "prompts": changes,
        "resources": {"subscribe": True, **changes},
        "logging": {},
        "completions": {},
        "extensions": {META + "tasks": {}, "acme/extra": {}},
    }


# ---- tools: each gets the wire id, the params and the arguments


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def echo(wire_id, params, args):
    answer(wire_id, **text("echo"), structuredContent=args)


def facts(wire_id, params, args):
    answer(wire_id, **text("facts"), structuredContent={"pid": os.getpid(), "era": era, "env": dict(os.environ)})


def heard(wire_id, params, args):
    """Returns the params of the call."""
    answer(wire_id, **text("heard"), structuredContent={"params": params})


def wait(wire_id, params, args):
    gate(args["name"]).wait()
    answer(wire_id, **text("waited"))


def release(wire_id, params, args):
    gate(args["name"]).set()
    answer(wire_id, **text("released"))


def hang(wire_id, params, args):
    pass


def late(wire_id, params, args):
    """Answers only after a cancellation, which the specification forbids."""
    cancelled.setdefault(wire_id, threading.Event()).wait()
    answer(wire_id, **text("late"))


def progress(wire_id, params, args):
    for n in range(args["n"]):
        notify("notifications/progress", progressToken=params["_meta"]["progressToken"], progress=n)
    answer(wire_id, **text("done"))


def log(wire_id, params, args):
    notify("notifications/message", level="info", data="logged")
    answer(wire_id, **text("logged"))


def work(wire_id, params, args):
    """Reports progress repeatedly until `release` is called with the same name."""
    while not gate(args["name"]).wait(0.01):
        notify("notifications/progress", progressToken=params["_meta"]["progressToken"], progress=1)
    answer(wire_id, **text("worked"), structuredContent={"worked": True})


def ask(wire_id, params, args):
    """Asks the rounds in sequence, then returns the state and answers. Each round is an input_required result."""
    done = int(params.get("requestState", "0:").partition(":")[0])
    if done < len(args["rounds"]):
        asked = {"resultType": "input_required", **args["rounds"][done]}
        if "requestState" not in asked or asked["requestState"] is not None:
            asked.setdefault("requestState", f'{done + 1}:é"\\')
        else:
            del asked["requestState"]
        return answer(wire_id, **asked)
    told = {"state": params.get("requestState"), "responses": params.get("inputResponses")}
    answer(wire_id, **text("asked"), structuredContent=told)


def raw(wire_id, params, args):
    """Answers with raw bytes, one per character of the line."""
    line(args["line"].replace("$ID", str(wire_id)))


def fail(wire_id, params, args):
    error(wire_id, args["code"], "failed", args.get("data"))


def relist(wire_id, params, args):
    """Replaces the pages of a list and announces the change unless told not to."""
    lists.change(args["method"], args["pages"])
    touch(wire_id, params, {"kind": args["method"].partition("/")[0]} if args.get("told", True) else {})


def hold(wire_id, params, args):
    """Holds responses for this list until the gate is released."""
    lists.hold(args["method"], args["name"])
    answer(wire_id, **text("held"))


def touch(wire_id, params, args):
    """Announces that a resource, or a list of this kind, has changed."""
    for listen, filter in list(listens.items()):
        meta = {META + "subscriptionId": listen}
        if args.get("uri") in filter.get("resourceSubscriptions", []):
            notify("notifications/resources/updated", uri=args["uri"], _meta=meta)
        if "kind" in args and filter.get(f"{args['kind']}ListChanged"):
            notify(f"notifications/{args['kind']}/list_changed", _meta=meta)
    answer(wire_id, **text("touched"))


def end_listens(wire_id, params, args):
    """Ends all subscriptions, by their results or by cancelling them."""
    for listen in list(listens):
        del listens[listen]
        if args.get("by") == "cancel":
            notify("notifications/cancelled", requestId=listen)
        else:
            answer(listen, _meta={META + "subscriptionId": listen})
    answer(wire_id, **text("ended"))


def leave(wire_id, params, args):
    complain("leaving")
    os._exit(args.get("code", 7))


INLINE = (echo, facts, heard, release, progress, log, ask, raw, fail, relist, hold, touch, end_listens, leave)
TOOLS = {function.__name__: function for function in (*INLINE, wait, hang, late, work)}


def call(wire_id, params):
    tool = TOOLS.get(params["name"])
    if tool is None:
        return error(wire_id, -32602, "unknown tool")
    work = (wire_id, params, params.get("arguments", {}))
    if tool in INLINE:
        tool(*work)
    else:
        threading.Thread(target=tool, args=work, daemon=True).start()


# ---- messages


def discover(wire_id):
    if flags.discover_gate:
        threading.Thread(target=lambda: (await_file(flags.discover_gate), described(wire_id)), daemon=True).start()
    else:
        described(wire_id)


def described(wire_id):
    hints = {"ttlMs": flags.ttl, "cacheScope": flags.scope}
    versions = flags.versions.split(",")
    answer(wire_id, supportedVersions=versions, capabilities=capabilities(), instructions="be modern", **hints)


def listen(wire_id, filter):
    honoured = dict(filter)
    if "resourceSubscriptions" in honoured:
        honoured["resourceSubscriptions"] = [u for u in filter["resourceSubscriptions"] if not u.startswith("no:")]
    listens[wire_id] = honoured
    meta = {META + "subscriptionId": wire_id}
    notify("notifications/subscriptions/acknowledged", notifications=honoured, _meta=meta)


def initialize(wire_id, params):
    told = {"name": "dual", "version": "1"}
    answer(wire_id, protocolVersion=params["protocolVersion"], capabilities={"tools": {}}, serverInfo=told)


def tools():
    region = {"type": "string", "x-mcp-header": "Region"}
    count = {"type": "integer", "x-mcp-header": "Count"}
    schema = {"type": "object", "properties": {"region": region, "count": count}}
    plain = {"type": "object"}
    return [{"name": name, "inputSchema": schema if name == "echo" else plain, "outputSchema": {"type": "array"}} for name in TOOLS]


lists = Lists(
    {
        "tools/list": ("tools", tools()),
        "prompts/list": ("prompts", [{"name": "p"}]),
        "resources/list": ("resources", [{"uri": "a:", "name": "a"}]),
        "resources/templates/list": ("resourceTemplates", []),
    },
    gate,
)


def serve(wire_id, method, params):
    if method == "tools/call":
        call(wire_id, params)
    elif method in lists:
        hints = {"ttlMs": flags.ttl, "cacheScope": flags.scope}
        lists.answer(method, params, lambda page: answer(wire_id, **page, **hints))
    elif method == "resources/read":
        if params["uri"].startswith("missing:"):
            return error(wire_id, -32602, "no such resource", {"uri": params["uri"]})
        answer(wire_id, contents=[{"uri": params["uri"], "text": "t"}], ttlMs=1, cacheScope="public")
    elif method == "prompts/get":
        if params["name"] == "ask":
            return ask(wire_id, params, json.loads(params["arguments"]["script"]))
        answer(wire_id, messages=[])
    elif method == "completion/complete":
        answer(wire_id, completion={"values": []})
    elif method == "acme/extra" or method.startswith("tasks/"):
        answer(wire_id, extra=True)
    elif method == "subscriptions/listen":
        listen(wire_id, params["notifications"])
    else:
        error(wire_id, -32601, "no such method")


def request(wire_id, method, params):
    global era
    enveloped = META + "protocolVersion" in params.get("_meta", {})
    if flags.legacy and method == "server/discover":
        if flags.legacy == "exit":
            complain("what is this?")
            os._exit(9)
        return error(wire_id, -32601, "no such method") if flags.legacy == "error" else None
    legacy = flags.dual or flags.legacy
    if method == "initialize":
        if flags.fragile:
            os._exit(8)
        if not legacy or era == "modern":
            return error(wire_id, -32022, "unsupported", {"supported": flags.versions.split(","), "requested": "x"})
        era = "legacy"
        return initialize(wire_id, params)
    if enveloped and era == "legacy":
        return error(wire_id, -32600, "not in this session")
    if enveloped and not (flags.loose and method == "server/discover"):
        era = "modern"
    if method == "server/discover":
        return discover(wire_id)
    if not enveloped and era != "legacy":
        return error(wire_id, -32602, "where is the envelope?")
    serve(wire_id, method, params)


def receive(raw):
    keep(flags.journal, raw)
    message = json.loads(raw)
    params = message.get("params", {})
    if "id" in message and "method" in message:
        request(message["id"], message["method"], params)
    elif message.get("method") == "notifications/cancelled":
        listens.pop(params["requestId"], None)
        cancelled.setdefault(params["requestId"], threading.Event()).set()


def main():
    if flags.gate:
        await_file(flags.gate)
    for raw in stdin:
        receive(raw.rstrip(b"\r\n"))
    os._exit(0)


main()
