// The OpenID provider of the demo and the tests: `oidc-provider`, a certified implementation, with one user. Production has
// Authentik; what the services see (discovery, keys, JWT access tokens with audience and scopes) is the same.
// It never listens on anything but 127.0.0.1 and never asks for consent: its only browser client is our own web page.
// Its people: demo, who may do everything; guest, who may see energy and temperatures only; brief, whose access tokens end after 20 s.
//
// environment:
//   OIDC_PORT                  port on 127.0.0.1; the issuer is http://127.0.0.1:<port>
//   OIDC_WEB_ORIGINS           comma list of origins the web page is served from (redirects, logout, CORS)
//   OIDC_CLIENT_SECRET         secret of the confidential client `homelab-service` (client_credentials)
//   OIDC_KEYS_FILE             signing keys; made when absent, so that a restart keeps them
//   OIDC_ACCESS_TOKEN_SECONDS  lifetime of access tokens, default 600

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { generateKeyPairSync, timingSafeEqual } from 'node:crypto';
import { Provider } from 'oidc-provider';

const SCOPES = [
  'read:energy',
  'read:heatpump',
  'read:temperature',
  'read:plugs',
  'read:settings',
  'write:settings',
  'write:plugs',
];
const AUDIENCE = 'homelab';
// RFC 8707 wants an absolute URI here; the audience in the token is the plain name the services are configured with.
const RESOURCE = 'urn:homelab:api';
const USERS = new Map([
  ['demo', { password: 'demo', name: 'Demo User', scopes: SCOPES }],
  ['guest', { password: 'guest', name: 'Guest User', scopes: ['read:energy', 'read:temperature'] }],
  ['brief', { password: 'brief', name: 'Brief User', scopes: SCOPES, tokenSeconds: 20 }],
]);
// A login form is two short fields; more is not a login.
const FORM_LIMIT_BYTES = 4096;

function setting(name, fallback) {
  const value = process.env[name] ?? fallback;
  if (value === undefined) {
    console.error(`${name} is not set`);
    process.exit(64);
  }
  return value;
}

const port = Number(setting('OIDC_PORT'));
const issuer = `http://127.0.0.1:${port}`;
const webOrigins = setting('OIDC_WEB_ORIGINS').split(',').filter(Boolean);
const accessTokenSeconds = Number(setting('OIDC_ACCESS_TOKEN_SECONDS', '600'));

function signingKeys() {
  const file = setting('OIDC_KEYS_FILE');
  if (!existsSync(file)) {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' };
    writeFileSync(file, JSON.stringify({ keys: [key] }), { mode: 0o600 });
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}

function account(_ctx, id) {
  const user = USERS.get(id);
  return user && { accountId: id, claims: () => ({ sub: id, name: user.name, preferred_username: id }) };
}

// Our own page needs no consent screen: of what it asks for each person gets what they may have, and is not asked about the rest.
async function grantEverything(ctx) {
  const { client, session, provider } = ctx.oidc;
  const existing = session.grantIdFor(client.clientId);
  const grant =
    (existing && (await provider.Grant.find(existing))) ??
    new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope('openid profile offline_access');
  const { scopes } = USERS.get(session.accountId);
  grant.addResourceScope(RESOURCE, scopes.join(' '));
  grant.rejectResourceScope(RESOURCE, SCOPES.filter((scope) => !scopes.includes(scope)).join(' '));
  await grant.save();
  return grant;
}

const page = (title, body) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; }
  main { box-sizing: border-box; width: min(100%, 22rem); padding: 1.5rem; }
  h1 { font-size: 1.25rem; margin: 0 0 1rem; }
  label { display: block; margin: 1rem 0 .25rem; }
  input, button { box-sizing: border-box; width: 100%; font: inherit; padding: .6rem .7rem; border-radius: .4rem; }
  input { border: 1px solid GrayText; }
  button { margin-top: 1.5rem; border: 0; background: #0b6b5d; color: #fff; cursor: pointer; }
  button:focus-visible, input:focus-visible { outline: 3px solid #3aa794; outline-offset: 2px; }
  [role=alert] { color: #b3261e; margin: 0; }
  @media (prefers-color-scheme: dark) { [role=alert] { color: #ff8a80; } }
</style>
</head>
<body><main>${body}</main></body>
</html>`;

const loginPage = (uid, { failed }) =>
  page(
    'Log in - Homelab',
    `<h1>Log in to Homelab</h1>
<form method="post" action="/interaction/${uid}">
  ${failed ? '<p role="alert">Wrong username or password.</p>' : ''}
  <label for="username">Username</label>
  <input id="username" name="username" autocomplete="username" autocapitalize="none" required autofocus>
  <label for="password">Password</label>
  <input id="password" name="password" type="password" autocomplete="current-password" required>
  <button type="submit">Log in</button>
</form>`,
  );

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'heatpump-web',
      application_type: 'web',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: webOrigins.flatMap((origin) => [`${origin}/`, `${origin}/callback`, `${origin}/silent-renew`]),
      post_logout_redirect_uris: webOrigins.flatMap((origin) => [`${origin}/`, origin]),
    },
    {
      client_id: 'homelab-service',
      client_secret: setting('OIDC_CLIENT_SECRET'),
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  jwks: signingKeys(),
  cookies: { keys: [setting('OIDC_CLIENT_SECRET')] },
  scopes: ['openid', 'profile', 'offline_access'],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'] },
  // The page takes the user's name from the ID token and need not ask a second endpoint.
  conformIdTokenClaims: false,
  findAccount: account,
  loadExistingGrant: grantEverything,
  clientBasedCORS: (_ctx, origin) => webOrigins.includes(origin),
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  extraTokenClaims: (_ctx, token) => {
    const user = token.accountId && USERS.get(token.accountId);
    return user ? { name: user.name, preferred_username: token.accountId } : undefined;
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  ttl: { Grant: 86400, Interaction: 3600, Session: 86400, AccessToken: (_ctx, token) => USERS.get(token.accountId)?.tokenSeconds ?? accessTokenSeconds, ClientCredentials: accessTokenSeconds, IdToken: 3600, RefreshToken: 86400 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: SCOPES.join(' '),
        audience: AUDIENCE,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = page(
          'Log out - Homelab',
          `${form}<input type="hidden" name="logout" value="yes" form="op.logoutForm">
<button type="submit" form="op.logoutForm">Log out</button><script>document.forms[0].submit()</script>`,
        );
      },
      postLogoutSuccessSource: (ctx) => {
        ctx.body = page('Logged out - Homelab', '<h1>You are logged out.</h1>');
      },
    },
  },
  renderError: (ctx, out, error) => {
    console.error(`${ctx.method} ${ctx.path}: ${error.message}: ${error.error_description ?? ''}`);
    const text = (value) => String(value ?? '').replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
    ctx.type = 'html';
    ctx.body = page('Error - Homelab', `<h1>${text(out.error)}</h1><p>${text(out.error_description)}</p>`);
  },
});

for (const event of ['server_error', 'authorization.error', 'grant.error']) {
  provider.on(event, (_ctx, error) => console.error(`${event}: ${error.message}: ${error.error_description ?? ''}`));
}

async function form(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > FORM_LIMIT_BYTES) throw new Error('form too large');
  }
  return new URLSearchParams(text);
}

function passwordMatches(user, given) {
  const [wanted, got] = [Buffer.from(user.password), Buffer.from(given)];
  return wanted.length === got.length && timingSafeEqual(wanted, got);
}

async function interaction(request, response) {
  const { uid } = await provider.interactionDetails(request, response);
  let failed = false;
  if (request.method === 'POST') {
    const fields = await form(request);
    const username = fields.get('username') ?? '';
    const user = USERS.get(username);
    if (user && passwordMatches(user, fields.get('password') ?? '')) {
      await provider.interactionFinished(request, response, { login: { accountId: username } });
      return;
    }
    failed = true;
  }
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
  response.end(loginPage(uid, { failed }));
}

const serve = provider.callback();
const server = createServer((request, response) => {
  if (!request.url.startsWith('/interaction/')) {
    serve(request, response);
    return;
  }
  interaction(request, response).catch((error) => {
    console.error(`${request.method} /interaction: ${error.message}`);
    if (!response.headersSent) response.writeHead(400, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(page('Error - Homelab', '<h1>This login has ended.</h1><p>Go back to the page and log in again.</p>'));
  });
});

server.listen(port, '127.0.0.1', () => console.error(`listening on ${issuer}`));
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
