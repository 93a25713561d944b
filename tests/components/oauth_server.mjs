// An OAuth authorization server for the tests: access tokens for clients that prove themselves in
// each of the usual ways, refresh tokens that are good for one use, revocation, introspection.
// argv: port, key file, certificate file, file with the public JWK of the client `signer`.
// POST /test/refresh-token returns a new first refresh token of the client `laptop`.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const [port, keyFile, certificateFile, jwkFile] = process.argv.slice(2);
const client = (client_id, more) => ({
  client_id,
  client_secret: `${client_id}-secret:+%/?&`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'read write',
  ...more,
});
const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: [
    client('basic', { token_endpoint_auth_method: 'client_secret_basic' }),
    client('post', { token_endpoint_auth_method: 'client_secret_post' }),
    client('signer', {
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks: { keys: [JSON.parse(readFileSync(jwkFile, 'utf8'))] },
    }),
    client('laptop', {
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['https://client.example.com/callback'],
      response_types: ['code'],
      scope: 'openid offline_access read write',
    }),
  ],
  cookies: { keys: ['there is no browser'] },
  scopes: ['openid', 'offline_access', 'read', 'write', 'admin'],
  rotateRefreshToken: true,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  ttl: { ClientCredentials: 600, AccessToken: 600, RefreshToken: 3600, Grant: 3600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
});

async function refreshToken() {
  const owner = await provider.Client.find('laptop');
  const grant = new provider.Grant({ accountId: 'bob', clientId: 'laptop' });
  grant.addOIDCScope('openid offline_access read write');
  const token = new provider.RefreshToken({
    accountId: 'bob',
    client: owner,
    grantId: await grant.save(),
    gty: 'authorization_code',
    scope: 'openid offline_access read write',
  });
  return token.save();
}

const serve = provider.callback();
createServer({ key: readFileSync(keyFile), cert: readFileSync(certificateFile) }, (request, response) => {
  if (request.url === '/test/refresh-token') {
    refreshToken().then((token) => response.end(token), (error) => response.writeHead(500).end(String(error)));
  } else {
    serve(request, response);
  }
}).listen(Number(port), '127.0.0.1');
