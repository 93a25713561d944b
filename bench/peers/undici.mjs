// A reverse proxy of Node's own server and undici: judge a request, swap its header, pass it on.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Pool } from "undici";

const { BENCH_PORT, BENCH_UPSTREAM, BENCH_KEY, BENCH_JWKS, BENCH_RULES } = process.env;
const PREFIX = "/api";
const credential = `Bearer ${BENCH_KEY}`;
const hopByHop = new Set(["connection", "keep-alive", "transfer-encoding", "te", "upgrade"]);

const keys = new Map(
  JSON.parse(readFileSync(BENCH_JWKS, "utf8")).keys.map((jwk) => [
    jwk.kid,
    createPublicKey({ key: jwk, format: "jwk" }),
  ]),
);
const rules = new Map();
for (const line of readFileSync(BENCH_RULES, "utf8").trim().split("\n")) {
  const [method, path] = line.split(" ");
  const pattern = PREFIX + path.replaceAll("*", "[^/]+");
  rules.set(method, [...(rules.get(method) ?? []), pattern]);
}
for (const [method, patterns] of rules) {
  rules.set(method, new RegExp(`^(?:${patterns.join("|")})$`));
}

// The signature is verified once for each token, and the verdict remembered until it expires.
const known = new Map();
function verified(token) {
  const [head, claims, signature] = token.split(".");
  try {
    const header = JSON.parse(Buffer.from(head, "base64url"));
    const options = { key: keys.get(header.kid), dsaEncoding: "ieee-p1363" };
    const raw = Buffer.from(signature, "base64url");
    if (header.alg !== "ES256" || !verify("sha256", `${head}.${claims}`, options, raw)) return 0;
    const expires = JSON.parse(Buffer.from(claims, "base64url")).exp * 1000;
    known.set(token, expires);
    return expires;
  } catch {
    return 0;
  }
}

function allows(request) {
  const [scheme, token = ""] = (request.headers.authorization ?? "").split(" ");
  const expires = known.get(token) ?? verified(token);
  if (scheme !== "Bearer" || expires <= Date.now()) return false;
  return rules.get(request.method)?.test(request.url.split("?")[0]) ?? false;
}

function without(headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !hopByHop.has(name)));
}

const pool = new Pool(`http://127.0.0.1:${BENCH_UPSTREAM}`, { connections: 512, pipelining: 1 });
const server = createServer((request, response) => {
  if (!allows(request)) return response.writeHead(403).end();
  const { host, ...headers } = without(request.headers);
  const bodiless = request.method === "GET" || request.method === "HEAD";
  pool.stream(
    {
      path: request.url.slice(PREFIX.length),
      method: request.method,
      headers: { ...headers, authorization: credential },
      body: bodiless ? null : request,
    },
    ({ statusCode, headers: answered }) => response.writeHead(statusCode, without(answered)),
    (error) => {
      if (error) response.destroy(error);
    },
  );
});
server.keepAliveTimeout = 75_000;
server.listen({ host: "127.0.0.1", port: Number(BENCH_PORT), backlog: 4096 });
