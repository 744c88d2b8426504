"""A stdio server of one era, `legacy` or `modern`, for instructions.py. It answers each call with the same text."""

import json
import sys
import time

PAUSE = 0.001  # seconds before a response, so that proxyrunner waits for it

era, text = sys.argv[1:]
tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
info = {"name": "echo", "version": "1"}
content = {"content": [{"type": "text", "text": text}]}
listed = {"tools": tools}
if era == "modern":
    content = {"resultType": "complete"} | content
    listed |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
results = {"tools/call": content, "tools/list": listed}
errors = {}
if era == "legacy":
    results["initialize"] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    results["ping"] = {}
else:
    capabilities = {"tools": {}}
    results["server/discover"] = {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": capabilities,
        "serverInfo": info,
    }
    data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
    errors["initialize"] = {"code": -32022, "message": "no", "data": data}
unknown = {"code": -32601, "message": "method not found"}

for line in sys.stdin.buffer:
    asked = json.loads(line)
    if "id" not in asked or "method" not in asked:
        continue
    method = asked["method"]
    answer = {"jsonrpc": "2.0", "id": asked["id"]}
    if method in results:
        answer["result"] = results[method]
    else:
        answer["error"] = errors.get(method, unknown)
    time.sleep(PAUSE)
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()
