"""Connect to an upstream, and to nothing else (server-side request forgery).

A name is resolved once, and what counts is the peer of the connected socket. The broker's own
listeners, and whatever else it is told to protect, are out of reach for every service.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

from broker.addresses import why_not_public
from broker.gateway.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from providers.base import Upstream

    Place = tuple[str, int]

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.Protocol)


class Connector:
    """Open connections to upstreams.

    `protected` returns the hosts and ports that no service may reach; it is asked each time.
    """

    def __init__(self, protected: Callable[[], Iterable[Place]]) -> None:
        self._protected = protected
        self._contexts: dict[tuple[str | None, int], ssl.SSLContext] = {}

    async def open(
        self, upstream: Upstream, factory: Callable[[], AnyProtocol]
    ) -> AnyProtocol | Refusal:
        """Return a connected protocol, its peer judged and its certificate verified."""
        try:
            async with asyncio.timeout(upstream.connect_timeout):
                return await self._open(upstream, factory)
        except TimeoutError:
            limit = upstream.connect_timeout
            return Refusal("upstream_timeout", f"no connection came about within {limit:g} s")
        except ssl.SSLCertVerificationError as error:
            return _unreachable(f"its certificate is not trusted: {error.verify_message}")
        except OSError as error:
            return _unreachable(error.strerror or "the connection broke off")

    async def _open(
        self, upstream: Upstream, factory: Callable[[], AnyProtocol]
    ) -> AnyProtocol | Refusal:
        context = self._context(upstream.ca_file) if upstream.scheme == "https" else None
        connected = await self._connect(upstream)
        if isinstance(connected, Refusal):
            return connected
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(
                factory,
                sock=connected,
                ssl=context,
                server_hostname=upstream.host if context else None,
            )
        except BaseException:
            connected.close()
            raise
        return protocol

    async def _connect(self, upstream: Upstream) -> socket.socket | Refusal:
        """Return a socket connected to the first address that may be reached and can be."""
        found = await asyncio.get_running_loop().getaddrinfo(
            upstream.host, upstream.port, type=socket.SOCK_STREAM
        )
        refusal = _unreachable("its name has no address")
        for family, _, _, _, address in found:
            # A dead address leaves time for the next one.
            patience = upstream.connect_timeout / len(found)
            result = await self._try(upstream, family, address, patience)
            if not isinstance(result, Refusal):
                return result
            if refusal.code != "upstream_forbidden":
                refusal = result
        return refusal

    async def _try(
        self, upstream: Upstream, family: int, address: Any, patience: float
    ) -> socket.socket | Refusal:
        problem = why_not_public(address[0], allow_private=upstream.allow_private)
        if problem:
            return _forbidden(problem)
        candidate = socket.socket(family, socket.SOCK_STREAM)
        try:
            candidate.setblocking(False)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_connect(candidate, address)
            problem = await self._peer_problem(candidate, upstream)
        except OSError as error:
            candidate.close()
            return _unreachable(error.strerror or "the connection was not accepted in time")
        except BaseException:
            candidate.close()
            raise
        if problem:
            candidate.close()
            return _forbidden(problem)
        return candidate

    async def _peer_problem(self, connected: socket.socket, upstream: Upstream) -> str | None:
        """Return why nothing may be said to the peer of a connected socket, or None."""
        peer, port = connected.getpeername()[:2]
        problem = why_not_public(peer, allow_private=upstream.allow_private)
        if problem:
            return problem
        own = _is_local(peer) or peer == connected.getsockname()[0]
        for host, protected_port in self._protected():
            if port == protected_port:
                found = await asyncio.get_running_loop().getaddrinfo(host, port)
                addresses = {str(address[0]) for *_, address in found}
                if peer in addresses or (own and any(map(_is_local, addresses))):
                    return f"{peer} port {port} belongs to the broker itself"
        return None

    def _context(self, ca_file: str | None) -> ssl.SSLContext:
        # The time of change is in the key, so that a renewed file is read without a restart.
        key = (ca_file, os.stat(ca_file).st_mtime_ns if ca_file else 0)  # noqa: PTH116
        context = self._contexts.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[key] = context
        return context


def _is_local(address: str) -> bool:
    numeric = ipaddress.ip_address(address.partition("%")[0])
    return numeric.is_loopback or numeric.is_unspecified


def _forbidden(note: str) -> Refusal:
    return Refusal(
        "upstream_forbidden",
        "the service's name leads to an address that is private, special or the broker's own",
        remedy="if the service is inside your network, its policy needs allow_private: true",
        note=note,
    )


def _unreachable(why: str) -> Refusal:
    return Refusal("upstream_unreachable", f"no connection to the service: {why}")
