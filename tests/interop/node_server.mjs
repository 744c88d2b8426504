// A server on npm's @modelcontextprotocol/server 2.x, for the matrix of clients and servers.
//
//     node_server.mjs                 whichever era the client opens with
//     node_server.mjs --modern-only   2026-07-28 alone; the SDK refuses the handshake
//     node_server.mjs --http PORT     the SDK's own HTTP handler; without sessions in the legacy era
//
// Its names and answers are those of tests/servers/everything.py. It is here for the sake of node_modules.

import { setTimeout as sleep } from "node:timers/promises";

import { serve } from "@hono/node-server";
import { acceptedContent, completable, createMcpHandler, inputRequired, McpServer, ResourceTemplate } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

const DEPARTMENTS = ["Engineering", "Marketing", "Sales", "Support"];
const WATCHED = "test://watched-resource";

let notifier; // of the HTTP handler
let cancelled = 0; // in the whole process, as the SDK may make several instances

const text = (answer) => ({ content: [{ type: "text", text: answer }] });
const said = (words) => ({ messages: [{ role: "user", content: { type: "text", text: words } }] });

/** One connection's server. */
function everything({ era }) {
  const capabilities = { logging: {}, resources: { subscribe: true } };
  const server = new McpServer({ name: "everything", version: "2.0.0" }, { capabilities });
  calls(server);
  questions(server);
  changes(server, era);
  prompts(server);
  return server;
}

function calls(server) {
  const inputSchema = z.object({ text: z.string() });
  server.registerTool("echo", { description: "Returns what it is given.", inputSchema }, ({ text: words }) => text(words));

  const steps = z.object({ steps: z.number().int(), pause: z.number() });
  const counting = { description: "Counts slowly with progress, and remembers when it is cancelled.", inputSchema: steps };
  server.registerTool("count", counting, async ({ steps, pause }, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    mcpReq.signal.addEventListener("abort", () => (cancelled += 1));
    for (let step = 1; step <= steps && !mcpReq.signal.aborted; step += 1) {
      await sleep(pause * 1000);
      if (progressToken === undefined) continue;
      await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress: step, total: steps } });
    }
    return text(`Counted to ${steps}.`);
  });

  const counted = { description: "Tells how many calls of `count` were cancelled." };
  server.registerTool("cancelled", counted, () => text(String(cancelled)));

  const logging = { description: "Logs three times before it answers." };
  server.registerTool("test_tool_with_logging", logging, async (ctx) => {
    for (const words of ["started", "processing", "completed"]) await ctx.mcpReq.log("info", words);
    return text("The tool completed.");
  });
}

/** Asks the client, in either era: to a legacy client the SDK sends these questions as requests. */
function questions(server) {
  const prompt = z.object({ prompt: z.string() });
  const sampling = { description: "Asks the client's model.", inputSchema: prompt };
  server.registerTool("test_sampling", sampling, ({ prompt }, { mcpReq }) => {
    const answer = mcpReq.inputResponses?.answer;
    if (answer !== undefined) return text(`LLM response: ${answer.content.text}`);
    const messages = [{ role: "user", content: { type: "text", text: prompt } }];
    return inputRequired({ inputRequests: { answer: inputRequired.createMessage({ messages, maxTokens: 100 }) } });
  });

  const message = z.object({ message: z.string() });
  const elicitation = { description: "Asks the user for a name and an address.", inputSchema: message };
  server.registerTool("test_elicitation", elicitation, ({ message }, { mcpReq }) => {
    const user = acceptedContent(mcpReq.inputResponses, "user");
    if (user !== undefined) return text(`action=accept, content=${JSON.stringify(user)}`);
    const requestedSchema = {
      type: "object",
      properties: { username: { type: "string" }, email: { type: "string" } },
      required: ["username", "email"],
    };
    return inputRequired({ inputRequests: { user: inputRequired.elicit({ message, requestedSchema }) } });
  });
}

function changes(server, era) {
  const watched = { description: "What to subscribe to", mimeType: "text/plain" };
  const contents = (uri, words) => ({ contents: [{ uri: uri.href, mimeType: "text/plain", text: words }] });
  server.registerResource("watched", WATCHED, watched, (uri) => contents(uri, "Watched resource content"));

  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  server.registerResource("template", template, { description: "Data by id" }, (uri, { id }) =>
    contents(uri, `Data for ID: ${id}`),
  );

  const subscriptions = new Set();
  server.server.setRequestHandler("resources/subscribe", ({ params }) => {
    subscriptions.add(params.uri);
    return {};
  });
  server.server.setRequestHandler("resources/unsubscribe", ({ params }) => {
    subscriptions.delete(params.uri);
    return {};
  });

  const inputSchema = z.object({ uri: z.string() });
  const touching = { description: "Says that a resource changed, to those who listen or have subscribed.", inputSchema };
  server.registerTool("touch", touching, async ({ uri }) => {
    // Over HTTP an instance serves one request, and changes reach the others by the handler.
    if (notifier !== undefined) notifier.resourceUpdated(uri);
    else if (era === "modern" || subscriptions.has(uri)) await server.server.sendResourceUpdated({ uri });
    return text(`touched ${uri}`);
  });
}

function prompts(server) {
  const departments = (value) => DEPARTMENTS.filter((name) => name.startsWith(value));
  const argsSchema = z.object({ arg1: completable(z.string(), departments), arg2: z.string() });
  const described = { description: "A prompt with two arguments.", argsSchema };
  server.registerPrompt("test_prompt_with_arguments", described, ({ arg1, arg2 }) => said(`arg1='${arg1}', arg2='${arg2}'`));
}

const isModernOnly = process.argv.includes("--modern-only");
const http = process.argv.indexOf("--http");
if (http === -1) {
  serveStdio(everything, { legacy: isModernOnly ? "reject" : "serve" });
} else {
  const handler = createMcpHandler(everything, { legacy: isModernOnly ? "reject" : "stateless" });
  notifier = handler.notify;
  serve({ fetch: handler.fetch, hostname: "127.0.0.1", port: Number(process.argv[http + 1]) });
}
