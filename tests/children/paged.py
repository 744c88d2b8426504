"""A stdio MCP server whose lists have three pages. Its cursors are spelled with escapes, so that a test sees whether their
bytes stay, and are the same for everybody. `--modern` serves 2026-07-28, else the handshake of the legacy era is served."""

import argparse
import json
import sys

from plumbing import keep, write

flags = argparse.ArgumentParser()
flags.add_argument("--modern", action="store_true")
flags.add_argument("--journal", help="append every frame that is read to this file, with the process id before it")
flags.add_argument("--cursor", default=r"page\u0020", help="the raw text of a cursor before its number")
flags = flags.parse_args()

META = "io.modelcontextprotocol/"
SERVER = {"name": "paged", "version": "1"}
CAPABILITIES = {"tools": {"listChanged": True}, "prompts": {}, "resources": {}}
LISTS = {
    "tools/list": ("tools", '{"name":"%s","inputSchema":{"type":"object"}}'),
    "prompts/list": ("prompts", '{"name":"%s"}'),
    "resources/list": ("resources", '{"uri":"doc://%s","name":"x"}'),
    "resources/templates/list": ("resourceTemplates", '{"uriTemplate":"doc://%s/{x}","name":"x"}'),
    "tasks/list": ("tasks", '{"taskId":"%s","status":"working","createdAt":"2026-01-01T00:00:00Z","ttl":null}'),
}
PREFIX = json.loads('"%s"' % flags.cursor)
PAGES = ["one", "two", "three"]


def respond(method, params):
    if method == "initialize":
        capabilities = CAPABILITIES | {"tasks": {"list": {}}}
        return json.dumps(
            {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": SERVER}
        )
    if method == "server/discover":
        return json.dumps(
            {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
            | {"ttlMs": 60000, "cacheScope": "public", "_meta": {META + "serverInfo": SERVER}}
        )
    if method not in LISTS:
        return "{}"
    cursor = params.get("cursor") or PREFIX + "0"
    number = cursor.removeprefix(PREFIX)
    if number == cursor or number not in ("0", "1", "2"):
        return None
    name, item = LISTS[method]
    at = int(number)
    hint = '"resultType":"complete","ttlMs":60000,"cacheScope" : "public", ' if flags.modern else ""
    following = ', "next\\u0043ursor" : "%s%d"' % (flags.cursor, at + 1) if at < 2 else ', "nextCursor":""'
    return '{ %s"%s" :[%s ]%s}' % (hint, name, item % PAGES[at], following)


for raw in sys.stdin.buffer:
    keep(flags.journal, raw.strip())
    request = json.loads(raw)
    method = request.get("method")
    if "id" not in request or not method:
        continue
    known = method != ("initialize" if flags.modern else "server/discover")
    result = respond(method, request.get("params", {})) if known else None
    error = '{"code":-32602,"message":"the server knows no such cursor"}' if known else '{"code":-32601,"message":"no"}'
    body = f'"error":{error}' if result is None else f'"result":{result}'
    write(b'{"jsonrpc":"2.0","id":%s,%s}\n' % (json.dumps(request["id"]).encode(), body.encode()))
