// A test identity provider: the stock npm package `oidc-provider` on loopback, whose users log in and consent by themselves.
//
//     node tests/security/idp.mjs [--port PORT] [--resource URL]... [--until-eof]
//
// Prints one JSON line, {"issuer": URL}, when it listens. With --until-eof it ends when its stdin does.
// Resources are the audiences that it issues tokens for (RFC 8707): those named, or any.
//
// GET /control tells the state, what happened, and how often each path was requested. POST /control changes members of
// the state, which are described below, and with {"rotate": "add" | "replace"} makes a new signing key: with `add` the
// old one stays in the set.

import { createServer } from "node:http";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { json } from "node:stream/consumers";
import { parseArgs } from "node:util";

import { Provider, errors, interactionPolicy } from "oidc-provider";

const SCOPES = ["mcp:read", "mcp:write"];
const { values: flags } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    resource: { type: "string", multiple: true, default: [] },
    "until-eof": { type: "boolean" },
  },
});

// What a test may change.
const state = {
  user: "alice", // who logs in next
  ttl: 300, // seconds that access tokens live
  format: "jwt", // of access tokens: jwt or opaque
  algorithm: "RS256", // of new keys
  // By a client's name, the differences of its first, second, … authorization: `withhold`, scopes that the user does not
  // grant; `refresh: false` for no refresh token; `ttl`; `lifetime`, the seconds until `exp` as the token says it, which
  // may be negative. Refreshed tokens are as usual.
  authorizations: {},
};
const events = []; // registrations, authorizations and grants
const requests = {};
const authorized = {}; // by a client's name, how often

let keys = [newKey()];
let provider;

function newKey() {
  const kid = randomBytes(8).toString("hex");
  const pair =
    state.algorithm === "RS256"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...pair.privateKey.export({ format: "jwk" }), kid, alg: state.algorithm, use: "sig" };
}

/** Makes a provider with the present keys. What it has stored is kept by the package's own memory adapter. */
function newProvider(issuer) {
  const confidential = (client_id, more) => ({
    client_id,
    client_secret: `${client_id}-secret`,
    redirect_uris: [],
    response_types: [],
    grant_types: ["client_credentials"],
    ...more,
  });
  const made = new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ["test"] },
    clients: [confidential("agent"), confidential("other-agent"), confidential("proxyrunner", { grant_types: [] })],
    scopes: ["openid", "offline_access", ...SCOPES],
    pkce: { required: () => true },
    clientAuthMethods: ["none", "client_secret_basic", "client_secret_post"],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token") && special(client).refresh !== false,
    formats: { customizers: { jwt: date } },
    // Only the consent of this authorization counts, so that each asks anew.
    loadExistingGrant: ({ oidc }) => oidc.result?.consent && made.Grant.find(oidc.result.consent.grantId),
    interactions: { policy: interactionPolicy.base(), url: (_, { uid }) => `/interaction/${uid}` },
    ttl: { Interaction: 600, Session: 600, Grant: 600, RefreshToken: 600, AuthorizationCode: 60, IdToken: 60 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (_, client) => client.clientId === "proxyrunner" },
      revocation: { enabled: true, allowedPolicy: () => true },
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => [],
        useGrantedResource: () => true,
        getResourceServerInfo(context, resource, client) {
          const isKnown = flags.resource.length === 0 || flags.resource.includes(resource);
          if (!isKnown) throw new errors.InvalidTarget();
          const isFirst = context.oidc.params.grant_type === "authorization_code";
          return {
            scope: SCOPES.join(" "),
            audience: resource,
            accessTokenTTL: (isFirst && special(client).ttl) || state.ttl,
            accessTokenFormat: state.format,
            jwt: { sign: { alg: keys[0].alg } },
          };
        },
      },
    },
  });
  const note = (event, { oidc }) => {
    const { scope, resource, grant_type, code_challenge_method } = oidc.params ?? {};
    const client = oidc.client?.clientName ?? oidc.client?.clientId ?? oidc.body?.client_name;
    events.push({ event, client, scope, resource, grant_type, code_challenge_method });
  };
  made.on("registration_create.success", (context) => note("registration", context));
  made.on("authorization.success", (context) => note("authorization", context));
  made.on("grant.success", (context) => note("grant", context));
  made.on("server_error", (_, error) => console.error(error));
  return made;
}

/** What is different about the client's present authorization. */
function special({ clientName }) {
  return state.authorizations[clientName]?.[(authorized[clientName] ?? 0) - 1] ?? {};
}

function date({ oidc }, _, token) {
  const { lifetime } = oidc.params.grant_type === "authorization_code" ? special(oidc.client) : {};
  if (lifetime !== undefined) token.payload.exp = token.payload.iat + lifetime;
}

/** Logs the present user in, and grants everything that is asked for and not withheld. */
async function interact(request, response) {
  const { prompt, params } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    await provider.interactionFinished(request, response, { login: { accountId: state.user, remember: false } });
    return;
  }
  const client = await provider.Client.find(params.client_id);
  authorized[client.clientName] = (authorized[client.clientName] ?? 0) + 1;
  const withheld = special(client).withhold ?? [];
  const grant = new provider.Grant({ accountId: state.user, clientId: params.client_id });
  for (const scope of (params.scope ?? "").split(" ").filter(Boolean)) {
    const verb = withheld.includes(scope) ? "reject" : "add";
    grant[`${verb}OIDCScope`](scope);
    if (params.resource) grant[`${verb}ResourceScope`](params.resource, scope);
  }
  await provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

async function control(request, response) {
  if (request.method === "POST") {
    const { rotate, ...changes } = await json(request);
    Object.assign(state, changes);
    if (rotate) {
      keys = rotate === "add" ? [newKey(), ...keys] : [newKey()];
      provider = newProvider(provider.issuer);
    }
  }
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ ...state, kid: keys[0].kid, events, requests }));
}

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://here");
  const counted = pathname.replace(/^(\/auth|\/interaction)\/.*/, "$1/…");
  requests[counted] = (requests[counted] ?? 0) + 1;
  let serve = (...both) => provider.callback()(...both);
  if (pathname === "/control") serve = control;
  if (pathname.startsWith("/interaction/")) serve = interact;
  Promise.resolve(serve(request, response)).catch((error) => {
    console.error(error);
    response.writeHead(500).end(String(error));
  });
});
server.listen(Number(flags.port), "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  provider = newProvider(issuer);
  console.log(JSON.stringify({ issuer }));
});
if (flags["until-eof"]) process.stdin.resume().on("end", () => process.exit());
