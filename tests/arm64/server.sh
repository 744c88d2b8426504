# A stdio MCP server for a machine that has a shell only.
while read -r line; do
    id=$(echo "$line" | sed 's/.*"id": *\([^,}]*\).*/\1/')
    case $line in
        *'"initialize"'*) answer='"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
        *'"tools/list"'*) answer='"result":{"tools":[{"name":"add","inputSchema":{"type":"object"}}]}' ;;
        *'"tools/call"'*) answer='"result":{"content":[{"type":"text","text":"5"}]}' ;;
        *'"id"'*) answer='"error":{"code":-32601,"message":"Method not found"}' ;;
        *) continue ;;
    esac
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,$answer}"
done
