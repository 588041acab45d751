// A real OIDC server (oidc-provider) for the tests: `node server.mjs FOLDER_OF_NODE_MODULES`.
// It reads lines of JSON from standard input, and answers each with a line: first its settings, then new keys.
// It ends with standard input.
import http from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

console.info = console.warn = () => {}; // what it says of its defaults
const module = pathToFileURL(`${process.argv[2]}/oidc-provider/lib/index.js`);
const { default: Provider } = await import(module);

let handle = (_, answer) => answer.writeHead(503).end();
let settings = null;
const server = http.createServer((asked, answer) => handle(asked, answer));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

function provider() {
  const made = new Provider(issuer, {
    jwks: { keys: settings.keys },
    clients: settings.clients,
    clientDefaults: { response_types: [], redirect_uris: [] },
    cookies: { keys: ['of the tests'] },
    claims: { openid: ['sub', 'groups'] },
    conformIdTokenClaims: false,
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...settings.accounts[id] }) }),
    extraTokenClaims: (_, token) => settings.accounts[token.accountId ?? token.clientId],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource, client) => ({
          scope: 'nebula',
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: settings.algorithms?.[client.clientId] ?? 'RS256' } },
        }),
      },
    },
  });
  made.on('server_error', (_, error) => console.error(error));
  return made.callback();
}

for await (const line of createInterface({ input: process.stdin })) {
  settings = { ...settings, ...JSON.parse(line) };
  handle = provider();
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
}
process.exit(0);
