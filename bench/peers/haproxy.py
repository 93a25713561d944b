"""HAProxy with a decision in Lua, in two forms.

`haproxy_lua` does less than all others: Lua looks the token up in a table that is handed to it, and
no signature is ever verified. `haproxy_jwt` has HAProxy verify the task token first, as its manual
shows, which it does anew for each request.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK

from bench.peers.base import FOLDER, Peer, Setting
from bench.processes import free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG: Final = """
global
  nbthread 1
  maxconn 4096
  lua-load {script}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend agents
  bind 127.0.0.1:{port} backlog 4096
  {verify}
  http-request lua.decide
  http-request deny if {{ var(txn.denied) -m found }}
  http-request replace-path /api(/.*) \\1
  default_backend service
backend service
  server service 127.0.0.1:{upstream}
"""


_VERIFY: Final = """
  http-request set-var(txn.token) http_auth_bearer
  http-request deny unless {{ var(txn.token),jwt_header_query('$.alg') -m str ES256 }}
  http-request deny unless {{ var(txn.token),jwt_verify("ES256","{key}") -m int 1 }}
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
  http-request set-var(txn.left) date,neg,add(txn.exp)
  http-request deny unless {{ var(txn.left) -m int gt 0 }}
"""


@contextmanager
def haproxy_lua(setting: Setting) -> Iterator[Peer]:
    """Run HAProxy with one thread, and tokens that it is told of."""
    with _haproxy(setting, "") as peer:
        yield peer


@contextmanager
def haproxy_jwt(setting: Setting) -> Iterator[Peer]:
    """Run HAProxy with one thread, and tokens that it verifies."""
    (jwk,) = json.loads(setting.jwks.read_text())["keys"]
    public = PyJWK(jwk).key
    key = setting.folder / "key.pem"
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with _haproxy(setting, _VERIFY.format(key=key)) as peer:
        yield peer


@contextmanager
def _haproxy(setting: Setting, verify: str) -> Iterator[Peer]:
    port, config = free_port(), setting.folder / "haproxy.cfg"
    script = FOLDER / "haproxy.lua"
    config.write_text(
        _CONFIG.format(script=script, port=port, upstream=setting.upstream, verify=verify)
    )
    environment = os.environ | {
        "BENCH_KEY": setting.key,
        "BENCH_TOKEN": setting.token,
        "BENCH_RULES": str(setting.rules),
    }
    command = [program("haproxy"), "-db", "-f", str(config)]
    with running(command, port, setting.core, environment) as pid:
        yield Peer(port, (pid,))
