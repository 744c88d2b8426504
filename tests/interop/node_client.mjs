// The stock client of npm's @modelcontextprotocol/sdk 1.x, and what it does to show each feature.
//
// Reads one JSON object from stdin: {url, transport, features: {name: entry}, asks: [name]}. Shows all
// features at once, each with a client of its own, and writes one JSON line per feature:
// {feature, error?}; and {event: "in-flight"} where the other side should cut the connection.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  LoggingMessageNotificationSchema,
  ProgressNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";

const SAMPLED = "sampled, for this client only";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const numbers = (count) => Array.from({ length: count }, (_, index) => index + 1);

/** The transport to a URL, or to a command over stdio. */
function opened(url, transport) {
  const [command, ...args] = url;
  if (transport === "stdio") return new StdioClientTransport({ command, args });
  const Transport = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  return new Transport(new URL(url));
}

/** An initialized client; one that `asks` declares sampling and elicitation. */
class Peer {
  questions = [];
  content = {};

  constructor(url, transport, asks) {
    this.transport = opened(url, transport);
    const capabilities = asks ? { sampling: {}, elicitation: {} } : {};
    this.client = new Client({ name: "interop", version: "1.0.0" }, { capabilities });
    if (!asks) return;
    this.client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => {
      this.questions.push(params);
      return { role: "assistant", content: { type: "text", text: SAMPLED }, model: "none" };
    });
    this.client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
      this.questions.push(params);
      return { action: "accept", content: this.content };
    });
  }

  async disconnect() {
    await this.transport.terminateSession?.();
    await this.client.close();
  }

  /** Calls the entry's tool, and gives the text it answers. */
  async call({ tool, arguments: args }, options) {
    const result = await this.client.callTool({ name: tool, arguments: args }, undefined, options);
    const answer = result.content.map((block) => block.text ?? "").join("");
    assert(!result.isError, answer);
    return answer;
  }

  /** The next notification of this kind; ask before it can arrive. */
  heard(schema) {
    return new Promise((resolve) => this.client.setNotificationHandler(schema, resolve));
  }
}

const FEATURES = {
  async initialize({ client }, { name }) {
    assert.equal(client.getServerVersion().name, name);
    await client.ping();
  },

  async tools({ client }, { names }) {
    const { tools } = await client.listTools();
    const listed = tools.map((tool) => tool.name);
    assert.deepEqual(names.filter((name) => !listed.includes(name)), []);
  },

  async call(peer, entry) {
    assert.equal(await peer.call(entry), entry.answer);
  },

  async progress(peer, entry) {
    const reports = [];
    // Not through `onprogress`: over HTTP+SSE the SDK drops progress that shares a chunk with its result,
    // since it forgets the callback before it runs it. It still wants one, to send a token.
    peer.client.setNotificationHandler(ProgressNotificationSchema, ({ params }) => reports.push(params.progress));
    await peer.call(entry, { onprogress: () => {} });
    assert.deepEqual(reports, numbers(entry.reports));
  },

  async logging(peer, entry) {
    const heard = peer.heard(LoggingMessageNotificationSchema);
    await peer.client.setLoggingLevel(entry.level);
    await peer.call(entry);
    await heard;
  },

  async sampling(peer, entry) {
    const answer = await peer.call(entry);
    assert(answer.includes(SAMPLED), answer);
    assert.equal(peer.questions.length, 1);
    assert(peer.questions[0].messages[0].content.text.includes(entry.prompt));
  },

  async elicitation(peer, entry) {
    peer.content = entry.content;
    const answer = await peer.call(entry);
    assert.equal(peer.questions.length, 1);
    assert(answer.includes("accept"), answer);
  },

  async resource({ client }, { uri, answer }) {
    assert((await client.listResources()).resources.length > 0);
    const { contents } = await client.readResource({ uri });
    assert(contents[0].text.includes(answer), contents[0].text);
  },

  async subscription(peer, entry) {
    const heard = peer.heard(ResourceUpdatedNotificationSchema);
    await peer.client.subscribeResource({ uri: entry.uri });
    await peer.call(entry);
    assert.equal((await heard).params.uri, entry.uri);
    await peer.client.unsubscribeResource({ uri: entry.uri });
  },

  async prompt({ client }, { name, arguments: args, answer }) {
    const { prompts } = await client.listPrompts();
    assert(prompts.some((prompt) => prompt.name === name));
    const { messages } = await client.getPrompt({ name, arguments: args });
    assert(messages[0].content.text.includes(answer), messages[0].content.text);
  },

  async completion({ client }, { prompt, argument, values }) {
    const { completion } = await client.complete({ ref: { type: "ref/prompt", name: prompt }, argument });
    assert.deepEqual(completion.values, values);
  },

  async cancellation(peer, entry) {
    const evidence = () => entry.evidence && peer.call({ tool: entry.evidence, arguments: {} });
    const before = await evidence();
    const abort = new AbortController();
    const onprogress = () => abort.abort("no longer wanted");
    const call = peer.call(entry, { signal: abort.signal, onprogress });
    await assert.rejects(call, /no longer wanted/);
    while (entry.evidence && (await evidence()) === before);
    await peer.client.ping();
  },

  async resumption(peer, entry) {
    const reports = [];
    const onprogress = ({ progress }) => {
      reports.push(progress);
      if (reports.length === 1) say({ event: "in-flight" });
    };
    const answer = await peer.call(entry, { onprogress });
    assert(answer.includes(entry.answer), answer);
    assert.deepEqual(reports, numbers(entry.reports));
  },
};

const plan = JSON.parse(await text(process.stdin));

async function show(feature, entry) {
  const peer = new Peer(plan.url, plan.transport, plan.asks.includes(feature));
  try {
    await peer.client.connect(peer.transport);
    await FEATURES[feature](peer, entry);
    await peer.disconnect();
    say({ feature });
  } catch (error) {
    say({ feature, error: error.stack ?? String(error) });
  }
}

await Promise.all(Object.entries(plan.features).map(([feature, entry]) => show(feature, entry)));
// A client that failed may have left a stream open, which would keep the process alive.
process.exit(0);
