"""Start the peers that can be started, and say why the others cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench.broker import METHODS, PATHS
from bench.peers.base import Peer, Setting
from bench.peers.envoy import envoy_ext_authz
from bench.peers.haproxy import haproxy_jwt, haproxy_lua, haproxy_spoe
from bench.peers.mitm import mitmproxy_addon
from bench.peers.node import node_undici
from bench.processes import PROXY_CORE, MissingProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from bench.broker import Broker

PEERS: Final[dict[str, Callable[[Setting], AbstractContextManager[Peer]]]] = {
    "envoy_ext_authz": envoy_ext_authz,
    "haproxy_lua": haproxy_lua,
    "haproxy_jwt": haproxy_jwt,
    "haproxy_spoe": haproxy_spoe,
    "mitmproxy_addon": mitmproxy_addon,
    "node_undici": node_undici,
}


def start_peers(
    stack: ExitStack, broker: Broker, upstream: int, key: str, wanted: Collection[str]
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Start the peers that are wanted, to run until the stack unwinds.

    Returns the running ones by name, and for each of the others why it is missing.
    """
    folder = broker.home.parent
    jwks, rules = folder / "jwks.json", folder / "rules"
    with urlopen(f"http://127.0.0.1:{broker.control_port}/.well-known/jwks.json") as answer:
        jwks.write_bytes(answer.read())
    rules.write_text("".join(f"{method} /v1/{path}/*\n" for path in PATHS for method in METHODS))
    peers, skipped = {}, {}
    for name, start in PEERS.items():
        if name not in wanted:
            continue
        own = _own(folder, name)
        setting = Setting(own, PROXY_CORE, upstream, key, broker.token, jwks, rules)
        try:
            peers[name] = stack.enter_context(start(setting))
        except MissingProgram as error:
            skipped[name] = str(error)
            print(f"SKIPPED {name}: {error}", flush=True)
            continue
        _require_decision(name, peers[name].port, broker.token)
    return peers, skipped


def _require_decision(name: str, port: int, token: str) -> None:
    """Raise RuntimeError unless the peer lets through what it should and refuses the rest."""
    head, claims, signature = token.split(".")
    forged = ".".join((head, claims, signature[:-8] + "AAAAAAAA"))
    for path, presented, expected in (
        ("/api/v1/charges/1", token, 200),
        ("/api/v1/refunds/1", token, 403),
        ("/api/v1/charges/1", forged, 403),
        ("/api/v1/charges/1", "", 403),
    ):
        headers = {"Authorization": f"Bearer {presented}"} if presented else {}
        request = Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urlopen(request) as answer:  # noqa: S310 - our own
                status = answer.status
        except HTTPError as error:
            status = error.code
        if status != expected:
            raise RuntimeError(f"{name} answered {status} where {expected} was expected: {path}")


def _own(folder: Path, name: str) -> Path:
    own = folder / name
    own.mkdir()
    return own
