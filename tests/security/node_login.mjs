// The stock clients of npm, 1.x and 2.x: each logs in, adds scopes, refreshes its token, and calls a tool.
//
// Reads one JSON object from stdin: {major, name, url}. Writes one: {tools, text, revision, tokens, resource}, or {error}.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { json } from "node:stream/consumers";

import { visit } from "./browser.mjs";

const CALLBACK = "http://127.0.0.1:9/callback"; // nothing listens there: the browser stops before
const PATIENCE = 60_000; // milliseconds; no assertion, only the end of a hang

const { major, name, url } = await json(process.stdin);
const interop = createRequire(new URL("../interop/package.json", import.meta.url));
const load = (module) => import(pathToFileURL(interop.resolve(module)));
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await (major === 2
  ? load("@modelcontextprotocol/client")
  : Promise.all(["client/index.js", "client/streamableHttp.js", "client/auth.js"].map((file) => load(`@modelcontextprotocol/sdk/${file}`)))
      .then((modules) => Object.assign({}, ...modules)));

/** Keeps in memory what an application keeps for its user. */
class Provider {
  saved = []; // every set of tokens
  redirectUrl = CALLBACK;
  clientMetadata = {
    client_name: name,
    redirect_uris: [CALLBACK],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    application_type: "native",
  };
  state = () => "a state";
  clientInformation = () => this.client;
  saveClientInformation = (client) => void (this.client = client);
  tokens = () => this.saved.at(-1);
  saveTokens = (tokens) => void this.saved.push(tokens);
  codeVerifier = () => this.verifier;
  saveCodeVerifier = (verifier) => void (this.verifier = verifier);
  saveDiscoveryState = (discovered) => void (this.discovered = discovered);
  discoveryState = () => this.discovered;
  async redirectToAuthorization(address) {
    this.answer = (await visit(address, CALLBACK)).searchParams;
    if (this.answer.get("state") !== "a state") throw new Error("another state");
  }
}

/** Connects, and logs in as often as that is asked for. */
async function connect(provider) {
  for (let tries = 0; ; tries++) {
    const options = major === 2 ? { versionNegotiation: { mode: "auto" } } : {};
    const client = new Client({ name, version: "1" }, options);
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
    try {
      await client.connect(transport);
      return client;
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || tries === 3) throw error;
      await (major === 2 ? transport.finishAuth(provider.answer) : transport.finishAuth(provider.answer.get("code")));
    }
  }
}

async function show() {
  const provider = new Provider();
  const client = await connect(provider);
  const { tools } = await client.listTools();
  const called = async () => (await client.callTool({ name: "echo", arguments: { text: name } })).content[0].text;
  let text = await called();
  const logins = provider.saved.length;
  const end = Date.now() + PATIENCE;
  // It refreshes its token once that has expired.
  while (provider.saved.length === logins && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    text = await called();
  }
  const revision = major === 2 ? client.getNegotiatedProtocolVersion() : undefined;
  const tokens = provider.saved.map(({ scope, refresh_token }) => ({ scope, refresh: refresh_token !== undefined }));
  await client.close();
  return { tools: tools.map((tool) => tool.name), text, revision, tokens };
}

let outcome;
try {
  outcome = await show();
} catch (error) {
  outcome = { error: `${error.name}: ${error.message}` };
}
console.log(JSON.stringify(outcome));
process.exit();
