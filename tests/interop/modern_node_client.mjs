// The stock client of npm's @modelcontextprotocol/client 2.x at 2026-07-28, and what it does to show each feature.
//
// Reads one JSON object from stdin: {url, transport, features: {name: entry}, asks: [name]}. Shows all features at
// once, each with a client of its own, and writes one JSON line per feature: {feature, error?}.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const REVISION = "2026-07-28";
const LOG_LEVEL = "io.modelcontextprotocol/logLevel";
const SAMPLED = "sampled, for this client only";
const PATIENCE = 60_000; // milliseconds; no assertion, only the end of a hang

const numbers = (count) => Array.from({ length: count }, (_, index) => index + 1);

/** A client that finds out the server's era itself; one that `asks` declares sampling and elicitation. */
class Peer {
  questions = [];
  content = {};

  constructor(url, transport, asks) {
    const [command, ...args] = url;
    this.transport =
      transport === "stdio"
        ? new StdioClientTransport({ command, args })
        : new StreamableHTTPClientTransport(new URL(url));
    const capabilities = asks ? { sampling: {}, elicitation: { form: {} } } : {};
    const options = { capabilities, versionNegotiation: { mode: "auto" } };
    this.client = new Client({ name: "interop", version: "1.0.0" }, options);
    if (!asks) return;
    this.client.setRequestHandler("sampling/createMessage", ({ params }) => {
      this.questions.push(params);
      return { role: "assistant", content: { type: "text", text: SAMPLED }, model: "none" };
    });
    this.client.setRequestHandler("elicitation/create", ({ params }) => {
      this.questions.push(params);
      return { action: "accept", content: this.content };
    });
  }

  async connect() {
    await this.client.connect(this.transport);
    assert.equal(this.client.getNegotiatedProtocolVersion(), REVISION);
  }

  /** Calls the entry's tool, and gives the text it answers. */
  async call({ tool, arguments: args, level }, options) {
    const _meta = level === undefined ? undefined : { [LOG_LEVEL]: level };
    const result = await this.client.callTool({ name: tool, arguments: args, _meta }, { timeout: PATIENCE, ...options });
    const answer = result.content.map((block) => block.text ?? "").join("");
    assert(!result.isError, answer);
    return answer;
  }

  /** The next notification of this kind; ask before it can arrive. */
  heard(method) {
    return new Promise((resolve) => this.client.setNotificationHandler(method, resolve));
  }
}

const FEATURES = {
  async initialize({ client }, { name }) {
    assert.equal(client.getServerVersion().name, name);
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
    // Not through `onprogress`: over stdio the SDK drops progress that shares a chunk with its result, since it forgets
    // the callback before it runs it. It still wants one, to send a token.
    peer.client.setNotificationHandler("notifications/progress", ({ params }) => reports.push(params.progress));
    await peer.call(entry, { onprogress: () => {} });
    assert.deepEqual(reports, numbers(entry.reports));
  },

  async logging(peer, entry) {
    const heard = peer.heard("notifications/message");
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
    const heard = peer.heard("notifications/resources/updated");
    const changes = await peer.client.listen({ resourceSubscriptions: [entry.uri] });
    assert.deepEqual(changes.honoredFilter.resourceSubscriptions, [entry.uri]);
    await peer.call(entry);
    assert.equal((await heard).params.uri, entry.uri);
    await changes.close();
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
    await peer.client.listTools();
  },
};

const plan = JSON.parse(await text(process.stdin));

async function show(feature, entry) {
  const peer = new Peer(plan.url, plan.transport, plan.asks.includes(feature));
  const line = { feature };
  try {
    await peer.connect();
    await FEATURES[feature](peer, entry);
    await peer.client.close();
  } catch (error) {
    line.error = String(error);
  }
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

await Promise.all(Object.entries(plan.features).map(([feature, entry]) => show(feature, entry)));
// A client that failed may have left a stream open, which would keep the process alive.
process.exit(0);
