"""A legacy stdio MCP server with one tool that runs as a task only.

Its arguments say what the task does: `polls` answers of `working`, then `end`: completed, failed, input_required (which
asks the client before it completes) or never.
"""

import argparse
import json
import os

from plumbing import encoded, keep, write

flags = argparse.ArgumentParser()
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags = flags.parse_args()

tasks = {}  # id: what is left of it
RELATED = "io.modelcontextprotocol/related-task"
TOOL = {"name": "research", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
CAPABILITIES = {"tools": {}, "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}}}


def line(value):
    write(encoded(value) + b"\n")


def result(wire_id, value):
    line({"jsonrpc": "2.0", "id": wire_id, "result": value})


def error(wire_id, code, message):
    line({"jsonrpc": "2.0", "id": wire_id, "error": {"code": code, "message": message}})


def state(task_id, status):
    return {"taskId": task_id, "status": status, "createdAt": "2026-01-01T00:00:00Z", "ttl": None, "pollInterval": 50}


def call(wire_id, params):
    if "task" not in params:
        return error(wire_id, -32601, "this tool runs as a task only")
    task_id = f"task-{len(tasks)}"
    tasks[task_id] = dict(params["arguments"])
    result(wire_id, {"task": state(task_id, "working")})


def poll(wire_id, task_id):
    task = tasks[task_id]
    task["polls"] -= 1
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
    told = json.dumps(task.get("answer", "done"))
    meta = {RELATED: {"taskId": task_id}, "acme": 1}
    result(wire_id, {"content": [{"type": "text", "text": told}], "_meta": meta})


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
        result(wire_id, state(params["taskId"], "cancelled"))
    elif wire_id is not None:
        error(wire_id, -32601, "no such method")


for raw in os.fdopen(0, "rb", buffering=1 << 16):
    receive(raw.rstrip(b"\r\n"))
