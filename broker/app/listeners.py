"""Listening sockets, bound before anything else is started."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.settings import Settings

BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listening sockets, and the settings with the ports that they have.

    `admin` is None where the admin API is off.
    """

    settings: Settings
    control: socket.socket
    gateway: socket.socket
    admin: socket.socket | None = None

    def close(self) -> None:
        """Close all."""
        self.control.close()
        self.gateway.close()
        if self.admin is not None:
            self.admin.close()


def bind(settings: Settings, *, shared: bool = False) -> Listeners:
    """Listen on all; a port of 0 becomes a free one, and a derived issuer follows it.

    `shared` is for one of several workers, whose supervisor has the ports by `reserve`: the
    system gives each new connection to one of those that listen.

    Raises:
        ConfigurationError: an address cannot be bound; says why and what to do.
    """
    return _all(settings, _listen_shared if shared else _listen)


def reserve(settings: Settings) -> Listeners:
    """Take all ports, as `bind` does, and accept nothing on them.

    Processes of the same user may then listen on them, if they share; nobody else may.
    """
    return _all(settings, _reserve)


def _all(settings: Settings, open_: Callable[[socket.socket, Any], None]) -> Listeners:
    places = {
        "control": (settings.control.host, settings.control.port),
        "gateway": (settings.gateway.host, settings.gateway.port),
        "admin": (settings.admin.host, settings.admin.port),
    }
    with ExitStack() as stack:
        bound = {
            what: stack.enter_context(_bind(what, host, port, open_))
            for what, (host, port) in places.items()
            if port is not None
        }
        stack.pop_all()
    ports = {what: listener.getsockname()[1] for what, listener in bound.items()}
    derived = settings.issuer == settings.control_url
    settings = replace(
        settings,
        control=replace(settings.control, port=ports["control"]),
        gateway=replace(settings.gateway, port=ports["gateway"]),
        admin=replace(settings.admin, port=ports.get("admin")),
    )
    if derived:
        settings = replace(settings, issuer=settings.control_url)
    return Listeners(settings, bound["control"], bound["gateway"], bound.get("admin"))


def _listen(listener: socket.socket, address: Any) -> None:
    listener.bind(address)
    listener.listen(BACKLOG)


def _listen_shared(listener: socket.socket, address: Any) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _listen(listener, address)


def _reserve(listener: socket.socket, address: Any) -> None:
    listener.bind(address)
    # Only now: before, it would have joined another broker that shares its ports.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind(
    what: str, host: str, port: int, open_: Callable[[socket.socket, Any], None]
) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"{what}.host is {host!r}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        open_(listener, address)
    except OSError as error:
        listener.close()
        raise ConfigurationError(_problem(what, host, port, error)) from None
    listener.setblocking(False)
    return listener


def _problem(what: str, host: str, port: int, error: OSError) -> str:
    setting = f"{what}.port in broker.toml or BROKER_{what.upper()}_PORT"
    if what != "admin":
        setting = f"{setting} or --{what}-port".replace(" or BROKER", ", BROKER")
    if error.errno == errno.EADDRINUSE:
        return (
            f"{host}:{port} is in use, perhaps by a broker that is running already; "
            f"stop that, or choose another port with {setting}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023 with {setting}"
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno or errno.EIO)}"
