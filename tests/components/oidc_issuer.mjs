// An OpenID Connect issuer for the tests: client_credentials in, JWT access tokens out.
// argv: port, key file, certificate file. The request header `x-test-claims` (JSON) is merged
// into the token, so that a test can have any workload identity it needs.

import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const [port, keyFile, certificateFile] = process.argv.slice(2);
const issuer = `https://127.0.0.1:${port}`;
const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  .export({ format: 'jwk' });

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'workload',
    client_secret: 'workload-secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }],
  jwks: { keys: [{ ...signingKey, kid: 'issuer-key', use: 'sig', alg: 'RS256' }] },
  cookies: { keys: ['not used by client_credentials'] },
  ttl: { ClientCredentials: (context) => Number(context.get('x-test-lifetime') || 300) },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: '', accessTokenFormat: 'jwt' }),
    },
  },
  formats: {
    customizers: {
      jwt(context, token, jwt) {
        Object.assign(jwt.payload, JSON.parse(context.get('x-test-claims') || '{}'));
      },
    },
  },
});

createServer({ key: readFileSync(keyFile), cert: readFileSync(certificateFile) }, provider.callback())
  .listen(Number(port), '127.0.0.1');
