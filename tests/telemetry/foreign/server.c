/* The smallest MCP server: it answers the handshake, and needs nothing of the root that it runs in. */
#include <stdio.h>
#include <string.h>

int main(void) {
    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        const char *id = strstr(line, "\"id\":");
        if (!id) continue;
        int length = strspn(id += 5, "0123456789");
        if (strstr(line, "\"initialize\""))
            printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},"
                   "\"serverInfo\":{\"name\":\"foreign\",\"version\":\"1\"}}}\n", length, id);
        else if (strstr(line, "\"ping\""))
            printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{}}\n", length, id);
        else
            printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":{\"code\":-32601,\"message\":\"no such method\"}}\n", length, id);
        fflush(stdout);
    }
    return 0;
}
