"""A stdio MCP server that misbehaves on command.

Commands are the name and arguments of `tools/call`, or flags if they must take effect before the first call. The server
writes bytes and not text, so that a test controls each byte. Each call runs on its own thread unless `--serial` is
given.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

from lists import Lists
from plumbing import await_file, complain, encoded, keep, write, writing

flags = argparse.ArgumentParser()
flags.add_argument("--serial", action="store_true", help="one call at a time, reading nothing meanwhile")
flags.add_argument("--banner", type=int, default=0, help="lines of plain text before the first message")
flags.add_argument("--gate", help="answer initialize once this file exists")
flags.add_argument("--refuse", action="store_true", help="answer initialize with an error")
flags.add_argument("--mute", action="store_true", help="never answer initialize")
flags.add_argument("--die", type=int, help="exit with this code at once")
flags.add_argument("--flaky", help="exit with 9 at once, unless this file exists; make it")
flags.add_argument("--told", help="give the text of this file as instructions, once it exists")
flags.add_argument("--deaf", action="store_true", help="answer no ping")
flags.add_argument("--protocol", help="negotiate this version, whatever was asked for")
flags.add_argument("--crlf", action="store_true", help="end lines with CR LF")
flags.add_argument("--ignore-eof", action="store_true", help="live on when stdin ends")
flags.add_argument("--ignore-sigterm", action="store_true")
flags.add_argument("--signals", action="store_true", help="tell on stderr of signals that end nobody")
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags.add_argument("--prompts", action="store_true", help="declare prompts")
flags.add_argument("--static", action="store_true", help="declare no listChanged")
flags = flags.parse_args()

stdin = os.fdopen(0, "rb", buffering=1 << 16)
journal = []
gates = {}
cancelled = {}
answers = {}
asked = iter(range(10**9))


def gate(name):
    return gates.setdefault(name, threading.Event())


lists = Lists({"tools/list": ("tools", []), "resources/list": ("resources", [])}, gate)


def line(text):
    """Writes a frame: bytes unchanged, text with one byte per character, any other value as JSON."""
    write(encoded(text) + (b"\r\n" if flags.crlf else b"\n"))


def result(wire_id, value):
    line({"jsonrpc": "2.0", "id": wire_id, "result": value})


def error(wire_id, code, message):
    line({"jsonrpc": "2.0", "id": wire_id, "error": {"code": code, "message": message}})


def notify(method, params):
    line({"jsonrpc": "2.0", "method": method, "params": params})


# ---- tools: each gets the wire id, the params, the arguments and the raw frame


def echo(wire_id, params, args, raw):
    """Returns the arguments byte for byte; they must be the last member of the frame."""
    payload = raw[raw.index(b'"arguments":') + 12 : -2]
    line(b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (wire_id, payload))


def sleep(wire_id, params, args, raw):
    time.sleep(args["ms"] / 1000)
    result(wire_id, args)


def wait(wire_id, params, args, raw):
    """Answers once `release` is called with the same name."""
    gate(args["name"]).wait()
    result(wire_id, args)


def release(wire_id, params, args, raw):
    gate(args["name"]).set()
    result(wire_id, {})


def hang(wire_id, params, args, raw):
    gate(f"hung {wire_id}")


def late(wire_id, params, args, raw):
    """Answers only after a cancellation, although it should not."""
    cancelled.setdefault(wire_id, threading.Event()).wait()
    result(wire_id, {"late": True})


def progress(wire_id, params, args, raw):
    for n in range(args["n"]):
        notify("notifications/progress", {"progressToken": params["_meta"]["progressToken"], "progress": n})
    if "until" in args:
        gate(args["until"]).wait()
    result(wire_id, {"n": args["n"]})


def work(wire_id, params, args, raw):
    """Reports progress repeatedly until `release` is called with the same name."""
    while not gate(args["name"]).wait(0.01):
        notify("notifications/progress", {"progressToken": params["_meta"]["progressToken"], "progress": 1})
    result(wire_id, {"worked": True})


def log(wire_id, params, args, raw):
    for n in range(args["n"]):
        notify("notifications/message", {"level": "info", "data": n})
    result(wire_id, {})


def ask(wire_id, params, args, raw):
    """Asks the client a question and returns its answers."""
    ours = args.get("id", next(asked))
    answered = answers[json.dumps(ours)] = {"event": threading.Event()}
    line({"jsonrpc": "2.0", "id": ours, "method": args["method"], "params": args.get("params", {})})
    answered["event"].wait()
    result(wire_id, {"answers": answered["messages"]})


def interview(wire_id, params, args, raw):
    """Asks rounds in sequence, all questions of a round at once, and returns the answers.

    While it waits, it reports progress `chatter` times, with hardly a pause.
    """
    chatter = args.get("chatter", 0)
    heard = []
    for questions in args["rounds"]:
        waiting = []
        for question in questions:
            ours = next(asked)
            waiting.append(answers.setdefault(json.dumps(ours), {"event": threading.Event()}))
            line({"jsonrpc": "2.0", "id": ours, **question})
        for answered in waiting:
            while not answered["event"].wait(0.002 if chatter else None):
                chatter -= 1
                notify("notifications/progress", {"progressToken": params["_meta"]["progressToken"], "progress": 1})
            heard.append(answered["messages"][0].get("result"))
    result(wire_id, {"heard": heard})


def emit(wire_id, params, args, raw):
    """Writes lines unchanged, with the id of the call for $ID, then answers unless told not to.

    Writes the lines of `after` once a file exists.
    """
    for text in args["lines"]:
        line(text.replace("$ID", str(wire_id)))
    if args.get("answer", True):
        result(wire_id, {})
    if "after" in args:
        await_file(args["file"])
        for text in args["after"]:
            line(text.replace("$ID", str(wire_id)))


def relist(wire_id, params, args, raw):
    """Replaces the pages of a list and announces the change unless told not to."""
    lists.change(args["method"], args["pages"])
    if args.get("told", True):
        notify(f"notifications/{args['method'].partition('/')[0]}/list_changed", {})
    result(wire_id, {})


def hold(wire_id, params, args, raw):
    """Holds responses for this list until the gate is released."""
    lists.hold(args["method"], args["name"])
    result(wire_id, {})


def oversized(wire_id, params, args, raw):
    """Writes one long line with the id first, last or absent."""
    id_member = b'"id":%d' % wire_id
    head = {"first": id_member + b",", "last": b"", "none": b""}[args["id"]]
    tail = {"first": b"", "last": b"," + id_member, "none": b""}[args["id"]]
    chunk = b"x" * (1 << 16)
    with writing:
        os.write(1, b'{"jsonrpc":"2.0",' + head + b'"result":{"blob":"')
        for _ in range(args["bytes"] >> 16):
            rest = chunk
            while rest:
                rest = rest[os.write(1, rest) :]
        os.write(1, b'"}' + tail + b"}\n")
    if args["id"] == "none":
        result(wire_id, {})


def leave(wire_id, params, args, raw):
    complain(args.get("stderr", "leaving"))
    os._exit(args["code"])


def kill(wire_id, params, args, raw):
    os.kill(os.getpid(), signal.SIGKILL)


def close_stdout(wire_id, params, args, raw):
    os.close(1)


def close_stdin(wire_id, params, args, raw):
    """Stops reading for good, but keeps running."""
    os.close(0)
    complain("stdin is closed")
    signal.pause()


def half(wire_id, params, args, raw):
    write(b'{"jsonrpc":"2.0","id":%d,"resu' % wire_id)
    os._exit(0)


def stop_reading(wire_id, params, args, raw):
    """Stops reading stdin, but keeps writing."""
    result(wire_id, {})
    n = 0
    while not os.path.exists(args["until"]):
        notify("notifications/tools/list_changed", {"n": n})
        n += 1
        time.sleep(0.01)


def grandchild(wire_id, params, args, raw):
    """Starts a process that holds the pipes of this server open; with `setsid`, in its own session."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=args["setsid"])
    result(wire_id, {"pid": started.pid})


DAEMON = """
import os, signal, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + "~", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + "~", sys.argv[1])
time.sleep(600)
"""


def daemon(wire_id, params, args, raw):
    """Starts a daemon: a process in its own session whose parents have exited, with only the pipes in common."""
    subprocess.run([sys.executable, "-c", DAEMON, args["file"]])
    await_file(args["file"])
    with open(args["file"]) as file:
        result(wire_id, {"pid": int(file.read())})


def betray(wire_id, params, args, raw):
    """Sends the guardian a signal `times` times, then exits with `code` if given."""
    for _ in range(args.get("times", 1)):
        os.kill(os.getppid(), signal.Signals[args["signal"]])
    if "code" in args:
        os._exit(args["code"])
    result(wire_id, {})


def state(wire_id, params, args, raw):
    """Returns the state of this process as the system reports it."""
    with open("/proc/self/status") as status:
        said = dict(line.rstrip("\n").split(":\t", 1) for line in status)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_AS", "RLIMIT_NOFILE")}
    ids = {"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups()}
    result(wire_id, {"status": said, "nice": os.getpriority(os.PRIO_PROCESS, 0), **limits, **ids})


def facts(wire_id, params, args, raw):
    files = os.sysconf("SC_OPEN_MAX")
    result(wire_id, {"pid": os.getpid(), "env": dict(os.environ), "files": files, "cwd": os.getcwd()})


def recall(wire_id, params, args, raw):
    """Returns all frames that were read before this one, in order."""
    result(wire_id, {"frames": [frame.decode("latin-1") for frame in journal[:-1]]})


def blob(wire_id, params, args, raw):
    result(wire_id, {"blob": "x" * args["bytes"]})


# These tools end or stall the whole server, or must see all frames read before them, so they run without a thread.
INLINE = {leave, kill, close_stdout, close_stdin, half, stop_reading, recall, echo, release, relist, hold}
TOOLS = {
    function.__name__: function
    for function in (
        echo, sleep, wait, release, hang, late, progress, work, log, ask, interview, emit, relist, hold, oversized, leave, kill,
        close_stdout, close_stdin, half, stop_reading, grandchild, daemon, betray, state, facts, recall, blob,
    )
}  # fmt: skip


def call(wire_id, params, raw):
    tool = TOOLS.get(params["name"])
    if tool is None:
        return error(wire_id, -32602, "unknown tool")
    work = (wire_id, params, params.get("arguments", {}), raw)
    if flags.serial or tool in INLINE:
        tool(*work)
    else:
        threading.Thread(target=tool, args=work, daemon=True).start()


def instructions():
    if flags.told and os.path.exists(flags.told):
        with open(flags.told) as told:
            return told.read()
    return "break me"


def initialize(wire_id, params):
    if flags.gate:
        await_file(flags.gate)
    if flags.mute:
        return
    if flags.refuse:
        return error(wire_id, -32603, "not today")
    changes = {} if flags.static else {"listChanged": True}
    capabilities = {
        "tools": changes,
        "resources": {"subscribe": True, **changes},
        "logging": {},
        "tasks": {"list": {}},
    }
    if flags.prompts:
        capabilities["prompts"] = {}
    result(
        wire_id,
        {
            "protocolVersion": flags.protocol or params["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": {"name": "scripted", "version": "1"},
            "instructions": instructions(),
        },
    )


def parse(raw):
    """Returns the message, or only the necessary parts of a message too deep for this parser."""
    try:
        return json.loads(raw)
    except RecursionError:
        wire_id = int(re.search(rb'"id":(\d+)', raw)[1])
        name = re.search(rb'"name":"(\w+)"', raw)[1].decode()
        return {"id": wire_id, "method": "tools/call", "params": {"name": name}}


def receive(raw):
    journal.append(raw)
    keep(flags.journal, raw)
    message = parse(raw)
    method = message.get("method")
    if method is None:
        waiting = answers.get(json.dumps(message["id"]))
        if waiting:
            waiting.setdefault("messages", []).append(message)
            waiting["event"].set()
    elif "id" not in message:
        if method == "notifications/cancelled":
            cancelled.setdefault(message["params"]["requestId"], threading.Event()).set()
    elif method == "initialize":
        initialize(message["id"], message["params"])
    elif method == "tools/call":
        call(message["id"], message["params"], raw)
    elif method == "ping" and flags.deaf:
        pass
    elif method == "resources/subscribe" and message["params"]["uri"] == "hang:":
        pass
    elif method == "resources/unsubscribe" and message["params"]["uri"].startswith("keep:"):
        pass
    elif method in lists:
        lists.answer(method, message.get("params", {}), lambda page: result(message["id"], page))
    elif method == "resources/read" and message["params"]["uri"].startswith("missing:"):
        error(message["id"], -32002, "no such resource")
    elif method == "no/such":
        error(message["id"], -32601, "no such method")
    elif not message.get("params", {}).get("uri", "").startswith("hang:"):
        result(message["id"], {})


def main():
    if flags.die is not None:
        complain("cannot go on")
        sys.exit(flags.die)
    if flags.flaky and not os.path.exists(flags.flaky):
        open(flags.flaky, "w").close()
        complain("not yet")
        sys.exit(9)
    if flags.ignore_sigterm:
        signal.signal(signal.SIGTERM, lambda *_: complain("SIGTERM ignored"))
    if flags.signals:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
            signal.signal(number, lambda number, _: complain(f"got {signal.Signals(number).name}"))
    for n in range(flags.banner):
        line(f"Welcome to the scripted server, line {n}")
    for raw in stdin:
        receive(raw.rstrip(b"\r\n"))
    complain("end of stdin")
    while flags.ignore_eof:
        time.sleep(0.05)
    os._exit(0)


main()
