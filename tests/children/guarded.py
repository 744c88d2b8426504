"""A stdio MCP server whose tools, prompts and resources policies decide on. Its lists are spaced unusually, so that a
test sees whether their bytes stay. `--modern` serves 2026-07-28, else the handshake of the legacy era is served."""

import argparse
import json
import os
import sys

flags = argparse.ArgumentParser()
flags.add_argument("--modern", action="store_true")
flags.add_argument("--journal", help="append the method of every request to this file")
flags = flags.parse_args()

META = "io.modelcontextprotocol/"
TOOLS = """[ {"name":"read","inputSchema":{ "type":"object" },"annotations":{"readOnlyHint":true}} ,
{"name" : "write", "x-unknown":1.50,"inputSchema":{"type":"object"}},{"inputSchema":{"type":"object"},"name":"delete",
"annotations":{"destructiveHint":true}} , {"name":"\\u0070ay","inputSchema":{"type":"object"}} ]""".replace("\n", " ")
LISTS = {
    "tools/list": ("tools", TOOLS),
    "prompts/list": ("prompts", '[{"name":"open"},{"name":"secret"}]'),
    "resources/list": ("resources", '[{"uri":"doc://a","name":"a"},  {"uri":"key://b","name":"b"}]'),
    "resources/templates/list": (
        "resourceTemplates",
        '[{"uriTemplate":"doc://{x}","name":"x"},{"uriTemplate":"key://{x}","name":"y"}]',
    ),
}
CAPABILITIES = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}}
SERVER = {"name": "guarded", "version": "1"}


def respond(request, method, params):
    if method == "initialize":
        return json.dumps({"protocolVersion": params["protocolVersion"], "capabilities": CAPABILITIES, "serverInfo": SERVER})
    if method == "server/discover":
        return json.dumps(
            {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
            | {"ttlMs": 60000, "cacheScope": "public", "_meta": {META + "serverInfo": SERVER}}
        )
    hint = '"resultType":"complete","ttlMs":60000,"cacheScope" : "public", ' if flags.modern else ""
    if method in LISTS:
        name, items = LISTS[method]
        if "cursor" in params:
            return '{%s"%s":[]}' % (hint, name)
        return '{ %s"%s" : %s , "nextCursor":"more", "_meta":{}}' % (hint, name, items)
    if method == "resources/read":
        uri = json.dumps(params["uri"])
        return '{%s"contents":[{"uri":%s,"text":"x"}]}' % (hint, uri)
    if method == "tools/call":
        return json.dumps({"resultType": "complete", "content": [{"type": "text", "text": params["name"]}]})
    if method == "prompts/get":
        return json.dumps({"messages": []})
    if method == "completion/complete":
        return json.dumps({"completion": {"values": []}})
    if method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
        return "{}"
    return None


for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if flags.journal and method:
        with open(flags.journal, "a") as journal:
            journal.write(f"{os.getpid()} {method}\n")
    if "id" not in request or not method:
        continue
    known = not (flags.modern and method == "initialize") and (flags.modern or method != "server/discover")
    result = respond(request, method, request.get("params", {})) if known else None
    body = f'"result":{result}' if result is not None else '"error":{"code":-32601,"message":"no such method"}'
    sys.stdout.write('{"jsonrpc":"2.0","id":%s,%s}\n' % (json.dumps(request["id"]), body))
    sys.stdout.flush()
