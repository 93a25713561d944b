"""HAProxy with a decision in Lua, in two forms, or by an agent that it asks over SPOE.

`haproxy_lua` does less than all others: Lua looks the token up in a table that is handed to it, and
no signature is ever verified. `haproxy_jwt` has HAProxy verify the task token first, as its manual
shows, which it does anew for each request. The agent of `haproxy_spoe` verifies a token once; both
run on the proxy's core, and the time of both counts.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK

from bench.interpreter import PYTHON
from bench.peers.base import FOLDER, Peer, Setting
from bench.processes import free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG: Final = """
global
  nbthread 1
  maxconn 4096
  {load}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend agents
  bind 127.0.0.1:{port} backlog 4096
  {decide}
  http-request replace-path /api(/.*) \\1
  default_backend service
backend service
  server service 127.0.0.1:{upstream}
{agents}"""

_LUA: Final = """
  http-request lua.decide
  http-request deny if { var(txn.denied) -m found }
"""

_VERIFY: Final = """
  http-request set-var(txn.token) http_auth_bearer
  http-request deny unless {{ var(txn.token),jwt_header_query('$.alg') -m str ES256 }}
  http-request deny unless {{ var(txn.token),jwt_verify("ES256","{key}") -m int 1 }}
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
  http-request set-var(txn.left) date,neg,add(txn.exp)
  http-request deny unless {{ var(txn.left) -m int gt 0 }}
"""


_ASK: Final = """
  filter spoe engine judge config {config}
  http-request deny unless {{ var(txn.judge.key) -m found }}
  http-request set-header authorization %[var(txn.judge.key)]
"""

_AGENTS: Final = """backend agents
  mode tcp
  timeout connect 5s
  timeout server 60s
  server agent 127.0.0.1:{deciding}
"""

_SPOE: Final = """[judge]
spoe-agent judge
  messages judge
  option var-prefix judge
  option pipelining
  timeout hello 5s
  timeout idle 60s
  timeout processing 5s
  use-backend agents
spoe-message judge
  args method=method path=path token=req.fhdr(authorization)
  event on-frontend-http-request
"""


@contextmanager
def haproxy_lua(setting: Setting) -> Iterator[Peer]:
    """Run HAProxy with one thread, and tokens that it is told of."""
    with _haproxy(setting, _LUA, load=_script()) as peer:
        yield peer


@contextmanager
def haproxy_jwt(setting: Setting) -> Iterator[Peer]:
    """Run HAProxy with one thread, and tokens that it verifies."""
    (jwk,) = json.loads(setting.jwks.read_text())["keys"]
    public = PyJWK(jwk).key
    key = setting.folder / "key.pem"
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with _haproxy(setting, _VERIFY.format(key=key) + _LUA, load=_script()) as peer:
        yield peer


@contextmanager
def haproxy_spoe(setting: Setting) -> Iterator[Peer]:
    """Run HAProxy with one thread, and its agent."""
    deciding, config = free_port(), setting.folder / "spoe.cfg"
    config.write_text(_SPOE)
    agent = [PYTHON, "-m", "bench.peers.spoe_agent", str(deciding)]
    agent += [str(setting.jwks), str(setting.rules)]
    environment = os.environ | {"BENCH_KEY": setting.key}
    with (
        running(agent, deciding, setting.core, environment) as judge,
        _haproxy(
            setting, _ASK.format(config=config), agents=_AGENTS.format(deciding=deciding)
        ) as peer,
    ):
        yield Peer(peer.port, (*peer.pids, judge))


def _script() -> str:
    return f"lua-load {FOLDER / 'haproxy.lua'}"


@contextmanager
def _haproxy(setting: Setting, decide: str, *, load: str = "", agents: str = "") -> Iterator[Peer]:
    port, config = free_port(), setting.folder / "haproxy.cfg"
    config.write_text(
        _CONFIG.format(
            load=load, port=port, upstream=setting.upstream, decide=decide, agents=agents
        )
    )
    environment = os.environ | {
        "BENCH_KEY": setting.key,
        "BENCH_TOKEN": setting.token,
        "BENCH_RULES": str(setting.rules),
    }
    command = [program("haproxy"), "-db", "-f", str(config)]
    with running(command, port, setting.core, environment) as pid:
        yield Peer(port, (pid,))
