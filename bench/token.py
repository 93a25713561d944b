"""Measure `POST /token` (RS256 in, ES256 out) against the cryptography that it cannot do without.

The broker is `broker serve` as people run it, on a core of its own: HTTP, policy, replay claim,
storage and audit trail, all durable. The raw figure is one RS256 verification and one ES256
signature by the same library, on the same core, in the same run.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from bench.interpreter import BROKER
from bench.processes import LOAD_CORE, PROXY_CORE, cpu_seconds, free_port, running
from broker.token_request import JWT_BEARER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECTIONS: Final = 32
_WARM_UP: Final = 200
_CRYPTO_LOOPS: Final = 2000

_POLICY: Final = """
identity_sources:
  ci: {{type: oidc, issuer: "{issuer}", audiences: ["{audience}"], replay: single_use}}
services:
  api:
    provider: http_api
    base_url: https://api.example
    credential: {{type: bearer, secret: "env:BENCH_KEY"}}
scopes:
  api.read: {{service: api, allow: ["GET /**"]}}
agents:
  ci-agent:
    trust: [{{source: ci, claims: {{repository_id: "123456", ref: refs/heads/main}}}}]
    scopes: [api.read]
"""


def post_token(requests: int, rounds: int) -> dict[str, Any]:
    """Return the figures of `POST /token`: CPU time a request and its ratio to the raw one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ratios, costs, raws, rates = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, _issuer(key) as issuer:
        os.sched_setaffinity(0, {LOAD_CORE})
        with _broker(Path(folder), PROXY_CORE, issuer) as (pid, port):
            bodies = _bodies(key, issuer, f"http://127.0.0.1:{port}", _WARM_UP)
            _load(port, bodies)
            for _ in range(rounds):
                raw = _raw_crypto(key, PROXY_CORE)
                bodies = _bodies(key, issuer, f"http://127.0.0.1:{port}", requests)
                before, started = cpu_seconds(pid), time.perf_counter()
                _load(port, bodies)
                elapsed = time.perf_counter() - started
                cost = (cpu_seconds(pid) - before) / requests
                ratios.append(cost / raw)
                costs.append(cost * 1e6)
                raws.append(raw * 1e6)
                rates.append(requests / elapsed)
    figures = {
        "ratio_to_crypto": round(statistics.median(ratios), 2),
        "cpu_us": round(statistics.median(costs), 1),
        "crypto_us": round(statistics.median(raws), 1),
        "rps": round(statistics.median(rates)),
        "connections": CONNECTIONS,
    }
    print(
        f"POST /token: {figures['cpu_us']} us CPU a request, "
        f"{figures['ratio_to_crypto']} times the raw cryptography ({figures['crypto_us']} us)"
    )
    return figures


def _raw_crypto(rsa_key: rsa.RSAPrivateKey, core: int) -> float:
    """Return the CPU seconds of one RS256 verification and one ES256 signature."""
    ec_key = ec.generate_private_key(ec.SECP256R1())
    data = secrets.token_bytes(700)
    signature = rsa_key.sign(data, padding.PKCS1v15(), SHA256())
    public = rsa_key.public_key()
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    started = time.process_time()
    for _ in range(_CRYPTO_LOOPS):
        public.verify(signature, data, padding.PKCS1v15(), SHA256())
        ec_key.sign(data, ec.ECDSA(SHA256()))
    spent = time.process_time() - started
    os.sched_setaffinity(0, kept)
    return spent / _CRYPTO_LOOPS


def _bodies(key: rsa.RSAPrivateKey, issuer: str, audience: str, count: int) -> list[str]:
    """Return the bodies of requests that each have a proof of their own."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": "repo:acme/app:ref:refs/heads/main",
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + 300,
        "repository": "acme/app",
        "repository_id": "123456",
        "ref": "refs/heads/main",
        "workflow": "release",
        "run_id": "987654321",
    }
    proofs = (
        jwt.encode({**claims, "jti": secrets.token_hex(8)}, key, "RS256", headers={"kid": "1"})
        for _ in range(count)
    )
    return [
        urlencode({"grant_type": JWT_BEARER, "assertion": proof, "scope": "api.read", "task": "t"})
        for proof in proofs
    ]


def _load(port: int, bodies: Sequence[str]) -> None:
    """Post all bodies over a few connections; raise if any is refused."""

    def post(mine: Sequence[str]) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in mine:
            connection.request("POST", "/token", body, headers)
            answer = connection.getresponse()
            document = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {document.decode()}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(post, [bodies[n::CONNECTIONS] for n in range(CONNECTIONS)]))


@contextmanager
def _issuer(key: rsa.RSAPrivateKey) -> Iterator[str]:
    """Serve an issuer's discovery document and key; yield its URL."""
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    jwk |= {"kid": "1", "alg": "RS256", "use": "sig"}
    del jwk["key_ops"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = {"issuer": url, "jwks_uri": f"{url}/jwks", "keys": [jwk]}
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the figures readable."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield url
        server.shutdown()


@contextmanager
def _broker(folder: Path, core: int, issuer: str) -> Iterator[tuple[int, int]]:
    """Run a broker that trusts the issuer; yield its process id and control port."""
    home, port = folder / "home", free_port()
    environment = os.environ | {
        "BROKER_HOME": str(home),
        "BROKER_CONTROL_PORT": str(port),
        "BROKER_GATEWAY_PORT": str(free_port()),
        "BROKER_LOG_LEVEL": "warning",
        "BENCH_KEY": "unused",
    }
    subprocess.run([BROKER, "init", "--yes"], env=environment, check=True, capture_output=True)
    policy = _POLICY.format(issuer=issuer, audience=f"http://127.0.0.1:{port}")
    (home / "policies" / "bench.yaml").write_text(policy)
    with running([BROKER, "serve"], port, core, environment) as pid:
        yield pid, port


if __name__ == "__main__":
    post_token(requests=3000, rounds=3)
