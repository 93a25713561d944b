"""Connect to an upstream, and to nothing else (server-side request forgery).

A name is resolved once, and what counts is the peer of the connected socket. The broker's own
listeners, and whatever else it is told to protect, are out of reach for every service.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, TypeVar

from broker.addresses import why_not_public
from broker.gateway.problems import LOOP, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from providers.base import Upstream

    Place = tuple[str, int]
    AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


async def resolve(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a host; raise OSError if there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Connector:
    """Open connections to upstreams.

    `protected` returns the hosts and ports that no service may reach, `own` those of the gateway
    itself; they are asked each time. `resolver` looks names up.
    """

    def __init__(
        self,
        protected: Callable[[], Iterable[Place]],
        resolver: Callable[[str, int], Awaitable[list[str]]] = resolve,
        own: Callable[[], Iterable[Place]] = tuple,
    ) -> None:
        self._protected = protected
        self._own = own
        self._resolve = resolver
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
            if error.errno in _NO_DESCRIPTORS:
                return Refusal("overloaded", "the gateway has no file descriptor left")
            return _unreachable(error.strerror or "the connection broke off")

    async def _open(
        self, upstream: Upstream, factory: Callable[[], AnyProtocol]
    ) -> AnyProtocol | Refusal:
        context = self._context(upstream.ca_file) if upstream.scheme == "https" else None
        connected = await self._connect(upstream)
        if isinstance(connected, Refusal):
            return connected
        protocol = factory()
        transport: asyncio.Transport | None = connected
        if context is not None:
            transport = await _secured(connected, protocol, context, upstream.host)
        else:
            connected.set_protocol(protocol)
        if transport is None or transport.is_closing():
            return _unreachable("it was closed at once")
        protocol.connection_made(transport)
        return protocol

    async def _connect(self, upstream: Upstream) -> asyncio.Transport | Refusal:
        """Return a connection to the first address that may be reached and can be."""
        found = await self._resolve(upstream.host, upstream.port)
        refusal = _unreachable("its name has no address")
        for address in found:
            # A dead address leaves time for the next one.
            result = await self._try(upstream, address, upstream.connect_timeout / len(found))
            if not isinstance(result, Refusal):
                return result
            if refusal.code != "upstream_forbidden":
                refusal = result
        return refusal

    async def _try(
        self, upstream: Upstream, address: str, patience: float
    ) -> asyncio.Transport | Refusal:
        problem = why_not_public(address, allow_private=upstream.allow_private)
        if problem:
            return _forbidden(problem)
        try:
            async with asyncio.timeout(patience):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, address, upstream.port
                )
        except TimeoutError:
            return _unreachable("it did not accept the connection in time")
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                raise
            return _unreachable(error.strerror or "it did not accept the connection")
        try:
            refusal = await self._judge_peer(transport, upstream)
        except BaseException:
            transport.abort()
            raise
        if refusal is not None:
            transport.abort()
            return refusal
        return transport

    async def _judge_peer(self, transport: asyncio.Transport, upstream: Upstream) -> Refusal | None:
        """Return why nothing may be said to the peer of a connection, or None."""
        address, port = transport.get_extra_info("peername")[:2]
        problem = why_not_public(address, allow_private=upstream.allow_private)
        if problem:
            return _forbidden(problem)
        peer = _plain(address)
        local = _is_local(peer) or peer == _plain(transport.get_extra_info("sockname")[0])
        if await self._is_one_of(self._own(), peer, port, local=local):
            return LOOP
        if await self._is_one_of(self._protected(), peer, port, local=local):
            return _forbidden(f"{peer} port {port} belongs to the broker itself")
        return None

    async def _is_one_of(
        self, places: Iterable[Place], peer: str, port: int, *, local: bool
    ) -> bool:
        for host, place_port in places:
            if port == place_port:
                addresses = [_plain(one) for one in await self._resolve(host, port)]
                if peer in addresses or (local and any(map(_is_local, addresses))):
                    return True
        return False

    def _context(self, ca_file: str | None) -> ssl.SSLContext:
        # The time of change is in the key, so that a renewed file is read without a restart.
        key = (ca_file, os.stat(ca_file).st_mtime_ns if ca_file else 0)  # noqa: PTH116
        context = self._contexts.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[key] = context
        return context


async def _secured(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    server_name: str,
) -> asyncio.Transport | None:
    """Return the connection with TLS on it, or None if it was lost in the meantime."""
    try:
        return await asyncio.get_running_loop().start_tls(
            transport, protocol, context, server_hostname=server_name
        )
    except BaseException:
        transport.abort()
        raise


def _plain(address: str) -> str:
    """Return an address as it compares: IPv4's own, where IPv6 carries it (RFC 4291, 2.5.5.2)."""
    numeric = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(numeric, "ipv4_mapped", None) or numeric)


def _is_local(address: str) -> bool:
    numeric = ipaddress.ip_address(address)
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
