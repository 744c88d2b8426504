"""A legacy stdio MCP server with one tool, which runs only as a task.

The arguments of the tool control the task: `polls` is the number of `working` responses before `end`, which is
completed, failed, input_required (asks the client before it completes), broken (its status cannot be read) or never.
The task reports progress `progress` times after its creation, and again before its result.
"""

import argparse
import json
import os
import threading

from plumbing import await_file, encoded, keep, write

flags = argparse.ArgumentParser()
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags.add_argument("--undeclared", action="store_true", help="declare no tasks, and run the tool without them")
flags.add_argument("--cancel-gate", help="answer tasks/cancel once this file exists")
flags = flags.parse_args()

tasks = {}  # id: remaining steps
RELATED = "io.modelcontextprotocol/related-task"
TOOL = {"name": "research", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
TASKS = {"cancel": {}, "requests": {} if flags.undeclared else {"tools": {"call": {}}}}
CAPABILITIES = {"tools": {}, "tasks": TASKS}


def line(value):
    write(encoded(value) + b"\n")


def result(wire_id, value):
    line({"jsonrpc": "2.0", "id": wire_id, "result": value})


def error(wire_id, code, message):
    line({"jsonrpc": "2.0", "id": wire_id, "error": {"code": code, "message": message}})


def state(task_id, status):
    return {"taskId": task_id, "status": status, "createdAt": "2026-01-01T00:00:00Z", "ttl": None, "pollInterval": 50}


def progress(task):
    for n in range(task.get("progress", 0)):
        told = {"progressToken": task["token"], "progress": n}
        line({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})


def call(wire_id, params):
    if flags.undeclared and "task" not in params:
        return result(wire_id, {"content": []})
    if "task" not in params:
        return error(wire_id, -32601, "this tool runs as a task only")
    task_id = f"task-{len(tasks)}"
    tasks[task_id] = dict(params["arguments"], token=params.get("_meta", {}).get("progressToken"))
    result(wire_id, {"task": state(task_id, "working")})
    progress(tasks[task_id])


def poll(wire_id, task_id):
    task = tasks[task_id]
    task["polls"] -= 1
    if task["end"] == "broken":
        return error(wire_id, -32603, "who knows")
    working = task["polls"] >= 0 or task["end"] == "never"
    result(wire_id, state(task_id, "working" if working else task["end"]))


def fetch(wire_id, task_id):
    task = tasks[task_id]
    if task["end"] == "failed":
        return error(wire_id, -32603, "the task failed")
    if task["end"] == "input_required" and "answer" not in task:
        task["waiting"] = wire_id
        schema = {"type": "object", "properties": {}}
        params = {"message": "m", "requestedSchema": schema, "_meta": {RELATED: {"taskId": task_id}}}
        return line({"jsonrpc": "2.0", "id": task_id, "method": "elicitation/create", "params": params})
    progress(task)
    told = json.dumps(task.get("answer", "done"))
    meta = {RELATED: {"taskId": task_id}, "acme": 1}
    result(wire_id, {"content": [{"type": "text", "text": told}], "_meta": meta})


def cancel(wire_id, task_id):
    if flags.cancel_gate:
        await_file(flags.cancel_gate)
    result(wire_id, state(task_id, "cancelled"))


def receive(raw):
    keep(flags.journal, raw)
    message = json.loads(raw)
    method, params, wire_id = message.get("method"), message.get("params", {}), message.get("id")
    if method is None:
        task = tasks[wire_id]
        task["answer"] = message.get("result")
        fetch(task["waiting"], wire_id)
    elif method == "initialize":
        info = {"name": "tasks", "version": "1"}
        version = params["protocolVersion"]
        result(wire_id, {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": info})
    elif method == "tools/list":
        result(wire_id, {"tools": [TOOL]})
    elif method == "tools/call":
        call(wire_id, params)
    elif method == "tasks/get":
        poll(wire_id, params["taskId"])
    elif method == "tasks/result":
        fetch(wire_id, params["taskId"])
    elif method == "tasks/cancel":
        threading.Thread(target=cancel, args=(wire_id, params["taskId"]), daemon=True).start()
    elif wire_id is not None:
        error(wire_id, -32601, "no such method")


for raw in os.fdopen(0, "rb", buffering=1 << 16):
    receive(raw.rstrip(b"\r\n"))
